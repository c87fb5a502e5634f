"""Every program other than git is started here: by argv, never through a shell.

Output is captured as text, by way of files: what a child leaves behind may hold a pipe open for ever. A child
runs in a session of its own, and when it ends, of itself or by us, what is left of that session is ended too.
Only the main thread hears of Ctrl-C: what other threads run is run under a `Stop`, which that thread pulls.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from patchstack.credential import inherited
from patchstack.errors import MachineError

Popen = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Completed:
    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class ProcessFailed(MachineError):
    """The program ran and ended with something other than 0."""

    def __init__(self, completed: Completed) -> None:
        lines = completed.stderr.strip().splitlines() or completed.stdout.strip().splitlines()
        tail = "\n".join(lines[-15:])
        super().__init__(f"`{' '.join(completed.argv[:6])}` ended with {completed.returncode}:\n{tail}")
        self.completed = completed


class ProcessTimeout(MachineError):
    """The program, and all that it started, was ended because its time was up."""

    def __init__(self, argv: Sequence[str], timeout_s: float, stdout: str, stderr: str) -> None:
        super().__init__(f"`{' '.join(argv[:6])}` was ended: it ran longer than {timeout_s:.0f} s")
        self.stdout = stdout
        self.stderr = stderr


class Stopped(MachineError):
    """The program was ended, or not begun, because its `Stop` was pulled."""

    def __init__(self, argv: Sequence[str], stdout: str = "", stderr: str = "") -> None:
        super().__init__(f"`{' '.join(argv[:6])}` was ended, for the run that it belonged to was stopped")
        self.stdout = stdout
        self.stderr = stderr


class Stop:
    """Ends every program that runs under it, in whatever thread; once it is pulled, none begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: set[Popen] = set()
        self._pulled = False
        self._because = ""

    @property
    def pulled(self) -> bool:
        return self._pulled

    @property
    def because(self) -> str:
        """Why it was pulled, where that is no fault: what was found out until then counts. Else empty."""
        return self._because

    def pull(self, because: str = "") -> None:
        with self._lock:
            self._because = "" if self._pulled else because
            self._pulled = True
            for child in self._children:
                _kill_session(child)

    @contextlib.contextmanager
    def child(self, argv: Sequence[str], begin: Callable[[], Popen]) -> Iterator[Popen]:
        """What ``begin`` starts; at the end of the block its session is ended."""
        with self._lock:
            if self._pulled:
                raise Stopped(argv)
            child = begin()
            self._children.add(child)
        try:
            yield child
        finally:
            _kill_session(child)
            child.wait()
            with self._lock:
                self._children.discard(child)


def _kill_session(child: Popen) -> None:
    """End the child, and all that it started and that did not make a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout_s: float | None = None,
    check: bool = True,
    under: Stop | None = None,
) -> Completed:
    """Run ``argv`` to its end and return what it printed.

    ``env`` replaces the whole environment (``None``: inherit it, less the credentials in it). Raises
    `ProcessFailed` for a non-zero end when ``check``, `ProcessTimeout` after ``timeout_s`` seconds, `Stopped` when
    ``under`` was pulled, and `MachineError` when the program is not there.
    """
    stop = under or Stop()
    with ExitStack() as files:
        given, out, err = (files.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write((stdin or "").encode(errors="surrogateescape"))
        given.seek(0)

        def begin() -> Popen:
            try:
                return subprocess.Popen(
                    list(argv),
                    cwd=cwd,
                    env=inherited() if env is None else dict(env),
                    stdin=given,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            except OSError as error:
                said = f"`{argv[0]}` cannot be started: {error.strerror}; install it and run again"
                raise MachineError(said) from error

        late = False
        with stop.child(argv, begin) as child:
            try:
                child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                late = True
        if stop.pulled:
            raise Stopped(argv, _text(out), _text(err))
        if late:
            raise ProcessTimeout(argv, timeout_s or 0.0, _text(out), _text(err))
        completed = Completed(tuple(argv), child.returncode, _text(out), _text(err))
    if check and completed.returncode != 0:
        raise ProcessFailed(completed)
    return completed
