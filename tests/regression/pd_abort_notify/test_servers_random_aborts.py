"""The small form of ``gpu/test_pd_abort.py``: clients of whole servers that go away at any time.

Without the patch prefill answers a request that decode has given up. What an abort does to the next client is
forced in ``test_servers_abort.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import Ports
from testbed.pd_scenarios import ask_prefill_too_late, bad_signs, dead_threads, free_tokens, run_with_aborts
from testbed.pd_servers import PdOptions, start_pd
from testbed.pd_traffic import Traffic
from testbed.program import Programs
from testbed.thresholds import threshold

TRAFFIC = Traffic(questions=16, at_once=4, new_tokens=24, seed=27372)
ROOM = 7


@pytest.mark.limit(300)
def test_those_who_stay_are_told_the_same(programs: Programs, ports: Ports, tiny_model: Path) -> None:
    pd = start_pd(programs, ports, PdOptions(model=tiny_model))
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
