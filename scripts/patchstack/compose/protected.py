"""What no pull request may bring in: protected paths, submodules, links out of the tree, and unusable names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from patchstack.git import Change, Repository, readable
from patchstack.model import Reason
from patchstack.names import is_git_folder, name_problem, with_folders

PROTECTED = (".github/", ".gitattributes", ".gitmodules")
_GITLINK = "160000"
_SYMLINK = "120000"
_NONE = "000000"
_MOST_TARGET_BYTES = 4095
"""What Linux takes for the target of a link."""
_TOLD = 3


@dataclass(frozen=True)
class Refusal:
    """Why a pull request is left out for what it brings in."""

    reason: Reason
    detail: str
    files: tuple[str, ...]


def refusal(store: Repository, changes: Sequence[Change], patterns: Sequence[str]) -> Refusal | None:
    """What of ``changes`` no pull request may bring in, or None when there is nothing of the kind.

    A pattern is a name at any depth, or a path from the root when it has a slash inside; a final slash means a
    folder and all below it. ``*`` and ``?`` stand for what they do in a shell, within one name. Letter case is
    not told apart: some file systems do not.
    """
    refused = protected_paths(store, changes, patterns)
    if refused:
        detail = "no pull request may change these, add a submodule, or link out of the tree: leave that out of it"
        return Refusal(Reason.PROTECTED_PATH, detail, tuple(map(readable, refused)))
    problems = unusable_names(changes)
    if problems:
        told = "; ".join(f"{readable(path)!r} {problem}" for path, problem in problems[:_TOLD])
        more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        files = tuple(readable(path) for path, _ in problems)
        return Refusal(Reason.UNUSABLE_NAME, f"{told}{more}: rename what is named", files)
    return None


def protected_paths(store: Repository, changes: Sequence[Change], patterns: Sequence[str]) -> tuple[str, ...]:
    """The paths of ``changes`` that are refused whatever they are called, in order."""
    gone = {folder for change in changes if change.new_mode == _NONE for folder in with_folders(change.path)}
    return tuple(change.path for change in changes if _is_refused(store, change, patterns, gone))


def unusable_names(changes: Iterable[Change]) -> list[tuple[str, str]]:
    """Each path that ``changes`` bring in and not everybody can have, with why; taking one away is fine."""
    new = (change.path for change in changes if change.old_mode == _NONE)
    return [(path, problem) for path in new if (problem := name_problem(path)) is not None]


def _is_refused(store: Repository, change: Change, patterns: Sequence[str], gone: set[str]) -> bool:
    if _GITLINK in (change.old_mode, change.new_mode):
        return True
    if any(_matches(change.path, pattern) for pattern in patterns):
        return True
    if change.new_mode != _SYMLINK:
        return False
    # Where a folder was, a release's compiled parts may have to go: they would be written through the link.
    return change.path in gone or not _stays_inside(change.path, store.read_blob(change.new_blob) or b"")


@lru_cache(maxsize=100_000)  # the plan asks for each path, and then the merge
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
    plain = not any(part == ".." or is_git_folder(part) for part in parts[ups:])
    fits = 0 < len(target) <= _MOST_TARGET_BYTES
    return fits and not text.startswith("/") and "\0" not in text and ups <= deep and plain
