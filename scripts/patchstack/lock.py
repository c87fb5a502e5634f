"""One night at a time on one machine: an advisory lock that the kernel gives back when its holder dies.

The lock's file holds its holder's process id, and nothing once that has let go: who finds an id in it, and gets the
lock all the same, comes after one that was killed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchstack.errors import NightRunning


@contextmanager
def night_lock(path: Path) -> Iterator[str]:
    """Hold ``path`` while the block runs, which is given the id of a holder that was killed, or an empty text.

    Raises `NightRunning` at once when another process holds it. The file stays: it is the lock on its inode that
    counts, so a dead holder blocks nobody.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor) or "unknown"
            raise NightRunning(
                f"another patchstack (process {holder}) works on {path.parent}; wait for it to end and run again"
            ) from None
        killed = _holder(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            yield killed
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 64, 0).decode(errors="replace").strip()
