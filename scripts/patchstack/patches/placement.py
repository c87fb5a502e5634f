"""Strict application of a diff: where each hunk lands, and whether that is where it belongs.

`git apply` accepts a hunk at any offset, so a hook can land in another function with exit status 0. Here
every hunk's place is found again, compared with what git made of it, and named by the definition around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchstack.git import GitFailed, Repository
from patchstack.model import Sha
from patchstack.patches.definitions import Outline
from patchstack.patches.diff import FileDiff, Hunk


class DoesNotApply(Exception):
    """The diff cannot go onto the tree; one sentence for each file or hunk that is in the way."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Landing:
    """Where one hunk of a Python file landed."""

    path: str
    hunk: int
    old_line: int
    """The first line of its old side in the file before, counted from 1."""
    new_line: int
    """The first line of its new side in the file after."""


@dataclass(frozen=True)
class Placement:
    before: Sha
    tree: Sha
    landings: tuple[Landing, ...]


def place(store: Repository, tree: Sha, diff: bytes, files: Sequence[FileDiff]) -> Placement:
    """Apply ``diff`` to ``tree``; `DoesNotApply` names every hunk that finds no place.

    Landings are given for hunks of Python files that exist before and after.
    """
    try:
        after = store.apply(tree, diff)
    except GitFailed as error:
        raise DoesNotApply(_refusals(store, tree, files) or [_words(error)]) from error
    landings: list[Landing] = []
    for file in files:
        if file.hunks and not file.is_new and not file.is_deleted and file.path.endswith(".py"):
            landings += _landings(file, _read(store, tree, file.path), _read(store, after, file.path))
    return Placement(tree, after, tuple(landings))


def has_already(store: Repository, tree: str, diff: bytes) -> bool:
    """Whether ``tree`` holds the whole effect of ``diff``: it can be taken away again, hunk by hunk."""
    try:
        store.apply(tree, diff, "--reverse")
    except GitFailed:
        return False
    return True


def preimage_problems(store: Repository, tree: str, files: Sequence[FileDiff]) -> list[str]:
    """Every file of a diff whose pre-image, by content and mode, is not what ``tree`` has."""
    entries = {entry.path: entry for entry in store.list_tree(tree, *(file.path for file in files))}
    problems = []
    for file in files:
        entry = entries.get(file.path)
        if file.is_new:
            if entry is not None:
                problems.append(f"{file.path}: it is a new file of the patch, and is there already")
        elif entry is None:
            problems.append(f"{file.path}: it is not there")
        elif file.old_blob and not entry.sha.startswith(file.old_blob):
            stuck = [_stuck(store, tree, file, hunk) for hunk in file.hunks]
            detail = "; ".join(filter(None, stuck)) or "its hunks would still find a place"
            problems.append(
                f"{file.path}: it was cut on blob {file.old_blob[:12]}, and here it is {entry.sha[:12]}: {detail}"
            )
        elif file.old_mode != entry.mode:
            problems.append(f"{file.path}: it was cut on mode {file.old_mode}, and here it is {entry.mode}")
    return problems


# --- where hunks land ---


def definitions(store: Repository, placement: Placement, files: Sequence[FileDiff]) -> tuple[tuple[str, ...], ...]:
    """Of each landing, the qualified names of the innermost definitions around its removed and its added lines.

    `DoesNotApply` when a file is no Python, before the patch or with it.
    """
    outlines: dict[tuple[str, str], Outline] = {}
    hunks = {(file.path, hunk.number): hunk for file in files for hunk in file.hunks}
    found = []
    for landing in placement.landings:
        names: set[str] = set()
        hunk = hunks[landing.path, landing.hunk]
        sides = (
            (placement.before, "before the patch", landing.old_line, hunk.removed_at),
            (placement.tree, "with the patch", landing.new_line, hunk.added_at),
        )
        for tree, when, first, places in sides:
            key = (tree, landing.path)
            if key not in outlines:
                outlines[key] = _outline(store, tree, landing.path, when)
            names |= {outlines[key].at(first + place) for place in places}
        found.append(tuple(sorted(names)))
    return tuple(found)


def _outline(store: Repository, tree: str, path: str, when: str) -> Outline:
    try:
        return Outline.of(_read(store, tree, path))
    except SyntaxError as error:
        raise DoesNotApply([f"{path}: {when} it is no Python (line {error.lineno}: {error.msg})"]) from error


