"""What goes wrong between us and a registry, on purpose: a proxy in front of a real one."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import urlencode

from tests.support.image_registry.web import Asked, Reply, Web

from patchstack.image.names import Place

_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class Fault:
    """Of the requests that it matches, those from ``nth`` on, ``times`` of them, go wrong in one way."""

    method: str = "*"
    path: str = "*"
    """Such as ``*/manifests/nightly``; ``*`` and ``?`` as in a shell."""
    nth: int = 1
    times: int = 1
    lost: bool = False
    """The registry does as it is told, and its answer goes wrong; else the registry hears nothing."""
    status: int | None = None
    """The answer is this, in a registry's form with ``code``; or, without one, in none."""
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Instead of, or beside, those of the right answer."""
    reset: bool = False
    """The connection is reset."""
    hang: bool = False
    """There is no answer."""
    cut: bool = False
    """The right answer, whole headers and half of its body."""
    changed: bool = False
    """The right answer, with one bit of its body changed."""
    body: bytes | None = None
    """The right answer's headers, and this body."""


class FaultyProxy:
    """In front of the registry at ``behind``; the same repository is at ``place``."""

    def __init__(self, behind: Place) -> None:
        self.behind = behind
        self.web = Web(self._answer)
        self.place = Place(self.web.host, behind.path)
        self.page_size: int | None = None
        """Lists of tags come in pages of this size: docker-registry 2.8 itself has one page for all."""
        self.injected = 0
        """How often something was made to go wrong."""
        self._lock = threading.Lock()
        self._faults: list[tuple[Fault, list[int]]] = []

    def fail(self, *faults: Fault) -> None:
        """The next requests that they match go wrong."""
        with self._lock:
            self._faults += [(fault, [0]) for fault in faults]

    def mend(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._faults.clear()

    def count(self, method: str = "*", path: str = "*") -> int:
        """Requests that came."""
        return sum(fnmatchcase(one.method, method) and fnmatchcase(one.path, path) for one in list(self.web.asked))

    def _take(self, asked: Asked) -> Fault | None:
        """The fault that this request meets: each fault that it matches counts it."""
        taken = None
        with self._lock:
            for fault, seen in self._faults:
                if fnmatchcase(asked.method, fault.method) and fnmatchcase(asked.path, fault.path):
                    seen[0] += 1
                    if taken is None and fault.nth <= seen[0] < fault.nth + fault.times:
                        taken = fault
            self.injected += taken is not None
        return taken

    def _answer(self, asked: Asked) -> Reply:
        fault = self._take(asked)
        if fault is None:
            return self._right(asked)
        told = _reply(fault)
        if told is not None:
            if fault.lost:
                self._right(asked)
            return told
        right = self._right(asked)
        body = right.body if fault.body is None else fault.body
        if fault.changed:
            body = bytes([body[0] ^ 1]) + body[1:]
        headers = {name: value for name, value in right.headers.items() if name not in fault.headers}
        return Reply(right.status, {**headers, **fault.headers}, body, cut=fault.cut)

    def _right(self, asked: Asked) -> Reply:
        reply = self._forward(asked)
        if self.page_size is not None and asked.path.endswith("/tags/list") and reply.status == 200:
            return _page(reply, asked, self.page_size)
        return reply

    def _forward(self, asked: Asked) -> Reply:
        connection = http.client.HTTPConnection(self.behind.host, timeout=60)
        try:
            headers = {name: value for name, value in asked.headers.items() if name not in _HOP}
            connection.request(asked.method, asked.target, asked.body or None, headers)
            answer = connection.getresponse()
            body = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            if asked.method != "HEAD":
                kept = {name: value for name, value in kept.items() if name.lower() != "content-length"}
            return Reply(answer.status, kept, body)
        finally:
            connection.close()


@contextmanager
def faulty(behind: Place) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(behind)
    with proxy.web:
        yield proxy


def _reply(fault: Fault) -> Reply | None:
    """What is told instead of the right answer; None where that is changed."""
    if fault.reset or fault.hang:
        return Reply(reset=fault.reset, hang=fault.hang)
    if fault.status is None:
        return None
    if not fault.code:
        return Reply(fault.status, fault.headers, b"<html>something else</html>")
    body = json.dumps({"errors": [{"code": fault.code, "message": "made to go wrong"}]}).encode()
    return Reply(fault.status, {"Content-Type": "application/json", **fault.headers}, body)


def _page(reply: Reply, asked: Asked, size: int) -> Reply:
    """The page of a list of tags behind ``last``, as the specification has it."""
    said = json.loads(reply.body)
    tags = sorted(said["tags"] or [])
    left = [tag for tag in tags if tag > asked.query.get("last", "")]
    headers = dict(reply.headers)
    if len(left) > size:
        onward = urlencode({"n": size, "last": left[size - 1]})
        headers["Link"] = f'<{asked.path}?{onward}>; rel="next"'
    return Reply(reply.status, headers, json.dumps({**said, "tags": left[:size]}).encode())
