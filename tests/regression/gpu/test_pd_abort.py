"""pd-abort: prefill and decode on one card, 200 questions, of which three in ten are aborted at any time.

The model is the folder or name in ``SGLANG_TEST_MODEL``. The small form on a CPU is
``pd_abort_notify/test_servers_random_aborts.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed import Ports
from testbed.device import Device, device
from testbed.pd_scenarios import ask_prefill_too_late, bad_signs, dead_threads, free_tokens, run_with_aborts
from testbed.pd_servers import PdOptions, start_pd
from testbed.pd_traffic import Traffic
from testbed.program import Programs
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=600, guards=["pd-abort-notify"], owner="@acme/pd"),
    pytest.mark.limit(1800),
    pytest.mark.skipif(device() is not Device.CUDA, reason="it needs a CUDA device"),
]

MODEL = Path(os.environ.get("SGLANG_TEST_MODEL", "Qwen/Qwen3-0.6B"))
TRAFFIC = Traffic(questions=200, at_once=16, new_tokens=128, seed=27372)
ROOM = 7
POOL_TOKENS = 4096
"""For eight requests at a time: pages are used again and again."""


def test_those_who_stay_are_told_the_same(programs: Programs, ports: Ports) -> None:
    pd = start_pd(programs, ports, PdOptions(model=MODEL, pool_tokens=POOL_TOKENS))
    before = free_tokens(pd)
    too_late = ask_prefill_too_late(pd, TRAFFIC.prompts()[0], ROOM)
    assert not too_late.ok, too_late.describe()
    run = run_with_aborts(pd, TRAFFIC)
    assert run.aborted >= threshold("pd-abort", "aborted_at_least"), run
    assert run.same_answers >= threshold("pd-abort", "same_answers"), run
    assert run.failures == []
    assert free_tokens(pd) == before
    assert bad_signs(pd) == []
    assert dead_threads(pd) == []
