"""What is composed so far, as the merge sees it: one topic more is tried, and then taken or not.

There are two of them, and they come to the same: `Stepwise` merges each topic as `git merge` does, and `Union` does
so only where what is composed and the topic can have to do with each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from patchstack.compose.conflict import Culprits
from patchstack.compose.memo import MergeResult
from patchstack.model import Sha, Topic


@dataclass(frozen=True)
class Attempt:
    """A topic merged onto what is composed so far, with nothing changed yet."""

    topic: Topic
    outcome: MergeResult
    by_paths: bool = False
    """What it changes of the composed are the paths of its own, and no others."""


class Line(Protocol):
    """Base, and the topics that were taken."""

    @property
    def included(self) -> Sequence[Topic]: ...

    def attempt(self, topic: Topic) -> Attempt: ...

    def take(self, attempt: Attempt) -> None:
        """Go on with ``attempt``, which was made of the line as it is, and has no conflict."""

    def near(self, files: Iterable[str]) -> tuple[Topic, ...]:
        """Those of ``included`` that change one of ``files``, or have a folder or file in the place of one."""

    def culprits(self, topic: Topic, files: Sequence[str]) -> Culprits:
        """Who ``topic`` is in conflict with in ``files``."""

    def tree(self) -> Sha:
        """The tree of all that was taken."""
