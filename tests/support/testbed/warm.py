"""Children that need not import SGLang: forked from a process that has (`testbed.zygote`).

torch and SGLang take six seconds of processor time to import, in each child of each guard. A warm process
imports them once; a child forked from it has all that a fresh interpreter would have, after milliseconds:
its own session, output, environment and line to the test, and this process as its parent.

What it is forked from must have been imported under the child's own environment. A child whose environment
differs from the test run's gets a warm process that was started with exactly its environment, but for those
variables in which the two may differ: `LATE_NAMES` and `LATE_PREFIXES`, of which no library that is loaded
there reads any as it loads, and of them only those that no Python module touched while it was imported.

Where none can be forked from, `NotWarm` says why, and the child starts in a fresh interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from testbed.zygote import MESSAGE_BYTES, MODULES, Answer, Order, Ready

LATE_NAMES = frozenset({"GLOO_SOCKET_IFNAME", "PYTEST_CURRENT_TEST", "RANK", "WORLD_SIZE"})
"""Read when a process group is made, or by nobody. A warm process never has them."""

LATE_PREFIXES = ("SGLANG_", "MC_")
"""SGLang is Python and is watched; Mooncake's engine is only loaded after the fork."""

MOST_AT_A_TIME = 3
"""Each holds half a gigabyte. The one that was not asked for longest makes room."""

START_LIMIT_S = 180.0
FORK_LIMIT_S = 60.0

PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37  # prctl(2)

_START = "from testbed.zygote import main; main()"


class NotWarm(Exception):
    """No child can be forked; the message says why."""


class WarmProcessGone(Exception):
    """A warm process ended, or fell silent, where it was to fork."""


class Forked:
    """A forked process, with what is used of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


class WarmProcess:
    """One process to fork from, with an environment that stays."""

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str], log: Path) -> None:
        self.log = log
        self.environment = dict(environment)
        self._line, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there, log.open("wb") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-u", "-c", _START, str(there.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                pass_fds=[there.fileno()],
                start_new_session=True,
            )
        self.pid = self._popen.pid
        try:
            ready: Ready = self._receive(START_LIMIT_S, "while it imported")
        except BaseException:
            self.close()
            raise
        self.early = ready.early
        self.unfit = ready.unfit

    def fork(self, order: Order, connection: int, output: int) -> Forked:
        """Raises `NotWarm`, or `WarmProcessGone`."""
        with _adopting():
            try:
                socket.send_fds(self._line, [pickle.dumps(order)], [connection, output])
            except OSError:
                raise self._gone("before it could fork") from None
            answer: Answer = self._receive(FORK_LIMIT_S, "while it forked")
        if answer.unfit:
            raise NotWarm(answer.unfit)
        return Forked(answer.pid)

    def _receive(self, limit_s: float, when: str) -> Any:
        self._line.settimeout(limit_s)
        try:
            message = self._line.recv(MESSAGE_BYTES)
        except TimeoutError:
            raise WarmProcessGone(f"warm process {self.pid} said nothing for {limit_s:.0f} s {when}") from None
        except OSError:
            message = b""
        if not message:
            raise self._gone(when)
        return pickle.loads(message)

    def _gone(self, when: str) -> WarmProcessGone:
        said = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        return WarmProcessGone(f"warm process {self.pid} ended with {self._popen.wait()} {when}; it wrote\n{said}")

    def close(self) -> None:
        """End it. What was forked from it goes on."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        self._line.close()


class WarmProcesses:
    """All warm processes of a test run, started when they are asked for."""

    def __init__(self, folder: Path, environment: Mapping[str, str], modules: Sequence[str] = MODULES) -> None:
        """``environment`` is the test run's own, ``folder`` is for their output, ``modules`` what they import."""
        self._folder = folder
        self._modules = modules
        self._usual = {name: value for name, value in environment.items() if name not in LATE_NAMES}
        self._running: OrderedDict[tuple[tuple[str, str], ...], WarmProcess] = OrderedDict()
        self._lock = threading.Lock()
        self._started = self._forked = 0
        self._refused: dict[str, int] = {}

    def fork(self, environment: Mapping[str, str], connection: Connection, log: Path, output: int) -> Forked:
        """A child with this environment, its end of the line and its output, which serves the test.

        Raises `NotWarm` where it must be a fresh interpreter, `WarmProcessGone` where one that could have
        been forked from is no more; the next call starts another.
        """
        with self._lock:
            try:
                process = self._fork(environment, connection, log, output)
            except NotWarm as error:
                self._refused[str(error)] = self._refused.get(str(error), 0) + 1
                raise
            self._forked += 1
            return process

    def summary(self) -> str:
        """How many were forked, how many were not, and why."""
        said = f"{self._forked} forked from {self._started} warm processes"
        return "; ".join([said, *(f"{count} not: {reason}" for reason, count in self._refused.items())])

    def pids(self) -> list[int]:
        """The warm processes, the one that was asked last at the end."""
        return [process.pid for process in self._running.values()]

    def close(self) -> None:
        while self._running:
            self._running.popitem()[1].close()

    def _fork(self, environment: Mapping[str, str], connection: Connection, log: Path, output: int) -> Forked:
        late = {name: environment.get(name) for name in self._names_that_may_differ(environment)}
        process = self._warm({**environment, **self._usual_values(late)})
        early = late.keys() & process.early
        if early and not process.unfit:
            late = {name: value for name, value in late.items() if name not in early}
            process = self._warm({**environment, **self._usual_values(late)})
        if process.unfit:
            raise NotWarm(process.unfit)
        order = Order(os.getpid(), str(log.resolve()), str(Path.cwd()), late)
        try:
            return process.fork(order, connection.fileno(), output)
        except NotWarm:
            raise
        except BaseException:  # also the limit of a test: what would be answered now is not for the next one
            self._forget(process)
            raise

    def _names_that_may_differ(self, environment: Mapping[str, str]) -> set[str]:
        different = {name for name in {*environment, *self._usual} if environment.get(name) != self._usual.get(name)}
        return {name for name in different if name in LATE_NAMES or name.startswith(LATE_PREFIXES)}

    def _usual_values(self, names: Mapping[str, object]) -> dict[str, str | None]:
        return {name: self._usual.get(name) for name in names}

    def _warm(self, environment: Mapping[str, str | None]) -> WarmProcess:
        given = {name: value for name, value in environment.items() if value is not None}
        key = tuple(sorted(given.items()))
        if key not in self._running:
            while len(self._running) >= MOST_AT_A_TIME:
                self._running.popitem(last=False)[1].close()
            self._started += 1
            self._running[key] = WarmProcess(given, self._modules, self._folder / f"warm-{self._started}.log")
        self._running.move_to_end(key)
        return self._running[key]

    def _forget(self, process: WarmProcess) -> None:
        for key, running in list(self._running.items()):
            if running is process:
                del self._running[key]
        process.close()


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Meanwhile, what is orphaned below this process becomes its own child, and not the first process's."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int()
    libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1) != 0:
        raise NotWarm(f"this process cannot be a subreaper: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, before.value)
