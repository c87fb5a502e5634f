"""The `cpu` lane: the guards on the composed tree, and each patch's on its ground to see them fail there.

On the composed tree every guard runs every time. On a ground an answer is kept by key; each day a seventh of
the kept answers is due and made again, so that within a week all of them have been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from pathlib import Path

from patchstack.model import GuardOutcome, GuardReport, GuardResult, Scenario, Sha, TreeRun
from patchstack.regress.execute import Tree, run_suite
from patchstack.regress.kept import keep, proof_key, read_kept
from patchstack.regress.prove import prove
from patchstack.regress.suites import BED_SUITE, Suite

SUITE_LIMIT_S = 1800.0
"""The child that runs one patch's guards is ended after this; each test has its own, shorter limit."""

DAYS_TO_SEE_ALL = 7
LONGEST_NAME = 120
"""Of a folder of logs, in characters."""

_WROTE = "these guards wrote into the tree under test"


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


def run_lane(
    lane: str,
    steps: Sequence[Step],
    keeping: Keeping,
    *,
    root: Path,
    logs: Path,
    progress: Callable[[str], None],
    restore: Callable[[Subject], bool],
    not_run: tuple[Scenario, ...] = (),
) -> GuardReport:
    """Run what is not kept, keep what is an answer, and judge each patch by the two trees.

    ``restore`` compares a subject's tree with git's and writes it again if it differs, and says whether it did:
    what guards say while they write into the tree under test is no answer, and the next ones get it clean.
    """
    runs: dict[Subject, list[GuardResult]] = {}
    ran: set[Subject] = set()
    for number, step in enumerate(steps, start=1):
        subject, results = step.subject, step.kept
        if results is None:
            progress(f"guards of {step.suite.slug} on {subject.label} ({number} of {len(steps)})")
            results = run_suite(step.suite, subject.tree, root, logs / _folder_name(subject), SUITE_LIMIT_S)
            if restore(subject):
                results = tuple(replace(said, outcome=GuardOutcome.CRASH, reason=_WROTE) for said in results)
            keep(keeping.folder, step.key, keeping.today, results)
            ran.add(subject)
        runs.setdefault(subject, []).extend(results)
    trees = tuple(
        TreeRun(subject.label, subject.composed, subject.sha, tuple(found), subject not in ran)
        for subject, found in runs.items()
    )
    on_ground = {step.suite.slug: step.subject.label for step in steps if not step.subject.composed}
    patches = [step.suite.slug for step in steps if step.subject.composed]
    return GuardReport(lane, keeping.bed_key, trees, prove({slug: on_ground[slug] for slug in patches}, trees), not_run)


def _folder_name(subject: Subject) -> str:
    """``composed``, ``base+zmq-locked-sends``; a long one is cut, and told from others by its tree."""
    name = subject.label.replace(" + ", "+").replace(", ", ",").replace(" ", "-")
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{subject.sha[:7]}"
