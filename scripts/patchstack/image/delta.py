"""What the composed tree changes on the release that an image holds, read from git's objects.

A dependency image has the release installed: what lies below ``python/`` of the base tree lies in one folder there.
So a layer of the changes alone makes an image of the composed tree out of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from patchstack.errors import ImageError
from patchstack.git import Change, Repository
from patchstack.image.layer import FileEntry
from patchstack.model import Sha

PYTHON = "python"
_LINK, _EXECUTABLE, _FILE = "120000", "100755", "100644"


@dataclass(frozen=True)
class Delta:
    """What a layer is made of (`layer.make_layer`); paths are from the image's root."""

    files: dict[str, FileEntry]
    deleted: tuple[str, ...]


def delta(store: Repository, base_tree: Sha, tree: Sha, root: str, natives: Sequence[str] = ()) -> Delta:
    """What turns the base tree in the image's folder ``root`` into ``tree``.

    ``natives`` are the release's files that are in the image and in no tree (``sglang/…so``): a folder that holds one
    stays, as it does where guards run, when all that the tree had there is deleted. Raises `ImageError` for a path
    that no image of ours holds, and for a link that leads out of the folder.
    """
    changes = store.changes(base_tree, tree)
    _refuse_elsewhere(store, base_tree, changes)
    files: dict[str, FileEntry] = {}
    for change in changes:
        if change.status != "D":
            files[_place(root, change.path)] = _entry(store, change)
    kept = {entry.path for entry in store.list_tree(tree, PYTHON)} | {f"{PYTHON}/{native}" for native in natives}
    gone = _whole_folders((change.path for change in changes if change.status == "D"), kept)
    return Delta(files, tuple(sorted(_place(root, path) for path in gone)))


def _refuse_elsewhere(store: Repository, base_tree: Sha, changes: Sequence[Change]) -> None:
    """A change beside the release's own packages would land among other people's, or nowhere."""
    packages = {"/".join(entry.path.split("/")[:2]) for entry in store.list_tree(base_tree, PYTHON)}
    elsewhere = sorted(change.path for change in changes if "/".join(change.path.split("/")[:2]) not in packages)
    if elsewhere:
        more = f" and {len(elsewhere) - 5} more" if len(elsewhere) > 5 else ""
        raise ImageError(
            f"the image cannot hold {', '.join(elsewhere[:5])}{more}: of the release it has "
            f"{', '.join(sorted(packages))} and no more; leave out what brings it in"
        )


def _place(root: str, path: str) -> str:
    return f"{root.strip('/')}/{path.removeprefix(f'{PYTHON}/')}"


def _entry(store: Repository, change: Change) -> FileEntry:
    data = store.read_blob(change.new_blob) if change.new_mode in (_LINK, _EXECUTABLE, _FILE) else None
    if data is None:
        raise ImageError(f"the image cannot hold {change.path} of mode {change.new_mode}: leave out what brings it in")
    if change.new_mode != _LINK:
        return FileEntry(data, 0o755 if change.new_mode == _EXECUTABLE else 0o644)
    target = data.decode(errors="surrogateescape")
    if not _stays_inside(change.path, target):
        raise ImageError(f"{change.path} is a link to {target!r}, out of the release: leave out what brings it in")
    return FileEntry(b"", link=target)


def _stays_inside(path: str, target: str) -> bool:
    """``..`` may stand only in front: behind a name that is a link itself, it would go up from where that leads."""
    parts = [part for part in target.split("/") if part not in {"", "."}]
    ups = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    deep = path.count("/") - 1  # below python/
    return (
        bool(target) and not target.startswith("/") and "\0" not in target and ups <= deep and ".." not in parts[ups:]
    )


def _whole_folders(deleted: Iterable[str], kept: set[str]) -> set[str]:
    """``deleted``, with each folder of which nothing is left in place of what it held.

    Python takes a folder without files for a package too: what is tested has none, so the image must not either.
    What has become a file, or a folder, is replaced by that in the layer itself.
    """
    folders = {folder for path in kept for folder in _folders(path)}
    gone = set()
    for path in deleted:
        if path in folders or any(folder in kept for folder in _folders(path)):
            continue
        gone.add(next((folder for folder in _folders(path) if folder not in folders), path))
    return gone


def _folders(path: str) -> Iterator[str]:
    """The folders on the way to ``path``, from ``python`` on."""
    parts = path.split("/")[:-1]
    yield from ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
