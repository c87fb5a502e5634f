"""CPU and wall time of a piece of work, with all the processes that it started and waited for."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class Cost:
    cpu_s: float
    """User and system time of this process and of every child that has ended."""
    wall_s: float


@dataclass(frozen=True)
class Series:
    """One way of doing a thing, done several times."""

    label: str
    samples: tuple[Cost, ...]

    @property
    def cpu_s(self) -> float:
        """The median: one sample that a busy machine spoiled does not count."""
        return statistics.median(sample.cpu_s for sample in self.samples)

    @property
    def wall_s(self) -> float:
        return statistics.median(sample.wall_s for sample in self.samples)


@dataclass(frozen=True)
class Measurement:
    """Ours beside something known, and whether both came to the same."""

    name: str
    ours: Series
    beside: Series
    compared: str
    """What was compared, in words."""
    equal: bool

    @property
    def cpu_ratio(self) -> float:
        """Ours by the other; above 1, ours is the slower one."""
        return self.ours.cpu_s / self.beside.cpu_s

    @property
    def wall_ratio(self) -> float:
        return self.ours.wall_s / self.beside.wall_s


@dataclass(frozen=True)
class Patience:
    """How often a thing is done: at least once, at most ``repeats`` times, and not again once the time is up."""

    repeats: int
    ends_at: float
    """On `time.monotonic`'s clock."""

    def may_repeat(self, done: int) -> bool:
        return done == 0 or (done < self.repeats and time.monotonic() < self.ends_at)


def measured(work: Callable[Arguments, Result], *args: Arguments.args, **more: Arguments.kwargs) -> tuple[Result, Cost]:
    """Call ``work`` once: what it returned, and what that took."""
    cpu, wall = _cpu_s(), time.perf_counter()
    result = work(*args, **more)
    return result, Cost(_cpu_s() - cpu, time.perf_counter() - wall)


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
