"""A diff, file by file and hunk by hunk, in bytes."""

from __future__ import annotations

import ast
import io
import re
from dataclasses import dataclass

from unidiff.errors import UnidiffParseError
from unidiff.patch import Hunk as DiffHunk
from unidiff.patch import PatchedFile, PatchSet

_NO_NEWLINE = "\\"
_INDEX = re.compile(r"^index (?P<old>[0-9a-f]+)\.\.(?P<new>[0-9a-f]+)", re.MULTILINE)


class DiffProblem(ValueError):
    """Text that is no diff of ours; the message is ``path: problem: fix``, ``line`` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


@dataclass(frozen=True)
class Hunk:
    number: int
    """Counted from 1 in its file."""
    old_start: int
    new_start: int
    section: str
    """What git wrote behind the second ``@@``."""
    lines: tuple[tuple[str, bytes], ...]
    """Sign (space, ``-``, ``+``) and content, with the line ending where there is one."""

    @property
    def old(self) -> tuple[bytes, ...]:
        return tuple(content for sign, content in self.lines if sign != "+")

    @property
    def new(self) -> tuple[bytes, ...]:
        return tuple(content for sign, content in self.lines if sign != "-")

    @property
    def removed_at(self) -> tuple[int, ...]:
        """Where its removed lines stand, counted from the first of ``old``."""
        return _places(self.lines, "-", "+")

    @property
    def added_at(self) -> tuple[int, ...]:
        """Where its added lines stand, counted from the first of ``new``."""
        return _places(self.lines, "+", "-")


def _places(lines: tuple[tuple[str, bytes], ...], wanted: str, other: str) -> tuple[int, ...]:
    side = [sign for sign, _ in lines if sign != other]
    return tuple(place for place, sign in enumerate(side) if sign == wanted)


@dataclass(frozen=True)
class FileDiff:
    path: str
    old_blob: str
    """As the `index` line has it (zeros for a new file); empty where only the mode changes."""
    new_blob: str
    old_mode: str
    """Empty for a new file."""
    new_mode: str
    """Empty for a deleted file."""
    binary: bool
    hunks: tuple[Hunk, ...]

    @property
    def is_new(self) -> bool:
        return not self.old_mode

    @property
    def is_deleted(self) -> bool:
        return not self.new_mode


def parse_diff(diff: bytes) -> tuple[FileDiff, ...]:
    """Every file of a diff; `DiffProblem` for what git did not write or what we do not carry (renames)."""
    # Latin-1 maps every byte to one character and back; git quotes every path that is not plain ASCII.
    text = diff.decode("latin-1")
    try:
        parsed = PatchSet(io.StringIO(text, newline="\n"))
    except UnidiffParseError as error:
        raise DiffProblem(1, f"(diff): it cannot be read ({str(error).strip()}): export it again") from error
    if not parsed:
        raise DiffProblem(1, "(diff): it changes nothing: remove the patch from the series")
    return tuple(_file(entry) for entry in parsed)


def _file(entry: PatchedFile) -> FileDiff:
    new, deleted = entry.source_file == "/dev/null", entry.target_file == "/dev/null"
    path = _plain_path(entry.source_file if deleted else entry.target_file)
    if not new and not deleted and _plain_path(entry.source_file) != path:
        raise DiffProblem(entry.diff_line_no or 1, f"{path}: a rename: write it as a deletion and an addition")
    index = _INDEX.search(str(entry.patch_info or ""))
    mode_only = not (new or deleted or len(entry)) and entry.source_mode != entry.target_mode
    if index is None and not mode_only:
        raise DiffProblem(entry.diff_line_no or 1, f"{path}: it has no `index` line: export it again")
    return FileDiff(
        path=path,
        old_blob=index["old"] if index else "",
        new_blob=index["new"] if index else "",
        old_mode="" if new else entry.source_mode or "",
        new_mode="" if deleted else entry.target_mode or "",
        binary=entry.is_binary_file,
        hunks=tuple(_hunk(number, hunk) for number, hunk in enumerate(entry, 1)),
    )


def _hunk(number: int, hunk: DiffHunk) -> Hunk:
    lines: list[tuple[str, bytes]] = []
    for line in hunk:
        if line.line_type == _NO_NEWLINE:
            sign, content = lines[-1]
            lines[-1] = (sign, content.removesuffix(b"\n"))
        else:
            lines.append((line.line_type or " ", line.value.encode("latin-1")))
    return Hunk(number, hunk.source_start, hunk.target_start, hunk.section_header, tuple(lines))


def _plain_path(written: str) -> str:
    """A path without quotes and without ``a/`` or ``b/``."""
    if written.startswith('"'):
        # Git quotes as C does, which for what it writes is how Python quotes bytes.
        quoted: bytes = ast.literal_eval("b" + written)
        written = quoted.decode(errors="surrogateescape")
    return written[2:]
