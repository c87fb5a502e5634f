"""kvcm: one server, 64 questions twice; the second time their KV comes out of the manager's storage.

The model is the folder or name in ``SGLANG_TEST_MODEL``. The small form on a CPU is
``kvcm_backend/test_servers_kvcm.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed import Ports
from testbed.device import Device, device
from testbed.kvcm_manager import KvcmManager
from testbed.kvcm_scenario import ask_twice, complaints, kvcm_flags
from testbed.pd_traffic import Traffic
from testbed.program import Programs
from testbed.server import ServerOptions, start_server
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=300, guards=["kvcm-backend"], owner="@acme/hicache"),
    pytest.mark.limit(1800),
    pytest.mark.skipif(device() is not Device.CUDA, reason="it needs a CUDA device"),
]

MODEL = Path(os.environ.get("SGLANG_TEST_MODEL", "Qwen/Qwen3-0.6B"))
TRAFFIC = Traffic(questions=64, at_once=1, new_tokens=32, seed=27)
PAGE_TOKENS = 16


def run(programs: Programs, ports: Ports, kvcm: KvcmManager, tp: int) -> None:
    flags = kvcm_flags(kvcm, PAGE_TOKENS)
    options = ServerOptions(model=MODEL, tp=tp, hicache=True, page_size=PAGE_TOKENS, pool_tokens=32_768, flags=flags)
    server = start_server(programs, ports, options)
    passes = ask_twice(server, kvcm, TRAFFIC)
    assert not passes.failures, passes
    assert passes.from_storage >= threshold("kvcm", "from_storage"), passes
    assert passes.same_answers >= threshold("kvcm", "same_answers"), passes
    assert complaints(server) == []


def test_a_second_pass_is_served_from_storage(programs: Programs, ports: Ports, kvcm: KvcmManager) -> None:
    run(programs, ports, kvcm, tp=1)


@pytest.mark.lane("2-gpu")
def test_two_ranks(programs: Programs, ports: Ports, kvcm: KvcmManager) -> None:
    run(programs, ports, kvcm, tp=2)
