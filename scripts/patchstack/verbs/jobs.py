"""`patchstack jobs` and `patchstack job --unpack`: what GitHub's runners are asked of a night that is packed.

A workflow asks once which jobs there are, and gives each to a runner with its lane's labels. That runner finds the
job's files out again, from the same pack and the same repository, and so does the part of the night that takes the
answers (`handed_lanes.py`): nobody has to believe what another one says of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import EXIT_OK, UsageError
from patchstack.model import Composition, GuardReport, LaneJob, NightReport
from patchstack.pack import keep_run, unpacked
from patchstack.regress.executor import ANSWER, JOB
from patchstack.regress.shards import MOST, read_part
from patchstack.store import Run, encode, write_whole
from patchstack.verbs.lanes import GITHUB, Planned, Request, planned, previous_of
from patchstack.verbs.plan import read_composition
from patchstack.workplace import Workplace

AROUND_MIN = 30
"""For what a runner does around a job: the tool, the image that it pulls, the answer that it keeps."""
RED = "the night has ended without them: "
NOT_OF_GITHUB = "deploy.yaml gives it to nobody on GitHub: write `executor: github`, and the `labels` of its runners"


@dataclass(frozen=True)
class Entry:
    """One job as a workflow's matrix has it."""

    lane: str
    shard: str
    """``2/3``."""
    name: str
    """``1-gpu-2``: of what is kept of it, once in a night."""
    labels: tuple[str, ...]
    """Those that its runner must have."""
    timeout_min: int
    """When GitHub is to end it: after its limit, when what comes before and behind it has had its time, too."""


@dataclass(frozen=True)
class Jobs:
    """What GitHub's runners are asked."""

    jobs: tuple[Entry, ...]
    not_run: tuple[tuple[str, str], ...] = ()
    """Lanes that they would run and are not asked, and why."""


def jobs_of(work: Workplace, pack: Path, *, rehearse: bool = False) -> Jobs:
    """The jobs of all lanes with executor github; none where the night in ``pack`` is not to go on.

    The caller holds the lock. `UsageError` for a pack of a night that has not been tested.
    """
    lanes = lanes_of_github(work)
    with _tested(work, pack) as (run, composition):
        report = run.read(NightReport)
        if report.exit_code != EXIT_OK:
            return Jobs((), tuple((lane, f"{RED}{report.failure.partition(chr(10))[0]}") for lane in lanes))
        plans = plans_of_github(work, run, composition, lanes, rehearse=rehearse)
    entries = tuple(_entry(work, job) for plan in plans if not plan.why_not for job in plan.jobs)
    if len(entries) > MOST:
        raise UsageError(f"{len(entries)} jobs, and a matrix has {MOST} at most: give the lanes of tests less shards")
    return Jobs(entries, tuple((plan.lane, plan.why_not) for plan in plans if plan.why_not))


def unpack_job(work: Workplace, pack: Path, folder: Path, *, lane: str, shard: str, rehearse: bool) -> None:
    """Make ``folder`` the job ``shard`` of ``lane``, and the run of ``pack`` one of this machine.

    The caller holds the lock. `UsageError` where the night has no such job, or ``folder`` has an answer already.
    """
    if lane not in lanes_of_github(work):
        raise UsageError(f"lane {lane}: {NOT_OF_GITHUB}")
    if (folder / ANSWER).exists():
        raise UsageError(f"{folder} has an answer already: name another folder")
    part = read_part(shard, work.config.tests.lanes[lane].shards)
    with _tested(work, pack) as (fresh, composition):
        (plan,) = plans_of_github(work, fresh, composition, (lane,), rehearse=rehearse)
        if plan.why_not:
            raise UsageError(f"lane {lane}: {plan.why_not}")
        found = [job for job in plan.jobs if str(job.shard) == str(part)]
        if not found:
            shards = ", ".join(str(job.shard) for job in plan.jobs)
            raise UsageError(f"lane {lane} of this night has no shard {part}: it has {shards}")
        keep_run(fresh, work.state)
    write_whole(folder / JOB, encode(found[0]))


def lanes_of_github(work: Workplace) -> tuple[str, ...]:
    return tuple(name for name, lane in work.config.tests.lanes.items() if lane.executor == GITHUB)


def plans_of_github(
    work: Workplace,
    run: Run,
    composition: Composition,
    lanes: Sequence[str],
    *,
    rehearse: bool,
    image: str | None = None,
) -> tuple[Planned, ...]:
    """What each of ``lanes`` would run on GitHub's runners; the same wherever it is asked of one run.

    ``image``: the one that its tests run inside; that of the run where None is given.
    """
    request = Request(tuple(lanes), rehearse, GITHUB, previous=previous_of(run))
    return planned(work, run, composition, request, image)


@contextmanager
def _tested(work: Workplace, pack: Path) -> Iterator[tuple[Run, Composition]]:
    with unpacked(pack, work.state, work.store(), work.lane_name) as fresh:
        if not (fresh.has(Composition) and fresh.has(GuardReport)):
            raise UsageError(f"{pack} has no tests.json: name what `patchstack nightly --until test --pack` wrote")
        yield fresh, read_composition(work, fresh)


def _entry(work: Workplace, job: LaneJob) -> Entry:
    lane = work.config.tests.lanes[job.lane]
    return Entry(job.lane, str(job.shard), f"{job.lane}-{job.shard.number}", lane.labels, lane.limit_min + AROUND_MIN)
