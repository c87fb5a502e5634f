"""A clock that a test can set forward, for the deadlines of the code under test."""

from __future__ import annotations

import time


class MovableClock:
    """`time.time` and `time.monotonic` of this process, plus what they were moved.

    Install it before SGLang is imported, so that it does not matter how a module gets at them. Time-outs of
    locks, sockets and the standard library, which have their own way to the clock, go on as before.
    """

    def __init__(self) -> None:
        self._moved_s = 0.0

    def install(self) -> None:
        """Take the place of the two functions. There is no way back."""
        real_time, real_monotonic = time.time, time.monotonic
        time.time = lambda: real_time() + self._moved_s
        time.monotonic = lambda: real_monotonic() + self._moved_s

    def move(self, by_s: float) -> None:
        """Set both forward."""
        self._moved_s += by_s
