"""The README's table of patches, generated from their headers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchstack.report import words
from patchstack.report.markdown import code, prose


@dataclass(frozen=True)
class PatchRow:
    slug: str
    symptom: str
    """One sentence; backticks in it make code."""
    need: str
    """On the lane's base: ``needed``, ``hardening`` or why not at all."""
    upstream_status: str
    optional: bool = False
    gpu: bool = False
    """Its guards need a GPU."""


def patch_table(rows: Sequence[PatchRow]) -> str:
    """The table in Markdown, one row a patch in the given order, ending with a newline."""
    lines = [words.PATCH_COLUMNS, tuple("---" for _ in words.PATCH_COLUMNS), *map(_cells, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(row: PatchRow) -> tuple[str, ...]:
    marks = [mark for mark, holds in ((words.OPTIONAL, row.optional), (words.GPU, row.gpu)) if holds]
    name = f"{code(row.slug)} ({', '.join(marks)})" if marks else code(row.slug)
    return (name, prose(row.symptom), prose(row.need), prose(row.upstream_status))
