"""kvcm: one server, its questions twice; the second time their KV comes out of the manager's storage.

The guard on a CPU is ``kvcm_backend/test_servers_kvcm.py``.
"""

from __future__ import annotations

import pytest

from testbed import Ports
from testbed.forms import Form
from testbed.kvcm_manager import KvcmManager
from testbed.kvcm_scenario import ask_twice, complaints, kvcm_flags
from testbed.program import Programs
from testbed.server import ServerOptions, start_server
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=300, guards=["kvcm-backend"], owner="@acme/hicache"),
    pytest.mark.limit(1800),
]


@pytest.mark.form("kvcm", "one-rank")
def test_a_second_pass_is_served_from_storage(form: Form, programs: Programs, ports: Ports, kvcm: KvcmManager) -> None:
    check(form, programs, ports, kvcm)


@pytest.mark.lane("2-gpu")
@pytest.mark.form("kvcm", "two-ranks")
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
    passes = ask_twice(server, kvcm, form.traffic)
    assert not passes.failures, passes
    assert passes.from_storage >= threshold("kvcm", "from_storage"), passes
    assert passes.same_answers >= threshold("kvcm", "same_answers"), passes
    assert complaints(server) == []
