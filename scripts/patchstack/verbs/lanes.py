"""`patchstack test --lane`, and a night's other lanes: their jobs given to an executor, their answers taken.

A job's folder is ``lanes/LANE/N`` of the run. What a lane said is in the run's ``lanes.json``, beside what others said
of the same composition.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack.config import TestLane
from patchstack.deadline import Deadline
from patchstack.errors import GateFailed, Incomplete, LaneUnavailable, PatchstackError, UsageError
from patchstack.git import without_secret
from patchstack.model import (
    Composition,
    Form,
    GuardOutcome,
    ImageResult,
    ImageTests,
    JobEnd,
    JobState,
    LaneAnswer,
    LaneJob,
    LaneRun,
    LaneRuns,
    LedgerLine,
    NightReport,
)
from patchstack.patches.series import read_series
from patchstack.regress.declared import CPU, Declared
from patchstack.regress.executor import ANSWER, JOB, Begin, Executor, Place
from patchstack.regress.gate import image_to_promote
from patchstack.regress.lane_jobs import NOT_ASKED, Asked, decide_jobs, due_on, joined, lane_run, patches_of
from patchstack.regress.lane_trend import lane_measures
from patchstack.regress.local import Local, gpus_here
from patchstack.regress.metrics import OF_SCENARIOS, read_metrics
from patchstack.regress.quarantine import excused
from patchstack.regress.slurm import Slurm
from patchstack.regress.steps import Rerun
from patchstack.regress.trend import said_to_gate
from patchstack.store import Run, decode, encode, write_whole
from patchstack.verbs.declared import declared_in
from patchstack.verbs.history import past_of
from patchstack.verbs.quarantine import quarantine_now
from patchstack.verbs.rehearsed import Rehearsals, rehearsals
from patchstack.verbs.selection import named
from patchstack.verbs.trees import lay_tree, open_bed
from patchstack.workplace import Workplace

FOLDER = "lanes"
MODELS = "PATCHSTACK_MODELS"
LOCAL, SLURM, GITHUB = "local", "slurm", "github"
NO_IMAGE = (
    "the run has no image of this composition that was looked into: `patchstack image`, then `patchstack image-check`, "
    "of this run; or --rehearse"
)
KEPT = "not run again: equal inputs passed on {}"
_ANSWER_BYTES = 32 << 20
_RED = {GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT}

_SEEN = (
    *("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME", "TMPDIR"),
    *("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "SSL_CERT_FILE"),
    *(
        "KVCM_MANAGER_URL",
        "KVCM_DEBUG_URL",
        "KVCM_INSTANCE_GROUP",
        "PATCHSTACK_NOW",
        "PATCHSTACK_JOBS",
        "PATCHSTACK_CONTAINERS",
    ),
)
"""What a job sees of our environment: no token, no password."""


@dataclass(frozen=True)
class Request:
    """Which lanes to run, and how."""

    lanes: tuple[str, ...]
    rehearse: bool = False
    executor: str | None = None
    """None: each lane's own, which cannot be GitHub's runners unless it is said."""
    only: tuple[str, ...] = ()
    """The patches, or groups of them, whose tests are asked for; none: all. What is not asked for is missing."""
    previous: LedgerLine | None = None
    """What is deployed, beside whose image tests measure."""
    rerun: Rerun = Rerun.ALL
    """Which rehearsals that passed before are made again."""


@dataclass(frozen=True)
class Planned:
    """One lane, as it would run."""

    lane: str
    executor: str
    form: Form
    due: tuple[Declared, ...]
    jobs: tuple[LaneJob, ...]
    why_not: str = ""
    """Why nothing of it can run."""


def planned(
    work: Workplace, run: Run, composition: Composition, request: Request, image: str | None = None
) -> tuple[Planned, ...]:
    """The jobs of each lane of ``request``, inside ``image``; that of the run where None is given.

    Raises `LaneUnavailable` for a lane that deploy.yaml does not have, `UsageError` for one that cannot be asked so.
    """
    series = read_series(work.patches_folder)
    declared = declared_in(work.root, work.config, series)
    image = image_of_run(run, composition) if image is None else image
    patches = patches_of(composition)
    chosen = named(request.only, [patch.slug for patch in series], patches) if request.only else []
    request = replace(request, only=tuple(chosen))
    return tuple(
        _planned(work, run, composition, request, name, due_on(declared, name, patches), image)
        for name in dict.fromkeys(request.lanes)
    )


def image_of_run(run: Run, composition: Composition) -> str:
    """``repository@digest`` of the run's image of ``composition``; empty where it has none that is in order."""
    result = run.read(ImageResult) if run.has(ImageResult) else None
    return image_in_order(composition, result, run.read(ImageTests) if run.has(ImageTests) else None)


