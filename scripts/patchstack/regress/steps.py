"""What runs and what is kept: each suite on the composed tree, and where it must fail: its ground, its mutants.

On a night's composed tree every guard runs every time. Elsewhere an answer is kept by key; each day a seventh
of the kept answers is due and made again, so that within a week all of them have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path

from patchstack.model import GuardOutcome, GuardResult, Sha
from patchstack.regress.execute import Place, Tree
from patchstack.regress.kept import proof_key, read_kept
from patchstack.regress.suites import BED_SUITE, Suite

DAYS_TO_SEE_ALL = 7


class Rerun(StrEnum):
    """Which kept answers are made again."""

    NONE = "none"
    DUE = "due"
    ALL = "all"


@dataclass(frozen=True)
class Subject:
    """A tree under test, as `TreeRun` names it."""

    label: str
    composed: bool
    sha: Sha
    tree: Tree
    mutant: str = ""
    """``<slug>/<name>`` of the mutant that is on it."""

    @property
    def place(self) -> Place:
        return Place.MUTANT if self.mutant else Place.COMPOSED if self.composed else Place.GROUND

    @property
    def mutant_name(self) -> str:
        """As guards name it."""
        return self.mutant.rpartition("/")[2]


@dataclass(frozen=True)
class Keeping:
    """Where answers are kept, and what besides tree and guard their key is made of."""

    folder: Path
    bed_key: str
    natives: str
    tool: str
    rerun: Rerun
    today: date


@dataclass(frozen=True)
class Step:
    """One suite on one tree: its answer is kept, or it runs."""

    subject: Subject
    suite: Suite
    key: str
    kept: tuple[GuardResult, ...] | None


def is_due(key: str, today: date) -> bool:
    """Whether a kept answer belongs to today's share."""
    return int(key[:8], 16) % DAYS_TO_SEE_ALL == today.toordinal() % DAYS_TO_SEE_ALL


@dataclass(frozen=True)
class Trial:
    """The guards that say something on one tree where they must fail."""

    subject: Subject
    suite: Suite


def decide_steps(
    composed: Subject, suites: Sequence[Suite], trials: Sequence[Trial], keeping: Keeping, *, night: bool = True
) -> tuple[Step, ...]:
    """What runs and what is kept: every suite but the bed's on the composed tree, and every trial.

    ``night``: whatever is kept, the composed tree is asked again.
    """
    pairs = [Trial(composed, suite) for suite in suites if suite.slug != BED_SUITE]
    steps = []
    for pair in (*pairs, *trials):
        key = key_of(pair, keeping)
        again = night and pair.subject.composed
        kept = None if again else _answer(key, keeping)
        steps.append(Step(pair.subject, pair.suite, key, kept if kept and _is_as_meant(pair, kept) else None))
    return tuple(steps)


def key_of(trial: Trial, keeping: Keeping) -> str:
    """Under what the answer of ``trial`` is kept."""
    subject = trial.subject
    which = f"{subject.place} {subject.mutant_name}".rstrip()
    return proof_key(subject.sha, keeping.natives, trial.suite, which, keeping.bed_key, keeping.tool)


def _is_as_meant(trial: Trial, results: Sequence[GuardResult]) -> bool:
    """Whether guards that are meant to fail there did. One that passed leaves its patch unproven.

    A machine under load can be the reason: a race that the patch cures is lost on some moments only. So such an answer
    is asked for again each time, and none of them stays true for a week.
    """
    meant_to_fail = not trial.subject.composed and trial.suite.slug != BED_SUITE
    return not meant_to_fail or all(said.control or said.outcome is GuardOutcome.FAIL for said in results)


def _answer(key: str, keeping: Keeping) -> tuple[GuardResult, ...] | None:
    """The kept answer, unless it is to be made again."""
    kept = read_kept(keeping.folder, key)
    if kept is None or keeping.rerun is Rerun.ALL:
        return None
    is_old = kept.made_on != keeping.today.isoformat()
    return None if keeping.rerun is Rerun.DUE and is_old and is_due(key, keeping.today) else kept.results
