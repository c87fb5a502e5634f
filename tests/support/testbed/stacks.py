"""Where every process of a run of guards was when time was up: ranks, servers, and whatever these have started.

Who was started by whom, and by a test or behind its back, makes no difference: what has this run's mark in its
environment belongs to it, and what such a process has started. The processes of the bed write the Python stacks of
all their threads into a file of their own when `STACKS_SIGNAL` tells them to, and die of it, interpreter's lock or
not; of every process there is what the kernel says of each thread.

A test that hangs is seen to by `testbed.plugin`. For a whole run that does there is a look-out: this file, started
by its path (``python -I -S stacks.py``) and with the standard library alone. It needs nothing of the run, waits for
its limit, and ends with it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

STACKS_SIGNAL = signal.SIGRTMIN + 5
"""Tells a process to write its stacks and die. No signal that SGLang, torch or faulthandler itself takes."""

MARK = "TESTBED_RUN"
"""Environment variable: the run of guards that a process belongs to."""

ENDINGS = (".stacks", ".processes")
"""What a process writes its stacks into: a file that ends so, or one in a folder that does."""

OF_THE_RUN, OF_PYTEST = "part.txt", "part-pytest.txt"
"""What the look-out leaves."""

TELL_LIMIT_S = 20.0
"""How long processes may take to write their stacks; `execute.STACKS_BEFORE_S` leaves time for this."""

LONGEST_BYTES = 1 << 20
"""Of what one process has written this much is kept."""


@dataclass(frozen=True)
class Process:
    """One process."""

    pid: int
    parent: int
    title: str
    """Its command line or the title that it gave itself, such as ``sglang::scheduler_TP0``."""

    @property
    def memory_mb(self) -> float:
        """Resident memory in megabytes (10^6 bytes)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_on_signal(file: IO[str]) -> None:
    """From now on `STACKS_SIGNAL` makes this process write its stacks into ``file``, and die."""
    faulthandler.register(STACKS_SIGNAL, file, all_threads=True, chain=True)


def processes_of_session(leader: int) -> list[Process]:
    """All processes of a session that are alive, by id."""
    return [process for process, session in _alive() if session == leader]


def processes_of_run(first: int, mark: str) -> list[Process]:
    """All processes that belong to the run with this mark and are alive, but its first one and this one; by id."""
    alive = [process for process, _ in _alive()]
    marked = f"{MARK}={mark}".encode()
    mine = {process.pid for process in alive if marked in _environment(process.pid)} | {first}
    while more := {process.pid for process in alive if process.parent in mine} - mine:
        mine |= more
    return [process for process in alive if process.pid in mine - {first, os.getpid()}]


def _alive() -> Iterator[tuple[Process, int]]:
    """Each process with its session, by id."""
    for pid in sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        entry = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):
            state, parent, _group, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if state not in "ZX":
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                yield Process(pid, int(parent), title), int(session)


def _environment(pid: int) -> list[bytes]:
    """As it was when the process began its program; nothing of another user's."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []


def describe(processes: Iterable[Process]) -> str:
    """What the kernel says of each process and its threads: the state, and the call that it waits in."""
    return "\n".join(_described(process) for process in processes)


def _described(process: Process) -> str:
    lines = [f"process {process.pid}, child of {process.parent}: {process.title or '(no command line)'}"]
    with contextlib.suppress(OSError):
        for task in sorted(Path(f"/proc/{process.pid}/task").iterdir(), key=lambda path: int(path.name)):
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            lines.append(f"  thread {task.name} {_text(task / 'comm')!r}: {state} {_text(task / 'wchan') or '-'}")
    return "\n".join(lines)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""


def tell(processes: Sequence[Process], limit_s: float = TELL_LIMIT_S) -> str:
    """Make those of ``processes`` that can write their stacks, and die; return what they wrote, by file.

    All are stopped before the first is told, so that no stack shows the death of a neighbour, and children are
    told before their parents: SGLang's die with their parent, and then write nothing. Forked siblings share a file:
    they write one after the other, for faulthandler writes word by word.
    """
    able = [process for process in processes if _can_write(process.pid)]
    files_of = {process.pid: _files_of(process.pid) for process in able}
    files = dict.fromkeys(path for paths in files_of.values() for path in paths)
    send(able, signal.SIGSTOP)
    deadline = time.monotonic() + limit_s
    for generation in youngest_first(able):
        for together in _sharing_nothing(generation, files_of):
            with exits_of(together) as exits:
                send(together, STACKS_SIGNAL)
                send(together, signal.SIGCONT)
                wait_for_all(exits, deadline)
    said = ((path, _beginning(path)) for path in files)
    return "\n".join(f"[{path.parent.name}/{path.name}]\n{text}" for path, text in said if text)


def _can_write(pid: int) -> bool:
    """Whether it has something to do when it is told; another process would only die."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (STACKS_SIGNAL - 1) & 1)
    return False


