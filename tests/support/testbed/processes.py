"""Functions of a test in processes of their own: start, talk, join with a limit, see stacks, leave nothing.

A child is a session of its own. It is forked from a process that has imported SGLang and done nothing else
(`testbed.warm`), or is a fresh interpreter; never a fork of the test run, for gloo, ZMQ and Mooncake threads
do not survive one. It loads the function from the file that defines it, calls it with a `Link` and the given
arguments, and sends back what it returned or raised. One that has returned keeps its process, its threads
and its connections until all that are joined with it are done, as a server would: else a neighbour that
waits for it would see a closed connection where it really would hang. One that raised exits at once. No exit
handler runs: a native library's may hang, and would hide the result.

A child that is not done in time is stopped, told to abort, and let go: Python's fault handler writes the
stack of each of its threads before it dies. All late children are stopped before the first is told, so
that no stack shows the death of a neighbour.
"""

from __future__ import annotations

import contextlib
import enum
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

from testbed.child import Link, Raised, Task, stacks_path
from testbed.warm import Forked, NotWarm, WarmProcesses

__all__ = ["Child", "ChildEnded", "ChildFailed", "ChildSilent", "Children", "Ended", "Link", "Report", "State", "abort"]

ABORT_LIMIT_S = 10.0
"""How long a child may take to write its stacks after it was told to abort, before it is killed."""

_START = "from testbed.child import main; main()"

LOG_LINES = 60
"""How much of a child's output a description shows."""


class State(enum.StrEnum):
    RETURNED = "returned"
    RAISED = "raised"
    EXITED = "exited"  # without a word: killed, os._exit, a crash in native code
    HUNG = "hung"  # not done in time


class ChildEnded(Exception):
    """The child ended where a message from it was expected."""


class ChildSilent(Exception):
    """The child sent nothing within the limit; its stacks are in the message, and it has been ended."""


class ChildFailed(Exception):
    """A child raised something other than an assertion of the test's, or exited without a result."""


@dataclass(frozen=True)
class Report:
    """How one child ended."""

    name: str
    pid: int
    state: State
    value: Any = None
    """What the function returned."""
    raised: Raised | None = None
    returncode: int = 0
    stacks: str = ""
    """Python stacks of all threads at the limit; empty unless it hung."""
    log: Path = Path()
    """Everything that it wrote to its output."""

    @property
    def is_crash(self) -> bool:
        """It exited without a result, or raised something that is no assertion of the test's."""
        if self.state is State.RAISED:
            return self.raised is None or not self.raised.by_the_test
        return self.state is State.EXITED

    def describe(self) -> str:
        """A line that says what happened, then what is known about it."""
        match self.state:
            case State.RETURNED:
                said = f"returned {self.value!r}"
            case State.RAISED:
                said = f"raised {self.raised.type_name}: {self.raised.message}\n{self.raised.traceback}"
            case State.EXITED:
                said = f"exited with {self.returncode}; its output ends with\n{tail(self.log)}"
            case State.HUNG:
                said = f"hung; its threads were at\n{self.stacks}"
        return f"{self.name} {said}"


@dataclass(frozen=True)
class Ended:
    """How all children of a join ended, in the order in which they were started."""

    reports: tuple[Report, ...]

    @property
    def hung(self) -> list[str]:
        """Names of those that were not done in time. A guard asserts that this is empty.

        Raises `ChildFailed` if another one crashed, for then the hang is only what came of that. A guard
        whose fault *is* a crash looks at ``reports``.
        """
        self._refuse_crashes()
        return [report.name for report in self.reports if report.state is State.HUNG]

    def __getitem__(self, name: str) -> Report:
        return next(report for report in self.reports if report.name == name)

    def values(self) -> list[Any]:
        """What each returned.

        Raises `ChildFailed` if one crashed, else AssertionError if one hung or an assertion of the test's
        failed in one.
        """
        self._refuse_crashes()
        if any(report.state is not State.RETURNED for report in self.reports):
            raise AssertionError(self.describe())
        return [report.value for report in self.reports]

    def describe(self) -> str:
        """All reports, those that went wrong first."""
        ordered = sorted(self.reports, key=lambda report: (not report.is_crash, report.state is State.RETURNED))
        return "\n".join(report.describe() for report in ordered)

    def _refuse_crashes(self) -> None:
        if any(report.is_crash for report in self.reports):
            raise ChildFailed(self.describe())


