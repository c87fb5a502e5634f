"""Probes of a red night: some guards on another tree, which is composed in git alone, laid beside the others, asked and
forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.version import InvalidVersion, Version

from patchstack.compose.without import Against, in_part
from patchstack.culprits import Ask, Blame, Probe, Target
from patchstack.deadline import REASON, Deadline
from patchstack.errors import MachineError, PatchstackError
from patchstack.model import Composition, GuardOutcome, GuardResult, LedgerLine, Measures, Sha
from patchstack.regress.bed import Bed
from patchstack.regress.lane import run_lane
from patchstack.regress.question import Answer, End, Wanted
from patchstack.regress.steps import Keeping, Rerun, Subject, decide_steps
from patchstack.regress.suites import Suite
from patchstack.regress.trend import told_by_numbers
from patchstack.store import Run, now_utc
from patchstack.verbs.measure import metrics_of
from patchstack.verbs.test import default_jobs
from patchstack.verbs.trees import forget_old_trees, lay_tree, leave_tree, open_bed, restored
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class Asking:
    """What a red night asks with."""

    work: Workplace
    run: Run
    composition: Composition
    last: LedgerLine | None
    """What is deployed."""
    before: Blame | None = None
    """What was found out about what was composed before, in this same night."""
    jobs: int | None = None
    deadline: Deadline | None = None
    measures: Measures | None = None
    """Tonight's numbers: what a guard measures on another tree is held against the same."""


@dataclass
class Prober:
    """Asks trees; each is laid, heard and left."""

    asking: Asking
    tonight: Against
    suites: Mapping[str, tuple[Suite, ...]]
    scratch: Path
    _bed: Bed | None = None
    _bed_then: Bed | None = None

    def can_ask_last(self) -> bool:
        """Whether the last promoted tree is at hand, with the bed and the compiled parts of its release."""
        last, work = self.asking.last, self.asking.work
        if last is None or not work.store().has(f"{last.tree}^{{tree}}"):
            return False
        if not self.tonight.base_changed:
            return True
        try:
            self._bed_then = self._bed_of_then(last)
            lay_tree(work, last.tree, self._bed_then, release=_release_of(last))
        except PatchstackError as error:
            work.progress(f"the last promoted tree is of {last.base} and cannot be asked here: {error}")
            return False
        return True

    def _bed_of_then(self, last: LedgerLine) -> Bed:
        release = _release_of(last)
        made = self.asking.composition.base
        version = release.rpartition("==")[2] if release else made.version
        return open_bed(self.asking.work, replace(made, name=last.base, version=version))

    def ask(self, wanted: Wanted, number: int) -> tuple[Probe, Answer] | None:
        """One probe; None where the deadline came before its end."""
        begin = time.monotonic()
        said = told(wanted.target)
        self.asking.work.progress(f"probe {number}: {len(wanted.tests)} guards on {said}: {wanted.why}")
        tree = self._tree(wanted.target)
        runs: tuple[tuple[str, GuardOutcome], ...] = ()
        if tree is not None:
            try:
                heard = self._heard(wanted, number, tree)
            except (MachineError, OSError) as error:  # nothing was heard: it is asked once more
                self.asking.work.progress(f"probe {number} came to nothing: {error}")
                silence = tuple((test, GuardOutcome.MISSING) for test in wanted.tests)
                heard = silence * wanted.times
            if heard is None:
                return None
            runs = heard
        seconds = round(time.monotonic() - begin, 3)
        probe = Probe(number, said, tuple(sorted(wanted.target.without)), tree, runs, seconds, wanted.why)
        self.asking.work.progress(f"probe {number}: {_summary(runs) if tree else End.DOES_NOT_COMPOSE.value}")
        return probe, answer_of(wanted, probe)

    def _tree(self, target: Target) -> Sha | None:
        return tree_of(self.asking, self.tonight, target)

    def _heard(self, wanted: Wanted, number: int, tree: Sha) -> tuple[tuple[str, GuardOutcome], ...] | None:
        work, asking = self.asking.work, self.asking
        last = asking.last if wanted.target.ask is Ask.LAST and self.tonight.base_changed else None
        release = _release_of(last) if last else None
        if last is not None:
            bed = self._bed_then or self._bed_of_then(last)
        else:
            bed = self._bed = self._bed or open_bed(work, asking.composition.base)
        laid = lay_tree(work, tree, bed, release=release)
        subject = Subject(told(wanted.target), True, tree, laid)
        files = {file_of(test) for test in wanted.tests}
        suites = list(self._suites(files))
        keeping = Keeping(self.scratch / f"{number}", bed.key, "", "", Rerun.ALL, now_utc().date())
        workers = min(asking.jobs or default_jobs(), len(suites))
        found: list[tuple[str, GuardOutcome]] = []
        try:
            for again in range(wanted.times):
                report = run_lane(
                    "cpu",
                    decide_steps(subject, suites, (), keeping),
                    {},
                    keeping,
                    root=work.root,
                    logs=asking.run.folder / "logs" / f"probe-{number}-{again + 1}",
                    workers=workers,
                    progress=lambda _: None,
                    restore=lambda one: restored(work, one, release=release),
                    deadline=asking.deadline,
                )
                results = [said for run in report.runs for said in run.results]
                if any(said.reason == REASON for said in results):
                    return None
                judged = told_by_numbers(metrics_of(work, asking.composition), asking.measures, results)
                found += [(test, outcome_of(test, judged)) for test in wanted.tests]
        finally:
            if tree != asking.composition.tree:
                leave_tree(laid.folder)
                forget_old_trees(work.cache / "trees", keep=set())
        return tuple(found)

    def _suites(self, files: set[str]) -> Iterator[Suite]:
        """One suite a file, of the first patch that it guards: what it says is the same for each."""
        by_slug: dict[str, list[str]] = {}
        suites: dict[str, Suite] = {}
        for file in sorted(files):
            suite = self.suites[file][0]
            by_slug.setdefault(suite.slug, []).append(file)
            suites[suite.slug] = suite
        yield from (replace(suites[slug], paths=tuple(paths)) for slug, paths in by_slug.items())


