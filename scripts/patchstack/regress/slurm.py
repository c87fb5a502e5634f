"""A Slurm cluster whose nodes see this repository, its state folder and its cache by the same paths.

The jobs of a lane are one array, a job each. Slurm is asked by sbatch, squeue and scancel alone: no accounting is
needed. A job whose machine went away is given to the cluster again; the number of times is ours, not Slurm's.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from patchstack.config import Slurm as Settings
from patchstack.deadline import REASON, Deadline
from patchstack.errors import LaneUnavailable, MachineError
from patchstack.model import JobEnd, JobState
from patchstack.queued import ask, named
from patchstack.regress.executor import Begin, Place
from patchstack.regress.slurm_queue import FIELDS, UNSEEN, Stand, Task, asked, read_queue, script, submission

PROGRAMS = ("sbatch", "squeue", "scancel")
_FIRST_LOOK_S = 0.25


@dataclass
class Slurm:
    """The cluster that ``sbatch`` on the PATH speaks to."""

    settings: Settings
    state: Path
    """The state folder, for the names of what is in the queue."""
    look_every_s: float = 10.0
    """At most: while things happen, it is looked at more often."""
    patience_s: float = 600.0
    """So long a controller may be silent, which is begun anew perhaps."""
    arrival_s: float = 90.0
    """So long a file may take to be seen here that a node has written (nfs(5), acdirmax)."""
    name: str = "slurm"

    def run(
        self,
        places: Sequence[Place],
        begin: Begin,
        *,
        retries: int,
        deadline: Deadline | None,
        progress: Callable[[str], None],
    ) -> tuple[JobEnd, ...]:
        """As `Executor.run`: `REFUSED`, with Slurm's reason, where no node can ever take a job."""
        require_programs()
        if not places:
            return ()
        jobs = [_Job(index, place) for index, place in enumerate(places)]
        with named(self.state, places[0].job.lane, progress) as name:
            _Queue(self, name, begin, retries, deadline, progress, jobs).run()
        return tuple(job.ended for job in jobs)


