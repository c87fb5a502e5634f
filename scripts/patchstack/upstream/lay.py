"""Trees on disk: a composed tree written out and compared, and a release's compiled parts laid into it.

A tree is written beside its place, read back, and then moved there whole. Nothing of the machine decides what
is written: no attribute, no umask, no filter.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from patchstack.errors import CompositionError, MachineError, UsageError
from patchstack.git import Entry, Repository
from patchstack.model import Sha
from patchstack.names import clashes, path_problem, with_folders
from patchstack.store import write_whole
from patchstack.upstream.releases import Progress, silent
from patchstack.upstream.wheel import Part, Wheel, blob_id, read_files

LINK, GITLINK, EXECUTABLE, FILE = "120000", "160000", "100755", "100644"
_BATCH_BYTES = 16 << 20
_FOLDER_MODE = 0o755
_MOST_LINKS = 40
"""Links followed on one way, as in Linux."""


@dataclass(frozen=True)
class Materialised:
    folder: Path
    tree: Sha
    files: int
    written: bool
    """False: the folder held exactly this already."""


def materialise(
    store: Repository, tree: str, folder: Path, *, natives: Wheel | None = None, progress: Progress = silent
) -> Materialised:
    """Write ``tree``, and the compiled parts of ``natives``, to ``folder`` and compare what lies there with them.

    A folder that holds exactly this is left alone; one that this function wrote earlier is replaced whole,
    with all that was put into it since. Raises `CompositionError` for a path or link that leads out of the
    tree, `UsageError` for a folder that is not ours to replace, `MachineError` when the disk does not hold
    what was written.
    """
    sha = store.tree_of(tree)
    entries = store.list_tree(sha)
    _refuse_unsafe(store, sha, entries)
    folder = folder.absolute()
    try:
        ours = _marker(folder)
        _refuse_foreign(folder, ours)
        expected = entries if natives is None else (*entries, *_native_entries(natives, entries))
        if ours.is_file() and folder.is_dir() and not _differences(expected, folder):
            return Materialised(folder, sha, len(expected), written=False)
        progress(f"writing tree {sha[:12]}, {len(expected)} files")
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_partial(folder)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_partial_prefix(folder)) as name:
            fresh = Path(name, "new")
            _write(store, entries, fresh)
            if natives is not None:
                lay_natives(natives, fresh)
            wrong = _differences(expected, fresh)
            if wrong:
                raise MachineError(
                    f"{folder} does not hold tree {sha} as it was written: {'; '.join(wrong[:5])}; check the disk"
                )
            write_whole(ours, f"{sha}\n")
            if folder.is_dir():
                folder.rename(Path(name, "old"))
            fresh.rename(folder)
    except OSError as error:
        raise MachineError(f"tree {sha} cannot be written to {folder}: {error}") from error
    return Materialised(folder, sha, len(expected), written=True)


def lay_natives(wheel: Wheel, folder: Path) -> tuple[str, ...]:
    """Put the wheel's `*.so` and `*.dist-info` below ``folder/python`` where the tree holds nothing; their paths.

    Where the tree has a file or a link in the place of a folder on the way, it holds something: none goes there.

    With ``folder/python`` on the path, `importlib.metadata` then knows the release. The paths returned are those
    of the wheel, sorted. The folder is a tree that `materialise` wrote.
    """
    root = folder.absolute() / "python"
    laid = []
    try:
        if root.is_symlink() or not root.is_dir():
            raise UsageError(f"{folder} holds no folder `python`; materialise the tree first")
        for entry, data in read_files(wheel, Part.NATIVE, Part.METADATA):
            place = _place(root, entry.path)
            if not _make_folders(root, place.parent):
                continue
            if not os.path.lexists(place):
                _write_file(place, data, executable=entry.executable)
            laid.append(entry.path)
    except OSError as error:
        raise MachineError(f"the compiled parts of {wheel.path.name} cannot be laid into {root}: {error}") from error
    return tuple(laid)


def _native_entries(wheel: Wheel, tree: Sequence[Entry]) -> Iterator[Entry]:
    """What `lay_natives` adds to a tree, in the form of tree entries."""
    held = {entry.path for entry in tree}
    for entry, data in read_files(wheel, Part.NATIVE, Part.METADATA):
        if held.isdisjoint(with_folders(f"python/{entry.path}")):
            yield Entry(EXECUTABLE if entry.executable else FILE, "blob", blob_id(data), f"python/{entry.path}")


def _make_folders(root: Path, folder: Path) -> bool:
    """Make ``folder`` below ``root``, unless the tree has a file or a link on the way."""
    for part in [*reversed(folder.relative_to(root).parents), folder.relative_to(root)]:
        place = root / part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            return False
        if not place.is_dir():
            place.mkdir()
            place.chmod(_FOLDER_MODE)
    return True


# --- whose folder it is -------------------------------------------------------------------------------


def _marker(folder: Path) -> Path:
    """The file that says that we wrote ``folder``; beside it, for within it a pull request could plant one."""
    return folder.with_name(f".{folder.name}.tree")


def _partial_prefix(folder: Path) -> str:
    return f".{folder.name}.partial-"


def _refuse_foreign(folder: Path, marker: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is not a folder; name another one")
    if folder.is_dir() and any(folder.iterdir()) and not marker.is_file():
        raise UsageError(f"{folder} is not empty and was not written by patchstack; name another one, or empty it")


def _clear_partial(folder: Path) -> None:
    """Remove what a killed run left beside ``folder``."""
    for place in list(folder.parent.iterdir()):
        if place.name.startswith(_partial_prefix(folder)):
            shutil.rmtree(place)


# --- what a tree may hold -----------------------------------------------------------------------------


def _refuse_unsafe(store: Repository, tree: str, entries: Sequence[Entry]) -> None:
    problems = [f"{entry.path} {problem}" for entry in entries if (problem := path_problem(entry.path))]
    problems += clashes([entry.path for entry in entries])
    problems += escaping_links(_link_targets(store, entries))
    if problems:
        raise CompositionError(
            f"tree {tree} is not written to disk: {'; '.join(problems[:5])}. Leave out the change that brings it in"
        )


def _link_targets(store: Repository, entries: Sequence[Entry]) -> dict[str, str]:
    links = [entry for entry in entries if entry.mode == LINK]
    return {
        entry.path: data.decode(errors="surrogateescape")
        for entry, data in zip(links, _blobs(store, [entry.sha for entry in links]), strict=True)
    }


def escaping_links(targets: Mapping[str, str]) -> list[str]:
    """A sentence for each link (path -> target) of a tree that leads out of it, by way of other links too."""
    found = []
    for path, target in sorted(targets.items()):
        if not target or "\0" in target:
            found.append(f"{path} is a link with no usable target")
        elif _escapes(path, targets):
            found.append(f"{path} is a link to {target!r}, out of the tree")
    return found


def _escapes(path: str, targets: Mapping[str, str]) -> bool:
    """Walk to where ``path`` leads, following every link on the way. A circle of links leads nowhere."""
    here: list[str] = []
    ahead = list(reversed(path.split("/")))
    followed = 0
    while ahead:
        part = ahead.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not here:
                return True
            here.pop()
            continue
        target = targets.get("/".join([*here, part]))
        if target is None:
            here.append(part)
            continue
        followed += 1
        if target.startswith("/"):
            return True
        if followed > _MOST_LINKS:
            return False
        ahead.extend(reversed(target.split("/")))
    return False


# --- writing and reading back -------------------------------------------------------------------------


def _place(root: Path, path: str) -> Path:
    """Where git's ``path`` lies below ``root``: the same bytes, whatever encoding the locale has for names."""
    return root / os.fsdecode(path.encode(errors="surrogateescape"))


