"""Two states of the stack beside each other, patch by patch, as their files are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchstack.patches.header import Patch


@dataclass(frozen=True)
class Changed:
    """One patch of either state; its form before, and after, and what of it is not the same."""

    slug: str
    before: Patch | None
    after: Patch | None
    files: tuple[str, ...]
    """Names in its folder, sorted: new ones, those that are gone, and those with other bytes."""
    moved: bool
    """It stands elsewhere among the patches that both states have."""


def compare(before: Sequence[Patch], after: Sequence[Patch]) -> tuple[Changed, ...]:
    """Every patch of ``after`` in its order, then those that are gone."""
    old = {patch.slug: patch for patch in before}
    new = {patch.slug: patch for patch in after}
    moved = _moved([slug for slug in old if slug in new], [slug for slug in new if slug in old])
    return tuple(
        Changed(slug, old.get(slug), new.get(slug), _files(old.get(slug), new.get(slug)), slug in moved)
        for slug in [*new, *(slug for slug in old if slug not in new)]
    )


def _files(before: Patch | None, after: Patch | None) -> tuple[str, ...]:
    old, new = (_content(patch.folder) if patch else {} for patch in (before, after))
    return tuple(sorted(name for name in {*old, *new} if old.get(name) != new.get(name)))


def _content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _moved(before: Sequence[str], after: Sequence[str]) -> set[str]:
    """The fewest slugs that must move to make one order out of the other: all but the longest common run."""
    places = {slug: place for place, slug in enumerate(before)}
    ends: list[int] = []  # of runs of each length, the lowest last place
    chain: list[tuple[str, ...]] = []
    for slug in after:
        length = bisect_left(ends, places[slug])
        run = (*(chain[length - 1] if length else ()), slug)
        ends[length : length + 1] = [places[slug]]
        chain[length : length + 1] = [run]
    return set(after) - set(chain[-1] if chain else ())