class Child:
    """One started process."""

    def __init__(self, name: str, process: subprocess.Popen[bytes] | Forked, connection: Connection, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self.log = log
        self.ended = False
        self.hung = False
        self._process = process
        self._connection = connection
        self._line_is_open = True
        self._exit = os.pidfd_open(process.pid)
        self._messages: list[Any] = []
        self._last: tuple[str, Any] | None = None

    def send(self, message: object) -> None:
        """Give the child's ``link.receive()`` a message (pickled)."""
        self._connection.send_bytes(pickle.dumps(message))

    def receive(self, limit_s: float = 60.0) -> Any:
        """The child's next ``link.send(...)``. Raises `ChildEnded` or, after ``limit_s``, `ChildSilent`."""
        deadline = time.monotonic() + limit_s
        while not self._messages:
            if self.done:
                raise ChildEnded(f"no message came: {self.report().describe()}")
            if not wait(self.sources(), max(0.0, deadline - time.monotonic())):
                abort([self])
                raise ChildSilent(f"nothing from {self.name} in {limit_s:.0f} s:\n{self.stacks()}")
            self.advance()
        return self._messages.pop(0)

    def signal(self, number: int) -> None:
        """Send a signal to the child's process alone (SIGSTOP, SIGCONT, SIGKILL in fault tests)."""
        if not self.ended:
            os.kill(self.pid, number)

    @property
    def done(self) -> bool:
        """Whether it has returned, raised or exited."""
        return self.ended or self._last is not None

    def report(self) -> Report:
        """How it ended; ends one that is done and still there."""
        if not self.done:
            raise RuntimeError(f"{self.name} still runs")
        self.end()
        kind, payload = self._last or ("", None)
        state = State(kind) if kind else State.HUNG if self.hung else State.EXITED
        return Report(
            name=self.name,
            pid=self.pid,
            state=state,
            value=payload if state is State.RETURNED else None,
            raised=payload if state is State.RAISED else None,
            returncode=self._process.returncode,
            stacks=self.stacks() if state is State.HUNG else "",
            log=self.log,
        )

    def stacks(self) -> str:
        """What Python's fault handler wrote when the child was told to abort."""
        path = stacks_path(self.log)
        return (path.read_text(errors="replace") if path.is_file() else "") or "(it wrote no stacks)"

    @property
    def has_message(self) -> bool:
        """Whether `receive` would return at once."""
        return bool(self._messages)

    # What follows is for `Children`, `abort` and those who wait for several children.

    def sources(self) -> list[Connection | int]:
        """What becomes readable when the child says something or exits."""
        return [self._exit, self._connection] if self._line_is_open else [self._exit]

    def advance(self) -> None:
        """Take in all that the child has said so far, and its end."""
        if self.ended:
            return
        # Asked before the line is read: what was written before the exit is then all there.
        has_exited = self.has_exited()
        while self._line_is_open and self._connection.poll(0):
            try:
                kind, payload = pickle.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                self._line_is_open = False
                break
            if kind == "message":
                self._messages.append(payload)
            else:
                self._last = (kind, payload)
        if has_exited:
            self.end()

    def has_exited(self) -> bool:
        """Whether the process is over; leaves it a zombie, so that its id stays its own."""
        return self.ended or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def exits_within(self, limit_s: float) -> bool:
        return bool(wait([self._exit], max(0.0, limit_s)))

    def end(self) -> None:
        """Kill the process, if it still runs, and all that it started; then reap it."""
        if self.ended:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self.ended = True
        os.close(self._exit)

    def close(self) -> None:
        self.end()
        self._connection.close()


class Children:
    """The processes of one test. `close` ends all that still run; the fixture ``children`` calls it."""

    def __init__(self, folder: Path, warm: WarmProcesses | None = None) -> None:
        """``warm`` is where children are forked from; without it each is a fresh interpreter."""
        self.folder = folder
        self._warm = warm
        folder.mkdir(parents=True, exist_ok=True)
        self._children: list[Child] = []
        self._joined: set[str] = set()

    def start(
        self,
        function: Callable[..., Any],
        *args: object,
        name: str = "",
        env: dict[str, str] | None = None,
        fresh: bool = False,
    ) -> Child:
        """Start ``function(link, *args)``; it must be defined at the top of a module that is a file.

        ``args`` travel by pickle. ``env`` is laid over this process's environment. ``name`` is what reports
        call the child and must be new in this test; left out, it is the function's name and a number.

        What SGLang reads while it is imported must be in ``env``: the child may have SGLang imported when the
        function is called. One that has to see to something before that asks for a ``fresh`` interpreter.
        """
        name = name or f"{function.__name__}-{len(self._children)}"
        if any(child.name == name for child in self._children):
            raise ValueError(f"a child named {name} was started before in this test")
        task = Task.of(function, args)
        here, there = Pipe()
        log = self.folder / f"{name}.log"
        with there, log.open("wb") as output:
            process = self._start_process({**os.environ, **(env or {})}, there, log, output, fresh)
        child = Child(name, process, here, log)
        self._children.append(child)
        here.send_bytes(pickle.dumps(task))
        return child

    def _start_process(
        self, environment: dict[str, str], line: Connection, log: Path, output: IO[bytes], fresh: bool
    ) -> subprocess.Popen[bytes] | Forked:
        if self._warm is not None and not fresh:
            try:
                return self._warm.fork(environment, line, log, output.fileno())
            except NotWarm as reason:
                output.write(f"testbed: a fresh interpreter, for the warm process is unfit: {reason}\n".encode())
                output.flush()
        return subprocess.Popen(
            [sys.executable, "-u", "-c", _START, str(line.fileno()), str(log)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[line.fileno()],
            start_new_session=True,
        )

    def join(self, limit_s: float) -> Ended:
        """Wait until every child is done, at most ``limit_s`` seconds, and end them all.

        Reports only the children that were started since the last join.
        """
        joining = [child for child in self._children if child.name not in self._joined]
        deadline = time.monotonic() + limit_s
        while pending := [child for child in joining if not child.done]:
            sources = [source for child in pending for source in child.sources()]
            if not wait(sources, max(0.0, deadline - time.monotonic())):
                abort(pending)
                break
            for child in pending:
                child.advance()
        self._joined.update(child.name for child in joining)
        return Ended(tuple(child.report() for child in joining))

    def abort(self) -> str:
        """End every child that still runs and return their stacks; for a test whose own time is up."""
        running = [child for child in self._children if not child.has_exited()]
        abort(running)
        return "\n".join(f"[{child.name}, process {child.pid}]\n{child.stacks()}" for child in running)

    def pids(self) -> set[int]:
        """The processes that were started, those that they started not among them."""
        return {child.pid for child in self._children if not child.ended}

    def logs(self) -> list[tuple[str, str]]:
        """The end of each child's output, by name."""
        return [(child.name, tail(child.log)) for child in self._children]

    def close(self) -> None:
        """Kill what still runs, with everything that it started."""
        for child in self._children:
            child.close()


def run_alone(
    function: Callable[..., Any], *args: object, folder: Path, warm: WarmProcesses | None = None, limit_s: float = 120.0
) -> Any:
    """What ``function(*args)`` returns in a process of its own, whose output goes into ``folder``."""
    children = Children(folder, warm)
    try:
        children.start(_run_alone, Task.of(function, args))
        return children.join(limit_s).values()[0]
    finally:
        children.close()


def _run_alone(_link: Link, task: Task) -> Any:
    function, args = task.load()
    return function(*args)


def abort(children: Iterable[Child]) -> None:
    """End ``children`` so that each writes the Python stacks of all its threads first."""
    late = [child for child in children if not child.has_exited()]
    for number in (signal.SIGSTOP, signal.SIGABRT, signal.SIGCONT):
        for child in late:
            os.kill(child.pid, number)
    deadline = time.monotonic() + ABORT_LIMIT_S
    for child in late:
        child.hung = True
        child.exits_within(deadline - time.monotonic())
    for child in late:
        child.advance()
        child.end()


def tail(log: Path, lines: int = LOG_LINES, since: int = 0) -> str:
    """The last lines of what was written to ``log`` from byte ``since`` on."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(since)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