def require_programs() -> None:
    """`MachineError` where Slurm cannot be asked from here."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise MachineError(
            f"executor slurm needs {', '.join(missing)} on the PATH: install Slurm's client on this machine (Debian: "
            "slurm-client), have SLURM_CONF name the cluster's slurm.conf where that is not /etc/slurm/slurm.conf, "
            "and see that `sinfo` lists its nodes; or say --executor local"
        )
    conf = os.environ.get("SLURM_CONF")
    if conf and not Path(conf).is_file():  # Slurm's programs would wait for it, a minute
        raise MachineError(
            f"SLURM_CONF is {conf}, and there is no such file: name the cluster's slurm.conf, or unset it"
        )
    try:
        ask(["squeue", "--me", "--noheader"])
    except MachineError as error:
        raise MachineError(
            f"Slurm does not answer: see that `sinfo` lists the nodes here, and that SLURM_CONF names the cluster's "
            f"slurm.conf: {error}"
        ) from error


@dataclass
class _Job:
    """A place, and what is known of its job until now."""

    index: int
    """In its array."""
    place: Place
    array: str = ""
    """The newest that it was given in; empty: it waits to be given."""
    given: int = 0
    begun: set[str] = field(default_factory=set)
    """The arrays in which a node had it."""
    task: Task | None = None
    unseen_since_s: float | None = None
    end: JobEnd | None = None

    @property
    def ended(self) -> JobEnd:
        assert self.end is not None
        return self.end

    @property
    def label(self) -> str:
        return f"{self.place.job.lane} {self.place.job.shard}"

    @property
    def node(self) -> str:
        return self.task.node if self.task else ""

    def is_now(self, state: JobState, detail: str = "") -> None:
        self.end = JobEnd(self.place.job, state, detail, self.node, len(self.begun))


@dataclass
class _Queue:
    """One call of `Slurm.run`."""

    slurm: Slurm
    name: str
    begin: Begin
    retries: int
    deadline: Deadline | None
    progress: Callable[[str], None]
    jobs: list[_Job]
    arrays: set[str] = field(default_factory=set)
    """All that the jobs were given in."""
    silent_since_s: float | None = None
    shown: str = ""

    @property
    def open(self) -> list[_Job]:
        return [job for job in self.jobs if job.end is None]

    def run(self) -> None:
        pause, wait_s = Event(), _FIRST_LOOK_S
        while True:
            if self.deadline is not None and self.deadline.over:
                self._all_late()
            if not self.open:
                return
            changed = self._step()
            wait_s = _FIRST_LOOK_S if changed else min(2 * wait_s, self.slurm.look_every_s)
            left_s = wait_s if self.deadline is None else min(wait_s, self.deadline.left_s())
            if self.open:
                pause.wait(left_s)

    def _step(self) -> bool:
        """Give what waits to be given, and look; whether something was new."""
        try:
            for alike in list(self._to_give()):
                self._give(alike)
            seen = self._look() if self.open else {}
        except MachineError as error:
            self._is_silent(error)
            return False
        self.silent_since_s = None
        for job in self.open:
            if job.array:
                self._settle(job, seen.get((job.array, job.index)))
        return self._show()

    # --- asking Slurm ----------------------------------------------------------------------------------

    def _to_give(self) -> Iterator[list[_Job]]:
        """Those not in the queue, by what they ask for: an array asks for all of its jobs alike."""
        alike: dict[tuple[int, float], list[_Job]] = {}
        for job in self.open:
            if not job.array:
                alike.setdefault((job.place.job.gpus, job.place.job.limit_s), []).append(job)
        yield from alike.values()

    def _give(self, jobs: Sequence[_Job]) -> None:
        """Into the queue; refused ones have ended with that."""
        argv = submission(self.slurm.settings, jobs[0].place.job, self.name, [job.index for job in jobs])
        text = script([(job.index, job.place) for job in jobs], self.begin)
        array = "" if self.silent_since_s is None else self._taken_all_the_same(jobs)
        try:
            # An interrupt waits for sbatch: what that puts into the queue while it is killed, nobody would find.
            with ThreadPoolExecutor(1) as aside:
                array = array or aside.submit(ask, argv, stdin=text).result().stdout.strip()
        except MachineError as error:
            array = self._taken_all_the_same(jobs)
            if not array:
                for job in jobs:
                    job.is_now(JobState.REFUSED, f"Slurm refuses it: {_words(error)} ({self._asked(job)})")
                return
        self.arrays.add(array)
        for job in jobs:
            job.array, job.given, job.task = array, job.given + 1, None

    def _taken_all_the_same(self, jobs: Sequence[_Job]) -> str:
        """The array of ``jobs`` where sbatch has failed, but only after the controller had taken it; else empty.

        Raises `MachineError` where squeue does not answer either: then nothing was refused.
        """
        wanted = {job.index for job in jobs}
        for task in self._look().values():
            # What Slurm refuses stands in its queue for a while, too, as failed on no node.
            if task.array not in self.arrays and task.index in wanted and (task.node or task.state != "FAILED"):
                return task.array
        return ""

    def _asked(self, job: _Job) -> str:
        return shlex.join(asked(self.slurm.settings, job.place.job))

    def _look(self) -> dict[tuple[str, int], Task]:
        argv = ["squeue", "--me", f"--name={self.name}", "--noheader", "--array", "--states=all", f"--Format={FIELDS}"]
        return {(task.array, task.index): task for task in read_queue(ask(argv).stdout)}

    def _is_silent(self, error: MachineError) -> None:
        """A controller may be away for a while: what runs, runs on."""
        now_s = time.monotonic()
        if self.silent_since_s is None:
            self.silent_since_s = now_s
            self.progress(f"Slurm does not answer, and is asked again: {_words(error)}")
        if now_s - self.silent_since_s > self.slurm.patience_s:
            raise MachineError(f"Slurm did not answer for {self.slurm.patience_s:.0f} s: {_words(error)}") from error

    # --- what became of them ---------------------------------------------------------------------------

    def _all_late(self) -> None:
        for job in self.open:
            if job.place.is_answered:
                job.is_now(JobState.ANSWERED)
            elif job.node:
                job.is_now(JobState.LATE, f"{REASON} was over, and it was ended")
            else:
                why = f": Slurm says {job.task.reason}" if job.task else ""
                job.is_now(JobState.LATE, f"{REASON} was over before it began{why}")

    def _settle(self, job: _Job, task: Task | None) -> None:
        if task is None:  # it was kept for MinJobAge only
            self._is_over(job, Stand.KILLED, "Slurm knows it no more")
            return
        job.task = task
        if task.node:
            job.begun.add(task.array)
        stand = task.stand
        if stand is Stand.HOPELESS:
            job.is_now(JobState.REFUSED, f"no node can ever take it: Slurm says {task.reason} ({self._asked(job)})")
        elif stand not in {Stand.WAITS, Stand.RUNS}:
            self._is_over(job, stand, _why(task))

    def _is_over(self, job: _Job, stand: Stand, why: str) -> None:
        if job.place.is_answered:
            job.is_now(JobState.ANSWERED, f"it was begun {len(job.begun)} times" if len(job.begun) > 1 else "")
        elif stand is Stand.OVERTIME:
            job.is_now(JobState.LATE, f"its limit of {job.place.job.limit_s / 60:g} min was over, and it was ended")
        elif stand is Stand.CANCELLED:
            job.is_now(JobState.LOST, "somebody cancelled it in Slurm's queue")
        elif stand is Stand.ENDED:
            self._ended_unanswered(job)
        else:
            self._lost(job, why)

    def _ended_unanswered(self, job: _Job) -> None:
        assert job.task is not None
        code = job.task.code
        if code == 0:
            now_s = time.monotonic()
            job.unseen_since_s = job.unseen_since_s or now_s
            if now_s - job.unseen_since_s > self.slurm.arrival_s:
                job.is_now(JobState.LOST, f"it ended well, and no answer is seen here in {job.place.folder}")
        elif code == UNSEEN:
            self._lost(job, f"node {job.node} does not see {job.place.folder} or {self.begin.cwd}")
        elif code in {LaneUnavailable.exit_code, MachineError.exit_code}:
            job.is_now(JobState.REFUSED, job.place.said_last)
        else:  # it ended by itself: it would again
            job.is_now(JobState.LOST, f"it ended with {code}, without an answer: {job.place.said_last}")

    def _lost(self, job: _Job, why: str) -> None:
        self.progress(f"{job.label}: {why}")
        if job.given > self.retries:
            job.is_now(JobState.LOST, why)
        else:
            job.array = ""

    def _show(self) -> bool:
        """Say how many wait, run and have ended; whether that is new."""
        waits = [job.task for job in self.open if job.task and job.task.stand is Stand.WAITS]
        runs = [job.task for job in self.open if job.task and job.task.stand is Stand.RUNS]
        reasons = ", ".join(sorted({task.reason for task in waits} - {"None", ""}))
        nodes = ", ".join(sorted({task.node for task in runs}))
        parts = [
            f"{len(waits)} of {len(self.jobs)} jobs wait{f' ({reasons})' if reasons else ''}" if waits else "",
            f"{len(runs)} run on {nodes}" if runs else "",
            f"{len(self.jobs) - len(self.open)} ended",
        ]
        shown = f"{self.jobs[0].place.job.lane}, by Slurm: {', '.join(filter(None, parts))}"
        if shown == self.shown:
            return False
        self.shown = shown
        self.progress(shown)
        return True


def _why(task: Task) -> str:
    """Why a job that did not end by itself has ended."""
    if task.state == "FAILED":
        name = signal.Signals(task.signal).name if task.signal in set(signal.Signals) else f"signal {task.signal}"
        return f"it was killed on node {task.node} ({name}; Slurm says {task.reason})"
    return f"node {task.node} lost it: Slurm says {task.state}{f', {task.reason}' if task.reason else ''}"


def _words(error: MachineError) -> str:
    """What Slurm's program said, without its name before each line."""
    said = str(error).splitlines()
    lines = said[1:] or said
    return "; ".join(_bare(line) for line in lines if line.strip())


def _bare(line: str) -> str:
    return line.strip().split("error: ", 1)[-1].removeprefix("Batch job submission failed: ")