def _release_of(line: LedgerLine) -> str | None:
    """``sglang==X`` where the line's base is a release of the index."""
    name, found, version = line.base.partition("==")
    if not found or "/" in name:
        return None
    try:
        Version(version)
    except InvalidVersion:
        return None
    return line.base


def tree_of(asking: Asking, tonight: Against, target: Target) -> Sha | None:
    """The tree that ``target`` means; None where it does not compose."""
    if target.ask is Ask.LAST:
        return asking.last.tree if asking.last else None
    if not target.without:
        return tonight.composition.tree
    work = asking.work
    made = in_part(work.store(), tonight, target.without, protected=work.config.pulls.protected)
    return made.tree if made else None


def told(target: Target) -> str:
    """In words, as `Probe.target` has it."""
    if not target.without:
        return target.ask.value
    return f"{target.ask.value} without {', '.join(sorted(target.without))}"


def outcome_of(test: str, results: Sequence[GuardResult]) -> GuardOutcome:
    """What ``test`` said; of a whole file, which could not be collected on tonight's tree, what all of it said."""
    mine = [said.outcome for said in results if said.test == test]
    if not mine:
        file = file_of(test)
        whole = [said.outcome for said in results if said.test == file]
        below = [said.outcome for said in results if file_of(said.test) == file] if test == file else whole
        mine = below
    for outcome in (GuardOutcome.CRASH, GuardOutcome.TIMEOUT, GuardOutcome.FAIL, GuardOutcome.FLAKY):
        if outcome in mine:
            return outcome
    return GuardOutcome.PASS if mine and set(mine) == {GuardOutcome.PASS} else GuardOutcome.MISSING


def answer_of(wanted: Wanted, probe: Probe) -> Answer:
    """A probe as the planner hears it."""
    if probe.tree is None:
        return Answer(wanted.target, wanted.tests, (), End.DOES_NOT_COMPOSE)
    outcomes = tuple((test, tuple(said for name, said in probe.outcomes if name == test)) for test in wanted.tests)
    return Answer(wanted.target, wanted.tests, outcomes)


def _summary(runs: Sequence[tuple[str, GuardOutcome]]) -> str:
    counts: dict[str, int] = {}
    for _, outcome in runs:
        counts[outcome.value] = counts.get(outcome.value, 0) + 1
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def file_of(test: str) -> str:
    return test.partition("::")[0]
