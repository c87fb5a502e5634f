"""Who is in conflict with whom: a merge that failed against everything composed so far, taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from patchstack.git import Repository, readable
from patchstack.model import Sha, Topic

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


def find_culprits(
    store: Repository, base: Sha, included: Sequence[tuple[Topic, Sha]], topic: Topic, files: Sequence[str]
) -> Culprits:
    """Search the earlier topics on ``files`` for those that conflict with ``topic``.

    ``included`` are the earlier topics, each with the tip after it was merged. Those that conflict alone are
    all named. If none does, the shortest prefix that does is, as far as it is on these files.
    """
    if _conflict(store, base, topic, files):
        return Culprits((), together=False)
    near = [(earlier, tip) for earlier, tip in included if touches(earlier, files)]
    alone: list[str] = []
    for earlier, _ in near:
        # What stands on a culprit brings it along: the culprit is named, not what stands on it.
        if not set(earlier.requires) & set(alone) and _conflict(store, earlier.commit, topic, files):
            alone.append(earlier.name)
    if alone:
        return Culprits(tuple(alone), together=False)
    for prefix in (near, included):
        for length, (_, tip) in enumerate(prefix, 1):
            if _conflict(store, tip, topic, files):
                return Culprits(tuple(earlier.name for earlier, _ in prefix[:length]), together=True)
    return Culprits(tuple(earlier.name for earlier, _ in included), together=True)


def _conflict(store: Repository, ours: Sha, topic: Topic, files: Sequence[str]) -> bool:
    return bool(set(plain_paths(store.merge_tree(ours, topic.commit).conflicts)) & set(files))
