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
    on_gpu: str = ""
    """When and where its GPU scenarios ran, in one line; empty: never."""


def patch_table(rows: Sequence[PatchRow]) -> str:
    """The table in Markdown, one row a patch in the given order, ending with a newline."""
    lines = [words.PATCH_COLUMNS, tuple("---" for _ in words.PATCH_COLUMNS), *map(_cells, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(row: PatchRow) -> tuple[str, ...]:
    name = f"{code(row.slug)} ({words.OPTIONAL})" if row.optional else code(row.slug)
    on_gpu = row.on_gpu or words.NEVER_ON_GPU
    return (name, prose(row.symptom), prose(row.need), prose(row.upstream_status), prose(on_gpu))
