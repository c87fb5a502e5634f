"""colocate: ranks of a trainer and their engine on the same cards: new weights step by step, and one rank alone.

The guard on a CPU is ``colocate_tp/test_colocate_servers.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed import Children, Ports, Rank, start_ranks
from testbed.colocate_callers import Colocation
from testbed.colocate_sglang import fork_servers_of_this_process, server_arguments, server_environment
from testbed.colocate_training import slope_mb, train_in_form
from testbed.device import Device, device
from testbed.forms import Form
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=600, guards=["colocate-tp"], owner="@acme/rl"),
    pytest.mark.limit(1800),
]

START_LIMIT_S = 900.0


@pytest.mark.form("colocate", "one-rank")
def test_one_rank_holds_no_more_from_step_to_step(form: Form, children: Children, ports: Ports, tmp_path: Path) -> None:
    check_training(form, children, ports, tmp_path)


@pytest.mark.lane("2-gpu", est_s=900)
@pytest.mark.form("colocate", "two-ranks")
def test_a_trainer_holds_no_more_from_step_to_step(
    form: Form, children: Children, ports: Ports, tmp_path: Path
) -> None:
    check_training(form, children, ports, tmp_path)


def check_training(form: Form, children: Children, ports: Ports, folder: Path) -> None:
    with Colocation(children, folder) as colocate:
        for steps in train_in_form(colocate, ports, form, START_LIMIT_S):
            off = [abs(step.logprob_ratio - 1) for step in steps]
            assert max(off) <= threshold("colocate", "logprob_ratio_off"), steps
            assert slope_mb(steps) <= threshold("colocate", "held_mb_per_step"), steps


def answer_alone(
    _rank: Rank, arguments: list[dict[str, Any]], texts: list[str], new_tokens: int
) -> list[tuple[str, list[str]]]:
    """Of colocate's engine of one rank and of SGLang's own adapter: the class, and what it says."""
    from sglang.srt.colocate.engine import create_engine
    from sglang.srt.entrypoints.http_server_engine import HttpServerEngineAdapter

    if device() is Device.CPU:
        fork_servers_of_this_process()
    sampling = {"max_new_tokens": new_tokens, "temperature": 0, "ignore_eos": True}
    said = []
    for create, own in zip((create_engine, HttpServerEngineAdapter), arguments, strict=True):
        engine: Any = create(**own)
        try:
            said.append((type(engine).__name__, [engine.generate(text, sampling)["text"] for text in texts]))
        finally:
            engine.shutdown()
    return said


@pytest.mark.form("colocate", "one-rank")
def test_one_rank_alone_says_what_the_adapter_says(form: Form, children: Children, ports: Ports) -> None:
    common = {**server_arguments(form.model, form.pool_tokens), "host": "127.0.0.1", "tp_size": 1}
    arguments = [
        {**common, "device": device().value, "port": ports.take(), "nccl_port": ports.take()} for _ in range(2)
    ]
    texts, environment = form.traffic.prompts(), server_environment(1)
    start_ranks(children, answer_alone, arguments, texts, form.new_tokens, size=1, group=False, env=environment)
    [[(name, colocated), (adapter, own)]] = children.join(START_LIMIT_S).values()
    assert name == adapter
    same = sum(mine == theirs for mine, theirs in zip(colocated, own, strict=True))
    assert same / len(own) >= threshold("colocate", "same_answers")
