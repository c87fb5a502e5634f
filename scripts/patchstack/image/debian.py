"""The lowest layer: Debian 12 with what is asked for, by mmdebstrap, from Debian's own signed archives."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from patchstack import process
from patchstack.credential import inherited
from patchstack.errors import ImageError
from patchstack.image.recipe import EPOCH_S
from patchstack.image.wheels import last_lines

PROGRAM = "mmdebstrap"
SUITE = "bookworm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LIMIT_S = 1800.0

# Nobody reads them in a container. What dpkg installs later in the image is left out likewise.
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/doc/*", "/usr/share/locale/*")
_KEPT = "/usr/share/doc/*/copyright"

# mmdebstrap puts this machine's name and resolver there. Bytecode holds the time of its source, which changes in the
# image: it would be stale. The loader's cache of inodes and times would be, too.
_HOOKS = (
    'rm -f "$1/etc/hostname" "$1/etc/resolv.conf"',
    'rm -rf "$1/var/cache/ldconfig"',
    'find "$1/usr" -xdev -name __pycache__ -prune -exec rm -rf {} +',
)


def argv(packages: Sequence[str], target: Path) -> list[str]:
    command = [PROGRAM, "--quiet", "--variant=minbase", f"--include={','.join(packages)}"]
    command += [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
    command += [f"--dpkgopt=path-include={_KEPT}", *(f"--customize-hook={hook}" for hook in _HOOKS)]
    if KEYRING.is_file():  # on Ubuntu apt itself does not trust Debian
        command.append(f"--keyring={KEYRING}")
    return [*command, SUITE, str(target)]


def make_debian(packages: Sequence[str], target: Path) -> None:
    """Write a root file system with ``packages`` to the tar archive ``target``; the same one twice on one day."""
    environment = {**inherited(), "SOURCE_DATE_EPOCH": str(EPOCH_S), "TMPDIR": str(target.parent)}
    done = process.run(argv(packages, target), env=environment, timeout_s=LIMIT_S, check=False)
    if done.returncode != 0:
        raise ImageError(f"mmdebstrap could not make the image's Debian:\n{last_lines(done.stderr)}")


def is_at_hand() -> bool:
    return shutil.which(PROGRAM, path=os.environ.get("PATH", os.defpath)) is not None
