"""What requests cost: measured here, judged by tests/regression/metrics.yaml.

Processor time and memory, and no time by the clock: a machine that has other things to do changes the ones little, and
the other without bounds. Prefill and decode ask each other without end while a request is on its way, so that their
processor time says how busy the machine was.
"""

from __future__ import annotations

import pytest

from testbed.measures import Measure, processor_s
from testbed.pd_servers import PdServers
from testbed.server import Server
from testbed.shared_servers import SharedServers
from testbed.tiny_model import prompt_ids

pytestmark = [pytest.mark.control, pytest.mark.limit(300)]

ROUNDS, REQUESTS, NEW_TOKENS = 3, 16, 16
"""Each round is one sample."""
UNKNOWN = 500
"""Prompts from here on are in no cache, and none of the rounds asks for them."""


def ask(servers: Server | PdServers, first: int) -> None:
    """`REQUESTS` requests one after the other, of prompts that no cache knows."""
    for number in range(first, first + REQUESTS):
        answer = servers.generate(prompt_ids(40, first=number), NEW_TOKENS)
        assert answer.ok, answer.describe()


def test_what_a_request_costs(measure: Measure, shared_servers: SharedServers) -> None:
    server = shared_servers.server()
    ask(server, UNKNOWN)  # what the first requests load and compile is no cost of a request
    for sample in range(ROUNDS):
        before_s = processor_s([server.program])
        ask(server, sample * REQUESTS)
        measure("server-request-cpu", (processor_s([server.program]) - before_s) / REQUESTS * 1000)


def test_what_prefill_and_decode_hold(measure: Measure, shared_servers: SharedServers) -> None:
    """Resident memory of all processes; what several of them share is counted for each."""
    pd = shared_servers.pd()
    for sample in range(ROUNDS):
        ask(pd, sample * REQUESTS)
        held = [process.memory_mb for program in pd.programs for process in program.processes()]
        measure("pd-memory", sum(held))
