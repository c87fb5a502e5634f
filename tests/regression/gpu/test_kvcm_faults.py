"""kvcm-faults: one server whose manager refuses, breaks off and stalls; nobody is told anything else, or waits.

Each fault alone, on ranks without a server, is in ``kvcm_backend/test_kvcm_faults.py``.
"""

from __future__ import annotations

import pytest

from testbed import Ports
from testbed.forms import Form
from testbed.kvcm_manager import KvcmManager
from testbed.kvcm_scenario import FINISH, LOOK, STALLED, START, ask_while_it_fails, kvcm_flags, worst_complaints
from testbed.program import Programs
from testbed.server import ServerOptions, start_server
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=420, guards=["kvcm-backend"], owner="@acme/hicache"),
    pytest.mark.limit(1800),
]


@pytest.mark.form("kvcm-faults", "one-rank")
def test_all_are_told_the_same(form: Form, programs: Programs, ports: Ports, kvcm: KvcmManager) -> None:
    check(form, programs, ports, kvcm)


@pytest.mark.lane("2-gpu")
@pytest.mark.form("kvcm-faults", "two-ranks")
def test_two_ranks(form: Form, programs: Programs, ports: Ports, kvcm: KvcmManager) -> None:
    check(form, programs, ports, kvcm)


def check(form: Form, programs: Programs, ports: Ports, kvcm: KvcmManager) -> None:
    options = ServerOptions(
        model=form.model,
        tp=form.tp,
        hicache=True,
        page_size=form.page_tokens,
        pool_tokens=form.pool_tokens,
        flags=kvcm_flags(kvcm, form.page_tokens),
    )
    server = start_server(programs, ports, options)
    run = ask_while_it_fails(server, kvcm, form.traffic, form.stall_s)
    for call in (LOOK, START, FINISH, STALLED):
        assert run.injected[call] >= threshold("kvcm-faults", "injected_at_least"), (call, run)
    assert not run.failures, run
    assert run.same_answers >= threshold("kvcm-faults", "same_answers"), run
    assert run.from_storage_failing == 0, run
    assert run.from_storage_after >= threshold("kvcm-faults", "from_storage_after"), run
    assert worst_complaints(server) == []
