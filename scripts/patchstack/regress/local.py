"""This machine as a lane's only one: a process a job, as many at a time as there are GPUs for.

A job that needs no GPU, a rehearsal for one, has the machine's cores for itself: those run one after the other.
"""

from __future__ import annotations

import platform
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from patchstack import process
from patchstack.deadline import REASON, Deadline
from patchstack.errors import LaneUnavailable, MachineError
from patchstack.model import JobEnd, JobState
from patchstack.regress.executor import LOG, Begin, Place

VISIBLE = "CUDA_VISIBLE_DEVICES"
GRACE_S = 60.0
"""A job that is asked to end has so long to end what it has begun."""
_LIST = ("nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader")
_LIST_LIMIT_S = 60.0


def gpus_here(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that we may use, each by the name that ``CUDA_VISIBLE_DEVICES`` has for it; none where there are none.

    https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-environment-variables
    """
    if VISIBLE in environment:
        return tuple(name.strip() for name in environment[VISIBLE].split(",") if name.strip() not in {"", "-1"})
    try:
        listed = process.run(_LIST, timeout_s=_LIST_LIMIT_S, check=False)
    except MachineError:  # no driver's tools: no GPU
        return ()
    return tuple(filter(None, map(str.strip, listed.stdout.splitlines()))) if listed.returncode == 0 else ()


@dataclass
class Local:
    """This machine."""

    gpus: tuple[str, ...]
    """As `gpus_here` names them."""
    name: str = "local"

    def run(
        self,
        places: Sequence[Place],
        begin: Begin,
        *,
        retries: int,
        deadline: Deadline | None,
        progress: Callable[[str], None],
    ) -> tuple[JobEnd, ...]:
        """As `Executor.run`: `REFUSED` where a job needs more GPUs than there are."""
        ends: dict[int, JobEnd] = {
            number: JobEnd(place.job, JobState.REFUSED, self._too_few(place.job.gpus), platform.node(), 0)
            for number, place in enumerate(places)
            if place.job.gpus > len(self.gpus)
        }
        waiting = [number for number in range(len(places)) if number not in ends]
        free, running = list(self.gpus), dict[Future[JobEnd], tuple[int, list[str]]]()
        jobs = _Jobs(begin, retries, deadline, progress)
        with ThreadPoolExecutor(max_workers=max(1, len(self.gpus))) as pool:
            try:
                while waiting or running:
                    for number in [number for number in waiting if _may_begin(places[number], free, running)]:
                        if not _may_begin(places[number], free, running):
                            continue
                        mine = [free.pop(0) for _ in range(places[number].job.gpus)]
                        running[pool.submit(jobs.run, places[number], mine)] = number, mine
                        waiting.remove(number)
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for ended in done:
                        number, mine = running.pop(ended)
                        free += mine
                        ends[number] = ended.result()
            except BaseException:
                jobs.stop()
                raise
        return tuple(ends[number] for number in range(len(places)))

    def _too_few(self, gpus: int) -> str:
        return f"it needs {gpus} GPU{'' if gpus == 1 else 's'}, and this machine has {len(self.gpus) or 'none'}"


def _may_begin(place: Place, free: Sequence[str], running: Mapping[Future[JobEnd], tuple[int, list[str]]]) -> bool:
    if not place.job.gpus:
        return not running
    return place.job.gpus <= len(free) and all(mine for _, mine in running.values())


@dataclass
class _Jobs:
    """The processes that run now, and how one is begun."""

    begin: Begin
    retries: int
    deadline: Deadline | None
    progress: Callable[[str], None]
    lock: threading.Lock = field(default_factory=threading.Lock)
    children: list[process.Beside] = field(default_factory=list)
    stopped: bool = False

    def stop(self) -> None:
        """End all: each is asked, and given time for what it has begun itself."""
        with self.lock:
            self.stopped = True
            asked = list(self.children)
            for child in asked:
                child.ask_to_end()
        for child in asked:
            if child.ended_within(GRACE_S) is None:
                child.end()

    def run(self, place: Place, gpus: Sequence[str]) -> JobEnd:
        job = place.job
        what, why = f"{job.lane} {job.shard}", ""
        for begun in range(1, self.retries + 2):
            limit_s = job.limit_s if self.deadline is None else min(job.limit_s, self.deadline.left_s())
            if limit_s <= 0 or self.stopped:
                return JobEnd(job, JobState.LATE, f"{REASON} was over before it began", platform.node(), begun - 1)
            self.progress(f"{what}: begins" + (f" on {', '.join(gpus)}" if gpus else ""))
            code = self._once(place, gpus, limit_s)
            if place.is_answered:
                said = f"it was begun {begun} times" if begun > 1 else ""
                return JobEnd(job, JobState.ANSWERED, said, platform.node(), begun)
            if code is None:
                late = REASON if limit_s < job.limit_s else f"its limit of {job.limit_s / 60:g} min"
                return JobEnd(job, JobState.LATE, f"{late} was over, and it was ended", platform.node(), begun)
            if code in {LaneUnavailable.exit_code, MachineError.exit_code}:
                return JobEnd(job, JobState.REFUSED, place.said_last, platform.node(), begun)
            if code >= 0:  # it ended by itself: it would again
                why = f"it ended with {code}, without an answer: {place.said_last}"
                return JobEnd(job, JobState.LOST, why, platform.node(), begun)
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            why = f"it was killed ({name})"
            self.progress(f"{what}: {why}")
        return JobEnd(job, JobState.LOST, why, platform.node(), self.retries + 1)

    def _once(self, place: Place, gpus: Sequence[str], limit_s: float) -> int | None:
        """How its process ended; None where its time was up."""
        seen = {**self.begin.environment, VISIBLE: ",".join(gpus)}
        with process.beside(
            self.begin.argv(place.folder), env=seen, log=place.folder / LOG, cwd=self.begin.cwd
        ) as child:
            with self.lock:
                self.children.append(child)
                if self.stopped:
                    child.ask_to_end()
            try:
                code = child.ended_within(limit_s)
                if code is None:
                    child.ask_to_end()
                    child.ended_within(GRACE_S)  # the block ends what is left
                return code
            finally:
                with self.lock:
                    self.children.remove(child)
