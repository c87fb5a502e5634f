"""The small form of ``gpu/test_kvcm.py``: a whole server of two ranks, whose storage is the manager's."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import Ports
from testbed.kvcm_manager import KvcmManager
from testbed.kvcm_scenario import ask_twice, complaints, kvcm_flags
from testbed.pd_traffic import Traffic
from testbed.program import Programs
from testbed.server import ServerOptions, start_server
from testbed.thresholds import threshold

TRAFFIC = Traffic(questions=3, at_once=1, new_tokens=8, seed=27)


@pytest.mark.limit(300)
@pytest.mark.kills("every-rank-writes-for-rank-0")
def test_a_second_pass_is_served_from_storage(
    programs: Programs, ports: Ports, kvcm: KvcmManager, tiny_model: Path
) -> None:
    options = ServerOptions(model=tiny_model, tp=2, hicache=True, flags=kvcm_flags(kvcm, page_tokens=1))
    server = start_server(programs, ports, options)
    run = ask_twice(server, kvcm, TRAFFIC)
    assert not run.failures, run
    assert run.found_before == 0, run
    assert run.from_storage >= threshold("kvcm", "from_storage"), run
    assert run.same_answers >= threshold("kvcm", "same_answers"), run
    assert complaints(server) == []
