"""One night at a time on one machine: an advisory lock that the kernel gives back when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchstack.errors import NightRunning


@contextmanager
def night_lock(path: Path) -> Iterator[None]:
    """Hold ``path`` while the block runs; raises `NightRunning` at once when another process holds it.

    The file stays: it is the lock on its inode that counts, so a dead holder leaves nothing to clean up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 64).decode(errors="replace").strip() or "unknown"
            raise NightRunning(
                f"another patchstack (process {holder}) works on {path.parent}; wait for it to end and run again"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
