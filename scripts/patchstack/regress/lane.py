"""The `cpu` lane: the guards on the composed tree, and on the plain base to see them fail there.

On the composed tree every guard runs every time. On the base an answer is kept by key; each day a seventh of
the kept answers is due and made again, so that within a week all of them have been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from pathlib import Path

from patchstack.model import GuardOutcome, GuardReport, GuardResult, Sha, TreeRun
from patchstack.regress.execute import Tree, run_suite
from patchstack.regress.kept import keep, proof_key, read_kept
from patchstack.regress.prove import prove
from patchstack.regress.suites import BED_SUITE, Suite

SUITE_LIMIT_S = 1800.0
"""The child that runs one patch's guards is ended after this; each test has its own, shorter limit."""

DAYS_TO_SEE_ALL = 7

_WROTE = "these guards wrote into the tree under test"


class Rerun(StrEnum):
    """Which kept answers are made again."""

    NONE = "none"
    DUE = "due"
    ALL = "all"


@dataclass(frozen=True)
class Subject:
    """A tree under test."""

    label: str
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


def decide_steps(composed: Subject, base: Subject, suites: Sequence[Suite], keeping: Keeping) -> tuple[Step, ...]:
    """What runs and what is kept. The bed's own controls look at the plain base only."""
    steps = []
    for subject in (composed, base):
        for suite in suites:
            if suite.slug == BED_SUITE and subject is composed:
                continue
            key = proof_key(subject.sha, keeping.natives, suite, keeping.bed_key, keeping.tool)
            steps.append(Step(subject, suite, key, None if subject is composed else _answer(key, keeping)))
    return tuple(steps)


def _answer(key: str, keeping: Keeping) -> tuple[GuardResult, ...] | None:
    """The kept answer, unless it is to be made again."""
    kept = read_kept(keeping.folder, key)
    if kept is None or keeping.rerun is Rerun.ALL:
        return None
    is_old = kept.made_on != keeping.today.isoformat()
    return None if keeping.rerun is Rerun.DUE and is_old and is_due(key, keeping.today) else kept.results


def run_lane(
    lane: str,
    steps: Sequence[Step],
    keeping: Keeping,
    *,
    root: Path,
    logs: Path,
    progress: Callable[[str], None],
    restore: Callable[[Subject], bool],
) -> GuardReport:
    """Run what is not kept, keep what is an answer, and judge each patch by the two trees.

    ``restore`` compares a subject's tree with git's and writes it again if it differs, and says whether it did:
    what guards say while they write into the tree under test is no answer, and the next ones get it clean.
    """
    runs: dict[str, list[GuardResult]] = {}
    shas: dict[str, Sha] = {}
    ran: set[str] = set()
    for number, step in enumerate(steps, start=1):
        label = step.subject.label
        shas[label] = step.subject.sha
        results = step.kept
        if results is None:
            progress(f"guards of {step.suite.slug} on {label} ({number} of {len(steps)})")
            results = run_suite(step.suite, step.subject.tree, root, logs / label.replace(" ", "-"), SUITE_LIMIT_S)
            if restore(step.subject):
                results = tuple(replace(said, outcome=GuardOutcome.CRASH, reason=_WROTE) for said in results)
            keep(keeping.folder, step.key, keeping.today, results)
            ran.add(label)
        runs.setdefault(label, []).extend(results)
    trees = tuple(TreeRun(label, shas[label], tuple(found), label not in ran) for label, found in runs.items())
    composed, base = trees[0], trees[-1]
    slugs = dict.fromkeys(step.suite.slug for step in steps if step.suite.slug != BED_SUITE)
    return GuardReport(lane, keeping.bed_key, trees, prove(slugs, composed, base))
