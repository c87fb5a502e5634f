"""What Python compiled for one tree, for another that differs from it in a few files.

To compile SGLang and what it imports takes longer than most guards. Python takes compiled code for that of a
source whose time and size it names (https://docs.python.org/3/reference/import.html#cached-bytecode-invalidation),
and writes a new file in place of an old one; so the equal files get the times of those that were compiled, and
the compiled ones are linked.

Whoever runs a tree writes its compiled files, and Python believes what they say. So they are taken only from a
tree whose code the other one runs anyway; and where we are root a linked file is ours from then on, so that
neither can rewrite what the other runs (`unprivileged.hand_over`).
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from patchstack.regress.execute import Tree

_COMPILED = ".pyc"


def take_over(origin: Tree, tree: Tree, changed: Collection[str]) -> None:
    """Give ``tree`` what was compiled for ``origin``; ``changed`` names the files in which the two differ.

    All code of ``origin`` must be code that ``tree`` may run. What is not there, or goes away meanwhile, is
    compiled again: nothing depends on this but time.
    """
    for top, folders, files in os.walk(tree.folder):
        folders[:] = [name for name in folders if not (Path(top) / name).is_symlink()]
        for name in files:
            place = Path(top, name)
            path = place.relative_to(tree.folder)
            if name.endswith(".py") and path.as_posix() not in changed:
                with suppress(FileNotFoundError):
                    theirs = (origin.folder / path).lstat()
                    os.utime(place, ns=(theirs.st_atime_ns, theirs.st_mtime_ns), follow_symlinks=False)
    if not origin.bytecode.is_dir():
        return
    compiled = _below(origin.bytecode, origin.folder)
    # Somebody may be writing there who wants us to read or change something else: no link is followed.
    for top, _, files, descriptor in os.fwalk(origin.bytecode):
        for name in files:
            place = Path(top, name)
            if not name.endswith(_COMPILED):
                continue  # one that is being written
            if not place.is_relative_to(compiled):
                _link(name, descriptor, tree.bytecode / place.relative_to(origin.bytecode))
            elif _source(place.relative_to(compiled)) not in changed:
                _link(name, descriptor, _below(tree.bytecode, tree.folder) / place.relative_to(compiled))


def _below(bytecode: Path, folder: Path) -> Path:
    """Where the compiled files of ``folder`` are, as PYTHONPYCACHEPREFIX has it."""
    return bytecode / folder.absolute().relative_to(folder.absolute().anchor)


def _source(compiled: Path) -> str:
    """``python/sglang/version.cpython-311.pyc`` comes from ``python/sglang/version.py``."""
    return compiled.with_name(f"{compiled.name.split('.')[0]}.py").as_posix()


def _link(name: str, folder: int, place: Path) -> None:
    """Link the regular file ``name`` of the open ``folder``, or copy it to another disk."""
    with suppress(FileNotFoundError):
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return
            raise
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return
            if os.geteuid() == 0 and status.st_uid != 0:
                os.fchown(descriptor, 0, 0)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(name, place, src_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                with place.open("xb") as copy:
                    shutil.copyfileobj(file, copy)
                return
            linked = place.lstat()
            if (linked.st_dev, linked.st_ino) != (status.st_dev, status.st_ino):
                place.unlink()  # another file than the one that was looked at
