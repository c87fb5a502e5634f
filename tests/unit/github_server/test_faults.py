"""What goes wrong on purpose between a client and the fake GitHub, and how it ends."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
import requests
from tests.support.github_server import Fault, GitHubServer
from tests.unit.github_server.place import FORK, PULLS, Place


def test_a_fault_takes_its_requests_and_no_others(place: Place) -> None:
    token = place.hub.token("ann")
    place.hub.fail(Fault(path=PULLS, page=2, status=502, times=2))

    found = [place.ask(PULLS, token, page=page).status_code for page in (1, 2, 2, 2)]

    assert found == [200, 502, 502, 200]
    place.hub.fail(Fault(path="/repos/*/pulls", method="*", times=9))
    assert place.ask(PULLS, token).status_code == 502
    place.hub.mend()
    assert place.ask(PULLS, token).status_code == 200


def test_a_secondary_rate_limit_has_githubs_words_and_header(place: Place) -> None:
    place.hub.fail(Fault.secondary_rate_limit(PULLS))

    answer = place.ask(PULLS, place.hub.token("ann"))

    assert (answer.status_code, answer.headers["Retry-After"]) == (403, "0")
    assert "secondary rate limit" in answer.json()["message"]


def test_an_answer_is_cut_a_connection_reset_and_the_next_answer_whole(place: Place) -> None:
    token = place.hub.token("ann")
    place.hub.fail(Fault(path=PULLS, cut=True))
    place.hub.fail(Fault(path=PULLS, reset=True))

    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
        place.ask(PULLS, token)
    with pytest.raises(requests.ConnectionError):
        place.ask(PULLS, token)
    assert place.ask(PULLS, token).json() == []
    assert [one.status for one in place.hub.requests] == [200, 0, 200]


def test_what_hangs_ends_with_the_server(tmp_path: Path) -> None:
    before = threading.active_count()
    with GitHubServer(tmp_path) as hub:
        hub.repository(FORK)
        hub.fail(Fault(hang=True))
        token = hub.token("ann")
        port = int(hub.server_url.rpartition(":")[2])
        hanging, idle = (socket.create_connection(("127.0.0.1", port), timeout=120) for _ in range(2))
        asked = f"GET /api/v3/rate_limit HTTP/1.1\r\nHost: x\r\nAuthorization: token {token}\r\n\r\n".encode()
        hanging.sendall(asked)
        hub.wait_for_requests(1)
        idle.sendall(asked)
        hub.wait_for_requests(2)
    with hanging, idle:
        assert hanging.recv(1) == b""
        answer = b"".join(iter(lambda: idle.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK")
    assert [one.status for one in hub.requests] == [0, 200]
    assert threading.active_count() == before
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=120)
