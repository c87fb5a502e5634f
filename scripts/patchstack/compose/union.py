"""Topics put together by their paths; `merge-tree` only where they can have to do with each other.

`git merge` compares two sides with their merge base, path by path, and looks for renames only where a side deletes
something. So a topic that stands on the base, shares no commit with what is composed and deletes nothing (its merge
base is the base, and it renames nothing)

- is merged by setting its paths, where none of them *meets* one that is composed: is it, or is a folder of it, or
  has it for a folder. Only a folder that the composition has emptied must be watched as well: it may have been
  renamed, and git moves what others add there.
- is merged with what is composed of the paths that it meets, where the composition deletes none of these: what else
  either of them holds has no say in the result. If a single topic brought these paths, with that topic's commit.
  (That one of them may be what another file was renamed to does not matter: the topic leaves that file as it is.)

All else is merged as `Stepwise` does it, with the tip; that is written when it is needed. Where both were to come to
different trees, `patchstack merge --verify` says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from patchstack.compose import lookup
from patchstack.compose.conflict import ByPath, Culprits, find_culprits, plain_paths
from patchstack.compose.line import Attempt
from patchstack.compose.lookup import Walk
from patchstack.compose.memo import Memo, MergeResult
from patchstack.compose.octopus import write_step, write_steps
from patchstack.git import ZERO, Change, Repository
from patchstack.model import Base, Sha, Topic
from patchstack.names import name_problem, with_folders

Cell = tuple[str, Sha]
"""Mode and blob."""


@dataclass(frozen=True)
class Deltas:
    """What each topic adds to a base: commits, and, where it stands on it, paths."""

    walks: Mapping[Sha, Walk]
    changes: Mapping[Sha, tuple[Change, ...]]
    can_be_indexed: bool
    """An index takes all names: some it refuses, and trees are put together in one."""

    @classmethod
    def read(cls, store: Repository, base: Sha, topics: Sequence[Topic]) -> Deltas:
        walks = {topic: walk for (_, topic), walk in lookup.walks(store, [(base, t.commit) for t in topics]).items()}
        standing = [(base, topic) for topic, walk in walks.items() if walk.stands_on_it]
        changes = lookup.changes(store, standing)
        paths = {path for topic in topics for path in topic.paths}
        paths.update(change.path for delta in changes.values() for change in delta)
        return cls(walks, {topic: found for (_, topic), found in changes.items()}, not any(map(name_problem, paths)))


@dataclass
class _Composed:
    """What differs from the base so far."""

    cells: dict[str, Cell | None] = field(default_factory=dict)
    """None: deleted."""
    added: set[str] = field(default_factory=set)
    """Those that the base does not have."""
    gone: set[str] = field(default_factory=set)
    """Those that are deleted."""
    folders: set[str] = field(default_factory=set)
    """All that are above one."""

    def take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            path = change.path
            if change.status == "A" and path not in self.cells:
                self.added.add(path)
            self.gone.discard(path)
            self.cells[path] = None if change.status == "D" else (change.new_mode, change.new_blob)
            if change.status == "D" and path in self.added:
                self.added.discard(path)
                del self.cells[path]
            elif change.status == "D":
                self.gone.add(path)
            self.folders.update(_above(path))

    def meeting(self, changes: Iterable[Change]) -> dict[str, Cell | None]:
        """What of it is in the place of one of ``changes``, in a folder of that name, or has that for a folder."""
        found: set[str] = set()
        for change in changes:
            found.update(part for part in with_folders(change.path) if part in self.cells)
            if change.path in self.folders:
                found.update(path for path in self.cells if path.startswith(f"{change.path}/"))
        return {path: self.cells[path] for path in sorted(found)}


def _above(path: str) -> Iterator[str]:
    return (part for part in with_folders(path) if part != path)


@dataclass
class Union:
    """A `Line` that merges by paths what can be."""

    store: Repository
    base: Base
    deltas: Deltas
    memo: Memo
    included: list[Topic] = field(default_factory=list)
    composed: _Composed = field(default_factory=_Composed)
    _steps: list[tuple[Change, ...]] = field(default_factory=list)
    """What each of ``included`` changed."""
    _by_paths: set[int] = field(default_factory=set)
    """Which of ``included`` changed their own paths and no others."""
    _history: set[Sha] = field(default_factory=set)
    """All commits of ``included`` that the base has not."""
    _bringing: ByPath = field(default_factory=ByPath)
    """Who changed what of ``composed``."""
    _claiming: ByPath = field(default_factory=ByPath)
    """Who has what among its `Topic.paths`."""
    _trees: dict[int, Sha] = field(default_factory=dict)
    """By the number of topics that are in them; as far as they are known."""
    _tips: dict[int, Sha] = field(default_factory=dict)
    _conflicts: dict[tuple[Sha, Sha], tuple[str, ...]] = field(default_factory=dict)
    """Of merges of two commits."""
    _base_paths: frozenset[str] | None = None

    def __post_init__(self) -> None:
        self._trees[0], self._tips[0] = self.base.tree, self.base.commit

    # --- the line ---

    def attempt(self, topic: Topic) -> Attempt:
        walk = self.deltas.walks[topic.commit]
        if not walk.parents:
            return Attempt(topic, MergeResult(), by_paths=True)  # the base contains it
        delta = self.deltas.changes.get(topic.commit, ())
        if not self._stands_alone(walk) or _deletes(delta) or self._fills_what_is_emptied(delta):
            return self._with_all(topic)
        meeting = self.composed.meeting(delta)
        if not meeting:
            return Attempt(topic, MergeResult(changes=delta), by_paths=True)
        return self._with_what_it_meets(topic, meeting) or self._with_all(topic)

    def take(self, attempt: Attempt) -> None:
        place, topic, outcome = len(self.included), attempt.topic, attempt.outcome
        self.included.append(topic)
        self.composed.take(outcome.changes)
        self._steps.append(outcome.changes)
        self._history.update(self.deltas.walks[topic.commit].parents)
        self._bringing.add(place, (change.path for change in outcome.changes))
        self._claiming.add(place, topic.paths)
        if attempt.by_paths:
            self._by_paths.add(place)
        if outcome.tree is not None:
            self._trees[place + 1] = outcome.tree

    def near(self, files: Iterable[str]) -> tuple[Topic, ...]:
        return tuple(self.included[place] for place in self._claiming.near(files))

    def culprits(self, topic: Topic, files: Sequence[str]) -> Culprits:
        def conflicts_with(ours: Sha) -> bool:
            if ours == self.base.commit and self.deltas.walks[topic.commit].stands_on_it:
                return False  # merged with what it stands on it is what it is
            return bool(set(self._conflicts_of(ours, topic.commit)) & set(files))

        near = self._claiming.near(files)
        return find_culprits(
            self.base.commit, self.included, near, conflicts_with, lambda place: self._tip_of(place + 1)
        )

    def tree(self) -> Sha:
        return self._tree_of(len(self.included))

    # --- what can be merged by paths ---

    def _stands_alone(self, walk: Walk) -> bool:
        """Whether the base is its one merge base with what is composed."""
        return walk.stands_on_it and self._history.isdisjoint(walk.parents)

    def _fills_what_is_emptied(self, delta: Iterable[Change]) -> bool:
        gone = {folder for path in self.composed.gone for folder in _above(path)}
        filled = {folder for change in delta if change.status == "A" for folder in _above(change.path)} if gone else ()
        return any(folder in gone and not self._is_there(folder) for folder in filled)

    def _is_there(self, folder: str) -> bool:
        """Whether what is composed has ``folder``, which the base has."""
        if self._base_paths is None:
            self._base_paths = frozenset(entry.path for entry in self.store.list_tree(self.base.tree))
        below, gone = f"{folder}/", self.composed.gone
        return any(path.startswith(below) and path not in gone for path in (*self.composed.added, *self._base_paths))

    def _with_what_it_meets(self, topic: Topic, meeting: Mapping[str, Cell | None]) -> Attempt | None:
        """Merge it with ``meeting`` alone; None where that could come to something else than with all."""
        cells = {path: cell for path, cell in meeting.items() if cell is not None}
        if len(cells) < len(meeting):
            return None  # a file that is gone may have been renamed, and the change belongs to its new name
        one = self._sole_bringer(cells)
        key = f"{one.commit if one else _digest(self.base.commit, repr(sorted(cells.items())))} {topic.commit}"
        outcome = self.memo.outcome(key)
        if outcome is None:
            ours = one.commit if one else self._commit_of(cells)
            merged = self.store.merge_tree(ours, topic.commit)
            changes = self.store.changes(ours, merged.tree) if merged.clean else ()
            outcome = MergeResult(plain_paths(merged.conflicts), changes)
            self.memo.keep_outcome(key, outcome)
        if one and outcome.conflicts:
            self._conflicts[one.commit, topic.commit] = outcome.conflicts
        return Attempt(topic, outcome, by_paths=True)

    def _sole_bringer(self, cells: Mapping[str, Cell]) -> Topic | None:
        """The topic that all of ``cells`` are from; nobody else has changed them, so its commit has them as well."""
        places = {place for path in cells for place in self._bringing.at[path]}
        place = places.pop()
        if places or place not in self._by_paths:
            return None
        return self.included[place]

    def _commit_of(self, cells: Mapping[str, Cell]) -> Sha:
        entries = [(mode, blob, path) for path, (mode, blob) in cells.items()]
        tree = self.store.edit_tree(self.base.tree, entries)
        return self.store.commit(tree, [self.base.commit], "what is composed of these paths\n")

    # --- what cannot ---

    def _with_all(self, topic: Topic) -> Attempt:
        key = f"{_digest(self.base.commit, *(earlier.commit for earlier in self.included))} {topic.commit}"
        outcome = self.memo.outcome(key)
        if outcome is None:
            merged = self.store.merge_tree(self._tip_of(len(self.included)), topic.commit)
            if merged.clean:
                outcome = MergeResult((), self.store.changes(self.tree(), merged.tree), merged.tree)
            else:
                outcome = MergeResult(plain_paths(merged.conflicts))
            self.memo.keep_outcome(key, outcome)
        return Attempt(topic, outcome)

    def _conflicts_of(self, ours: Sha, theirs: Sha) -> tuple[str, ...]:
        found = self._conflicts.get((ours, theirs))
        if found is not None:
            return found
        key = f"{ours} {theirs}, conflicts"
        outcome = self.memo.outcome(key)
        if outcome is None:
            outcome = MergeResult(plain_paths(self.store.merge_tree(ours, theirs).conflicts))
            self.memo.keep_outcome(key, outcome)
        self._conflicts[ours, theirs] = outcome.conflicts
        return outcome.conflicts

    def _tip_of(self, count: int) -> Sha:
        """A commit of the base and the first ``count`` topics, with the history of merges one by one."""
        if count not in self._tips:
            written = max(known for known in self._tips if known < count)
            topics, tree, tip = self.included[written:count], self._tree_of(count), self._tips[written]
            write = write_step(self.store, tree, tip, topics[0]) if len(topics) == 1 else None
            self._tips[count] = write or write_steps(self.store, tree, tip, topics)
        return self._tips[count]

    def _tree_of(self, count: int) -> Sha:
        if count not in self._trees:
            known = max(other for other in self._trees if other < count)
            last = {change.path: change for step in self._steps[known:count] for change in step}
            # What goes comes first: a folder can be where a file was.
            changes = sorted(last.values(), key=lambda change: change.status != "D")
            entries = [_entry(change) for change in changes]
            self._trees[count] = self.store.edit_tree(self._trees[known], entries) if entries else self._trees[known]
        return self._trees[count]


def _deletes(delta: Iterable[Change]) -> bool:
    return any(change.status == "D" for change in delta)


def _entry(change: Change) -> tuple[str, str, str]:
    return ("0", ZERO, change.path) if change.status == "D" else (change.new_mode, change.new_blob, change.path)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()
