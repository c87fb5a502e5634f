"""A look at one boundary of the network: who is inside a ZMQ PUSH socket, frame by frame.

ZMQ sends a message of several frames with one call a frame, and until the last
of them the socket is one thread's. The gate makes the overlap happen that load
makes now and then: it holds a thread inside the socket until another one comes.
Code that locks its sends keeps the other one out, and the gate lets go after
``hold_s``.

Sockets stay real: each frame goes out when it is handed over, so frames that mix
reach the peer mixed. Only libzmq itself is kept from running twice at once,
which could end the process before it has told anything.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import zmq


class SocketGate:
    """Watches all PUSH sockets that this process makes after `install`."""

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        """How long a held thread waits for another one that does not come."""
        self.intrusions: list[str] = []
        """One line for each frame that was sent into another thread's message."""
        self.connections: Counter[str] = Counter()
        """How many PUSH sockets were connected to each endpoint."""
        self._changed = threading.Condition()
        self._owner: dict[int, str] = {}
        self._to_hold = ""
        self._to_fail = False
        self._held = threading.Event()
        self._released = False

    def install(self) -> None:
        """Make `zmq.Context` hand out watched sockets. For a child process: there is no way back."""
        zmq.Context._socket_class = type("WatchedSocket", (_WatchedSocket,), {"gate": self})

    def hold_next(self, where: str) -> None:
        """Hold the next thread that has sent the first of several frames (``message``) or is connecting a
        socket (``connect``)."""
        self._held.clear()
        self._released = False
        self._to_hold = where

    def wait_until_held(self, limit_s: float) -> bool:
        """Whether a thread came to be held within ``limit_s`` seconds."""
        return self._held.wait(limit_s)

    def release(self) -> None:
        """Let the held thread go on."""
        with self._changed:
            self._released = True
            self._changed.notify_all()

    def fail_next(self) -> None:
        """Let the next send raise `zmq.Again`, as after a send time-out, with nothing sent."""
        self._to_fail = True

    def _connect(self, endpoint: str) -> None:
        with self._changed:
            self.connections[endpoint] += 1
            self._changed.notify_all()
            self._hold("connect", lambda: self.connections[endpoint] > 1)

    def _send(self, socket: zmq.Socket[bytes], more: bool, send: Callable[[], Any]) -> Any:
        me = threading.current_thread().name
        with self._changed:
            if self._to_fail:
                self._to_fail = False
                raise zmq.Again
            owner = self._owner.setdefault(id(socket), me)
            if owner != me:
                self.intrusions.append(f"{me} sent into a message of {owner}")
                self._changed.notify_all()
            result = send()
            if not more:
                del self._owner[id(socket)]
                return result
            seen = len(self.intrusions)
            self._hold("message", lambda: len(self.intrusions) > seen)
            return result

    def _hold(self, where: str, other_came: Callable[[], bool]) -> None:
        if self._to_hold == where:
            self._to_hold = ""
            self._held.set()
            self._changed.wait_for(lambda: self._released or other_came(), self.hold_s)


class _WatchedSocket(zmq.Socket):  # type: ignore[type-arg]
    gate: SocketGate

    def connect(self, addr: str) -> Any:
        if self.socket_type == zmq.PUSH:
            self.gate._connect(addr)
        return super().connect(addr)

    def send(self, data: Any, flags: int = 0, *args: Any, **kwargs: Any) -> Any:
        def send() -> Any:
            return zmq.Socket.send(self, data, flags, *args, **kwargs)

        if self.socket_type != zmq.PUSH:
            return send()
        return self.gate._send(self, bool(flags & zmq.SNDMORE), send)
