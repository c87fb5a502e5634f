"""pd-abort: prefill and decode, and questions of which three in ten are aborted at any time.

On one card, on a card each, and over a NIC. What an abort does to the next client is forced in
``pd_abort_notify/test_servers_abort.py``.
"""

from __future__ import annotations

import pytest

from testbed import Ports
from testbed.forms import Form
from testbed.pd_scenarios import (
    ask_prefill_too_late,
    bad_signs,
    dead_threads,
    free_tokens,
    pd_options,
    run_with_aborts,
)
from testbed.pd_servers import start_pd
from testbed.program import Programs
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=600, guards=["pd-abort-notify"], owner="@acme/pd"),
    pytest.mark.limit(1800),
]

ROOM = 7


@pytest.mark.form("pd-abort", "one-card")
def test_those_who_stay_are_told_the_same(form: Form, programs: Programs, ports: Ports) -> None:
    check(form, programs, ports)


@pytest.mark.lane("2-gpu")
@pytest.mark.form("pd-abort", "two-cards")
def test_on_two_cards(form: Form, programs: Programs, ports: Ports) -> None:
    check(form, programs, ports)


@pytest.mark.lane("rdma")
@pytest.mark.form("pd-abort", "over-rdma")
def test_over_rdma(form: Form, programs: Programs, ports: Ports) -> None:
    check(form, programs, ports)


def check(form: Form, programs: Programs, ports: Ports) -> None:
    pd = start_pd(programs, ports, pd_options(form))
    before = free_tokens(pd)
    too_late = ask_prefill_too_late(pd, form.traffic.prompts()[0], ROOM)
    assert not too_late.ok, too_late.describe()
    run = run_with_aborts(pd, form.traffic)
    assert run.aborted >= threshold("pd-abort", "aborted_at_least"), run
    assert run.same_answers >= threshold("pd-abort", "same_answers"), run
    assert run.failures == []
    assert free_tokens(pd) == before
    assert bad_signs(pd) == []
    assert dead_threads(pd) == []
