"""What is given to Slurm's sbatch, and what its squeue says, as values. Pure.

https://slurm.schedmd.com/squeue.html (job states and reasons); seen with 22.05, Debian 12's.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from patchstack.config import Slurm
from patchstack.errors import MachineError
from patchstack.model import LaneJob
from patchstack.regress.executor import LOG, Begin, Place

FIELDS = "ArrayJobID:24|,ArrayTaskID:12|,State:24|,exit_code:16|,NodeList:128|,Reason:256"
UNSEEN = 73
"""How a job ends on a node that does not see its folder, or the repository (EX_CANTCREAT of sysexits.h)."""

_GIVEN = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_JOB_ID", "SLURMD_NODENAME", "SLURM_CLUSTER_NAME")
"""What a job sees of its node, beside what it is begun with; a container is given GPUs by the second (`devices`)."""
_OF_SESSIONS = ("XDG_RUNTIME_DIR",)
"""What each machine has of its own, or not: a folder that is made where somebody logs in."""


class Stand(Enum):
    """Where a job stands."""

    WAITS = "waits"
    RUNS = "runs"
    HOPELESS = "hopeless"
    """It waits for what no machine of the cluster can give it."""
    ENDED = "ended"
    """By itself."""
    KILLED = "killed"
    """Its machine went away, or took it down."""
    OVERTIME = "overtime"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Task:
    """One job of an array, as squeue tells it."""

    array: str
    index: int
    state: str
    status: int
    """As wait(2) has it."""
    node: str
    """Empty before it began."""
    reason: str

    @property
    def code(self) -> int:
        return self.status >> 8

    @property
    def signal(self) -> int:
        return self.status & 0x7F

    @property
    def stand(self) -> Stand:
        if self.state in _WAITING:
            return Stand.HOPELESS if _is_hopeless(self.reason) else Stand.WAITS
        if self.state == "FAILED" and self.signal:
            return Stand.KILLED if self.node or not _is_hopeless(self.reason) else Stand.HOPELESS
        return _OVER.get(self.state, Stand.RUNS)


_WAITING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
_OVER = {
    "COMPLETED": Stand.ENDED,
    "FAILED": Stand.ENDED,
    "NODE_FAIL": Stand.KILLED,
    "BOOT_FAIL": Stand.KILLED,
    "PREEMPTED": Stand.KILLED,
    "OUT_OF_MEMORY": Stand.KILLED,
    "REVOKED": Stand.CANCELLED,
    "CANCELLED": Stand.CANCELLED,
    "TIMEOUT": Stand.OVERTIME,
    "DEADLINE": Stand.OVERTIME,
}
_HOPELESS = {
    *("BadConstraints", "PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit"),
    *("AccountNotAllowed", "InvalidAccount", "InvalidQOS", "QOSNotAllowed", "DependencyNeverSatisfied"),
}


def _is_hopeless(reason: str) -> bool:
    """Whether a job that waits for it waits for ever: what it asks is more than one job may have, or nobody has it."""
    return reason in _HOPELESS or "PerJob" in reason or (reason.startswith("QOSMin") and reason[6:7].isupper())


def read_queue(printed: str) -> tuple[Task, ...]:
    """Every job of what squeue printed by `FIELDS`; `MachineError` where it cannot be read."""
    return tuple(_tasks(printed))


def _tasks(printed: str) -> Iterator[Task]:
    for line in filter(None, map(str.strip, printed.splitlines())):
        try:
            array, index, state, status, node, reason = map(str.strip, line.split("|", 5))
            yield Task(array, int(index), state, int(status), node, reason)
        except ValueError:
            raise MachineError(f"squeue said {line!r}, which is not what Slurm's says since version 22.05") from None


def asked(settings: Slurm, job: LaneJob) -> list[str]:
    """What a job needs, as options of sbatch."""
    return [
        *settings.options,
        *([f"--partition={settings.partition}"] if settings.partition else []),
        *([f"--account={settings.account}"] if settings.account else []),
        *([f"--gres={settings.gres.format(gpus=job.gpus)}"] if job.gpus else []),
        f"--time={math.ceil(job.limit_s / 60)}",
    ]


def submission(settings: Slurm, job: LaneJob, name: str, indices: Sequence[int]) -> list[str]:
    """sbatch's command line, for an array of jobs that are asked like ``job``.

    A job begins once. Whose machine went away is begun again by whoever counts, not by Slurm.
    """
    return [
        "sbatch",
        *asked(settings, job),
        "--nodes=1",
        "--ntasks=1",
        f"--array={','.join(map(str, indices))}",
        f"--job-name={name}",
        "--output=/dev/null",  # Slurm has patterns in names of files: the script writes the log itself
        "--propagate=NONE",  # our limits are not the node's
        "--no-requeue",
        "--parsable",
    ]


def script(places: Sequence[tuple[int, Place]], begin: Begin) -> str:
    """The array's script: each job goes to its place by its number, sees what ``begin`` says, and writes its log."""
    lines = ["#!/bin/sh", 'case "$SLURM_ARRAY_TASK_ID" in']
    for index, place in places:
        folder = place.folder.absolute()
        lines += [f"{index}) folder={_quoted(folder)}", f"   set -- {shlex.join(begin.argv(folder))} ;;"]
    lines += [
        "esac",
        f'cd / && [ -d "$folder" ] && cd {_quoted(begin.cwd.absolute())} || exit {UNSEEN}',
        f'exec >> "$folder/{LOG}" 2>&1',
        # An argument with an equals sign in it is a setting for env: sh begins what may have one in its path.
        f'exec /usr/bin/env -i {_environment(begin, places[0][1].job.gpus)} /bin/sh -c \'exec "$@"\' sh "$@"',
    ]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _environment(begin: Begin, gpus: int) -> str:
    set_by_us = {name: value for name, value in begin.environment.items() if name not in _OF_SESSIONS}
    if not gpus:
        set_by_us["CUDA_VISIBLE_DEVICES"] = ""
    given = [f'${{{name}+"{name}=${name}"}}' for name in (*(_GIVEN if gpus else _GIVEN[1:]), *_OF_SESSIONS)]
    return " ".join([*(shlex.quote(f"{name}={value}") for name, value in set_by_us.items()), *given])
