"""The small form of ``gpu/test_pd_retry.py``: whole servers, and calls of prefill's engine that fail."""

from __future__ import annotations

import pytest

from testbed.pd_scenarios import run_with_failing_transfers
from testbed.pd_traffic import Traffic
from testbed.shared_servers import SharedServers
from testbed.thresholds import threshold

TRAFFIC = Traffic(questions=12, at_once=3, new_tokens=8, seed=16)
FAILS_EVERY = 4


@pytest.mark.limit(300)
def test_every_request_succeeds(shared_servers: SharedServers) -> None:
    pd = shared_servers.pd()
    run = run_with_failing_transfers(pd, TRAFFIC, FAILS_EVERY)
    shared_servers.forget(pd)  # without the patch its session is lost
    assert run.succeeded >= threshold("pd-retry", "succeeded"), run
    assert run.same_answers >= threshold("pd-retry", "same_answers"), run
    assert run.injected >= threshold("pd-retry", "injected_at_least"), run
