"""pd-retry: prefill and decode on one card, 500 questions, and one in a hundred calls of prefill's engine fails.

The model is the folder or name in ``SGLANG_TEST_MODEL``. The small form on a CPU is
``pd_transfer_retry/test_servers_failing_transfers.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed import Ports
from testbed.device import Device, device
from testbed.pd_scenarios import run_with_failing_transfers
from testbed.pd_servers import PdOptions, start_pd
from testbed.pd_traffic import Traffic
from testbed.program import Programs
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=600, guards=["pd-transfer-retry"], owner="@acme/pd"),
    pytest.mark.limit(1800),
    pytest.mark.skipif(device() is not Device.CUDA, reason="it needs a CUDA device"),
]

MODEL = Path(os.environ.get("SGLANG_TEST_MODEL", "Qwen/Qwen3-0.6B"))
TRAFFIC = Traffic(questions=500, at_once=16, new_tokens=32, seed=16)
FAILS_EVERY = 100


def test_every_request_succeeds(programs: Programs, ports: Ports) -> None:
    pd = start_pd(programs, ports, PdOptions(model=MODEL))
    run = run_with_failing_transfers(pd, TRAFFIC, FAILS_EVERY)
    assert run.succeeded >= threshold("pd-retry", "succeeded"), run
    assert run.same_answers >= threshold("pd-retry", "same_answers"), run
    assert run.injected >= threshold("pd-retry", "injected_at_least"), run
