"""Steps of a trainer that shares its cards with the engine: change the weights, sync them, and compare.

The same code on a CPU with the tiny model and a few steps, and on two GPUs with a real model; what it must reach is in
``tests/regression/thresholds.yaml``. The trainer's model is Hugging Face transformers': what it says to a text is the
second opinion on what the engine says with the weights that it was sent.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.colocate_callers import Caller, Colocation, do_all
from testbed.colocate_sglang import MODULE, server_arguments, server_environment
from testbed.device import Device, device
from testbed.forms import Form
from testbed.ports import Ports

BUCKET_BYTES = 512 << 20
FORMAT = "flattened_bucket"
CHANGE = 1e-2
"""How much of a weight's spread a step adds to it."""

SETTLE_S, SETTLE_POLL_S = 5.0, 0.05


@dataclass(frozen=True)
class Step:
    """What there was after one step, on one rank."""

    held_mb: float
    """Memory that the trainer holds (10^6 bytes): on a GPU what is allocated, on a CPU what it shares with others."""
    logprob_ratio: float
    """The mean over new tokens of the engine's probability by the trainer's."""
    generate_ms: float
    """For each new token, over all prompts of the step."""


def train_in_form(colocate: Colocation, ports: Ports, form: Form, limit_s: float) -> list[list[Step]]:
    """The steps of a form, rank by rank, with an engine that all ranks share, or one rank's own.

    What any rank raised is the test's own failure.
    """
    alone = {"host": "127.0.0.1", "port": ports.take(), "nccl_port": ports.take()} if form.tp == 1 else {}
    ranks = colocate.start(
        size=form.tp,
        devices=list(range(form.tp)) if device() is Device.CUDA else [],
        environ=server_environment(form.tp),
        server_module=MODULE,
        limit_s=limit_s,
        **{**server_arguments(form.model, form.pool_tokens), **alone},
    )
    loaded = do_all(ranks, load_on_own_device, str(form.model), limit_s=limit_s)
    assert [said.error for said in loaded] == [""] * form.tp, loaded
    said = do_all(ranks, train, form.steps, form.traffic.prompts(), form.new_tokens, limit_s=limit_s)
    assert [each.error for each in said] == [""] * form.tp, said
    ended = do_all(ranks, shut_down, limit_s=limit_s)
    assert [each.error for each in ended] == [""] * form.tp, ended
    return [each.value for each in said]


def load_on_own_device(caller: Caller, model: str) -> None:
    import torch

    if device() is Device.CPU:
        load_trainer(caller, model, "cpu")
        return
    torch.cuda.set_device(caller.rank.number)
    load_trainer(caller, model, f"cuda:{caller.rank.number}")


def shut_down(caller: Caller) -> None:
    caller.engine.shutdown()


