"""Programs of a test with children of their own: a server, a load balancer.

What `testbed.processes` promises for a function, this promises for a program that starts more processes: a
session of its own, its output kept and shown when the test fails, the stacks of *every* process of the session
when it hangs, and none of them left behind. It ends with the test run however that ends.

Each process of the session that runs `testbed.launcher` writes its Python stacks when it is told to stop; the
others (multiprocessing's resource tracker) are ended with them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO

from testbed.child import Task, die_with_parent
from testbed.processes import tail
from testbed.stacks import (
    STACKS_SIGNAL,
    Process,
    exits_of,
    processes_of_session,
    send,
    wait_for_all,
    write_on_signal,
    youngest_first,
)
from testbed.warm import Forked, NotWarm, WarmProcesses

STACKS_FOLDER = "TESTBED_STACKS"
"""Environment variable: the folder in which each process writes its stacks, in a file named by its id."""

ABORT_LIMIT_S = 15.0
"""How long processes may take to write their stacks before they are killed."""

END_LIMIT_S = 10.0


class ProgramEnded(Exception):
    """A program ended where it was to go on; its output is in the message."""


class Program:
    """One started program, in a session of its own."""

    def __init__(self, name: str, process: subprocess.Popen[bytes] | Forked, log: Path, stacks: Path) -> None:
        self.name = name
        self.log = log
        self.pid = process.pid
        self._process = process
        self._stacks = stacks
        self.ended = False
        self._exit = os.pidfd_open(self.pid)
        self._last_words = ""

    def exits_within(self, limit_s: float) -> bool:
        """Whether its first process ends within ``limit_s`` seconds."""
        return self.ended or bool(wait([self._exit], max(0.0, limit_s)))

    def require_running(self) -> None:
        """Raise `ProgramEnded` if it has ended, with what it wrote last or where it hung."""
        if self.exits_within(0):
            said = self._last_words or f"its output ends with\n{tail(self.log)}"
            raise ProgramEnded(f"{self.name} is not running any more; {said}")

    def processes(self) -> list[Process]:
        """All processes of its session that are alive, the first one first."""
        return [] if self.ended else processes_of_session(self.pid)

    def process(self, title: str) -> Process:
        """The one process whose title ends with ``title``: ``scheduler``, ``scheduler_TP1``, ``detokenizer``, ..."""
        self.require_running()
        found = [process for process in self.processes() if process.title.endswith(title)]
        if len(found) != 1:
            titles = ", ".join(process.title for process in self.processes())
            raise LookupError(f"{self.name} has {len(found)} processes called {title!r}; it has: {titles}")
        return found[0]

    def output(self) -> str:
        """Everything that its processes have written so far."""
        return self.log.read_text(errors="replace")

    def abort(self) -> str:
        """End it so that each of its processes writes the stacks of all its threads first; return them."""
        return abort([self])

    def end(self) -> None:
        """Kill all of its processes and wait until they are gone."""
        if self.ended:
            return
        with exits_of(processes_of_session(self.pid)) as exits:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            wait_for_all(exits, time.monotonic() + END_LIMIT_S)
        self.ended = True
        os.close(self._exit)

    # For `abort`.

    def _read_stacks(self, processes: Sequence[Process]) -> str:
        said = []
        for process in processes:
            path = self._stacks / str(process.pid)
            if path.is_file():
                said.append(
                    f"[{self.name}: {process.title}, process {process.pid}]\n{path.read_text(errors='replace')}"
                )
        return "\n".join(said) or f"[{self.name}] (it wrote no stacks)"


class Programs:
    """The programs of one test, or of all. `close` ends those that still run."""

    def __init__(self, folder: Path, warm: WarmProcesses | None = None) -> None:
        """``warm`` is where programs are forked from; without it each is a fresh interpreter."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.sockets = Path(tempfile.mkdtemp(prefix="bed-"))
        """For Unix sockets: their paths have at most 107 characters, and a test's folder may be too deep."""
        self._warm = warm
        self._lines: list[Connection] = []
        self._programs: list[Program] = []
        self._seen: dict[str, int] = {}

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        env: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> Program:
        """Start `testbed.launcher` with these arguments; a second program of one name gets a number.

        ``env`` is laid over this process's environment, and so are ``settings``, the bed's own variables.
        ``fresh`` asks for a fresh interpreter, and for such children.
        """
        taken = {program.name for program in self._programs}
        names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
        name = next(new for new in names if new not in taken)
        log, stacks = self.folder / f"{name}.log", self.folder / f"{name}.processes"
        stacks.mkdir()
        environment = {**os.environ, **(env or {})}
        settings = {**(settings or {}), STACKS_FOLDER: str(stacks)}
        with log.open("wb") as output:
            process = None if fresh else self._fork(arguments, environment, settings, log, output)
            process = process or subprocess.Popen(
                [sys.executable, "-u", "-m", "testbed.launcher", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, **settings},
                start_new_session=True,
            )
        program = Program(name, process, log, stacks)
        self._programs.append(program)
        return program

    def _fork(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        settings: Mapping[str, str],
        log: Path,
        output: IO[bytes],
    ) -> Forked | None:
        """A process forked from a warm one; None if there is none."""
        if self._warm is None:
            return None
        from testbed import launcher  # which needs this module

        here, there = Pipe()
        with there:
            try:
                process = self._warm.fork(environment, there, log, output.fileno())
            except NotWarm as reason:
                output.write(f"testbed: a fresh interpreter, for the warm process is unfit: {reason}\n".encode())
                output.flush()
                return None
        here.send_bytes(pickle.dumps(Task.of(launcher.serve, (tuple(arguments), dict(settings)))))
        self._lines.append(here)  # the process ends when it is closed
        return process

    def abort(self) -> str:
        """End all that still run and return the stacks of all their processes; for a test whose time is up."""
        return abort([program for program in self._programs if not program.exits_within(0)])

    def pids(self) -> set[int]:
        """All processes of all programs that are alive."""
        return {process.pid for program in self._programs for process in program.processes()}

    def mark(self) -> None:
        """From now on `logs` shows only what is written from now on."""
        self._seen = {program.name: program.log.stat().st_size for program in self._programs}

    def logs(self) -> list[tuple[str, str]]:
        """The end of each program's output since the last `mark`, by name."""
        said = []
        for program in self._programs:
            text = tail(program.log, since=self._seen.get(program.name, 0))
            if text:
                said.append((program.name, text))
        return said

    def close(self) -> None:
        for program in self._programs:
            program.end()
        for line in self._lines:
            line.close()
        shutil.rmtree(self.sockets, ignore_errors=True)


