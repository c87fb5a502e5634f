"""Where an engine keeps the images that it pulled: a folder of this machine alone."""

from __future__ import annotations

import os
from pathlib import Path

from patchstack.errors import MachineError

FOLDER = "containers"
"""In the cache."""

VARIABLE = "PATCHSTACK_CONTAINERS"
"""Another folder, where the cache is shared by several machines."""

_SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "wekafs", "afs", "fuse.sshfs", "fuse.ceph", "9p")
"""How the types of file systems begin that other machines see, too."""


def containers_folder(cache: Path) -> Path:
    """For this machine."""
    named = os.environ.get(VARIABLE)
    return Path(named).absolute() if named else cache / FOLDER


def require_own_disk(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Raise `MachineError` where other machines see ``folder``: two podmans that know nothing of each other spoil it.

    Overlays do not work there either: https://docs.podman.io/en/stable/markdown/podman.1.html#note-unsupported-file-systems-in-rootless-mode
    """
    kind = _file_system(folder, mounts.read_text(errors="surrogateescape"))
    if kind.startswith(_SHARED):
        raise MachineError(
            f"{folder} is on a file system that other machines see ({kind}), and podman can keep no images there: "
            f"set {VARIABLE} to a folder on this machine's own disk"
        )


def _file_system(folder: Path, mounts: str) -> str:
    """The type of the file system that ``folder`` is on, as proc_pid_mountinfo(5) has it."""
    found = ("", "")
    place = folder.resolve()
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        target = before.split()[4].encode().decode("unicode_escape")
        if place.is_relative_to(target) and len(target) >= len(found[0]):
            found = target, after.split()[0]
    return found[1]
