"""Who gives the jobs of a lane to machines, and waits for them: this machine itself, a Slurm cluster.

A job is a folder: what is asked in ``job.json``, what the machine answers in ``answer.json`` (written whole or not at
all), what it printed in ``log.txt``. An executor begins ``patchstack job FOLDER`` somewhere, once, and again where the
machine went away; it reads no answer. GitHub's runners are given their jobs by the workflow, not by an executor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from patchstack.deadline import Deadline
from patchstack.model import JobEnd, LaneJob

JOB, ANSWER, LOG = "job.json", "answer.json", "log.txt"
_LONGEST = 400
_TAIL_BYTES = 16 << 10


@dataclass(frozen=True)
class Place:
    """A job and its folder."""

    job: LaneJob
    folder: Path

    @property
    def is_answered(self) -> bool:
        return (self.folder / ANSWER).is_file()

    @property
    def said_last(self) -> str:
        """The last line that it printed: where there is no answer, why."""
        log = self.folder / LOG
        if not log.is_file():
            return "it printed nothing"
        with log.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("patchstack: ")[:_LONGEST] if lines else "it printed nothing"


@dataclass(frozen=True)
class Begin:
    """How a machine begins a job."""

    argv: Callable[[Path], list[str]]
    """The command for a job's folder."""
    cwd: Path
    environment: dict[str, str]
    """All that it sees."""


class Executor(Protocol):
    """One kind of machines."""

    @property
    def name(self) -> str: ...

    def run(
        self,
        places: Sequence[Place],
        begin: Begin,
        *,
        retries: int,
        deadline: Deadline | None,
        progress: Callable[[str], None],
    ) -> tuple[JobEnd, ...]:
        """What became of each job, in the order of ``places``.

        Returns when all have ended, or are late; leaves none behind, also when it is interrupted. `MachineError` where
        this kind of machines cannot be asked at all.
        """
        ...
