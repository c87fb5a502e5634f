"""An HTTP server of tests, on a free port of loopback, that leaves neither a connection nor a thread behind."""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LoopbackServer(ThreadingHTTPServer):
    """``closing`` is set by its owner before the end: what fails from then on is nothing.

    At the end the owner calls `shutdown`, `close_connections` and `server_close`, which waits for all threads.
    """

    daemon_threads = False
    block_on_close = True
    request_queue_size = 128
    nothing: tuple[type[Exception], ...] = (ConnectionError,)
    """What a client that goes away makes a handler raise."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], closing: threading.Event) -> None:
        self.closing = closing
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._open_lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """All that fails while the server closes is nothing, too; the rest is shown."""
        if not (isinstance(sys.exception(), self.nothing) or self.closing.is_set()):
            super().handle_error(request, client_address)
