"""`patchstack test`: the guards on the composed tree and on what their patch stands on, and the verdicts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack import __version__
from patchstack.deadline import Deadline
from patchstack.errors import GateFailed, Incomplete
from patchstack.model import Base, Composition, GuardReport, ImageResult, ImageTests, LaneRuns, Past, Status, Verdicts
from patchstack.regress.bed import Bed
from patchstack.regress.declared import CPU, Declared
from patchstack.regress.gate import judge
from patchstack.regress.ground import Ground
from patchstack.regress.junit import junit_xml
from patchstack.regress.lane import run_lane
from patchstack.regress.shards import Part
from patchstack.regress.steps import Keeping, Rerun, Subject, Trial, decide_steps
from patchstack.regress.suites import BED_SUITE, files_of
from patchstack.store import Run, now_utc, write_whole
from patchstack.verbs.history import past_of
from patchstack.verbs.measure import judged_measures, measured
from patchstack.verbs.quarantine import lenience_now, with_quarantine
from patchstack.verbs.selection import Selection, grounds_of, select, within
from patchstack.verbs.shards import answered, shard_of, with_absent
from patchstack.verbs.trees import MutantTrees, forget_old_trees, lay_tree, open_bed, restored, sweep_mutants
from patchstack.workplace import Workplace

NIGHTLY = "nightly"
MOST_JOBS = 4
JUNIT = "junit.xml"


@dataclass(frozen=True)
class Listing:
    """What would run, and what is known of it beforehand."""

    lines: list[str]
    tests: list[Declared]
    """Also those that no lane here runs."""


def selected(
    work: Workplace, run: Run, composition: Composition, only: Sequence[str], shard: Part | None = None
) -> Listing:
    """What `test --dry-run` prints: each suite, and the trees that it would run on."""
    selection = select(work, composition, only)
    if shard is not None:
        selection = within(selection, work.root, shard_of(work, run, selection, shard).files)
    runs = [
        f"{suite.slug}: {', '.join(suite.paths)}, on {selection.grounds[suite.slug].label}"
        + ("" if suite.slug == BED_SUITE else f" and {selection.label}")
        for suite in selection.suites
    ]
    runs += [f"{trial.slug}: {', '.join(trial.suite.paths)}, on mutant {trial.name}" for trial in selection.on_mutants]
    runs += [f"{scenario.test}: not here, it needs {scenario.lane}" for scenario in selection.not_run]
    files = {file for suite in selection.suites for file in files_of(work.root, suite)}
    named = {scenario.test for scenario in selection.not_run}
    return Listing(runs, [test for test in selection.declared if test.file in files or test.test in named])


def run_guards(
    work: Workplace,
    run: Run,
    composition: Composition,
    *,
    only: Sequence[str] = (),
    rerun: str = Rerun.DUE.value,
    jobs: int | None = None,
    deadline: Deadline | None = None,
    shard: Part | None = None,
) -> GuardReport:
    """Run the guards, ``jobs`` suites at a time; the report says for each what it did on either tree.

    What has no answer at the ``deadline`` is missing; so is what another ``shard`` is to run. Raises `Incomplete` when
    the deadline is over before any begins.
    """
    if deadline is not None and deadline.over:
        raise Incomplete(f"the night's deadline of {deadline.minutes:g} min was over before any guard began")
    sweep_mutants(work)
    whole = selection = select(work, composition, only)
    mine = shard_of(work, run, whole, shard) if shard is not None else None
    if mine is not None:
        selection = within(whole, work.root, mine.files)
    bed = open_bed(work, composition.base)
    composed = Subject(selection.label, True, composition.tree, lay_tree(work, composition.tree, bed))
    grounds = _lay_grounds(work, selection, bed)
    forget_old_trees(work.cache / "trees", keep={subject.tree.folder for subject in (composed, *grounds.values())})
    report = run_trials(
        work,
        run,
        composition.base,
        bed,
        composed,
        grounds,
        selection,
        rerun=rerun,
        jobs=jobs,
        deadline=deadline,
    )
    if not only:  # some of the guards are no night, and what they cost is nobody's question
        report = measured(work, run, composition, report, selection.suites, bed, composed, deadline)
    if mine is not None:
        report = replace(with_absent(work, report, whole, composition.tree, [mine]), shard=mine)
    report = with_quarantine(work, report, whole)
    write_report(run, report)
    return report


def write_report(run: Run, report: GuardReport) -> None:
    """Keep what the guards said, for the stages after this one and for readers of JUnit XML."""
    run.write(report)
    write_junit(run)


def write_junit(run: Run) -> None:
    """All that the guards of a run said, and its other lanes where these were asked; for whoever adds to either."""
    lanes = run.read(LaneRuns) if run.has(LaneRuns) else None
    write_whole(run.folder / JUNIT, junit_xml(run.read(GuardReport), lanes))


def run_trials(
    work: Workplace,
    run: Run,
    base: Base,
    bed: Bed,
    composed: Subject,
    grounds: Mapping[str, Subject],
    selection: Selection,
    *,
    rerun: str,
    jobs: int | None,
    night: bool = True,
    deadline: Deadline | None = None,
) -> GuardReport:
    """Run the suites of ``selection`` on ``composed`` and where they must fail, and judge their patches."""
    mutants = MutantTrees(work, run, bed, grounds)
    keeping = Keeping(
        folder=work.cache / "answers",
        bed_key=bed.key,
        natives=" ".join(native.sha256 for native in base.natives),
        tool=tool_key(),
        rerun=Rerun(rerun),
        today=now_utc().date(),
    )
    trials = [
        *(Trial(grounds[suite.slug], suite) for suite in selection.on_grounds),
        *(Trial(mutants.subject(trial.slug, trial.mutant, trial.tree), trial.suite) for trial in selection.on_mutants),
    ]
    try:
        report = run_lane(
            CPU,
            decide_steps(composed, selection.suites, trials, keeping, night=night),
            selection.claims,
            keeping,
            root=work.root,
            logs=run.folder / "logs",
            workers=jobs or default_jobs(),
            progress=work.progress,
            restore=lambda subject: restored(work, subject),
            lay=mutants.lay,
            drop=mutants.drop,
            not_run=selection.not_run,
            deadline=deadline,
            retries=work.config.tests.retries,
        )
    finally:
        sweep_mutants(work)
    return answered(work, report, selection, composed.sha)


def default_jobs() -> int:
    """One more than this process has cores, for guards wait half of their time; not more than four, for the memory."""
    return min(len(os.sched_getaffinity(0)) + 1, MOST_JOBS)


def verdicts_on(
    work: Workplace,
    composition: Composition,
    report: GuardReport,
    image: ImageResult | None = None,
    image_tests: ImageTests | None = None,
    past: Past | None = None,
    lanes: LaneRuns | None = None,
) -> Verdicts:
    """What ``report``, what was seen of the image, and ``lanes`` say of ``composition`` for each of its channels.

    ``past`` is what its numbers are held against.
    """
    needs = {name: channel.needs for name, channel in work.config.channels.items()}
    runtime = work.lane.image.runtime if work.lane.image else ""
    measures = judged_measures(work, composition, report, past)
    grounds = grounds_of(work.store(), composition)
    lenience = lenience_now(work)
    return judge(needs, composition, grounds, report, image, image_tests, runtime, measures, lenience, lanes)


def image_said(run: Run) -> tuple[ImageResult | None, ImageTests | None]:
    """What became of the run's image, and what was seen inside it; None for what nobody has tried."""
    return (
        run.read(ImageResult) if run.has(ImageResult) else None,
        run.read(ImageTests) if run.has(ImageTests) else None,
    )


