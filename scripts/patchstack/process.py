"""Every program other than git is started here: by argv, never through a shell.

Output is captured as text. A child runs in a session of its own, so that ending it on a time-out or on
Ctrl-C ends what it started as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def _end_session(child: subprocess.Popen[str]) -> tuple[str, str]:
    """End the child's whole session; returns what it had printed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    stdout, stderr = child.communicate()
    return stdout or "", stderr or ""


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
    try:
        child = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise MachineError(f"`{argv[0]}` cannot be started: {error.strerror}; install it and run again") from error
    try:
        stdout, stderr = child.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        stdout, stderr = _end_session(child)
        raise ProcessTimeout(argv, timeout_s or 0.0, stdout, stderr) from None
    except BaseException:
        _end_session(child)
        raise
    completed = Completed(tuple(argv), child.returncode, stdout, stderr)
    if check and completed.returncode != 0:
        raise ProcessFailed(completed)
    return completed
