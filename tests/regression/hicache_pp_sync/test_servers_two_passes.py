"""The small form of ``gpu/test_hicache_pp.py``: clients at once, twice the same questions, more than the device holds.

Copies end later on the second stage, as they may on a GPU. Without the patch the stages fall out of step and hang.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import Ports
from testbed.hicache_passes import bad_signs, run_two_passes
from testbed.pd_traffic import Traffic
from testbed.program import Programs
from testbed.server import ServerOptions, start_server
from testbed.thresholds import threshold

TRAFFIC = Traffic(questions=12, at_once=3, new_tokens=12, seed=27285)
POOL_TOKENS = 900
NEVER = 10**9  # polls
ANSWER_LIMIT_S = 15.0


@pytest.mark.limit(300)
def test_the_second_time_all_say_the_same(programs: Programs, ports: Ports, tiny_model: Path) -> None:
    options = ServerOptions(pp=2, hicache=True, pool_tokens=POOL_TOKENS, model=tiny_model, copy_polls=(1, NEVER))
    server = start_server(programs, ports, options)
    run = run_two_passes(server, TRAFFIC, ANSWER_LIMIT_S)
    assert run.succeeded >= threshold("hicache-pp", "succeeded"), run.failures
    assert run.same_answers >= threshold("hicache-pp", "same_answers"), run
    assert run.from_host >= threshold("hicache-pp", "from_host"), run
    assert server.wait_until_idle().free_tokens == POOL_TOKENS
    assert bad_signs(server) == []