def _files_of(pid: int) -> list[Path]:
    """What it has open to write stacks into. A forked process has its parent's as well."""
    found = []
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                path = descriptor.readlink()
                if path.name.endswith(ENDINGS) or path.parent.name.endswith(ENDINGS):
                    found.append(path)
    return found


def _beginning(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(LONGEST_BYTES).decode(errors="replace")
    return ""


def youngest_first(processes: Sequence[Process]) -> Iterator[list[Process]]:
    """Children before their parents."""
    left = list(processes)
    while left:
        parents = {process.parent for process in left}
        yield [process for process in left if process.pid not in parents]
        left = [process for process in left if process.pid in parents]


def _sharing_nothing(processes: Sequence[Process], files_of: Mapping[int, Sequence[Path]]) -> list[list[Process]]:
    """Groups in which no two have a file in common; together they are all of ``processes``."""
    groups: list[tuple[list[Process], set[Path]]] = []
    for process in processes:
        mine = set(files_of[process.pid])
        group, theirs = next((found for found in groups if not mine & found[1]), ([], set()))
        if not group:
            groups.append((group, theirs))
        group.append(process)
        theirs |= mine
    return [group for group, _ in groups]


def send(processes: Iterable[Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


@contextlib.contextmanager
def exits_of(processes: Sequence[Process]) -> Iterator[list[int]]:
    """A descriptor for each process that becomes readable when it ends."""
    exits: list[int] = []
    try:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                exits.append(os.pidfd_open(process.pid))
        yield exits
    finally:
        for descriptor in exits:
            os.close(descriptor)


def wait_for_all(exits: Sequence[int], deadline: float) -> None:
    """Until all of them are readable, or `time.monotonic` is at ``deadline``."""
    asked = select.poll()
    for descriptor in exits:
        asked.register(descriptor, select.POLLIN)
    pending = set(exits)
    while pending and (over := asked.poll(max(0.0, deadline - time.monotonic()) * 1000)):
        for descriptor, _ in over:
            asked.unregister(descriptor)
            pending.discard(descriptor)


def look_out(run: int, mark: str, limit_s: float, folder: Path, record: Path) -> None:
    """Wait until process ``run`` ends, or ``limit_s`` seconds; then leave all stacks in ``folder`` and end it.

    ``record`` is told before it ends, for this process ends with it where it has a PID namespace.
    """
    ended = os.pidfd_open(run)
    if select.select([ended], [], [], limit_s)[0]:
        return
    first = [process for process, _ in _alive() if process.pid == run]
    described = describe([*first, *processes_of_run(run, mark)])
    os.kill(run, signal.SIGSTOP)  # what it would say from now on, of children that are dead, is no answer
    (folder / OF_THE_RUN).write_text(f"{described}\n\n{tell(processes_of_run(run, mark))}\n")
    with record.open("a") as file:
        file.write(json.dumps({"out_of_time_s": limit_s, "stacks": [OF_THE_RUN, OF_PYTEST]}) + "\n")
    os.kill(run, STACKS_SIGNAL)
    os.kill(run, signal.SIGCONT)
    if not select.select([ended], [], [], TELL_LIMIT_S)[0]:
        os.kill(run, signal.SIGKILL)


if __name__ == "__main__":
    look_out(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
