"""What one worker runs at a time: a suite, or one file of a suite that takes long; the longest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from patchstack.regress.durations import Durations
from patchstack.regress.steps import Step
from patchstack.regress.suites import Suite

SPLIT_ABOVE_S = 60.0
"""A suite that is known to take less is not worth the time in which each further process imports SGLang."""


@dataclass(frozen=True)
class Part:
    """A part of a step: its suite with some of its files, or all of them."""

    step: Step
    suite: Suite
    place: int
    """Among the parts of its step, from 0."""
    name: str
    """``zmq-locked-sends``, or ``zmq-locked-sends/test_two_threads``; no other part of the step has it."""
    expected_s: float | None
    """What its tests took the last time; None where that is not known."""


def decide_parts(
    steps: Sequence[Step], workers: int, known: Durations, files_of: Callable[[Suite], Sequence[str]]
) -> tuple[Part, ...]:
    """The parts of every step that is not kept, in the order in which they begin.

    With several workers a long suite, and one of which nothing is known, goes file by file. What nothing is
    known of begins first: it may be the longest. Mutants come last: their guards are few and quick, and their
    trees take over what was compiled for others.
    """
    parts: list[Part] = []
    for step in steps:
        if step.kept is None:
            parts += _parts_of(step, workers, known, files_of(step.suite))
    return tuple(sorted(parts, key=_turn))


def _turn(part: Part) -> tuple[bool, float]:
    expected_s = float("inf") if part.expected_s is None else part.expected_s
    return bool(part.step.subject.mutant), -expected_s


def _parts_of(step: Step, workers: int, known: Durations, files: Sequence[str]) -> list[Part]:
    mutant = step.subject.mutant
    if mutant:
        return [Part(step, step.suite, 0, step.suite.slug, known.mutants_s.get(mutant))]
    took = [known.of(file, composed=step.subject.composed) for file in files]
    total = _sum(took)
    if workers == 1 or len(files) < 2 or (total is not None and total < SPLIT_ABOVE_S):
        return [Part(step, step.suite, 0, step.suite.slug, total)]
    return [
        Part(step, replace(step.suite, paths=(file,)), place, f"{step.suite.slug}/{_short(file, files)}", expected)
        for place, (file, expected) in enumerate(zip(files, took, strict=True))
    ]


def _short(file: str, among: Sequence[str]) -> str:
    """The file's name without its ending, with the folders before it if another file has that name too."""
    path = PurePosixPath(file)
    alone = [PurePosixPath(other).name for other in among].count(path.name) == 1
    return path.stem if alone else path.with_suffix("").as_posix()


def _sum(seconds: Sequence[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None
