"""When a night has to be over, on a clock that nobody sets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

REASON = "the night's deadline"
"""Why a guard has no answer."""


@dataclass(frozen=True)
class Deadline:
    minutes: float
    """What was asked for, from the night's begin on."""
    ends_s: float
    """On ``monotonic``'s clock."""
    monotonic: Callable[[], float] = time.monotonic

    @classmethod
    def after(
        cls, minutes: float, *, spent_s: float = 0.0, monotonic: Callable[[], float] = time.monotonic
    ) -> Deadline:
        """``minutes`` from now, less what was spent already, on another machine perhaps."""
        return cls(minutes, monotonic() + minutes * 60 - spent_s, monotonic)

    def left_s(self) -> float:
        """Seconds until then; 0 once it is over."""
        return max(0.0, self.ends_s - self.monotonic())

    @property
    def over(self) -> bool:
        return self.left_s() == 0.0