def _blobs(store: Repository, ids: Sequence[str]) -> Iterator[bytes]:
    """The bytes of every blob, in order, some 16 MB of them in memory at a time."""
    asked = "".join(f"{sha}\n" for sha in ids).encode()
    sizes = store.attempt_ok("cat-file", "--batch-check=%(objecttype) %(objectsize)", stdin=asked).text.splitlines()
    batch: list[str] = []
    total = 0
    for sha, said in zip(ids, sizes, strict=True):
        kind, _, size = said.partition(" ")
        if kind != "blob":
            raise MachineError(f"the store {store.folder} lacks file {sha}; remove the store and run again")
        if batch and total + int(size) > _BATCH_BYTES:
            yield from _read_batch(store, batch)
            batch, total = [], 0
        batch.append(sha)
        total += int(size)
    yield from _read_batch(store, batch)


def _read_batch(store: Repository, ids: Sequence[str]) -> Iterator[bytes]:
    if not ids:
        return
    out = store.attempt_ok(
        "cat-file", "--batch=%(objectsize)", stdin="".join(f"{sha}\n" for sha in ids).encode()
    ).stdout
    at = 0
    for _ in ids:
        end = out.index(b"\n", at)
        size = int(out[at:end])
        yield out[end + 1 : end + 1 + size]
        at = end + 1 + size + 1


