"""Whole PD servers: a client that goes away costs the next one nothing (AB-8, end to end).

The interleaving is forced: the first prefill server's engine is held with the aborted request's batch, and the
next request comes over a second prefill server, whose engine is free. Decode's pool is too small for both, so
the next request can only have the pages that the aborted one gave back. When it has said some of its words
the held batch goes on.
"""

from __future__ import annotations

import http.client
import itertools
import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed import Ports
from testbed.answers import LOOPBACK, Answer, request_body
from testbed.pd_scenarios import WAITING_FOR_KV
from testbed.pd_servers import PdOptions, PdServers, start_pd
from testbed.program import Programs
from testbed.server import Server, ServerOptions, launch, wait_until_up
from testbed.tiny_model import prompt_ids

POOL_TOKENS = 256
PROMPT, NEXT_PROMPT = prompt_ids(150), prompt_ids(150, first=1)
NEW_TOKENS = 60
WORDS = 5
"""How many tokens of the next request are there when the held batch goes on."""
ENDED_S, POLL_S = 30.0, 0.05

BAD_SIGNS = ("Context corruption", "Exception in thread", "Scheduler hit an exception", "memory leak")


@dataclass
class Deployment:
    pd: PdServers
    other: Server
    """The second prefill server."""
    other_port: int
    rooms: itertools.count[int]

    def bootstrap(self, port: int, room: int) -> dict[str, object]:
        return {"bootstrap_host": LOOPBACK, "bootstrap_port": port, "bootstrap_room": room}

    def over_the_other(self, on_token: Callable[[], None] = lambda: None) -> Answer:
        """The next request, over the second prefill server; ``on_token`` is called for each of its tokens."""
        where = self.bootstrap(self.other_port, next(self.rooms))
        at_prefill = self.other.begin(NEXT_PROMPT, NEW_TOKENS, **where)
        steps = []
        for step in self.pd.decode.stream(NEXT_PROMPT, NEW_TOKENS, **where):
            steps.append(step)
            on_token()
        at_prefill.answer()
        return steps[-1]

    @property
    def servers(self) -> dict[str, Server]:
        return {"prefill": self.pd.prefill, "other prefill": self.other, "decode": self.pd.decode}


@pytest.fixture
def deployment(programs: Programs, ports: Ports, tiny_model: Path) -> Deployment:
    small = ("--num-reserved-decode-tokens", "1")
    pd = start_pd(programs, ports, PdOptions(pool_tokens=POOL_TOKENS, decode_flags=small, model=tiny_model))
    port = ports.take()
    options = ServerOptions(role="prefill", model=tiny_model)
    other = launch(programs, ports, options, "--disaggregation-bootstrap-port", str(port))
    wait_until_up([other])
    return Deployment(pd, other, port, itertools.count(1))


def call_abort_request(deployment: Deployment) -> None:
    pd = deployment.pd
    _, at_decode = pd.begin_in_room(next(deployment.rooms), PROMPT, rid="gone")
    assert pd.prefill.engine().wait_until_held()
    pd.abort("gone")
    assert "Aborted by AbortReq" in at_decode.answer(ENDED_S).error


def hang_up(deployment: Deployment) -> None:
    pd = deployment.pd
    where = deployment.bootstrap(pd.bootstrap_port, next(deployment.rooms))
    pd.prefill.begin(PROMPT, NEW_TOKENS, **where)
    body = request_body(PROMPT, NEW_TOKENS, rid="hung up", more={**where, "stream": True})
    line = http.client.HTTPConnection(LOOPBACK, pd.decode.port, timeout=ENDED_S)
    line.request("POST", "/generate", json.dumps(body), {"Content-Type": "application/json"})
    assert pd.prefill.engine().wait_until_held()
    line.close()


@pytest.mark.limit(300)
def test_the_next_client_is_told_what_it_would_be_told_alone(deployment: Deployment) -> None:
    pd, engine = deployment.pd, deployment.pd.prefill.engine()
    alone = deployment.over_the_other()
    assert len(alone.tokens) == NEW_TOKENS, alone.describe()
    assert pd.generate(PROMPT, NEW_TOKENS).ok
    for leave in (call_abort_request, hang_up):
        sent = len(engine.transfers())
        engine.hold("kv")
        leave(deployment)
        answer = while_held(deployment)
        assert engine.wait_for_transfers(sent + 1)
        assert (engine.transfers()[sent].returned, engine.transfers()[sent].injected) == (0, False)
        assert not answer.ready, f"after {leave.__name__}: the held batch landed when all was said, and shows nothing"
        said = answer.get()
        assert said.ok, f"after {leave.__name__}: {said.describe()}"
        assert said.tokens == alone.tokens, f"after {leave.__name__}: {said.describe()}"
    assert_all_is_well(deployment)


class Coming:
    """The next request's answer, which another thread waits for."""

    def __init__(self, deployment: Deployment) -> None:
        self.words: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        threading.Thread(target=self._ask, args=(deployment,), daemon=True).start()

    @property
    def ready(self) -> bool:
        return not self._answers.empty()

    def get(self) -> Answer:
        return self._answers.get(timeout=ENDED_S)

    def _ask(self, deployment: Deployment) -> None:
        self._answers.put(deployment.over_the_other(lambda: self.words.put(None)))


def while_held(deployment: Deployment) -> Coming:
    """Send the next request, and let the held batch go on in the middle of it."""
    keeps = keeps_the_pages(deployment)
    coming = Coming(deployment)
    if not keeps:
        for _ in range(WORDS):
            coming.words.get(timeout=ENDED_S)
    deployment.pd.prefill.engine().release()
    return coming


def keeps_the_pages(deployment: Deployment) -> bool:
    """Whether decode has the pages of the request that it has given up; what it says comes from its scheduler."""
    decode = deployment.pd.decode
    for _ in range(round(ENDED_S / POLL_S)):
        load = decode.load()
        if not load.queues[WAITING_FOR_KV]:
            return load.used_tokens > 0
        decode.program.exits_within(POLL_S)
    raise AssertionError(f"decode does not give the request up: {load}")


def assert_all_is_well(deployment: Deployment) -> None:
    pd = deployment.pd
    assert pd.generate(PROMPT, NEW_TOKENS).ok
    for name, server in deployment.servers.items():
        load = server.wait_until_idle(ENDED_S)
        assert load.idle, f"{name}: {load}"
        assert load.free_tokens == load.pool_tokens
        server.flush()
        assert server.load().used_tokens == 0
        assert not server.program.exits_within(0)
        output = server.output()
        assert [sign for sign in BAD_SIGNS if sign in output] == [], output
