"""Two spellings of one name: `Lib/a.py` beside `lib/a.py` is one file on some machines, and lost on these.

Nobody sees that in one pull request alone: the other spelling can be the base's, a patch's or another pull request's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from patchstack.compose.conflict import touches
from patchstack.compose.left_out import listed
from patchstack.compose.protected import Refusal
from patchstack.git import Change, Repository, readable
from patchstack.model import Reason, Sha, Topic
from patchstack.names import folded, with_folders

_NONE = "000000"
_TOLD = 3


class Spellings:
    """The paths of a tree, folders too, by what some file systems take them for."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._held: dict[str, Counter[str]] = {}
        self._add(Counter(part for path in paths for part in with_folders(path)))

    @classmethod
    def of_tree(cls, store: Repository, tree: Sha) -> Spellings:
        return cls(entry.path for entry in store.list_tree(tree))

    def clashes(self, changes: Iterable[Change]) -> dict[str, str]:
        """Each file or folder that ``changes`` bring in and that is spelled in another way, with that other way.

        Of those that are in a folder that is named already, none is.
        """
        delta = _delta(changes)
        new: dict[str, set[str]] = {}
        for path, count in delta.items():
            if count > 0:
                new.setdefault(folded(path), set()).add(path)
        found: dict[str, str] = {}
        for path in sorted(path for path, count in delta.items() if count > 0 and not self._count(path)):
            key = folded(path)
            others = {*self._held.get(key, ()), *new[key]} - {path}
            there = sorted(other for other in others if self._count(other) + delta[other] > 0)
            if there and not any(part in found for part in with_folders(path)):
                found[path] = there[0]
        return found

    def follow(self, changes: Iterable[Change]) -> None:
        """The tree has ``changes`` now."""
        self._add(_delta(changes))

    def _count(self, path: str) -> int:
        return self._held.get(folded(path), Counter[str]())[path]

    def _add(self, delta: Mapping[str, int]) -> None:
        for path, count in delta.items():
            held = self._held.setdefault(folded(path), Counter())
            held[path] += count
            if held[path] <= 0:
                del held[path]


def _delta(changes: Iterable[Change]) -> Counter[str]:
    """How many files more there are at each path, and below each folder."""
    found: Counter[str] = Counter()
    for change in changes:
        step = (change.old_mode == _NONE) - (change.new_mode == _NONE)
        for part in with_folders(change.path) if step else ():
            found[part] += step
    return found


def spelled_twice(
    store: Repository, base: Sha, clashes: Mapping[str, str], included: Sequence[Topic]
) -> tuple[Refusal, tuple[str, ...]] | None:
    """Why what brings ``clashes`` in is left out, and those of ``included`` that brought the other spelling in."""
    if not clashes:
        return None
    # Whoever changes something in a folder of the tree ``base`` has not spelled it.
    others = tuple(readable(other) for other in clashes.values() if not store.list_tree(base, other))
    twins = tuple(topic.name for topic in included if touches(topic, others))
    pairs = [f"{readable(path)!r} is {readable(other)!r}" for path, other in clashes.items()]
    more = f"; and {len(pairs) - _TOLD} more" if len(pairs) > _TOLD else ""
    whose = f", which {listed(twins)} {'has' if len(twins) == 1 else 'have'}" if twins else ""
    detail = f"on some file systems {'; '.join(pairs[:_TOLD])}{more}{whose}: rename it, or spell it alike"
    return Refusal(Reason.UNUSABLE_NAME, detail, tuple(map(readable, clashes))), twins
