"""Faults of a KV cache manager: which call of which kind is answered how, and how often that came to pass.

::

    fault = manager.inject("finishWriteCache", Kind.NO_ANSWER, at_call=1)
    ...
    assert fault.injected == 1          # a guard of a fault says that there was one

The strategies are those of the public manager's debug service: always, or once, at the nth call from now on.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HELD_LIMIT_S = 120.0
"""A held call goes on after this, whatever its test does."""

Edit = Callable[[dict[str, Any]], Any]
"""What is answered, made of what would have been; bytes go out as they are."""


class Kind(enum.StrEnum):
    INTERNAL_ERROR = "INTERNAL_ERROR"  # refused with this code, and not done
    HTTP_500 = "HTTP_500"  # not done
    RESET = "RESET"  # the connection is reset, and nothing done
    NO_ANSWER = "NO_ANSWER"  # done; then the connection is reset
    HELD = "HELD"  # done when the test lets it go on
    EDITED = "EDITED"  # done; something else is answered


@dataclass
class Fault:
    """One injected fault."""

    api: str
    kind: Kind
    at_call: int | None = None
    """Which call from now on, from 1; None for every call."""
    edit: Edit | None = None
    """For `Kind.EDITED`."""
    calls: int = 0
    injected: int = 0
    arrived: threading.Event = field(default_factory=threading.Event)
    """A call has met the fault."""
    _go_on: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let held calls go on, those to come too."""
        self._go_on.set()

    def wait_for_call(self, limit_s: float = 60.0) -> None:
        """Return when a call has met the fault. Raises TimeoutError."""
        if not self.arrived.wait(limit_s):
            raise TimeoutError(f"no call {self.api} came within {limit_s:.0f} s")

    def hold(self) -> None:
        """Block until released."""
        self._go_on.wait(HELD_LIMIT_S)


class Faults:
    """All faults of a manager. One at a time for each call of the API; a new one takes the place of the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: dict[str, Fault] = {}

    def inject(self, fault: Fault) -> Fault:
        with self._lock:
            before = self._faults.get(fault.api)
            self._faults[fault.api] = fault
        if before is not None:
            before.release()
        return fault

    def remove(self, api: str) -> None:
        with self._lock:
            fault = self._faults.pop(api, None)
        if fault is not None:
            fault.release()

    def clear(self) -> None:
        with self._lock:
            faults, self._faults = list(self._faults.values()), {}
        for fault in faults:
            fault.release()

    def meet(self, api: str) -> Fault | None:
        """The fault that a call which has just come in meets, if any."""
        with self._lock:
            fault = self._faults.get(api)
            if fault is None:
                return None
            fault.calls += 1
            if fault.at_call not in (None, fault.calls):
                return None
            fault.injected += 1
        fault.arrived.set()
        return fault