def load_trainer(caller: Caller, model: str, device: str) -> None:
    """Have the trainer's model on this rank's device, in the precision that it is kept in."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if device == "cpu":
        # Not from_pretrained, see `testbed.tiny_model.greedy_tokens`.
        from safetensors.torch import load_file

        trainer: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model), attn_implementation="eager")
        trainer.load_state_dict(load_file(Path(model) / "model.safetensors"), strict=True)
    else:
        trainer = AutoModelForCausalLM.from_pretrained(model, torch_dtype="auto").to(device)
    caller.kept["trainer"] = trainer.eval()
    caller.kept["model"] = model


def train(caller: Caller, steps: int, prompts: Sequence[str | Sequence[int]], new_tokens: int) -> list[Step]:
    """Steps of the trainer, on all ranks at once."""
    ids = [_ids_of(caller, prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    return [_step(caller, number, ids, new_tokens) for number in range(steps)]


def _ids_of(caller: Caller, text: str) -> list[int]:
    from transformers import AutoTokenizer

    if "tokenizer" not in caller.kept:
        caller.kept["tokenizer"] = AutoTokenizer.from_pretrained(caller.kept["model"])
    return list(caller.kept["tokenizer"].encode(text))


def slope_mb(steps: Sequence[Step]) -> float:
    """How much more the trainer holds from one step to the next: least squares over all steps."""
    count = len(steps)
    middle, mean = (count - 1) / 2, sum(step.held_mb for step in steps) / count
    spread = sum((number - middle) ** 2 for number in range(count))
    return sum((number - middle) * (step.held_mb - mean) for number, step in enumerate(steps)) / spread


def _step(caller: Caller, number: int, prompts: Sequence[Sequence[int]], new_tokens: int) -> Step:
    _change(caller.kept["trainer"], seed=number)
    _sync(caller.engine, _buckets(caller.kept["trainer"]))
    caller.rank.barrier()
    begin_s = time.monotonic()
    said = [_generate(caller, prompt, new_tokens) for prompt in prompts]
    took_s = time.monotonic() - begin_s
    ratios = [ratio for prompt, chosen in zip(prompts, said, strict=True) for ratio in _ratios(caller, prompt, chosen)]
    caller.rank.barrier()
    return Step(held_mb(), sum(ratios) / len(ratios), took_s * 1000 / (len(prompts) * new_tokens))


def _sync(engine: Any, buckets: Iterator[dict[str, Any]]) -> None:
    if hasattr(engine, "sync_weights"):
        engine.sync_weights(buckets, load_format=FORMAT)
        return
    # SGLang's own adapter, which one rank alone has: it flushes with the last bucket.
    last = next(buckets)
    for bucket in buckets:
        engine.update_weights_from_tensor(last, load_format=FORMAT)
        last = bucket
    engine.update_weights_from_tensor(last, load_format=FORMAT, flush_cache=True)


def _change(trainer: Any, seed: int) -> None:
    """What an optimizer would do; the same on every rank."""
    import torch

    with torch.no_grad():
        for name, weight in sorted(trainer.named_parameters()):
            if weight.dim() < 2:
                continue
            draw = torch.Generator(device=weight.device).manual_seed(seed * 1009 + len(name))
            noise = torch.randn(weight.shape, generator=draw, device=weight.device, dtype=torch.float32)
            weight.add_((noise * weight.float().std() * CHANGE).to(weight.dtype))


def _buckets(trainer: Any) -> Iterator[dict[str, Any]]:
    """All weights, each in one bucket of at most `BUCKET_BYTES`, or alone."""
    bucket: list[tuple[str, Any]] = []
    held = 0
    for name, weight in trainer.state_dict().items():
        size = weight.numel() * weight.element_size()
        if bucket and held + size > BUCKET_BYTES:
            yield _flattened(bucket)
            bucket, held = [], 0
        bucket.append((name, weight.detach()))
        held += size
    if bucket:
        yield _flattened(bucket)


def _flattened(named: list[tuple[str, Any]]) -> dict[str, Any]:
    from sglang.srt.weight_sync.tensor_bucket import FlattenedTensorBucket

    bucket = FlattenedTensorBucket(named_tensors=named)
    return {"flattened_tensor": bucket.get_flattened_tensor(), "metadata": bucket.get_metadata()}


def _generate(caller: Caller, prompt: Sequence[int], new_tokens: int) -> list[tuple[float, int]]:
    """The tokens that the engine chooses, each with the logarithm of its probability."""
    sampling = {"max_new_tokens": new_tokens, "temperature": 0, "ignore_eos": True}
    said = caller.engine.generate(input_ids=list(prompt), sampling_params=sampling, return_logprob=True)
    return [(float(logprob), int(token)) for logprob, token, *_ in said["meta_info"]["output_token_logprobs"]]


def _ratios(caller: Caller, prompt: Sequence[int], chosen: Sequence[tuple[float, int]]) -> list[float]:
    """For each token that the engine has chosen: its probability there by that in the trainer's model."""
    import torch

    trainer = caller.kept["trainer"]
    ids = torch.tensor([[*prompt, *(token for _, token in chosen)]], device=trainer.device)
    with torch.no_grad():
        logits = trainer(ids).logits[0, len(prompt) - 1 : -1].float()
    own = torch.log_softmax(logits, dim=-1)
    tokens = torch.tensor([token for _, token in chosen], device=own.device)
    theirs = torch.tensor([logprob for logprob, _ in chosen], device=own.device)
    ratios: list[float] = torch.exp(theirs - own.gather(1, tokens[:, None])[:, 0]).tolist()
    return ratios


def held_mb() -> float:
    """See `Step.held_mb`."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return float(torch.cuda.memory_allocated()) / 1e6
    return sum(size for _, size in shared_storages()) / 1e6


def shared_storages() -> list[tuple[str, int]]:
    """Shared memory that this process has open for tensors, name and size in bytes, once nothing is on its way.

    A thread of torch's multiprocessing lets go of what was sent a moment after it has been received.
    """
    waited = threading.Event()
    for _ in range(round(SETTLE_S / SETTLE_POLL_S)):
        if not _open_storages():
            break
        waited.wait(SETTLE_POLL_S)
    return _open_storages()


def _open_storages() -> list[tuple[str, int]]:
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            link = str(path.readlink())
            if "/torch_" in link:
                found.append((link, os.stat(path).st_size))  # noqa: PTH116  (what is open, not what has its name now)
        except OSError:  # closed since
            continue
    return found
