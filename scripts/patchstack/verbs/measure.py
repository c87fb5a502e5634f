"""The tests that measure, on tonight's composition and on the last promoted tree in turns, and what follows.

They run when all guards have answered, one process at a time, so that both trees have the machine to themselves. Where
nothing is promoted yet, or tonight's tree is the promoted one, only tonight's is measured, and once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from patchstack.deadline import REASON, Deadline
from patchstack.errors import MachineError
from patchstack.model import (
    Composition,
    Deployed,
    GuardOutcome,
    GuardReport,
    GuardResult,
    Kind,
    Measures,
    Past,
    TreeRun,
)
from patchstack.patches.series import read_series
from patchstack.process import Stop
from patchstack.regress.bed import Bed
from patchstack.regress.crew import WROTE
from patchstack.regress.execute import Place, run_suite
from patchstack.regress.lane import within_bounds
from patchstack.regress.metrics import Measuring, Metric, measuring, read_metrics
from patchstack.regress.node import describe_node
from patchstack.regress.record import unanswered
from patchstack.regress.steps import Subject
from patchstack.regress.suites import BED_GUARDS, Suite
from patchstack.regress.trend import measures_of
from patchstack.store import Run
from patchstack.verbs.trees import lay_tree, restored
from patchstack.workplace import Workplace

LAST_PROMOTED = "last promoted"
ROUNDS = 2
"""How often each of two trees is measured, in turns; one tree alone is measured once."""
LIMIT_S = 600.0
LONGEST_WHY = 150


def judged_measures(
    work: Workplace, composition: Composition, report: GuardReport, past: Past | None
) -> Measures | None:
    """How each metric of ``composition`` ends; None where none is declared."""
    return measures_of(metrics_of(work, composition), report, past)


def metrics_of(work: Workplace, composition: Composition) -> tuple[Metric, ...]:
    """The metrics whose tests are the bed's, or guard a patch of ``composition``. Raises `ConfigError`."""
    metrics = read_metrics(work.root)
    if not metrics:
        return ()
    here = {topic.name for topic in composition.included if topic.kind is Kind.PATCH}
    guards = [path for patch in read_series(work.patches_folder) if patch.slug in here for path in patch.guards]
    folders = (BED_GUARDS, *guards)
    return tuple(metric for metric in metrics if any(_is_below(metric.file, folder) for folder in folders))


def _is_below(file: str, folder: str) -> bool:
    return file == folder or file.startswith(f"{folder.rstrip('/')}/")


def measured(
    work: Workplace,
    run: Run,
    composition: Composition,
    report: GuardReport,
    suites: Sequence[Suite],
    bed: Bed,
    composed: Subject,
    deadline: Deadline | None = None,
) -> GuardReport:
    """``report`` with the samples of every metric, and with the run on the last promoted tree."""
    plan = measuring(work.root, suites, metrics_of(work, composition))
    if not plan:
        return report
    peer, why_alone = _peer(work, run, composition, bed)
    if why_alone:
        work.progress(f"nothing is measured beside: {why_alone}")
    subjects = (composed, peer) if peer is not None else (composed,)
    heard: dict[Subject, list[GuardResult]] = {subject: [] for subject in subjects}
    with _stopped_at(deadline) as stop:
        for number in range(ROUNDS if peer is not None else 1):
            for subject in subjects:
                work.progress(f"measuring {subject.label} ({number + 1} of {ROUNDS if peer is not None else 1})")
                for part in plan:
                    heard[subject] += _measure(work, run, part, subject, number, stop, deadline)
    for subject in subjects:
        if restored(work, subject):
            wrote = (replace(said, outcome=GuardOutcome.CRASH, reason=WROTE, samples=()) for said in heard[subject])
            heard[subject] = list(wrote)
    runs = [_with(ran, join(heard[composed])) if ran.composed else ran for ran in report.runs]
    if peer is not None:
        runs.append(TreeRun(LAST_PROMOTED, False, peer.sha, join(heard[peer]), beside=True))
    return replace(report, runs=tuple(runs), node=describe_node(), why_alone=why_alone)


