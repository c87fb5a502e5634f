"""Whether this machine is to blame when a program fails: its disk, its memory, what it allows."""

from __future__ import annotations

import os
from pathlib import Path

from patchstack.errors import MachineError

_SAID = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "Read-only file system",
    "Too many open files",
    "Cannot allocate memory",
)
"""The system's words (strerror(3), in the C locale), as git passes them on."""

_FULL_BYTES = 64 << 10
"""A disk with less room than this is full."""


def require_machine(stderr: str, folder: Path) -> None:
    """`MachineError` when a git that worked in ``folder`` failed for what this machine does not allow.

    What a remote said does not count. Of a ref that it cannot write git does not say why: then the disk is asked.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("remote:")]
    said = next((line for line in lines if any(words in line for words in _SAID)), None)
    if said is None and lines:
        disk = os.statvfs(folder)
        said = f"{lines[0]}: {_SAID[0]}" if disk.f_bavail * disk.f_frsize < _FULL_BYTES else None
    if said is not None:
        raise MachineError(f"git could not go on in {folder}: {said}; make room, or mend the disk, and run again")
