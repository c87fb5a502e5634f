"""colocate: two ranks of a trainer and their engine on two cards; and one rank alone, on one.

The model is the folder or name in ``SGLANG_TEST_MODEL``. The small form on a CPU is
``colocate_tp/test_colocate_servers.py``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from testbed import Children, Ports, Rank, start_ranks
from testbed.colocate_callers import Caller, Colocation, do_all
from testbed.colocate_sglang import MODULE, server_arguments, server_environment
from testbed.colocate_training import load_trainer, slope_mb, train
from testbed.device import Device, device
from testbed.pd_traffic import Traffic
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=600, guards=["colocate-tp"], owner="@acme/rl"),
    pytest.mark.limit(1800),
    pytest.mark.skipif(device() is not Device.CUDA, reason="it needs CUDA devices"),
]

MODEL = os.environ.get("SGLANG_TEST_MODEL", "Qwen/Qwen3-4B")
STEPS = 10
TRAFFIC = Traffic(questions=8, at_once=1, new_tokens=64, seed=46)
POOL_TOKENS = 16384
START_LIMIT_S = 900.0


def load(caller: Caller) -> None:
    import torch

    torch.cuda.set_device(caller.rank.number)
    load_trainer(caller, MODEL, f"cuda:{caller.rank.number}")


def prompts() -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(MODEL)
    return [list(tokenizer.encode(text)) for text in TRAFFIC.prompts()]


@pytest.mark.lane("2-gpu", est_s=900)
def test_a_trainer_holds_no_more_from_step_to_step(children: Children, tmp_path: Path) -> None:
    with Colocation(children, tmp_path) as colocate:
        ranks = colocate.start(
            devices=[0, 1],
            environ=server_environment(2),
            server_module=MODULE,
            limit_s=START_LIMIT_S,
            **server_arguments(Path(MODEL), POOL_TOKENS),
        )
        assert [said.error for said in do_all(ranks, load, limit_s=START_LIMIT_S)] == ["", ""]
        said = do_all(ranks, train, STEPS, prompts(), TRAFFIC.new_tokens, limit_s=START_LIMIT_S)
    assert [each.error for each in said] == ["", ""], said
    for each in said:
        off = [abs(step.logprob_ratio - 1) for step in each.value]
        assert max(off) <= threshold("colocate", "logprob_ratio_off"), each.value
        assert slope_mb(each.value) <= threshold("colocate", "held_mb_per_step"), each.value


def answer_alone(rank: Rank, through_colocate: bool, port: int, texts: list[str]) -> tuple[str, list[str]]:
    """The class of an engine of one rank, and what it says."""
    from sglang.srt.colocate.engine import create_engine
    from sglang.srt.entrypoints.http_server_engine import HttpServerEngineAdapter

    arguments = {**server_arguments(Path(MODEL), POOL_TOKENS), "host": "127.0.0.1", "port": port, "tp_size": 1}
    engine: Any = create_engine(**arguments) if through_colocate else HttpServerEngineAdapter(**arguments)
    try:
        sampling = {"max_new_tokens": TRAFFIC.new_tokens, "temperature": 0, "ignore_eos": True}
        return type(engine).__name__, [engine.generate(text, sampling)["text"] for text in texts]
    finally:
        engine.shutdown()


def test_one_rank_alone_says_what_the_adapter_says(children: Children, ports: Ports) -> None:
    said = []
    for through_colocate in (True, False):
        start_ranks(children, answer_alone, through_colocate, ports.take(), TRAFFIC.prompts(), size=1, group=False)
        said += children.join(START_LIMIT_S).values()
    (name, colocated), (adapter, own) = said
    assert name == adapter
    same = sum(mine == theirs for mine, theirs in zip(colocated, own, strict=True))
    assert same / len(own) >= threshold("colocate", "same_answers")