def image_in_order(composition: Composition, result: ImageResult | None, tests: ImageTests | None) -> str:
    """``repository@digest`` of an image of ``composition`` on which nothing is open; empty where there is none."""
    image = image_to_promote(composition, result, tests)
    return f"{image.repository}@{image.digest}" if image else ""


def _planned(
    work: Workplace,
    run: Run,
    composition: Composition,
    request: Request,
    name: str,
    due: tuple[Declared, ...],
    image: str,
) -> Planned:
    lane = _lane(work, name)
    executor = _executor_of(name, lane, request)
    form = Form.REHEARSAL if request.rehearse else Form.DEVICE
    last = request.previous.image if request.previous else None
    asked = Asked(
        run=run.id,
        lane=name,
        composition=composition.commit,
        tree=composition.tree,
        form=form,
        gpus=lane.gpus,
        limit_s=lane.limit_min * 60.0,
        image=image if form is Form.DEVICE else "",
        last_promoted=f"{last.repository}@{last.digest}" if last and form is Form.DEVICE else "",
    )
    chosen = [test for test in due if not request.only or not set(test.guards).isdisjoint(request.only)]
    jobs = decide_jobs(asked, chosen, lane.shards)
    why_not = NO_IMAGE if form is Form.DEVICE and not image else "" if jobs else "no test of it is asked for"
    return Planned(name, executor, form, due, jobs, why_not if due else "no test is declared for it")


def _lane(work: Workplace, name: str) -> TestLane:
    lanes = work.config.tests.lanes
    if name not in lanes:
        raise LaneUnavailable(f"deploy.yaml has no test lane {name!r}; it has: {', '.join(lanes)}")
    if name == CPU:
        raise UsageError(f"lane {CPU} runs where the night runs: leave --lane out, and give no executor")
    return lanes[name]


def _executor_of(name: str, lane: TestLane, request: Request) -> str:
    chosen = request.executor or lane.executor
    if chosen in {LOCAL, SLURM} or request.executor == GITHUB:
        return str(chosen)
    if request.rehearse:
        return LOCAL
    by_workflow = "GitHub's runners are given its jobs by the workflow"
    why = by_workflow if chosen == GITHUB else "deploy.yaml says no `executor` of it"
    raise UsageError(f"lane {name}: {why}: say --executor {LOCAL} or {SLURM}, or --rehearse")


# --- running -------------------------------------------------------------------------------------------


def run_lanes(
    work: Workplace, run: Run, composition: Composition, request: Request, deadline: Deadline | None = None
) -> LaneRuns:
    """Run the lanes of ``request``, one after the other, and write what they and earlier ones said into ``run``.

    A job without an answer makes its tests missing. `MachineError` where an executor cannot be asked at all.
    """
    return write_lanes(
        work,
        run,
        composition,
        [
            _run(work, run, composition, one, deadline, request.rerun)
            for one in planned(work, run, composition, request)
        ],
    )


def write_lanes(work: Workplace, run: Run, composition: Composition, fresh: Sequence[LaneRun]) -> LaneRuns:
    """Put ``fresh`` into the run's lanes.json, beside what other lanes said of ``composition``."""
    before = run.read(LaneRuns) if run.has(LaneRuns) else None
    found = joined(before, composition.commit, fresh, list(work.config.tests.lanes))
    run.write(found)
    return found


