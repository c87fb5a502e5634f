"""The far side of `testbed.processes`: what a child does.

`main` runs in a fresh interpreter; `testbed.zygote` calls `serve` in one that it has forked.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib.util
import os
import pickle
import queue
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from testbed.assertions import is_by_the_test
from testbed.stacks import write_on_signal
from testbed.standins import activate

PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a process gets when its parent ends


@dataclass(frozen=True)
class Task:
    """A function by the file that defines it, so that the child needs nothing of pytest's import state."""

    module: str
    file: str
    qualname: str
    args: bytes
    path: tuple[str, ...]

    @staticmethod
    def of(function: Callable[..., Any], args: tuple[object, ...]) -> Task:
        """Raises ValueError for a function that another process could not find."""
        name = f"{function.__module__}.{function.__qualname__}"
        if "<" in function.__qualname__ or function.__module__ == "__main__":
            raise ValueError(f"{name} must be defined at the top of a module for a child to load it")
        file = str(Path(function.__code__.co_filename).resolve())
        return Task(function.__module__, file, function.__qualname__, pickle.dumps(args), tuple(sys.path))

    def load(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The function and its arguments, in this process."""
        sys.path[:] = dict.fromkeys([*sys.path, *self.path])
        function: Any = self._module()
        for part in self.qualname.split("."):
            function = getattr(function, part)
        return function, pickle.loads(self.args)

    def _module(self) -> ModuleType:
        if self.module in sys.modules or "." in self.module:
            return importlib.import_module(self.module)
        spec = importlib.util.spec_from_file_location(self.module, self.file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{self.file} cannot be loaded as {self.module}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[self.module] = module
        spec.loader.exec_module(module)
        return module


@dataclass(frozen=True)
class Raised:
    """What a child's function raised."""

    type_name: str
    message: str
    traceback: str
    by_the_test: bool
    """Whether it is an assertion of the test's, not of the code under test."""


def what_was_raised(error: BaseException) -> Raised:
    text = "".join(traceback.format_exception(error))
    return Raised(type(error).__name__, str(error), text, is_by_the_test(error))


class Link:
    """The child's end of the line to its test."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(self, message: object) -> None:
        """Give the test's ``child.receive()`` a message (pickled); any thread may."""
        self._write("message", message)

    def receive(self, limit_s: float | None = 60.0) -> Any:
        """The next ``child.send(...)`` of the test; raises TimeoutError after ``limit_s`` seconds, if not None."""
        try:
            return self._inbox.get(timeout=limit_s)
        except queue.Empty:
            raise TimeoutError(f"the test sent nothing for {limit_s:.0f} s") from None

    def _write(self, kind: str, payload: object) -> None:
        with self._sending:
            self._connection.send_bytes(pickle.dumps((kind, payload)))

    def _listen(self) -> None:
        """Fill the inbox; a test that has gone takes its children with it."""
        while True:
            try:
                self._inbox.put(pickle.loads(self._connection.recv_bytes()))
            except (EOFError, OSError):
                os._exit(1)


def stacks_path(log: Path) -> Path:
    """Where a child with this log writes its stacks."""
    return log.with_suffix(".stacks")


def main() -> None:
    """``argv``: the descriptor of the line to the test, and the child's log."""
    descriptor, log = int(sys.argv[1]), Path(sys.argv[2])
    os.set_inheritable(descriptor, False)
    serve(Connection(descriptor), log)


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(connection: Connection, log: Path) -> None:
    """Run the function that comes over the line and send what it returned or raised. Never returns."""
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stacks = stacks_path(log).open("w")
    faulthandler.enable(stacks, all_threads=True)
    write_on_signal(stacks)
    task: Task = pickle.loads(connection.recv_bytes())
    link = Link(connection)
    threading.Thread(target=link._listen, name="testbed-link", daemon=True).start()
    try:
        activate()
        function, args = task.load()
        link._write("returned", function(link, *args))
    except BaseException as error:
        link._write("raised", what_was_raised(error))
        sys.stderr.flush()
        os._exit(0)
    sys.stdout.flush()
    threading.Event().wait()  # the test, or its end, ends this process