def abort(programs: Sequence[Program]) -> str:
    """End programs that hang and return the stacks of all their processes.

    All are stopped before the first is told, so that no stack shows the death of a neighbour, and children are
    told before their parents.
    """
    late = [(program, program.processes()) for program in programs if not program.ended]
    everyone = [process for _, processes in late for process in processes]
    send(everyone, signal.SIGSTOP)
    deadline = time.monotonic() + ABORT_LIMIT_S
    for generation in youngest_first(everyone):
        with exits_of(generation) as exits:
            send(generation, STACKS_SIGNAL)
            send(generation, signal.SIGCONT)
            wait_for_all(exits, deadline)
    stacks = []
    for program, processes in late:
        said = program._read_stacks(processes)
        program._last_words = f"it hung, and its processes were at\n{said}"
        stacks.append(said)
        program.end()
    return "\n".join(stacks)


def enter() -> None:
    """What each process of a program does first, the started one and those that it spawns."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = os.environ.get(STACKS_FOLDER)
    if folder:
        # SGLang enables the fault handler for itself, on its own output: a signal of ours stays ours.
        write_on_signal((Path(folder) / str(os.getpid())).open("w"))


def end_with_the_test() -> None:
    """For the started process: to be killed when the test run ends, however it ends."""
    die_with_parent()
