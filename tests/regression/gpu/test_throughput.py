"""throughput: how many tokens a second come, and how soon the first, of one server and of prefill and decode.

No test here says what is too slow: numbers are compared with those of the last promoted image on the same machine in
the same night, and with what earlier nights measured on machines of its kind.
"""

from __future__ import annotations

import pytest

from testbed import Ports
from testbed.clients import Asked, Told, ask_streaming
from testbed.forms import Form
from testbed.measures import Measure
from testbed.pd_scenarios import pd_options
from testbed.pd_servers import start_pd
from testbed.program import Programs
from testbed.server import Server, ServerOptions, start_server

pytestmark = [
    pytest.mark.lane("1-gpu", est_s=300, guards=[], owner="@acme/sglang"),
    pytest.mark.limit(1800),
]

START_LIMIT_S = 900.0


@pytest.mark.form("throughput", "one-server")
def test_one_server(form: Form, programs: Programs, ports: Ports, measure: Measure) -> None:
    told = ask(start(form, programs, ports), form)
    measure("throughput-tokens", told.tokens_per_s)
    measure("throughput-first-words", told.first_words_ms)


@pytest.mark.lane("2-gpu")
@pytest.mark.form("throughput", "two-ranks")
def test_two_ranks(form: Form, programs: Programs, ports: Ports, measure: Measure) -> None:
    told = ask(start(form, programs, ports), form)
    measure("throughput-two-ranks-tokens", told.tokens_per_s)
    measure("throughput-two-ranks-first-words", told.first_words_ms)


@pytest.mark.form("throughput", "prefill-and-decode")
def test_prefill_and_decode(form: Form, programs: Programs, ports: Ports, measure: Measure) -> None:
    told = ask(start_pd(programs, ports, pd_options(form), limit_s=START_LIMIT_S), form)
    measure("throughput-pd-tokens", told.tokens_per_s)
    measure("throughput-pd-first-words", told.first_words_ms)


def start(form: Form, programs: Programs, ports: Ports) -> Server:
    flags = ("--max-running-requests", str(form.at_once))
    options = ServerOptions(model=form.model, tp=form.tp, pool_tokens=form.pool_tokens, flags=flags)
    return start_server(programs, ports, options, limit_s=START_LIMIT_S)


def ask(asked: Asked, form: Form) -> Told:
    """Once to warm up, which nobody counts, and once for the numbers."""
    told = [ask_streaming(asked, form.traffic) for _ in range(2)][-1]
    assert told.succeeded == 1.0, told.failures
    return told
