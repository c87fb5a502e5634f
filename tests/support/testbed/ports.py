"""Loopback ports, one holder each on this machine.

The kernel's "any free port" may be given away again between asking and listening. These come from below
its range for outgoing connections, and each is reserved by an abstract Unix socket named after it: the
kernel lets one process have that name and takes it back when the process ends, however it ends.
"""

from __future__ import annotations

import itertools
import os
import socket

FIRST, LAST = 20_000, 31_999


class Ports:
    """Ports for one test; `close` gives them back."""

    def __init__(self) -> None:
        self._reservations: list[socket.socket] = []
        span = LAST - FIRST + 1
        start = (os.getpid() * 37) % span
        self._candidates = (FIRST + offset % span for offset in itertools.count(start))

    def take(self) -> int:
        """A TCP port of 127.0.0.1 on which nothing listens and that no other `Ports` holds."""
        for _ in range(LAST - FIRST + 1):
            port = next(self._candidates)
            reservation = _reserve(port)
            if reservation is None:
                continue
            if _is_free(port):
                self._reservations.append(reservation)
                return port
            reservation.close()
        raise OSError(f"no free port between {FIRST} and {LAST} on 127.0.0.1")

    def close(self) -> None:
        while self._reservations:
            self._reservations.pop().close()


def _reserve(port: int) -> socket.socket | None:
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        reservation.bind(f"\0patchstack-test-port-{port}")
    except OSError:
        reservation.close()
        return None
    return reservation


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