def _write_file(place: Path, data: bytes, *, executable: bool) -> None:
    with place.open("xb") as stream:
        stream.write(data)
        os.fchmod(stream.fileno(), _modes(executable))


def _modes(executable: bool) -> int:
    return 0o755 if executable else 0o644


def _write(store: Repository, entries: Sequence[Entry], folder: Path) -> None:
    folders = {parent for entry in entries for parent in PurePosixPath(entry.path).parents}
    folders |= {PurePosixPath(entry.path) for entry in entries if entry.mode == GITLINK}
    for parent in sorted(folders | {PurePosixPath()}, key=lambda path: len(path.parts)):
        place = _place(folder, str(parent))
        place.mkdir()
        place.chmod(_FOLDER_MODE)
    held = [entry for entry in entries if entry.mode != GITLINK]
    for entry, data in zip(held, _blobs(store, [entry.sha for entry in held]), strict=True):
        place = _place(folder, entry.path)
        if entry.mode == LINK:
            place.symlink_to(os.fsdecode(data))
        else:
            _write_file(place, data, executable=entry.mode == EXECUTABLE)


def _differences(entries: Sequence[Entry], folder: Path) -> list[str]:
    """A sentence on every path in ``folder`` that is not as ``entries`` have it."""
    wanted = {entry.path: entry for entry in entries if entry.mode != GITLINK}
    there = set(_walk(folder))
    found = [f"{path} is missing" for path in sorted(wanted.keys() - there)]
    found += [f"{path} should not be there" for path in sorted(there - wanted.keys())]
    for path in sorted(wanted.keys() & there):
        problem = _file_difference(wanted[path], _place(folder, path))
        if problem is not None:
            found.append(f"{path} {problem}")
    return found


def _file_difference(entry: Entry, place: Path) -> str | None:
    mode = place.lstat().st_mode
    if entry.mode == LINK:
        if not stat.S_ISLNK(mode):
            return "is not a link"
        data = os.fsencode(place.readlink())
    elif not stat.S_ISREG(mode) or stat.S_IMODE(mode) != _modes(entry.mode == EXECUTABLE):
        return f"has mode {stat.filemode(mode)} in place of {entry.mode}"
    else:
        data = place.read_bytes()
    return None if blob_id(data) == entry.sha else "has other bytes"


def _walk(folder: Path) -> Iterator[str]:
    """Every file and link below ``folder`` (links not followed), relative, as git writes paths."""
    for top, folders, files in os.walk(folder):
        here = Path(top)
        for name in [*files, *(name for name in folders if (here / name).is_symlink())]:
            yield os.fsencode((here / name).relative_to(folder)).decode(errors="surrogateescape")