def _landings(file: FileDiff, before: bytes, after: bytes) -> list[Landing]:
    starts = _starts(file, before, after)
    return [
        Landing(file.path, hunk.number, old + 1, new + 1) for hunk, (old, new) in zip(file.hunks, starts, strict=True)
    ]


def _starts(file: FileDiff, before: bytes, after: bytes) -> list[tuple[int, int]]:
    """Of each hunk, the first line in the old and in the new file, counted from 0.

    Found as git-apply finds them, nearest to the stated line first, and compared with what git wrote.
    """
    lines = split_lines(before)
    starts: list[tuple[int, int]] = []
    grown, end = 0, 0
    for hunk in file.hunks:
        old, new = list(hunk.old), list(hunk.new)
        at = _nearest(lines, hunk, max(hunk.new_start - 1, 0), end)
        if at is None:
            raise DoesNotApply([f"{file.path} hunk {hunk.number}: git found a place for it that is out of order"])
        lines[at : at + len(old)] = new
        starts.append((at - grown, at))
        grown += len(new) - len(old)
        end = at + len(new)
    if b"".join(lines) != after:
        raise DoesNotApply([f"{file.path}: it has several places where a hunk fits: cut the patch with more context"])
    return starts


def _nearest(lines: Sequence[bytes], hunk: Hunk, stated: int, lowest: int) -> int | None:
    """The place of a hunk's old side that is nearest to the stated one, or None.

    A hunk cut at the first line fits only there, one without context at its end only at the end of the file.
    """
    old = list(hunk.old)
    last = len(lines) - len(old)
    places = [at for at in range(lowest, last + 1) if list(lines[at : at + len(old)]) == old]
    if hunk.old_start <= 1:
        places = [at for at in places if at == 0]
    if not hunk.lines or hunk.lines[-1][0] != " ":
        places = [at for at in places if at == last]
    return min(places, key=lambda at: (abs(at - stated), at < stated), default=None)


def split_lines(data: bytes) -> list[bytes]:
    """Lines as git counts them: only a newline ends one."""
    lines = data.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


# --- why a diff does not apply ---


def _refusals(store: Repository, tree: str, files: Sequence[FileDiff]) -> list[str]:
    problems = []
    for file in files:
        data = store.read_blob(f"{tree}:{file.path}")
        if file.is_new:
            if data is not None:
                same = store.resolve(f"{tree}:{file.path}") == file.new_blob
                problems.append(f"{file.path}: it is there already, {'with this' if same else 'with other'} content")
        elif data is None:
            problems.append(f"{file.path}: it is not there")
        else:
            problems += filter(None, (_stuck(store, tree, file, hunk) for hunk in file.hunks))
    return problems


def _stuck(store: Repository, tree: str, file: FileDiff, hunk: Hunk) -> str:
    """Why a hunk finds no place in the file; empty when it does."""
    lines = split_lines(_read(store, tree, file.path))
    if _nearest(lines, hunk, hunk.new_start - 1, 0) is not None:
        return ""
    where = f"{file.path} hunk {hunk.number} (line {hunk.old_start}, in {_cut_in(store, file, hunk)})"
    new = list(hunk.new)
    there = any(lines[at : at + len(new)] == new for at in range(len(lines) - len(new) + 1))
    return f"{where}: " + ("its change is there already" if there else "the lines that it changes are not there")


def _cut_in(store: Repository, file: FileDiff, hunk: Hunk) -> str:
    """The definition in which a hunk was cut, from its pre-image where the store has it, else as git named it."""
    data = store.read_blob(file.old_blob) if file.path.endswith(".py") and len(file.old_blob) == 40 else None
    try:
        outline = Outline.of(data) if data is not None else None
    except SyntaxError:
        outline = None
    if outline is None:
        return hunk.section.strip() or "an unnamed place"
    changed = hunk.removed_at or tuple(place - 1 for place in hunk.added_at[:1])
    return outline.at(hunk.old_start + max(changed[0], 0)) if changed else hunk.section


def _read(store: Repository, tree: str, path: str) -> bytes:
    data = store.read_blob(f"{tree}:{path}")
    if data is None:
        raise DoesNotApply([f"{path}: it is not there"])
    return data


def _words(error: GitFailed) -> str:
    lines = [line.removeprefix("error: ") for line in error.answer.stderr.splitlines() if line.startswith("error: ")]
    return "; ".join(lines) or str(error)
