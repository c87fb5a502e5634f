"""What runs and what is kept: each suite on the composed tree, and on its ground to see it fail there.

On the composed tree every guard runs every time. On a ground an answer is kept by key; each day a seventh of
the kept answers is due and made again, so that within a week all of them have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path

from patchstack.model import GuardResult, Sha
from patchstack.regress.execute import Tree
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


def decide_steps(
    composed: Subject, grounds: Mapping[str, Subject], suites: Sequence[Suite], keeping: Keeping
) -> tuple[Step, ...]:
    """What runs and what is kept: every suite but the bed's on the composed tree, and each on its own ground.

    ``grounds`` maps a suite's slug to its ground; the bed's own controls look at the plain base only.
    """
    pairs = [(composed, suite) for suite in suites if suite.slug != BED_SUITE]
    for label in dict.fromkeys(grounds[suite.slug].label for suite in suites):
        pairs += [(grounds[suite.slug], suite) for suite in suites if grounds[suite.slug].label == label]
    steps = []
    for subject, suite in pairs:
        key = proof_key(subject.sha, keeping.natives, suite, keeping.bed_key, keeping.tool)
        steps.append(Step(subject, suite, key, None if subject.composed else _answer(key, keeping)))
    return tuple(steps)


def _answer(key: str, keeping: Keeping) -> tuple[GuardResult, ...] | None:
    """The kept answer, unless it is to be made again."""
    kept = read_kept(keeping.folder, key)
    if kept is None or keeping.rerun is Rerun.ALL:
        return None
    is_old = kept.made_on != keeping.today.isoformat()
    return None if keeping.rerun is Rerun.DUE and is_old and is_due(key, keeping.today) else kept.results
