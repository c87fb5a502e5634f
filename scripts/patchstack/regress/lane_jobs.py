"""What the machines of a lane are asked, and what their answers come to. Pure.

A lane's tests are those that are declared for it (`declared.py`) and guard a patch of the composition. They are
divided by file, by the times that they are said to take. What no answer speaks of is missing, and says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from patchstack.model import (
    Composition,
    Form,
    GuardOutcome,
    GuardResult,
    JobEnd,
    JobState,
    Kind,
    LaneAnswer,
    LaneJob,
    LaneRun,
    LaneRuns,
    Sha,
    Shard,
    TreeRun,
)
from patchstack.regress.declared import Declared, bare
from patchstack.regress.expected import NOT_HEARD, Due, completed
from patchstack.regress.shards import decide_shards
from patchstack.regress.suites import Suite

NOT_ASKED = "nobody asked for it"
NOT_ITS_FILE = "its job has another part of the lane"


@dataclass(frozen=True)
class Asked:
    """What is the same for all jobs of a lane."""

    run: str
    lane: str
    composition: Sha
    tree: Sha
    form: Form
    gpus: int
    limit_s: float
    image: str = ""
    last_promoted: str = ""


def patches_of(composition: Composition) -> tuple[str, ...]:
    """The slugs of what it includes, in series order."""
    return tuple(topic.name for topic in composition.included if topic.kind is Kind.PATCH)


def due_on(declared: Sequence[Declared], lane: str, patches: Collection[str]) -> tuple[Declared, ...]:
    """Every test of ``lane`` that guards one of ``patches``, or none in particular."""
    return tuple(
        test for test in declared if test.lane == lane and (not test.guards or not set(test.guards).isdisjoint(patches))
    )


def decide_jobs(asked: Asked, due: Sequence[Declared], shards: int) -> tuple[LaneJob, ...]:
    """One job a shard, of at most ``shards`` and no more than there are files; none where nothing is due."""
    seconds: dict[str, float | None] = {}
    for test in due:
        before = seconds.get(test.file, 0.0)
        seconds[test.file] = None if before is None or test.est_s is None else before + test.est_s
    count = min(shards, len(seconds))
    divided = decide_shards(seconds, count) if count else ()
    return tuple(
        LaneJob(
            run=asked.run,
            lane=asked.lane,
            shard=Shard(number, count, files),
            composition=asked.composition,
            tree=asked.tree,
            form=asked.form,
            image=asked.image,
            gpus=0 if asked.form is Form.REHEARSAL else asked.gpus,
            limit_s=asked.limit_s,
            last_promoted=asked.last_promoted,
        )
        for number, files in enumerate(divided, 1)
    )


def suites_of(job: LaneJob, due: Sequence[Declared]) -> tuple[Suite, ...]:
    """The files of the job's shard, by the patch that the first test of each that is ``due`` guards."""
    named = _slugs(due)
    slugs = dict.fromkeys(named.get(file, job.lane) for file in job.shard.files)
    return tuple(
        Suite(slug, tuple(file for file in job.shard.files if named.get(file, job.lane) == slug), "") for slug in slugs
    )


def lane_run(
    lane: str,
    executor: str,
    form: Form,
    tree: Sha,
    ends: Sequence[JobEnd],
    answers: Sequence[LaneAnswer],
    due: Sequence[Declared],
) -> LaneRun:
    """What ``lane`` said of ``tree``: one result at least for each test of ``due``.

    ``answers`` are those of ``ends`` that have one. What is green though no file shows it, or though its job was not
    asked for it, is a crash.
    """
    named = _slugs(due)
    heard = [said for answer in answers for said in _of_its_shard(answer)]
    whole = completed(
        [TreeRun(lane, True, tree, tuple(heard))],
        [Due(lane, True, tree, tuple((named[test.file], test.test) for test in due))],
        lambda file: _why(file, ends),
    )
    guarded = {test.test: test.guards[0] for test in due if test.guards}
    results = tuple(replace(said, slug=guarded.get(bare(said.test), said.slug)) for said in whole[0].results)
    return LaneRun(lane, executor, form, tuple(ends), tuple(answers), results)


def joined(before: LaneRuns | None, composition: Sha, fresh: Sequence[LaneRun], order: Sequence[str]) -> LaneRuns:
    """``fresh`` with what other lanes said ``before`` of the same composition, in the lanes' ``order``."""
    kept = before.runs if before is not None and before.composition == composition else ()
    runs = {run.lane: run for run in (*kept, *fresh)}
    return LaneRuns(composition, tuple(runs[lane] for lane in order if lane in runs))


def _slugs(tests: Sequence[Declared]) -> Mapping[str, str]:
    """Of each file the patch that its first test guards; the lane where it guards none in particular."""
    found: dict[str, str] = {}
    for test in tests:
        found.setdefault(test.file, test.guards[0] if test.guards else test.lane)
    return found


def _of_its_shard(answer: LaneAnswer) -> Iterator[GuardResult]:
    asked, machine = answer.job.gpus, answer.hardware
    for said in answer.results:
        if machine is not None and len(machine.gpus) < asked and said.outcome is GuardOutcome.PASS:
            reason = f"it passed where {len(machine.gpus)} of its lane's {asked} GPUs were seen"
            yield replace(said, outcome=GuardOutcome.MISSING, reason=reason)
            continue
        mine = said.test.partition("::")[0] in answer.job.shard.files
        # Of files that could not be read nobody knows more than the name of their folder, and that is no green.
        if mine or said.outcome is not GuardOutcome.PASS:
            yield said
        else:
            yield replace(said, outcome=GuardOutcome.CRASH, reason=NOT_ITS_FILE)


def _why(file: str, ends: Sequence[JobEnd]) -> str:
    end = next((end for end in ends if file in end.job.shard.files), None)
    if end is None:
        return NOT_ASKED
    if end.state is JobState.ANSWERED:
        return NOT_HEARD
    return f"job {end.job.shard} was {end.state.value}{f': {end.detail}' if end.detail else ''}"
