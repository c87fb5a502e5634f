"""Who is in conflict with whom: a merge that failed against everything composed so far, taken apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from patchstack.git import readable
from patchstack.model import Sha, Topic
from patchstack.names import with_folders

# Where a file and a folder claim one path, merge-tree names the file `path~<commit>`, with a number if that is taken.
_MOVED_ASIDE = re.compile(r"~[0-9a-f]{40}(_\d+)?$")


@dataclass(frozen=True)
class Culprits:
    """The earlier topics that a topic conflicts with; none: it conflicts with the base itself."""

    names: tuple[str, ...]
    together: bool
    """No one of them conflicts alone: they do once all of them are in."""


def plain_paths(conflicts: Iterable[str]) -> tuple[str, ...]:
    """The files in conflict by their names in the tree, each once."""
    return tuple(dict.fromkeys(readable(_MOVED_ASIDE.sub("", path)) for path in conflicts))


def touches(topic: Topic, files: Sequence[str]) -> bool:
    """Whether ``topic`` changes one of ``files``, or a folder or file in the place of one."""
    return any(_overlap(path, file) for path in topic.paths for file in files)


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


@dataclass
class ByPath:
    """Paths with the numbers of those who change them; finds what `touches` would, without asking each of them."""

    at: dict[str, list[int]] = field(default_factory=dict)
    below: dict[str, list[int]] = field(default_factory=dict)
    """By folder."""

    def add(self, number: int, paths: Iterable[str]) -> None:
        for path in paths:
            *folders, whole = with_folders(path)
            self.at.setdefault(whole, []).append(number)
            for folder in folders:
                self.below.setdefault(folder, []).append(number)

    def near(self, files: Iterable[str]) -> list[int]:
        """In ascending order."""
        found: set[int] = set()
        for file in files:
            found.update(self.below.get(file, ()))
            for part in with_folders(file):
                found.update(self.at.get(part, ()))
        return sorted(found)


def find_culprits(
    base: Sha,
    included: Sequence[Topic],
    near: Sequence[int],
    conflicts_with: Callable[[Sha], bool],
    tip_after: Callable[[int], Sha],
) -> Culprits:
    """Search the earlier topics for those that a topic conflicts with.

    ``near`` are the places in ``included`` of those that are on the files in question; ``conflicts_with`` says
    whether the topic conflicts with a commit on these files, and ``tip_after`` is the tip after the topic at a place.
    Those that conflict alone are all named. If none does, the shortest prefix that does is, as far as it is near.
    """
    if conflicts_with(base):
        return Culprits((), together=False)
    alone: list[str] = []
    for earlier in (included[place] for place in near):
        # What stands on a culprit brings it along: the culprit is named, not what stands on it.
        if not set(earlier.requires) & set(alone) and conflicts_with(earlier.commit):
            alone.append(earlier.name)
    if alone:
        return Culprits(tuple(alone), together=False)
    for places in (near, range(len(included))):
        for length, place in enumerate(places, 1):
            if conflicts_with(tip_after(place)):
                return Culprits(tuple(included[number].name for number in places[:length]), together=True)
    return Culprits(tuple(earlier.name for earlier in included), together=True)
