"""How a long listing is read whole although it may move meanwhile: in pages that overlap.

GitHub cuts pages from the listing as it is when each is asked for: what closes on a page that was read moves
all later rows up, and the first of them onto that page, where nobody looks any more. So every page but the first
begins with rows that were read before; where its first row is none of these, the listing has moved. Pages all of
one size have no row in common: each is asked for in a size of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

PAGE = 100
"""Rows that GitHub puts on a page at most."""

_Row = TypeVar("_Row")


def read_overlapping(
    ask: Callable[[int, int], tuple[Sequence[_Row], bool]], number_of: Callable[[_Row], int]
) -> tuple[_Row, ...] | None:
    """Every row once, as it was read last; None if the listing has moved so that one may be missing.

    ``ask`` is called with the number and the size of a page, and says whether there is another behind it.
    """
    found: dict[int, _Row] = {}
    number, size, goes_on = 1, PAGE, True
    while goes_on:
        rows, goes_on = ask(number, size)
        if number > 1 and not (rows and number_of(rows[0]) in found):
            return None
        found |= {number_of(row): row for row in rows}
        number, size = next_page(number * size)
    return tuple(found.values())


def next_page(read: int) -> tuple[int, int]:
    """Number and size of the page that begins among the first ``read`` rows and goes furthest beyond them.

    ``read`` is `PAGE` at least; it goes on by more than half a `PAGE`, and mostly by nearly a whole one.
    """
    sizes = (size for size in range(PAGE // 2 + 1, PAGE + 1) if read % size)
    size = max(sizes, key=lambda size: (size - read % size, size))
    return read // size + 1, size


def pages_of(rows: int) -> int:
    """The pages that it takes to read so many rows, if they stay; an empty listing is one page."""
    read, pages = PAGE, 1
    while read < rows:
        number, size = next_page(read)
        read, pages = number * size, pages + 1
    return pages
