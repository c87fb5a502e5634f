"""What no pull request may bring in: protected paths, submodules, and links that lead out of the tree."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from patchstack.git import Change, Repository

PROTECTED = (".github/", ".gitattributes", ".gitmodules")
_GITLINK = "160000"
_SYMLINK = "120000"


def protected_paths(store: Repository, changes: Sequence[Change], patterns: Sequence[str]) -> tuple[str, ...]:
    """The paths of ``changes`` that are refused, in order.

    A pattern is a name at any depth, or a path from the root when it has a slash inside; a final slash means a
    folder and all below it. ``*`` and ``?`` stand for what they do in a shell, within one name. Letter case is
    not told apart: some file systems do not.
    """
    return tuple(change.path for change in changes if _is_refused(store, change, patterns))


def _is_refused(store: Repository, change: Change, patterns: Sequence[str]) -> bool:
    if _GITLINK in (change.old_mode, change.new_mode):
        return True
    if not _is_plain(change.path) or any(_matches(change.path, pattern) for pattern in patterns):
        return True
    return change.new_mode == _SYMLINK and not _stays_inside(change.path, store.read_blob(change.new_blob) or b"")


def _is_plain(path: str) -> bool:
    """Whether a path names a place in the tree; a tree made by hand can hold ``..`` or ``.git`` as a name."""
    return not any(part in {"", ".", ".."} or _is_git_folder(part) for part in path.split("/"))


def _is_git_folder(name: str) -> bool:
    return name.casefold().rstrip(". ") == ".git" or name.casefold() == "git~1"


def _matches(path: str, pattern: str) -> bool:
    parts = path.casefold().split("/")
    folder = pattern.endswith("/")
    wanted = pattern.casefold().strip("/").split("/")
    anchored = len(wanted) > 1 or pattern.startswith("/")
    for start in range(1 if anchored else len(parts)):
        found = parts[start : start + len(wanted)]
        if len(found) == len(wanted) and all(map(fnmatchcase, found, wanted)):
            end = start + len(wanted)
            if end < len(parts) or not folder:
                return True
    return False


def _stays_inside(path: str, target: bytes) -> bool:
    """Whether the link at ``path`` leads to a place in the tree, whatever other links are on the way.

    ``..`` may stand only in front: behind a name that is a link itself, it would go up from where that leads.
    """
    text = target.decode(errors="surrogateescape")
    parts = [part for part in text.split("/") if part not in {"", "."}]
    ups = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    deep = path.count("/")
    plain = not any(part == ".." or _is_git_folder(part) for part in parts[ups:])
    return bool(text) and not text.startswith("/") and "\0" not in text and ups <= deep and plain
