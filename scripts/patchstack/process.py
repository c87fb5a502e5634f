"""Every program other than git is started here: by argv, never through a shell.

Output is captured as text, by way of files: what a child leaves behind may hold a pipe open for ever. A child
runs in a session of its own, and when it ends, of itself or by us, what is left of that session is ended too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from patchstack.errors import MachineError


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


def _end_session(child: subprocess.Popen[bytes]) -> None:
    """End the child, and all that it started and that did not make a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


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
) -> Completed:
    """Run ``argv`` to its end and return what it printed.

    ``env`` replaces the whole environment (``None``: inherit it). Raises `ProcessFailed` for a non-zero
    end when ``check``, `ProcessTimeout` after ``timeout_s`` seconds, and `MachineError` when the program
    is not there.
    """
    with ExitStack() as files:
        given, out, err = (files.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write((stdin or "").encode(errors="surrogateescape"))
        given.seek(0)
        try:
            child = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=given,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            raise MachineError(f"`{argv[0]}` cannot be started: {error.strerror}; install it and run again") from error
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _end_session(child)
            raise ProcessTimeout(argv, timeout_s or 0.0, _text(out), _text(err)) from None
        finally:
            _end_session(child)
        completed = Completed(tuple(argv), child.returncode, _text(out), _text(err))
    if check and completed.returncode != 0:
        raise ProcessFailed(completed)
    return completed
