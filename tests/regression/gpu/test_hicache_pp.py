"""hicache-pp: many questions, and again once the device has dropped them, on one card and on two and four by stages.

The guard on a CPU is ``hicache_pp_sync/test_servers_two_passes.py``.
"""

from __future__ import annotations

import pytest

from testbed import Ports
from testbed.forms import Form
from testbed.hicache_passes import bad_signs, run_two_passes
from testbed.program import Programs
from testbed.server import ServerOptions, start_server
from testbed.thresholds import threshold

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=600, guards=["hicache-pp-sync"], owner="@acme/hicache"),
    pytest.mark.limit(3600),
]

HOST_RATIO = ("--hicache-ratio", "4")
START_LIMIT_S = 1200.0
NEVER = 10**9  # polls


@pytest.mark.form("hicache-pp", "one-stage")
def test_one_stage(form: Form, programs: Programs, ports: Ports) -> None:
    """NCCL wants a card for each rank, so one card has one stage: HiCache is as it was."""
    check(form, programs, ports)


@pytest.mark.lane("2-gpu", est_s=900)
@pytest.mark.form("hicache-pp", "two-stages")
def test_two_stages(form: Form, programs: Programs, ports: Ports) -> None:
    check(form, programs, ports)


@pytest.mark.lane("4-gpu", est_s=1800)
@pytest.mark.form("hicache-pp", "two-stages-of-two")
def test_two_stages_of_two(form: Form, programs: Programs, ports: Ports) -> None:
    check(form, programs, ports)


@pytest.mark.lane("4-gpu", est_s=1800)
@pytest.mark.form("hicache-pp", "two-stages-of-two-dense")
def test_two_stages_of_two_of_another_model(form: Form, programs: Programs, ports: Ports) -> None:
    check(form, programs, ports)


@pytest.mark.lane("4-gpu", est_s=1800)
@pytest.mark.form("hicache-pp", "long-prompts")
def test_long_prompts(form: Form, programs: Programs, ports: Ports) -> None:
    check(form, programs, ports)


def check(form: Form, programs: Programs, ports: Ports) -> None:
    options = ServerOptions(
        tp=form.tp,
        pp=form.pp,
        hicache=True,
        pool_tokens=form.pool_tokens,
        model=form.model,
        flags=HOST_RATIO,
        # On a CPU a copy ends at once. There the second stage is made to learn of it from the first alone.
        copy_polls=(1, NEVER) if form.is_rehearsal and form.pp > 1 else (),
    )
    server = start_server(programs, ports, options, limit_s=START_LIMIT_S)
    run = run_two_passes(server, form.traffic, form.answer_s)
    assert run.prompt_tokens >= form.prompt_tokens, run
    assert run.succeeded >= threshold("hicache-pp", "succeeded"), run
    assert run.same_answers >= threshold("hicache-pp", "same_answers"), run
    assert run.from_host >= threshold("hicache-pp", "from_host"), run
    if form.pp > 1:
        assert run.right >= threshold("hicache-pp", "right"), run
    assert server.wait_until_idle().free_tokens == form.pool_tokens
    assert bad_signs(server) == []
