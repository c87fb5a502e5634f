"""Answers of GitHub's runners, held against the jobs that a night has for them.

Which jobs there are is decided here again. What is not an answer of one of them is not believed, and said; its tests
are missing then, like those of a job whose answer never came. No answer keeps the rest of the night from going on:
what a channel needs of the lane, the gate says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack.errors import PatchstackError, UsageError
from patchstack.model import Composition, ImageResult, JobEnd, JobState, LaneAnswer, LaneJob, LaneRun
from patchstack.regress.executor import ANSWER
from patchstack.regress.lane_answers import problems_of
from patchstack.regress.lane_jobs import joined
from patchstack.regress.metrics import OF_SCENARIOS, read_metrics
from patchstack.store import Run, decode
from patchstack.verbs.jobs import lanes_of_github, plans_of_github
from patchstack.verbs.lanes import Planned, image_in_order, settled
from patchstack.verbs.rounds import Handed
from patchstack.workplace import Workplace

NEVER_CAME = "its answer never came"
_ALL_BYTES, _LEAST_BYTES = 8 << 20, 256 << 10
"""Of all answers together, and what each has at least: a night's report has them, and has to fit into a pack."""
_SHOWN = 300


@dataclass(frozen=True)
class Answers:
    """What was handed in, readable or not."""

    folders: tuple[Path, ...]
    """Each has an answer in it, or folders with one each."""
    rehearsed: bool = False
    """They are of rehearsals."""

    def require_any(self) -> None:
        """`UsageError` for a folder that has none: it is another one than was meant."""
        for folder in self.folders:
            if not _files(folder):
                raise UsageError(f"--lanes {folder}: there is no {ANSWER} in it, nor in a folder below it")


NO_ANSWERS = Answers(())


def with_answers(
    work: Workplace, run: Run, composed: Composition, handed: Handed, answers: Answers
) -> tuple[Handed, tuple[str, ...]]:
    """``handed`` with what GitHub's runners said of it, and in words what of ``answers`` is not believed.

    ``composed`` is what the image of ``run`` is of. `UsageError` for answers that nobody can have been asked for.
    """
    lanes = lanes_of_github(work)
    if answers.folders and not lanes:
        raise UsageError("--lanes: no lane of deploy.yaml has `executor: github`, so that nobody was asked for answers")
    answers.require_any()
    composition = handed.composition
    made = run.read(ImageResult) if composition == composed and run.has(ImageResult) else None
    image = image_in_order(composition, made, handed.image_tests)
    plans = plans_of_github(work, run, composition, lanes, rehearse=answers.rehearsed, image=image)
    heard, notes = _heard(answers, [job for plan in plans if not plan.why_not for job in plan.jobs])
    measures = {metric.name: metric.test for metric in read_metrics(work.root, file=OF_SCENARIOS)}
    runs = [_lane(work, run, plan, composition, heard, measures) for plan in plans]
    found = joined(handed.lanes, composition.commit, runs, list(work.config.tests.lanes))
    return replace(handed, lanes=found if found.runs else None), notes


def _heard(answers: Answers, jobs: Sequence[LaneJob]) -> tuple[Mapping[LaneJob, list[LaneAnswer]], tuple[str, ...]]:
    """The answers of each job, and what is none of any."""
    heard: dict[LaneJob, list[LaneAnswer]] = {job: [] for job in jobs}
    notes = []
    most_bytes = max(_ALL_BYTES // max(1, len(jobs)), _LEAST_BYTES)
    for file in [file for folder in answers.folders for file in _files(folder)]:
        try:
            answer = _read(file, most_bytes)
        except PatchstackError as error:
            notes.append(f"an answer that was handed in is not believed: {error}"[:_SHOWN])
            continue
        if answer.job in heard:
            heard[answer.job].append(answer)
        else:
            job = f"shard {answer.job.shard} of {answer.job.lane!r} in run {answer.job.run!r}"
            notes.append(f"an answer that was handed in is not believed: this night has no such job: {job}"[:_SHOWN])
    return heard, tuple(notes)


def _files(folder: Path) -> list[Path]:
    """The answers in ``folder``, or in folders below it, as `actions/download-artifact` lays them out."""
    return [folder / ANSWER] if (folder / ANSWER).is_file() else sorted(folder.glob(f"*/{ANSWER}"))


def _read(file: Path, most_bytes: int) -> LaneAnswer:
    name = f"{file.parent.name[:80]}/{file.name}"
    try:
        if file.is_symlink() or file.parent.is_symlink() or not file.is_file():
            raise UsageError(f"{name} is no file of its own")
        if file.stat().st_size > most_bytes:
            raise UsageError(f"{name} has more than {most_bytes} bytes")
        return decode(LaneAnswer, file.read_text(), name)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name} cannot be read: {type(error).__name__}") from error


def _lane(
    work: Workplace,
    run: Run,
    plan: Planned,
    composition: Composition,
    heard: Mapping[LaneJob, list[LaneAnswer]],
    measures: Mapping[str, str],
) -> LaneRun:
    ends, answers = [], []
    for job in plan.jobs:
        if plan.why_not:
            ends.append(JobEnd(job, JobState.REFUSED, plan.why_not, begun=0))
            continue
        said = heard[job]
        why = _why_not(said, plan, measures)
        if why:
            ends.append(JobEnd(job, JobState.LOST, why))
        else:
            answers += said
            node = said[0].hardware.node if said[0].hardware else ""
            ends.append(JobEnd(job, JobState.ANSWERED, node=node))
    return settled(work, run, plan, composition, tuple(ends), tuple(answers))


def _why_not(said: Sequence[LaneAnswer], plan: Planned, measures: Mapping[str, str]) -> str:
    """Why a job has no answer; empty where it has one."""
    if not said:
        return NEVER_CAME
    if len(said) > 1:
        return f"{len(said)} answers came, and it has one"
    problem = next(problems_of(said[0], plan.due, measures), "")
    return f"what came is not believed: {problem}"[:_SHOWN] if problem else ""
