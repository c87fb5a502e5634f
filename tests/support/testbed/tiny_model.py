"""A Llama small enough for a test and real enough for a server: weights, configuration and tokenizer, made here.

Two layers, hidden size 64, 4 query and 2 key-value heads (so that it can be cut in two by tensor and by
layer), a byte-level BPE tokenizer of 320 entries; 0.6 MB, in less than a second, without a network. The
weights come from a fixed seed and are wide enough that its greedy choices are far apart: two ways to add up
the same numbers (another batch, two ranks) choose the same tokens. What it says means nothing.

`greedy_tokens` is the second opinion: the same model in Hugging Face transformers, without SGLang.

The fixture ``tiny_model`` is its folder, and ``transformers_says`` is `greedy_tokens` on it, each in a process of
its own: transformers sets environment variables as it loads, and tests are to start servers without those.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SEED = 20
LAYERS, HIDDEN, INTERMEDIATE = 2, 64, 128
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
VOCABULARY = 320
CONTEXT = 4096
WEIGHT_STD = 0.25
BEGIN, END = "<s>", "</s>"

CORPUS = (
    "The night train crosses the river before the town wakes up.",
    "A page that was given back must not be written by its last reader.",
    "Seven ships left the harbour and seven ships came home again.",
    "When the rank is late, the others wait; when it is gone, they must not.",
)
"""What the tokenizer's merges are learned from."""


def make_tiny_model(folder: Path) -> Path:
    """Write the model into ``folder``, which must not be there yet, and return it; every time the same bytes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(_config(), indent=1))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1}))
    _write_weights(folder / "model.safetensors")
    _write_tokenizer(folder)
    return folder


def prompt_ids(count: int, first: int = 0) -> list[int]:
    """``count`` token ids that are no special tokens; another ``first`` makes another prompt from its start on."""
    return [2 + (first * 31 + 17 + place * 7 + place * place * 3) % (VOCABULARY - 2) for place in range(count)]


def greedy_tokens(folder: Path, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
    """What Hugging Face transformers continues each prompt with, greedily and past any end token."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    # Not from_pretrained: it makes the model without memory and fills in what no file holds (the angles of the
    # rotary embedding) through factories that the stand-ins wrap; the angles were then whatever lay there.
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), attn_implementation="eager")
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    model.eval()
    answers = []
    with torch.no_grad():
        for prompt in prompts:
            ids = torch.tensor([list(prompt)])
            for _ in range(new_tokens):
                following = model(ids).logits[0, -1].argmax().reshape(1, 1)
                ids = torch.cat([ids, following], dim=1)
            answers.append(ids[0, len(prompt) :].tolist())
    return answers


def _config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": CONTEXT,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": VOCABULARY,
    }


def _write_weights(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(SEED)

    def weight(*shape: int) -> Any:
        return torch.randn(shape, generator=generator) * WEIGHT_STD

    weights = {"model.embed_tokens.weight": weight(VOCABULARY, HIDDEN), "model.norm.weight": torch.ones(HIDDEN)}
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        weights |= {
            f"{layer}.input_layernorm.weight": torch.ones(HIDDEN),
            f"{layer}.post_attention_layernorm.weight": torch.ones(HIDDEN),
            f"{layer}.self_attn.q_proj.weight": weight(HEADS * HEAD_DIM, HIDDEN),
            f"{layer}.self_attn.k_proj.weight": weight(KV_HEADS * HEAD_DIM, HIDDEN),
            f"{layer}.self_attn.v_proj.weight": weight(KV_HEADS * HEAD_DIM, HIDDEN),
            f"{layer}.self_attn.o_proj.weight": weight(HIDDEN, HEADS * HEAD_DIM),
            f"{layer}.mlp.gate_proj.weight": weight(INTERMEDIATE, HIDDEN),
            f"{layer}.mlp.up_proj.weight": weight(INTERMEDIATE, HIDDEN),
            f"{layer}.mlp.down_proj.weight": weight(HIDDEN, INTERMEDIATE),
        }
    weights["lm_head.weight"] = weight(VOCABULARY, HIDDEN)
    save_file(weights, path, metadata={"format": "pt"})


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY, "the corpus is too short for so many merges"
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
