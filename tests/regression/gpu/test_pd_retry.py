"""pd-retry: prefill and decode, and calls of prefill's engine that fail now and then.

On one card, on a card each, and over a NIC. The guard on a CPU is
``pd_transfer_retry/test_servers_failing_transfers.py``.
"""

from __future__ import annotations

import pytest

from testbed import Ports
from testbed.forms import Form
from testbed.pd_scenarios import pd_options, run_with_failing_transfers
from testbed.pd_servers import start_pd
from testbed.program import Programs
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=600, guards=["pd-transfer-retry"], owner="@acme/pd"),
    pytest.mark.limit(1800),
]


@pytest.mark.form("pd-retry", "one-card")
def test_every_request_succeeds(form: Form, programs: Programs, ports: Ports) -> None:
    check(form, programs, ports)


@pytest.mark.lane("2-gpu")
@pytest.mark.form("pd-retry", "two-cards")
def test_on_two_cards(form: Form, programs: Programs, ports: Ports) -> None:
    check(form, programs, ports)


@pytest.mark.lane("rdma")
@pytest.mark.form("pd-retry", "over-rdma")
def test_over_rdma(form: Form, programs: Programs, ports: Ports) -> None:
    check(form, programs, ports)


def check(form: Form, programs: Programs, ports: Ports) -> None:
    pd = start_pd(programs, ports, pd_options(form))
    run = run_with_failing_transfers(pd, form.traffic, form.fails_every)
    assert run.succeeded >= threshold("pd-retry", "succeeded"), run
    assert run.same_answers >= threshold("pd-retry", "same_answers"), run
    assert run.injected >= threshold("pd-retry", "injected_at_least"), run
