"""hicache-pp: 200 questions, and again once the device has dropped them, on one card and on two and four by stages.

Each lane has a model of its own; ``SGLANG_TEST_MODEL`` is another one's folder or name. The small form on a CPU is
``hicache_pp_sync/test_servers_two_passes.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed import Ports
from testbed.device import Device, device
from testbed.hicache_passes import bad_signs, run_two_passes
from testbed.pd_traffic import Traffic
from testbed.program import Programs
from testbed.server import ServerOptions, start_server
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=600, guards=["hicache-pp-sync"], owner="@acme/hicache"),
    pytest.mark.limit(3600),
    pytest.mark.skipif(device() is not Device.CUDA, reason="it needs a CUDA device"),
]

TRAFFIC = Traffic(questions=200, at_once=16, new_tokens=256, seed=27285)
POOL_TOKENS = 14_000
"""For a third of the questions with their answers."""
HOST_RATIO = ("--hicache-ratio", "4")
START_LIMIT_S = 1200.0
ANSWER_LIMIT_S = 300.0


def test_one_stage(programs: Programs, ports: Ports) -> None:
    """NCCL wants a card for each rank, so one card has one stage: HiCache is as it was."""
    check(programs, ports, "Qwen/Qwen3-0.6B", tp=1, pp=1)


@pytest.mark.lane("2-gpu", est_s=900)
def test_two_stages(programs: Programs, ports: Ports) -> None:
    check(programs, ports, "Qwen/Qwen3-4B", tp=1, pp=2)


@pytest.mark.lane("4-gpu", est_s=1800)
def test_two_stages_of_two(programs: Programs, ports: Ports) -> None:
    check(programs, ports, "Qwen/Qwen3-30B-A3B-FP8", tp=2, pp=2)


def check(programs: Programs, ports: Ports, model: str, *, tp: int, pp: int) -> None:
    folder = Path(os.environ.get("SGLANG_TEST_MODEL", model))
    options = ServerOptions(tp=tp, pp=pp, hicache=True, pool_tokens=POOL_TOKENS, model=folder, flags=HOST_RATIO)
    server = start_server(programs, ports, options, limit_s=START_LIMIT_S)
    run = run_two_passes(server, TRAFFIC, ANSWER_LIMIT_S)
    assert run.succeeded >= threshold("hicache-pp", "succeeded"), run
    assert run.same_answers >= threshold("hicache-pp", "same_answers"), run
    assert run.from_host >= threshold("hicache-pp", "from_host"), run
    if pp > 1:
        assert run.right >= threshold("hicache-pp", "right"), run
    assert server.wait_until_idle().free_tokens == POOL_TOKENS
    assert bad_signs(server) == []
