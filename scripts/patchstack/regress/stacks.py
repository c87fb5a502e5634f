"""Where every process of a part was when its time was up: files that the bed leaves, copied beside the part's log.

The folder that they lie in is a candidate's to write to: no link in it is followed, and it is not read without end.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

NAME = "stacks"
"""Of the folder, in the child's HOME and among the logs of a tree."""

MOST_FILES = 40
LONGEST_BYTES = 4 << 20
MOST_BYTES = 16 << 20
"""Of all files of one part: a night has many parts, and what they leave stays in its run."""
_LOOKED_AT = 1000
"""Entries of the folder; which of more, nobody can say."""
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}\.txt")


@dataclass(frozen=True)
class Keep:
    """Where they are kept."""

    folder: Path
    named: str
    """As results name it: from the run's folder."""


def take(source: Path, keep: Keep) -> dict[str, str]:
    """Copy them out of ``source``; each file's name with how results name it. Empty ones are left."""
    return take_texts(_contents(source), keep)


def take_texts(found: Iterable[tuple[str, bytes]], keep: Keep) -> dict[str, str]:
    """The same of files that somebody else has read, by name: what is no plain name, or too much, is left."""
    taken: dict[str, str] = {}
    left = MOST_BYTES
    named = ((name, content) for name, content in found if _PLAIN.fullmatch(name) and content)
    for name, content in itertools.islice(named, MOST_FILES):
        if left <= 0:
            break
        content = content[:LONGEST_BYTES]
        keep.folder.mkdir(parents=True, exist_ok=True)
        (keep.folder / name).write_bytes(content[:left])
        left -= len(content)
        taken[name] = f"{keep.named}/{name}"
    return taken


def _contents(source: Path) -> Iterator[tuple[str, bytes]]:
    try:
        folder = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # it left none, or something else in their place
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in itertools.islice(entries, _LOOKED_AT))
        for name in [name for name in names if _PLAIN.fullmatch(name)][:MOST_FILES]:
            content = _content(name, folder)
            if content:
                yield name, content
    finally:
        os.close(folder)


def _content(name: str, folder: int) -> bytes:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return b""
        with os.fdopen(file, "rb", closefd=False) as stream:
            return stream.read(LONGEST_BYTES)
    finally:
        os.close(file)