def _run(
    work: Workplace,
    run: Run,
    composition: Composition,
    plan: Planned,
    deadline: Deadline | None,
    rerun: Rerun = Rerun.ALL,
) -> LaneRun:
    if plan.why_not:
        refused = tuple(JobEnd(job, JobState.REFUSED, plan.why_not, begun=0) for job in plan.jobs)
        return settled(work, run, plan, composition, refused, ())
    before: Rehearsals | None = None
    if plan.form is Form.REHEARSAL:
        bed = open_bed(work, composition.base)
        lay_tree(work, composition.tree, bed)  # once, and not by each job
        before = rehearsals(work, composition.base, bed, rerun)
    folder = run.folder / FOLDER / plan.lane
    shutil.rmtree(folder, ignore_errors=True)
    places = tuple(_placed(folder / str(job.shard.number), job) for job in plan.jobs)
    kept = {place.job: known for place in places if before and (known := before.known(place.job))}
    asked = tuple(place for place in places if place.job not in kept)
    executor = executor_named(work, plan.executor, rehearse=plan.form is Form.REHEARSAL)
    ends: tuple[JobEnd, ...] = ()
    if asked:
        ends = executor.run(
            asked,
            beginning(work),
            retries=work.config.tests.retries,
            deadline=deadline,
            progress=work.progress,
        )
    answers = {job: known.answer for job, known in kept.items()}
    told = {job: JobEnd(job, JobState.ANSWERED, KEPT.format(known.made_on), begun=0) for job, known in kept.items()}
    for place, end in zip(asked, ends, strict=True):
        answer, why = _answer(place) if end.state is JobState.ANSWERED else (None, "")
        told[place.job] = replace(end, state=JobState.LOST, detail=why) if why else end
        if answer is not None:
            answers[place.job] = answer
            if before is not None:
                before.keep(answer)
    jobs = [place.job for place in places]
    ordered = tuple(answers[job] for job in jobs if job in answers)
    return settled(work, run, plan, composition, tuple(told[job] for job in jobs), ordered)


def settled(
    work: Workplace,
    run: Run,
    plan: Planned,
    composition: Composition,
    ends: tuple[JobEnd, ...],
    answers: tuple[LaneAnswer, ...],
) -> LaneRun:
    """What the lane said, with what is in quarantine as that, and how its numbers end."""
    found = lane_run(plan.lane, plan.executor, plan.form, composition.tree, ends, answers, plan.due)
    quarantine = quarantine_now(work)
    found = replace(found, results=tuple(excused(said, quarantine) for said in found.results))
    due = {test.test for test in plan.due}
    metrics = [metric for metric in read_metrics(work.root, file=OF_SCENARIOS) if metric.test in due]
    return replace(found, measures=lane_measures(metrics, found, past_of(run)))


def _placed(folder: Path, job: LaneJob) -> Place:
    """A folder that asks ``job``; `OSError` where an earlier answer stays, which would be taken for its own."""
    (folder / ANSWER).unlink(missing_ok=True)
    write_whole(folder / JOB, encode(job))
    return Place(job, folder)


def _answer(place: Place) -> tuple[LaneAnswer | None, str]:
    """What a machine has left in the folder, or why that is no answer."""
    file = place.folder / ANSWER
    try:
        if file.stat().st_size > _ANSWER_BYTES:
            return None, f"its answer has more than {_ANSWER_BYTES} bytes"
        answer = decode(LaneAnswer, file.read_text(), ANSWER)
    except (OSError, UnicodeDecodeError, PatchstackError) as error:
        return None, f"its answer cannot be read: {error}"
    return (answer, "") if answer.job == place.job else (None, "its answer is that of another job")


def executor_named(work: Workplace, name: str, *, rehearse: bool = False) -> Executor:
    """The machines of that kind."""
    if name == SLURM:
        return Slurm(work.config.tests.slurm, work.state.root.absolute())
    return Local(() if rehearse else gpus_here(os.environ))


