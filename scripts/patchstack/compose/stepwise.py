"""Every topic by `merge-tree`, one after the other, each onto a commit of all that came before it.

This is what a night means by merging, and what `verify` composes with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from patchstack.compose.conflict import Culprits, find_culprits, plain_paths, touches
from patchstack.compose.line import Attempt
from patchstack.compose.memo import MergeResult
from patchstack.compose.octopus import write_step
from patchstack.git import Repository
from patchstack.model import Base, Sha, Topic


@dataclass
class Stepwise:
    """A `Line` that remembers nothing and takes nothing for granted."""

    store: Repository
    base: Base
    included: list[Topic] = field(default_factory=list)
    tips: list[Sha] = field(default_factory=list)
    """After each of ``included``."""
    _tree: Sha | None = None

    def attempt(self, topic: Topic) -> Attempt:
        tip = self.tips[-1] if self.tips else self.base.commit
        merged = self.store.merge_tree(tip, topic.commit)
        if not merged.clean:
            return Attempt(topic, MergeResult(conflicts=plain_paths(merged.conflicts)))
        return Attempt(topic, MergeResult((), self.store.changes(self.tree(), merged.tree), merged.tree))

    def take(self, attempt: Attempt) -> None:
        self._tree = attempt.outcome.tree
        tip = self.tips[-1] if self.tips else self.base.commit
        self.tips.append(write_step(self.store, self.tree(), tip, attempt.topic))
        self.included.append(attempt.topic)

    def near(self, files: Iterable[str]) -> tuple[Topic, ...]:
        wanted = tuple(files)
        return tuple(topic for topic in self.included if touches(topic, wanted))

    def culprits(self, topic: Topic, files: Sequence[str]) -> Culprits:
        near = [place for place, earlier in enumerate(self.included) if touches(earlier, files)]
        return find_culprits(
            self.base.commit,
            self.included,
            near,
            lambda ours: bool(set(plain_paths(self.store.merge_tree(ours, topic.commit).conflicts)) & set(files)),
            self.tips.__getitem__,
        )

    def tree(self) -> Sha:
        return self._tree or self.base.tree
