"""What came in on this process's PULL sockets: the control messages between prefill and decode, as on the wire."""

from __future__ import annotations

import threading
from typing import Any

import zmq

Frames = tuple[bytes, ...]


class MessageLog:
    """Notes each message of several frames that this process receives after `install`; sockets stay real."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._received: list[Frames] = []

    def install(self) -> None:
        """Make `zmq.Context` hand out sockets that note what they receive. There is no way back."""
        zmq.Context._socket_class = type("NotingSocket", (_NotingSocket,), {"log": self})

    def received(self, kind: bytes) -> list[Frames]:
        """The messages so far whose first frame is ``kind``, in the order in which they came."""
        with self._changed:
            return self._of(kind)

    def wait_for(self, kind: bytes, count: int, limit_s: float) -> list[Frames]:
        """`received`, once there are ``count`` of them or ``limit_s`` seconds are over."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._of(kind)) >= count, limit_s)
            return self._of(kind)

    def _of(self, kind: bytes) -> list[Frames]:
        return [frames for frames in self._received if frames[0] == kind]

    def _note(self, frames: Frames) -> None:
        with self._changed:
            self._received.append(frames)
            self._changed.notify_all()


class _NotingSocket(zmq.Socket):  # type: ignore[type-arg]
    log: MessageLog

    def recv_multipart(self, *args: Any, **kwargs: Any) -> Any:
        frames = super().recv_multipart(*args, **kwargs)
        if self.socket_type == zmq.PULL:
            self.log._note(tuple(bytes(frame) for frame in frames))
        return frames
