"""How far trees are apart, without a list of all that differs: folder by folder, each pair of them read once.

Twelve objects can make a tree of ten thousand million files (https://kate.io/blog/git-bomb/): `git diff-tree` would
end with the machine's memory. Here they are counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from patchstack.git import Repository
from patchstack.model import Sha

_MOST_FOLDER_BYTES = 4 << 20
"""More than 10,000 files with names of 255 bytes take; no folder is read that has more."""
_READ_AT_ONCE_BYTES = 32 << 20
_ENTRY = re.compile(rb"([0-7]+) ([^\0]*)\0(.{20})", re.DOTALL)
_FOLDER, _SUBMODULE = b"40000", b"160000"

Pair = tuple[Sha | None, Sha | None]
"""A folder before and after; None where it is not there."""


@dataclass(frozen=True)
class _Difference:
    """What is not alike in two folders."""

    paths: int
    """Files that are new, changed or gone; not those in folders below."""
    files: tuple[tuple[str, Sha], ...]
    """Name and contents of those that are new or changed."""
    below: tuple[tuple[str, Pair], ...]
    """Folders that differ."""


@dataclass
class Side:
    """What is measured together: trees before and after."""

    most_paths: int
    roots: Sequence[Pair]
    why_not: str = ""
    """Why it was not followed to its end; empty where it was."""
    seen: set[Pair] = field(default_factory=set)
    paths: int = 0
    """How many differ, each pair of folders counted once."""


class Extents:
    """The differences of all sides; what two of them share was read once."""

    def __init__(self, store: Repository, sides: Sequence[Side], *, deepest: int) -> None:
        self._store = store
        self._found: dict[Pair, _Difference] = {}
        self._counted: dict[Pair, int] = {}
        frontier = [(side, {pair for pair in side.roots if pair[0] != pair[1]}) for side in sides]
        for _ in range(deepest + 1):
            frontier = [(side, pairs) for side, pairs in frontier if pairs]
            self._read({pair for _, pairs in frontier for pair in pairs} - self._found.keys())
            frontier = [(side, self._below(side, pairs)) for side, pairs in frontier]
        for side, pairs in frontier:
            if pairs:
                side.why_not = f"it has more than {deepest} folders in each other"
        self._sizes = sizes(store, {sha for one in self._found.values() for _, sha in one.files})

    def count(self, pair: Pair) -> int:
        """How many files differ, each as often as it is there."""
        if pair[0] == pair[1]:
            return 0
        if pair not in self._counted:
            one = self._found[pair]
            self._counted[pair] = one.paths + sum(self.count(below) for _, below in one.below)
        return self._counted[pair]

    def total_bytes(self, pair: Pair) -> int:
        """What the new and changed files have together, each as often as it is there; only after `count`."""
        if pair[0] == pair[1]:
            return 0
        one = self._found[pair]
        own = sum(self._sizes.get(sha, 0) for _, sha in one.files)
        return own + sum(self.total_bytes(below) for _, below in one.below)

    def larger_than(self, side: Side, most_bytes: int) -> tuple[str, int] | None:
        """A new or changed file of ``side`` that has more, with its size."""
        been: set[Pair] = set()
        ahead: list[tuple[str, Pair]] = [("", root) for root in side.roots if root[0] != root[1]]
        while ahead:
            folder, pair = ahead.pop()
            if pair in been:
                continue
            been.add(pair)
            for name, sha in self._found[pair].files:
                size = self._sizes.get(sha, 0)
                if size > most_bytes:
                    return f"{folder}{name}", size
            ahead += [(f"{folder}{name}/", below) for name, below in self._found[pair].below]
        return None

    def _below(self, side: Side, pairs: set[Pair]) -> set[Pair]:
        """The pairs below ``pairs`` that ``side`` has not come to; none where it has shown to be too large."""
        side.seen |= pairs
        if not pairs <= self._found.keys():
            side.why_not = f"one of its folders has more than {_MOST_FOLDER_BYTES >> 20} MB of names"
            return set()
        side.paths += sum(self._found[pair].paths for pair in pairs)
        below = {pair for one in pairs for _, pair in self._found[one].below} - side.seen
        if side.paths + len(below) > side.most_paths:
            side.why_not = f"it changes more than {side.most_paths} paths"
            return set()
        return below

    def _read(self, pairs: set[Pair]) -> None:
        trees = _read_trees(self._store, {sha for pair in pairs for sha in pair if sha is not None})
        for old, new in pairs:
            if all(sha is None or sha in trees for sha in (old, new)):
                self._found[old, new] = _difference(trees[old] if old else b"", trees[new] if new else b"")


def _difference(old: bytes, new: bytes) -> _Difference:
    before, after = set(_ENTRY.findall(old)), set(_ENTRY.findall(new))
    gone, there = before - after, after - before
    names = {name for mode, name, _ in (*gone, *there) if mode != _FOLDER}
    files = [(_text(name), Sha(sha.hex())) for mode, name, sha in there if mode not in {_FOLDER, _SUBMODULE}]
    left = {name: Sha(sha.hex()) for mode, name, sha in gone if mode == _FOLDER}
    came = {name: Sha(sha.hex()) for mode, name, sha in there if mode == _FOLDER}
    below = [(_text(name), (left.get(name), came.get(name))) for name in sorted(left.keys() | came.keys())]
    return _Difference(len(names), tuple(sorted(files)), tuple(below))


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _read_trees(store: Repository, shas: set[Sha]) -> dict[Sha, bytes]:
    """The bytes of each tree; those of none that has more than `_MOST_FOLDER_BYTES`."""
    found: dict[Sha, bytes] = {}
    batch: list[Sha] = []
    together = 0
    for sha, size in sorted(sizes(store, shas).items()):
        if size > _MOST_FOLDER_BYTES:
            continue
        if together + size > _READ_AT_ONCE_BYTES:
            found |= _read_batch(store, batch)
            batch, together = [], 0
        batch.append(sha)
        together += size
    return found | _read_batch(store, batch)


def _read_batch(store: Repository, shas: Sequence[Sha]) -> dict[Sha, bytes]:
    if not shas:
        return {}
    out = store.attempt_ok("cat-file", "--batch=%(objectsize)", stdin=_lines(shas)).stdout
    found: dict[Sha, bytes] = {}
    at = 0
    for sha in shas:
        end = out.index(b"\n", at)
        size = int(out[at:end])
        found[sha] = out[end + 1 : end + 1 + size]
        at = end + 1 + size + 1
    return found


def sizes(store: Repository, shas: Iterable[Sha]) -> dict[Sha, int]:
    """How many bytes each object has, without reading it; one that is not there is not in the answer."""
    asked = sorted(set(shas))
    if not asked:
        return {}
    said = store.attempt_ok("cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=_lines(asked)).text
    rows = (line.split(" ") for line in said.splitlines())
    return {Sha(sha): int(size) for sha, size in rows if size.isdigit()}


def trees_of(store: Repository, commits: Iterable[Sha]) -> Mapping[Sha, Sha]:
    asked = sorted(set(commits))
    lines = _lines(f"{sha}^{{tree}}" for sha in asked)
    said = store.attempt_ok("cat-file", "--batch-check=%(objectname)", stdin=lines).text.splitlines() if asked else []
    return dict(zip(asked, map(Sha, said), strict=True))


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