def _measure(
    work: Workplace,
    run: Run,
    part: Measuring,
    subject: Subject,
    number: int,
    stop: Stop,
    deadline: Deadline | None,
) -> tuple[GuardResult, ...]:
    if deadline is not None and deadline.over:
        return unanswered(part.suite, REASON)
    log = run.folder / "logs" / subject.label.replace(" ", "-") / f"measure-{part.suite.slug}-{number + 1}.log"
    results = run_suite(part.suite, subject.tree, work.root, log, LIMIT_S, stop, place=Place.COMPOSED)
    return within_bounds(part.suite, results)


def join(results: Sequence[GuardResult]) -> tuple[GuardResult, ...]:
    """What each test said in all rounds, as one result with all samples.

    One that passed and did not pass on one tree is flaky; else what it said first stands.
    """
    found: dict[tuple[str, str], GuardResult] = {}
    for said in results:
        key = (said.slug, said.test)
        before = found.get(key)
        if before is None:
            found[key] = said
        elif before.outcome is said.outcome:
            found[key] = replace(before, samples=(*before.samples, *said.samples))
        else:
            other = before if before.outcome is not GuardOutcome.PASS else said
            passed = GuardOutcome.PASS in (before.outcome, said.outcome)
            ran = GuardOutcome.MISSING not in (before.outcome, said.outcome)
            found[key] = replace(other, outcome=GuardOutcome.FLAKY) if passed and ran else other
    return tuple(found.values())


def _with(ran: TreeRun, measures: Sequence[GuardResult]) -> TreeRun:
    """The composed tree's run with what was measured on it: a guard's own answer stays, with those samples alone."""
    found = {(said.slug, said.test): said for said in measures}
    results = [_joined(said, found.pop((said.slug, said.test), None)) for said in ran.results]
    return replace(ran, results=(*results, *found.values()))


def _joined(said: GuardResult, again: GuardResult | None) -> GuardResult:
    """One that was not green keeps its answer, whatever it says when nothing else runs beside it."""
    if again is None or said.outcome is not GuardOutcome.PASS:
        return said
    (joined,) = join([replace(said, samples=()), again])
    return joined


def _peer(work: Workplace, run: Run, composition: Composition, bed: Bed) -> tuple[Subject | None, str]:
    """The last promoted tree on disk; None where there is none, it is tonight's, or it cannot be had, and then why."""
    deployed = peer_of(run.read(Past) if run.has(Past) else None, composition)
    if deployed is None:
        return None, ""
    if not work.store().has(f"{deployed.tree}^{{tree}}"):
        return None, f"the last promoted tree {deployed.tree[:12]} is not at hand"
    try:
        laid = lay_tree(work, deployed.tree, bed)
    except MachineError as error:  # tonight's own tree is tested already, and its numbers have the band
        why = " ".join(str(error).split())[:LONGEST_WHY]
        return None, f"the last promoted tree {deployed.tree[:12]} cannot be laid: {why}"
    return Subject(LAST_PROMOTED, False, deployed.tree, laid), ""


def peer_of(past: Past | None, composition: Composition) -> Deployed | None:
    """What tonight's numbers are compared with: another tree on the same base, for one bed fits both."""
    deployed = past.deployed if past else None
    if deployed is None or deployed.tree == composition.tree or deployed.base_commit != composition.base.commit:
        return None
    return deployed


@contextmanager
def _stopped_at(deadline: Deadline | None) -> Iterator[Stop]:
    """A stop that is pulled at the deadline."""
    stop = Stop()
    timer = threading.Timer(deadline.left_s(), stop.pull, [REASON]) if deadline is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield stop
    except BaseException:
        stop.pull()
        raise
    finally:
        if timer is not None:
            timer.cancel()