def lanes_said(run: Run) -> LaneRuns | None:
    """What other lanes than `cpu` said in this run, of whatever composition; None where none was asked."""
    return run.read(LaneRuns) if run.has(LaneRuns) else None


def gate(work: Workplace, run: Run, composition: Composition, report: GuardReport) -> Verdicts:
    """The verdict for each channel of deploy.yaml, written into ``run``."""
    verdicts = verdicts_on(work, composition, report, *image_said(run), past_of(run), lanes_said(run))
    run.write(verdicts)
    return verdicts


def raise_for(verdicts: Verdicts, run_id: str) -> None:
    """`GateFailed` or `Incomplete` unless the channel `nightly` passed."""
    for verdict in verdicts.verdicts:
        if verdict.channel == NIGHTLY and verdict.status is not Status.PASS:
            kind = GateFailed if verdict.status is Status.FAIL else Incomplete
            why = "\n".join(f"  {reason}" for reason in verdict.reasons)
            raise kind(f"channel {NIGHTLY} is {verdict.status.value} in run {run_id}:\n{why}")


def _lay_grounds(work: Workplace, selection: Selection, bed: Bed) -> dict[str, Subject]:
    """The ground of each suite, laid once for all that stand on it."""
    laid: dict[Ground, Subject] = {}
    for suite in selection.suites:
        ground = selection.grounds[suite.slug]
        if ground not in laid:
            laid[ground] = Subject(ground.label, False, ground.tree, lay_tree(work, ground.tree, bed))
    return {suite.slug: laid[selection.grounds[suite.slug]] for suite in selection.suites}


def tool_key() -> str:
    """What of this tool decides what guards say."""
    return f"{__version__} {_runner_digest()}"


def _runner_digest() -> str:
    """The code that runs guards decides what they say: it is part of an answer's key."""
    from patchstack.regress import enclose, execute, record, unprivileged

    files = (execute.__file__, record.__file__, unprivileged.__file__, enclose.__file__)
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:16]
