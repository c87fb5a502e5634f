"""A clock of SGLang's transfer threads that a test moves: their pauses cost no time, and can be read off.

Inside a side's process::

    clock = WorkerClock()
    clock.install()
    side.watched.on_call = clock.note_call        # what was slept before each call of the engine
    ...
    clock.calls_take_s = 2.5                      # the next calls that fail seem to have taken so long

`LaterClock` goes for all threads of the process, and jumps::

    LaterClock.of(side.kept).advance(30)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

WORKERS = ("(transfer_worker)", "ThreadPoolExecutor-")
"""What is in the names of the threads that transfer."""


class WorkerClock:
    """`time.sleep` and `time.monotonic` as transfer threads see them; all other threads keep the real ones.

    Their time stands still but for what they sleep and what their calls seem to take, so that what was slept
    does not depend on how busy the machine is.
    """

    def __init__(self) -> None:
        self.pauses_s: list[float] = []
        """Of each call of the engine, how long its thread slept since the call before."""
        self.calls_take_s = 0.0
        """How long a failing call seems to take."""
        self.on_pause: Callable[[], None] = lambda: None
        """Called on the transfer's thread when it goes to sleep."""
        self._monotonic, self._sleep = time.monotonic, time.sleep
        self._worker_time_s = time.monotonic()
        self._slept_s = 0.0
        self._lock = threading.Lock()

    def install(self) -> None:
        time.monotonic, time.sleep = self._now, self._pause

    def note_call(self, injected: bool) -> None:
        with self._lock:
            self.pauses_s.append(self._slept_s)
            self._slept_s = 0.0
            if injected:
                self._worker_time_s += self.calls_take_s

    def _now(self) -> float:
        return self._worker_time_s if _is_worker() else self._monotonic()

    def _pause(self, seconds: float) -> None:
        if not _is_worker():
            self._sleep(seconds)
            return
        self.on_pause()
        with self._lock:
            self._worker_time_s += seconds
            self._slept_s += seconds


class LaterClock:
    """`time.monotonic` of the whole process, put forward by a test. What threads wait for takes real time still."""

    def __init__(self) -> None:
        self._monotonic = time.monotonic
        self._ahead_s = 0.0
        time.monotonic = self._now

    @classmethod
    def of(cls, kept: list[object]) -> LaterClock:
        """The one that is kept there, or else a new one."""
        for thing in kept:
            if isinstance(thing, LaterClock):
                return thing
        kept.append(clock := cls())
        return clock

    def advance(self, seconds: float) -> None:
        self._ahead_s += seconds

    def _now(self) -> float:
        return self._monotonic() + self._ahead_s


def _is_worker() -> bool:
    name = threading.current_thread().name
    return any(part in name for part in WORKERS)
