"""Texts of a size that GitHub takes: long lists are cut, and say where the rest is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from patchstack.github import COMMENT_LIMIT
from patchstack.report.markdown import render_answer
from patchstack.report.page import Line, Page

ROWS = (30, 10, 3, 1, 0)
"""How many lines a list shows: the first of these numbers with which the whole text fits."""
SPARE = 2_000
"""Bytes left in a text for the last line that a later night adds."""


def fitted(marker: object, page: Callable[[int], Page]) -> str:
    """A text that GitHub takes; ``page`` makes it with at most that many lines in each list."""
    texts = (render_answer(page(rows), str(marker)) for rows in ROWS)
    return next(text for text in texts if len(text.encode(errors="backslashreplace")) <= COMMENT_LIMIT - SPARE)


def cut(lines: Sequence[Line], rows: int) -> tuple[tuple[Line, ...], str]:
    """The first ``rows`` lines, and how many the report has beyond them."""
    rest = len(lines) - rows
    return tuple(lines[:rows]), f"{rest} more in the report" if rest > 0 else ""
