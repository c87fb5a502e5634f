"""How long the tests of each file took the last time: it decides what begins first, and no outcome.

One file in the cache, ``durations.json``. Other keys than those of the kept answers: a guard that was changed
takes about as long as before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from patchstack.errors import UsageError
from patchstack.model import GuardResult
from patchstack.store import decode, encode, write_whole

NAME = "durations.json"
LONGEST_S = 86_400.0
"""Of one test, for a candidate may say any number, and it would be kept."""


@dataclass(frozen=True)
class Durations:
    """Seconds by place and test file: a guard that fails may take much longer than one that passes."""

    composed_s: Mapping[str, float]
    ground_s: Mapping[str, float]
    mutants_s: Mapping[str, float] = field(default_factory=dict)
    """By mutant: on its tree only some tests of a file run."""

    def of(self, file: str, *, composed: bool) -> float | None:
        """What is known of ``file`` there, or else of the other place; None where it has never run."""
        here, there = (self.composed_s, self.ground_s) if composed else (self.ground_s, self.composed_s)
        return here.get(file, there.get(file))

    def after(self, results: Iterable[GuardResult], *, files: Collection[str], composed: bool) -> Durations:
        """With what ``results`` took that are of ``files``; of each of these all tests are among them."""
        took: dict[str, float] = {}
        for result in results:
            file = result.test.partition("::")[0]
            if file in files:
                took[file] = round(took.get(file, 0.0) + _seconds(result), 3)
        if composed:
            return replace(self, composed_s={**self.composed_s, **took})
        return replace(self, ground_s={**self.ground_s, **took})

    def after_mutant(self, mutant: str, results: Iterable[GuardResult]) -> Durations:
        """With what the guards took that were to kill it."""
        total = round(sum(map(_seconds, results)), 3)
        return replace(self, mutants_s={**self.mutants_s, mutant: total})


def _seconds(result: GuardResult) -> float:
    return min(max(result.duration_s, 0.0), LONGEST_S)


def read_durations(folder: Path) -> Durations:
    """What is known; nothing where the file is not there, or is damaged."""
    path = folder / NAME
    try:
        return decode(Durations, path.read_text(), str(path))
    except (FileNotFoundError, UsageError, UnicodeDecodeError):
        return Durations({}, {})


def write_durations(folder: Path, durations: Durations) -> None:
    write_whole(folder / NAME, encode(durations))
