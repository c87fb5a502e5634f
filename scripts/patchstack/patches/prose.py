"""The prose of a `patch.md`: what it must say, heading by heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from patchstack.patches.header import Patch

HEADINGS = ("Symptom", "Cause", "Cure", "Switches", "Log lines", "Removal")
"""Every patch has these, in this order, each with something below it."""


@dataclass(frozen=True)
class Section:
    heading: str
    line: int
    """The line of `patch.md` on which the heading stands."""
    text: str


def sections(patch: Patch) -> tuple[Section, ...]:
    """What stands below each heading of the second level; a ``##`` inside a fenced block is none."""
    found: list[tuple[str, int, list[str]]] = []
    fence = ""
    for number, line in enumerate(patch.prose.split("\n"), patch.prose_line):
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        heading = None if fence else re.match(r"## +(.*?) *#*$", line)
        if heading:
            found.append((heading[1], number, []))
        elif found:
            found[-1][2].append(line)
    return tuple(Section(heading, number, "\n".join(text).strip()) for heading, number, text in found)


def prose_problems(patch: Patch) -> Iterator[str]:
    """Headings that are missing, unknown, twice, empty or out of order."""
    found = sections(patch)
    names = [section.heading for section in found]
    for heading in HEADINGS:
        if heading not in names:
            yield f"{patch.header_path}:{patch.prose_line}: ## {heading}: the heading is missing: write that section"
    for position, section in enumerate(found):
        where = f"{patch.header_path}:{section.line}: ## {section.heading}"
        if section.heading not in HEADINGS:
            yield f"{where}: no such heading is known: use {', '.join(HEADINGS)}, and ### below them"
        elif section.heading in names[:position]:
            yield f"{where}: it stands twice: keep one"
        elif not section.text:
            yield f"{where}: there is nothing below it: write it"
    known = [name for name in dict.fromkeys(names) if name in HEADINGS]
    if known != sorted(known, key=HEADINGS.index):
        yield f"{patch.header_path}:{patch.prose_line}: ## {known[0]}: not in order: write {', '.join(HEADINGS)}"
