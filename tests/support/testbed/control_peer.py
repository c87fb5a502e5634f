"""A rank that is the test itself: its end of the control sockets, its registrations, what it was sent.

`DecodePeer` speaks to a real prefill, and sends its pages back to where they are from, into other pages of
prefill's own pool: the engine's session is prefill's. `PrefillPeer` hears what a real decode says, next to a
bootstrap server (`BootstrapTable`) that answers as a release does. Sockets are real, on loopback::

    with DecodePeer(prefill) as peer:
        peer.register()
        peer.publish(room=1, pages=[5, 6])
        peer.abort(room=1, generation=3)
        assert peer.receive() == drained(1, 3)
"""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import zmq

from testbed import control_wire
from testbed.control_wire import LOOPBACK, OLD, Buffers, Frames
from testbed.mooncake_pair import SideHandle
from testbed.mooncake_side import Side, wait_until

ANSWER_LIMIT_S = 15.0
SEND_LIMIT_S = 60.0


class ControlPeer:
    """A PULL socket that others can send to, and PUSH sockets to others."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._inbox = self._context.socket(zmq.PULL)
        self._inbox.setsockopt(zmq.RCVHWM, 0)
        self.port = self._inbox.bind_to_random_port(f"tcp://{LOOPBACK}")
        self._outboxes: dict[int, zmq.Socket[bytes]] = {}

    def send_to(self, port: int, frames: Sequence[bytes]) -> None:
        if port not in self._outboxes:
            outbox = self._context.socket(zmq.PUSH)
            outbox.setsockopt(zmq.SNDTIMEO, round(SEND_LIMIT_S * 1000))
            outbox.connect(f"tcp://{LOOPBACK}:{port}")
            self._outboxes[port] = outbox
        self._outboxes[port].send_multipart(frames)

    def receive(self, limit_s: float = ANSWER_LIMIT_S) -> Frames | None:
        """The next message, or None if none comes within the limit."""
        if not self._inbox.poll(limit_s * 1000):
            return None
        return tuple(self._inbox.recv_multipart())

    def receive_until(self, last: Frames, limit_s: float = ANSWER_LIMIT_S) -> list[Frames]:
        """All messages up to ``last``; without it if it did not come."""
        received = []
        while (message := self.receive(limit_s)) is not None:
            received.append(message)
            if message == last:
                break
        return received

    def close(self) -> None:
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class DecodePeer(ControlPeer):
    """A decode rank of ``release``, to a prefill that runs in a process of its own."""

    def __init__(self, prefill: SideHandle, release: str = OLD) -> None:
        super().__init__()
        self.prefill = prefill
        self.release = release
        self.prefill_port = int(prefill.call(control_port))
        self.buffers: Buffers = prefill.call(buffers)
        self._marks = 0

    def send(self, *frames: bytes) -> None:
        self.send_to(self.prefill_port, frames)

    def register(self, session: str | None = None, tensor_size: int = 1) -> None:
        self.send(*control_wire.registration(self.port, self.buffers, self.release, session, tensor_size))

    def publish(self, room: int, pages: Sequence[int], aux: int = 1, session: str | None = None) -> None:
        name = self.buffers.session if session is None else session
        self.send(*control_wire.metadata(self.port, name, room, pages, aux, self.release))

    def abort(self, room: int, generation: int | None = None) -> None:
        self.send(*control_wire.abort(room, self.port, generation))

    def was_read(self, limit_s: float = ANSWER_LIMIT_S) -> bool:
        """Whether prefill has read all that was sent, and reads on; False as soon as its thread is dead."""
        self._marks += 1
        mark = f"mark-of-{self.port}:{self._marks}"
        self.register(mark)
        return bool(self.prefill.call(_mark_came, mark, limit_s, limit_s=limit_s + SEND_LIMIT_S))


def control_port(side: Side) -> int:
    """The port of a side's control socket."""
    return int(side.manager.rank_port)


def buffers(side: Side) -> Buffers:
    args = side.manager.kv_args
    return Buffers(
        session=str(side.manager.get_session_id()),
        kv=tuple(args.kv_data_ptrs),
        kv_item_length=int(args.kv_item_lens[0]),
        aux=tuple(args.aux_data_ptrs),
    )


def _mark_came(side: Side, mark: str, limit_s: float) -> bool:
    sessions = side.manager.decode_kv_args_table

    def settled() -> bool:
        return mark in sessions or not side.thread_is_alive("bootstrap_thread")

    wait_until(settled, bool, limit_s)
    return sessions.pop(mark, None) is not None


class PrefillPeer(ControlPeer):
    """A prefill rank: hears what decode sends it, and can answer."""

    def send(self, decode_port: int, frames: Sequence[bytes]) -> None:
        self.send_to(decode_port, frames)


class BootstrapTable:
    """A bootstrap server with one prefill instance, whose ranks are these peers.

    ``caps`` is what each rank says of itself beyond its address; releases say nothing.
    """

    def __init__(self, port: int, ranks: Sequence[ControlPeer], page_size: int, caps: Sequence[str] = ()) -> None:
        self.address = f"{LOOPBACK}:{port}"
        topology = {
            "attn_tp_size": len(ranks),
            "attn_cp_size": 1,
            "dp_size": 1,
            "pp_size": 1,
            "page_size": page_size,
            "kv_cache_dtype": "auto",
            "follow_bootstrap_room": True,
        }
        said = {"caps": list(caps)} if caps else {}
        routes = [{"rank_ip": LOOPBACK, "rank_port": rank.port, **said} for rank in ranks]
        self._server = ThreadingHTTPServer((LOOPBACK, port), _handler(topology, routes))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="bootstrap-table", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _handler(topology: dict[str, Any], routes: Sequence[dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            if parts.path == "/health":
                return self._answer(b"OK")
            asked = dict(urllib.parse.parse_qsl(parts.query))
            rank = int(asked["target_tp_rank"])
            return self._answer(json.dumps(topology if rank == -1 else routes[rank]).encode())

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """A test's output is its own."""

    return Handler
