"""CPU and wall time of a piece of work, with all the processes that it started and waited for."""

from __future__ import annotations

import math
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

LEAST_PAIRS = 6
"""Of fewer values the median may lie outside of all of them more often than once in twenty times."""

Interval = tuple[float, float, float]
"""Lower end, median, upper end."""

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

    @property
    def least_ratios(self) -> tuple[float, float]:
        """CPU and wall, the least sample of each side: what is left when others disturb the least."""
        return (
            min(s.cpu_s for s in self.ours.samples) / min(s.cpu_s for s in self.beside.samples),
            min(s.wall_s for s in self.ours.samples) / min(s.wall_s for s in self.beside.samples),
        )

    @property
    def ratio_intervals(self) -> tuple[Interval, Interval] | None:
        """CPU and wall: the median of the ratios of neighbours, and between what it lies with 95 % confidence.

        Neighbours are samples that were taken in turns. None for too few of them.
        """
        count = len(self.ours.samples)
        if count != len(self.beside.samples) or count < LEAST_PAIRS:
            return None
        pairs = list(zip(self.ours.samples, self.beside.samples, strict=True))
        return (
            _of_median([ours.cpu_s / beside.cpu_s for ours, beside in pairs]),
            _of_median([ours.wall_s / beside.wall_s for ours, beside in pairs]),
        )


def _of_median(values: Sequence[float]) -> Interval:
    """By the ranks of the values alone: nothing is assumed of how they are distributed."""
    ordered = sorted(values)
    outside = max(0, math.floor(len(ordered) / 2 - 0.98 * math.sqrt(len(ordered))))
    return ordered[outside], statistics.median(ordered), ordered[-1 - outside]


@dataclass(frozen=True)
class Tally:
    """Something counted on two sides: no time, and so the same on every machine."""

    name: str
    unit: str
    ours: int
    beside: int
    compared: str
    """What our count must be, in words."""
    equal: bool


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
