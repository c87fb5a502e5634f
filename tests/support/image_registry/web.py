"""A small HTTP server on loopback, which answers as a function says, or does not."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.loopback_server import LoopbackServer


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Their names in lower case."""
    body: bytes
    target: str
    """The path with its query, as it was written."""


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    """What ``Content-Length`` says; None: the truth."""
    cut: bool = False
    """Only half of the body goes out."""
    late_s: float = 0.0
    """It begins so much later."""
    drip_s: float = 0.0
    """A byte of the body after each such pause."""
    reset: bool = False
    """The connection is reset instead."""
    hang: bool = False
    """There is no answer, until the server closes."""


class Web:
    """A context manager: the server answers within its block."""

    def __init__(self, answer: Callable[[Asked], Reply]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        """Every request, in the order in which they came."""
        self.broken: list[Exception] = []
        """What ``answer`` raised: the block ends with the first."""
        self.dripped = 0
        """Bytes that went out one by one."""
        self.closing = threading.Event()
        self._http = _Http(self)
        self.host = f"127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speak TLS; before the block."""
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.close_connections()
        self._http.server_close()  # waits for the threads of all connections
        if self.broken and exception[0] is None:
            raise self.broken[0]


class _Http(LoopbackServer):
    nothing = (ConnectionError, ValueError)  # TLS says the latter

    def __init__(self, web: Web) -> None:
        self.web = web
        super().__init__(_Handler, web.closing)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Http

    def _any(self) -> None:
        web = self.server.web
        split = urlsplit(self.path)
        asked = Asked(
            self.command,
            unquote(split.path),
            dict(parse_qsl(split.query, keep_blank_values=True)),
            {name.lower(): ", ".join(self.headers.get_all(name) or ()) for name in self.headers},  # some send several
            self._body(),
            self.path,
        )
        web.asked.append(asked)
        try:
            reply = web.answer(asked)
        except Exception as error:
            web.broken.append(error)
            reply = Reply(500, body=repr(error).encode())
        if reply.late_s:
            web.closing.wait(reply.late_s)
        if reply.reset:
            self._reset()
        elif reply.hang:
            self.close_connection = True
            web.closing.wait()
        else:
            self._send(reply)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do_HEAD = _any  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        length = len(reply.body) if reply.length is None else reply.length
        if self.command != "HEAD" or "content-length" not in {name.lower() for name in reply.headers}:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        body = b"" if self.command == "HEAD" else reply.body[: len(reply.body) // 2] if reply.cut else reply.body
        if reply.drip_s:
            self._drip(body, reply.drip_s)
        else:
            self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = self.close_connection or reply.cut or length != len(reply.body)

    def _drip(self, body: bytes, pause_s: float) -> None:
        for byte in body:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            self.server.web.dripped += 1
            if self.server.web.closing.wait(pause_s):
                return

    def _reset(self) -> None:
        """A close with no time to linger is a reset: socket(7), SO_LINGER."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nothing: `Web.asked` holds them all."""
