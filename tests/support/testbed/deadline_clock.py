"""A clock that a test can set forward, for the deadlines of the code under test."""

from __future__ import annotations

import sys
import time


class MovableClock:
    """`time.time` and `time.monotonic` of this process's SGLang, plus what they were moved.

    Time-outs of locks, sockets and the standard library, which have their own way to the clock, go on as before.
    """

    def __init__(self) -> None:
        self._moved_s = 0.0

    def install(self) -> None:
        """Take the place of the two functions, also where SGLang's modules have them under names of their own."""
        real_time, real_monotonic = time.time, time.monotonic
        time.time = lambda: real_time() + self._moved_s
        time.monotonic = lambda: real_monotonic() + self._moved_s
        places = {id(real_time): time.time, id(real_monotonic): time.monotonic}
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "sglang":
                for attribute, value in list(vars(module).items()):
                    if id(value) in places:
                        setattr(module, attribute, places[id(value)])

    def move(self, by_s: float) -> None:
        """Set both forward."""
        self._moved_s += by_s
