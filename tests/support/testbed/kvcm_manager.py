"""A KV cache manager for tests: a real HTTP server on loopback, with faults to inject.

::

    def test_it(kvcm: KvcmManager):                       # fixture of `testbed.plugin`
        fault = kvcm.inject("startWriteCache", Kind.HTTP_500)
        ...                                               # ranks talk to kvcm.url
        assert fault.injected == 1
        assert kvcm.calls("finishWriteCache") == []

It serves the public protocol (`testbed.kvcm_blocks`) from threads of the test process: ranks are processes and meet
it over a socket, the test over these methods. ``/api/injectFault``, ``removeFault`` and ``clearFaults`` are the public
manager's debug service, so that a test that uses nothing else runs against a real manager as well.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from testbed.kvcm_blocks import Blocks, Body, Refused, path_of
from testbed.kvcm_faults import Edit, Fault, Faults, Kind

__all__ = ["Call", "Kind", "KvcmManager"]

API_NAMES = {
    "RegisterInstance": "registerInstance",
    "GetCacheLocation": "getCacheLocation",
    "StartWriteCache": "startWriteCache",
    "FinishWriteCache": "finishWriteCache",
}
"""The debug service's names of calls."""

IDLE_LIMIT_S = 600.0
"""How long a connection may say nothing: longer than any test."""


@dataclass(frozen=True)
class Call:
    """One call that came in."""

    api: str
    request: Body
    code: str
    """What was decided: ``OK``, an error code, or the kind of the fault that it met."""


class KvcmManager:
    """A running manager; `close` ends it."""

    def __init__(self, port: int, root: Path) -> None:
        """Listen on a port of loopback; blocks lie as files below ``root``."""
        self.blocks = Blocks(root)
        self.faults = Faults()
        self._calls: list[Call] = []
        self._noting = threading.Lock()
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{port}"

    # ---- faults ----

    def inject(self, api: str, kind: Kind, *, at_call: int | None = None, edit: Edit | None = None) -> Fault:
        """From now on ``api``'s calls, or the nth of them, meet a fault. ``edit`` is what `Kind.EDITED` answers."""
        if (edit is not None) != (kind is Kind.EDITED):
            raise ValueError("an edit belongs to EDITED, and to nothing else")
        return self.faults.inject(Fault(api, kind, at_call, edit))

    def remove_fault(self, api: str) -> None:
        self.faults.remove(api)

    def clear_faults(self) -> None:
        self.faults.clear()

    # ---- what a test looks at and does ----

    def calls(self, api: str = "") -> list[Call]:
        """All calls that have come in, or all of one name, in order."""
        with self._noting:
            return [call for call in self._calls if api in ("", call.api)]

    def files(self) -> dict[int, dict[str, bytes]]:
        """What lies in storage of all blocks that can be found: bytes by block key and location spec."""
        return {
            key: {spec: path_of(uri).read_bytes() for spec, uri in uris.items() if path_of(uri).is_file()}
            for key, uris in self.blocks.committed().items()
        }

    def evict(self, keys: Sequence[int]) -> None:
        """The manager forgets blocks, and their files go."""
        for instance in list(self.blocks.instances):
            self.blocks.answer("removeCache", {"instance_id": instance, "block_keys": list(keys)})

    def lose(self, key: int, spec: str) -> None:
        """A file is gone, and the manager does not know."""
        path_of(self.blocks.committed()[key][spec]).unlink()

    def close(self) -> None:
        """Let every held call go on, and end."""
        self.faults.clear()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # ---- for the server ----

    def note(self, call: Call) -> None:
        with self._noting:
            self._calls.append(call)

    def debug(self, api: str, request: Body) -> bool:
        """One call of the debug service; False if it is not one. Raises `Refused`."""
        if api == "clearFaults":
            self.faults.clear()
            return True
        if api not in ("injectFault", "removeFault"):
            return False
        name = request.get("api_name", "")
        if name not in API_NAMES:
            raise Refused("INVALID_ARGUMENT", f"api_name {name!r}")
        if api == "removeFault":
            self.faults.remove(API_NAMES[name])
            return True
        strategy = request.get("fault_trigger_strategy", "ALWAYS")
        if strategy not in ("ALWAYS", "ONCE") or request.get("fault_type", "") not in ("FT_INTERNAL_ERROR", *Kind):
            raise Refused("INVALID_ARGUMENT", f"{request.get('fault_type')} {strategy}")
        at_call = int(request.get("trigger_at_call", 1)) if strategy == "ONCE" else None
        self.inject(API_NAMES[name], Kind(str(request["fault_type"]).removeprefix("FT_")), at_call=at_call)
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client's idle connection must not hold up the end

    def __init__(self, address: tuple[str, int], manager: KvcmManager) -> None:
        self.manager = manager
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what some tests do."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_LIMIT_S
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        manager, api = self.server.manager, self.path.removeprefix("/api/")
        try:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if manager.debug(api, request):
                self._say(_answer("OK"))
                return
        except Refused as refusal:
            self._say(_answer(refusal.code, refusal.message))
            return
        fault = manager.faults.meet(api)
        if fault is None:
            self._say(self._do(api, request))
            return
        match fault.kind:
            case Kind.INTERNAL_ERROR | Kind.HTTP_500 | Kind.RESET:
                manager.note(Call(api, request, fault.kind))
                if fault.kind is Kind.RESET:
                    self._reset()
                elif fault.kind is Kind.HTTP_500:
                    self._say(b"<html>no JSON</html>", status=500)
                else:
                    self._say(_answer(fault.kind, "an injected fault"))
            case Kind.NO_ANSWER:
                self._do(api, request)
                self._reset()
            case Kind.HELD:
                fault.hold()
                self._say(self._do(api, request))
            case Kind.EDITED:
                assert fault.edit is not None
                self._say(fault.edit(self._do(api, request)))

    def _do(self, api: str, request: Body) -> Body:
        manager = self.server.manager
        try:
            body = {**_answer("OK"), **manager.blocks.answer(api, request)}
        except Refused as refusal:
            body = _answer(refusal.code, refusal.message)
        manager.note(Call(api, request, body["header"]["status"]["code"]))
        return body

    def _say(self, answer: Any, status: int = 200) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        with contextlib.suppress(OSError):  # the client may have given up
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def _reset(self) -> None:
        """RST instead of an answer."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Both files hold the socket open; the reset goes out when the last holder has closed it.
        self.rfile.close()
        self.wfile.close()
        self.connection.close()


def _answer(code: str, message: str = "") -> Body:
    return {"header": {"status": {"code": code, "message": message}, "request_id": "0"}}
