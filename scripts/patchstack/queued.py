"""What stands in a Slurm cluster's queue for us, each under a name of its own.

The name is written into the state folder before anything is given to Slurm, and taken out when nothing is queued or
runs under it any more. Whoever finds one there and holds the night's lock comes after a run that was killed, and
cancels what that has left.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

from patchstack import process
from patchstack.errors import MachineError
from patchstack.process import Completed

FOLDER = "queued"
ANSWER_LIMIT_S = 300.0
"""sbatch tries by itself for some minutes where a controller takes no more jobs for now."""
END_LIMIT_S = 60.0
"""So long a job that was cancelled may take to end; Slurm's KillWait is 30 s where nobody sets it."""
_LOOK_EVERY_S = 0.2
_SEEN = ("PATH", "HOME", "USER", "LOGNAME", "LD_LIBRARY_PATH", "SLURM_CONF")
"""Of our environment. SBATCH_* and SQUEUE_* would change what is asked, and a job may get all that sbatch has."""


def ask(argv: Sequence[str], *, stdin: str | None = None) -> Completed:
    """Run one of Slurm's programs; `MachineError` where it fails."""
    environment = {name: os.environ[name] for name in _SEEN if name in os.environ}
    environment = {**environment, "LC_ALL": "C.UTF-8"}
    return process.run(argv, cwd=Path("/"), env=environment, stdin=stdin, timeout_s=ANSWER_LIMIT_S)


@contextmanager
def named(state: Path, what: str, progress: Callable[[str], None]) -> Iterator[str]:
    """A name for jobs in the queue. At the end of the block, however it comes, what stands there under it is cancelled.

    ``what`` is for people who read the queue.
    """
    name = f"patchstack-{re.sub('[^A-Za-z0-9.-]', '-', what)[:40]}-{secrets.token_hex(6)}"
    file = state / FOLDER / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    try:
        yield name
    finally:
        said = _cancelled(file)
        if said:
            progress(said)


def cancel_left(state: Path) -> tuple[str, ...]:
    """Cancel what a killed run has left in the queue; what was done, in words. The caller holds the night's lock."""
    folder = state / FOLDER
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return tuple(_cancelled(file) or f"Slurm's queue has nothing more of {file.name}, a killed run's" for file in files)


def _cancelled(file: Path) -> str:
    """Cancel what is called as ``file`` is; what is not in order, in words: then the file stays for the next run."""
    try:
        if not _ended(file.name):
            return f"Slurm has not ended {file.name} yet: the next run looks again"
    except MachineError as error:
        return (
            f"jobs called {file.name} may still be in Slurm's queue: the next run cancels them, "
            f"or `scancel --me --name={file.name}`: {error}"
        )
    file.unlink(missing_ok=True)
    with suppress(OSError):  # another name is in it
        file.parent.rmdir()
    return ""


def _ended(name: str) -> bool:
    """Whether nothing of that name is left, once it is cancelled."""
    look = ["squeue", "--me", f"--name={name}", "--noheader", "--format=%A"]
    if not ask(look).stdout.strip():
        return True
    ask(["scancel", "--quiet", "--me", f"--name={name}"])
    pause = Event()
    for _ in range(int(END_LIMIT_S / _LOOK_EVERY_S)):
        if not ask(look).stdout.strip():
            return True
        pause.wait(_LOOK_EVERY_S)
    return False