def beginning(work: Workplace) -> Begin:
    """How `patchstack job FOLDER` begins where this repository, state folder and cache are at these paths."""
    argv = [sys.executable, "-P", "-c", "from patchstack.cli import main; main()"]
    argv += ["--config", str(work.config_path.absolute()), "--state", str(work.state.root), "--lane", work.lane_name]
    argv += ["--local"] if work.local else []
    argv += [] if work.embedded else ["--remote", without_secret(work.remote)]
    argv += ["--offline"] if work.offline else []
    return Begin(lambda folder: [*argv, "job", str(folder)], work.root, job_environment(work, os.environ))


def job_environment(work: Workplace, ours: Mapping[str, str]) -> dict[str, str]:
    """All that a job sees of the environment ``ours``, and where things are."""
    seen = {name: ours[name] for name in _SEEN if name in ours}
    models = work.config.tests.models or ours.get(MODELS, "")
    return {**seen, "PATCHSTACK_CACHE": str(work.cache), **({MODELS: models} if models else {})}


# --- a night -------------------------------------------------------------------------------------------


def lanes_of_a_night(work: Workplace) -> tuple[str, ...]:
    """Those that the night gives to machines itself."""
    return tuple(name for name, lane in work.config.tests.lanes.items() if lane.executor in {LOCAL, SLURM})


def run_lanes_of_a_night(
    work: Workplace, run: Run, composition: Composition, previous: LedgerLine | None, deadline: Deadline
) -> tuple[str, ...]:
    """Run them; what keeps one from it makes its tests missing, and is returned in words."""
    notes = []
    for name in lanes_of_a_night(work):
        (plan,) = planned(work, run, composition, Request((name,), previous=previous))
        try:
            found = _run(work, run, composition, plan, deadline)
        except (PatchstackError, OSError) as error:  # the night goes on, and the channels say what they lack
            notes.append(f"lane {name} was not run: {error}")
            ends = tuple(JobEnd(job, JobState.REFUSED, str(error), begun=0) for job in plan.jobs)
            found = settled(work, run, plan, composition, ends, ())
        write_lanes(work, run, composition, [found])
    return tuple(notes)


def previous_of(run: Run) -> LedgerLine | None:
    """What was deployed when the run's night began; None for a run of single verbs."""
    return run.read(NightReport).previous if run.has(NightReport) else None


def raise_for_lanes(lanes: LaneRuns, asked: Collection[str], run_id: str) -> None:
    """`GateFailed` where one of ``asked`` is red, `LaneUnavailable` where no machine takes it, else `Incomplete`."""
    mine = [run for run in lanes.runs if run.lane in asked]
    ends = [end for run in mine for end in run.jobs]
    if ends and all(end.state is JobState.REFUSED for end in ends):
        raise LaneUnavailable("\n".join(f"lane {end.job.lane}: {end.detail}" for end in ends))
    said = [(run.lane, result) for run in mine for result in run.results]
    numbers = [(run.lane, said_to_gate(measures)) for run in mine for measures in run.measures]
    red = [f"  {lane}: {one.test}: {one.outcome.value}: {one.reason}" for lane, one in said if one.outcome in _RED]
    red += [f"  {lane}: {sentence}" for lane, each in numbers for sentence in each.red]
    if red:
        raise GateFailed("\n".join([f"lanes of run {run_id} are red:", *red]))
    fine = {GuardOutcome.PASS, GuardOutcome.QUARANTINED, GuardOutcome.FLAKY}
    rest = [(lane, one) for lane, one in said if one.outcome not in fine]
    open_ends = [
        f"  {lane}: {one.test}: {one.outcome.value}: {one.reason}" for lane, one in rest if one.reason != NOT_ASKED
    ]
    not_asked = [lane for lane, one in rest if one.reason == NOT_ASKED]
    open_ends += [
        f"  {lane}: nobody asked for {not_asked.count(lane)} of its tests" for lane in dict.fromkeys(not_asked)
    ]
    open_ends += [f"  {lane}: {sentence}" for lane, each in numbers for sentence in each.open_ends]
    open_ends += [f"  {run.lane}: no test is declared for it" for run in mine if not run.results]
    if open_ends:
        raise Incomplete("\n".join([f"lanes of run {run_id} are incomplete:", *open_ends]))
