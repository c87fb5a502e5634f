"""What Python compiled for one tree, for another that differs from it in a few files.

To compile SGLang and what it imports takes longer than most guards. Python takes compiled code for that of a
source whose time and size it names (https://docs.python.org/3/reference/import.html#cached-bytecode-invalidation),
and writes a new file in place of an old one; so the equal files get the times of those that were compiled, and
the compiled ones are linked.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from patchstack.regress.execute import Tree

_COMPILED = ".pyc"


def take_over(origin: Tree, tree: Tree, changed: Collection[str]) -> None:
    """Give ``tree`` what was compiled for ``origin``; ``changed`` names the files in which the two differ.

    What is not there, or goes away meanwhile, is compiled again: nothing depends on this but time.
    """
    for top, folders, files in os.walk(tree.folder):
        folders[:] = [name for name in folders if not (Path(top) / name).is_symlink()]
        for name in files:
            place = Path(top, name)
            path = place.relative_to(tree.folder)
            if name.endswith(".py") and path.as_posix() not in changed:
                with suppress(FileNotFoundError):
                    stat = (origin.folder / path).lstat()
                    os.utime(place, ns=(stat.st_atime_ns, stat.st_mtime_ns), follow_symlinks=False)
    theirs = _below(origin.bytecode, origin.folder)
    for top, _, files in os.walk(origin.bytecode):
        for name in files:
            place = Path(top, name)
            if not name.endswith(_COMPILED):
                continue  # one that is being written
            if not place.is_relative_to(theirs):
                _link(place, tree.bytecode / place.relative_to(origin.bytecode))
            elif _source(place.relative_to(theirs)) not in changed:
                _link(place, _below(tree.bytecode, tree.folder) / place.relative_to(theirs))


def _below(bytecode: Path, folder: Path) -> Path:
    """Where the compiled files of ``folder`` are, as PYTHONPYCACHEPREFIX has it."""
    return bytecode / folder.absolute().relative_to(folder.absolute().anchor)


def _source(compiled: Path) -> str:
    """``python/sglang/version.cpython-311.pyc`` comes from ``python/sglang/version.py``."""
    return compiled.with_name(f"{compiled.name.split('.')[0]}.py").as_posix()


def _link(compiled: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError, FileExistsError):
        try:
            os.link(compiled, place)
        except OSError as error:
            if isinstance(error, FileNotFoundError | FileExistsError):
                raise
            shutil.copy2(compiled, place)  # another disk
