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
import sys
import tempfile
import threading
import time
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


class OutputTooLong(MachineError):
    """The program was ended because it printed more than it may."""

    def __init__(self, argv: Sequence[str], most_bytes: int) -> None:
        super().__init__(f"`{' '.join(argv[:6])}` was ended: it printed more than {most_bytes} bytes")


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
    most_output_bytes: int | None = None,
) -> Completed:
    """Run ``argv`` to its end and return what it printed.

    ``env`` replaces the whole environment (``None``: inherit it, less the credentials in it). Raises
    `ProcessFailed` for a non-zero end when ``check``, `ProcessTimeout` after ``timeout_s`` seconds, `Stopped` when
    ``under`` was pulled, `OutputTooLong` when it prints more than ``most_output_bytes``, for code that nobody
    trusts could fill the disk, and `MachineError` when the program is not there.
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

        with stop.child(argv, begin) as child:
            late = not _ended(child, timeout_s, (out, err), most_output_bytes)
        if most_output_bytes is not None and _longest((out, err)) > most_output_bytes:
            raise OutputTooLong(argv, most_output_bytes)
        if stop.pulled:
            raise Stopped(argv, _text(out), _text(err))
        if late:
            raise ProcessTimeout(argv, timeout_s or 0.0, _text(out), _text(err))
        completed = Completed(tuple(argv), child.returncode, _text(out), _text(err))
    if check and completed.returncode != 0:
        raise ProcessFailed(completed)
    return completed


# What becomes the program, in a process that ends when whoever started it was killed (prctl(2), PR_SET_PDEATHSIG);
# it asks for that after the start, so it looks whether that was in time.
_BOUND = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


# An interpreter that is not the system's may need it to start.
_LIBRARIES = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


class Beside:
    """A program that runs beside us."""

    def __init__(self, child: Popen) -> None:
        self._child = child

    @property
    def pid(self) -> int:
        return self._child.pid

    def ended_within(self, timeout_s: float) -> int | None:
        """Its return code, once it has ended; None when it still runs after ``timeout_s``."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(timeout_s)
        return None

    def ask_to_end(self) -> None:
        """As Ctrl-C does: it ends what it has begun, and then itself."""
        if self._child.poll() is None:
            self._child.terminate()

    def end(self) -> None:
        """At once, with its whole session."""
        _kill_session(self._child)


@contextlib.contextmanager
def beside(argv: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path | None = None) -> Iterator[Beside]:
    """Run ``argv`` until the end of the block, or of the thread that entered it; what it prints is written to ``log``.

    ``argv[0]`` is a path; ``env`` the whole environment, but for where this interpreter's libraries are. Raises
    `MachineError` when it cannot be started.
    """
    bound = [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), *argv]

    def begin() -> Popen:
        try:
            with log.open("wb") as out:
                return subprocess.Popen(
                    bound,
                    cwd=cwd,
                    env={**_LIBRARIES, **env},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise MachineError(f"`{argv[0]}` cannot be started: {error}") from error

    with Stop().child(argv, begin) as child:
        yield Beside(child)


_LOOK_EVERY_S = 0.2
"""How often what a child has printed is measured, where it may not print without end."""


def _longest(streams: Sequence[IO[bytes]]) -> int:
    return max(os.fstat(stream.fileno()).st_size for stream in streams)


def _ended(child: Popen, timeout_s: float | None, printed: Sequence[IO[bytes]], most_bytes: int | None) -> bool:
    """Whether the child ended, or printed too much, before its time was up."""
    if most_bytes is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout_s)
            return True
        return False
    ends_s = None if timeout_s is None else time.monotonic() + timeout_s
    while _longest(printed) <= most_bytes:
        left_s = _LOOK_EVERY_S if ends_s is None else ends_s - time.monotonic()
        if left_s <= 0:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(min(_LOOK_EVERY_S, left_s))
            return True
    return True


_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def reading(
    argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout_s: float
) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """What ``argv`` prints, to be read as it comes: for what is too much to be kept.

    The second value waits for its end: `ProcessFailed` for a non-zero one, `ProcessTimeout` when it was ended after
    ``timeout_s`` seconds. Call it when the stream has ended; without it a stream cut short reads like a whole one.
    """
    with ExitStack() as stack:
        err = stack.enter_context(tempfile.TemporaryFile())

        def begin() -> Popen:
            try:
                return subprocess.Popen(
                    list(argv),
                    cwd=cwd,
                    env=inherited() if env is None else dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=err,
                    start_new_session=True,
                )
            except OSError as error:
                raise MachineError(f"`{argv[0]}` cannot be started: {error.strerror}; install it") from error

        stop = Stop()
        child = stack.enter_context(stop.child(argv, begin))
        assert child.stdout is not None
        stack.enter_context(child.stdout)
        clock = threading.Timer(timeout_s, stop.pull)
        clock.daemon = True
        clock.start()
        stack.callback(clock.cancel)

        printed = child.stdout

        def ended() -> None:
            while printed.read(_CHUNK_BYTES):  # it would wait for ever for somebody to read it
                pass
            code = child.wait()
            if stop.pulled:
                raise ProcessTimeout(argv, timeout_s, "", _text(err))
            if code != 0:
                raise ProcessFailed(Completed(tuple(argv), code, "", _text(err)))

        yield printed, ended
