"""N ranks of the kvcm backend, driven step by step from the test, which holds their manager in its other hand.

::

    def test_a_commit_that_fails(children: Children, kvcm: KvcmManager) -> None:
        ranks = start(children, kvcm, tp=2)
        fault = kvcm.inject("finishWriteCache", Kind.INTERNAL_ERROR)
        assert ranks.set(keys("a", 3)) == [[False] * 3] * 2
        assert fault.injected == 1

A command is called on all ranks at once, and what each says comes back by global rank. A rank that says nothing
within the limit hangs: that is an AssertionError with the stacks of all ranks.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from testbed.gloo import start_ranks
from testbed.kvcm_manager import KvcmManager
from testbed.kvcm_rank import KvcmShape, Refusal, serve
from testbed.processes import Child, ChildEnded, Children

__all__ = ["KvcmRanks", "Refusal", "block_key", "keys", "start"]

START_LIMIT_S = 90.0
STEP_LIMIT_S = 30.0
"""A step takes milliseconds. Shorter than the backend's own time-out, so that a hang is seen as one."""


class Hung(AssertionError):
    """Ranks that did not answer; the stacks of all are in the message."""


class Broke(AssertionError):
    """A command raised something: none may, whatever fails."""


class Gone(AssertionError):
    """A rank ended where it was to answer."""


def keys(name: str, count: int, first: int = 0) -> list[str]:
    """Page hashes of one prompt."""
    return [hashlib.sha256(f"{name}/{place}".encode()).hexdigest() for place in range(first, first + count)]


def block_key(page_hash: str) -> int:
    """What the manager knows a page as."""
    return int.from_bytes(hashlib.sha256(page_hash.encode()).digest()[:8], "big", signed=True)


class KvcmRanks:
    """The running ranks."""

    def __init__(self, children: Children, started: Sequence[Child], shape: KvcmShape) -> None:
        self.children = children
        self.ranks = list(started)
        self.shape = shape

    def __len__(self) -> int:
        return len(self.ranks)

    # ---- commands, see `testbed.kvcm_rank.KvcmRank` ----

    def attach(self, config: Mapping[str, object] | None = None, *each: Mapping[str, object]) -> list[Any]:
        """Start controller and backend on all ranks; ``each`` has more configuration for each rank."""
        configs = each or [{}] * len(self.ranks)
        self.begin("attach", *[({**(config or {}), **own},) for own in configs])
        return self.finish(START_LIMIT_S)

    def set(self, page_hashes: Sequence[str], slot: int = 0, prefix: Sequence[str] = ()) -> list[list[bool]]:
        return self.call("set", page_hashes, slot, prefix)

    def get(self, page_hashes: Sequence[str], slot: int = 0, prefix: Sequence[str] = ()) -> list[list[bool]]:
        return self.call("get", page_hashes, slot, prefix)

    def exists(self, page_hashes: Sequence[str], prefix: Sequence[str] = ()) -> list[int]:
        return self.call("exists", page_hashes, prefix)

    def fill(self, page_hashes: Sequence[str], slot: int = 0) -> None:
        self.call("fill", page_hashes, slot)

    def pages(self, count: int, slot: int = 0) -> list[list[bytes]]:
        return self.call("pages", count, slot)

    def disabled(self) -> list[str | None]:
        return self.call("disabled")

    def output(self, rank: int) -> str:
        """All that a rank has written."""
        return self.ranks[rank].log.read_text(errors="replace")

    # ---- how they are called ----

    def call(self, name: str, *args: object, limit_s: float = STEP_LIMIT_S) -> list[Any]:
        """Call a command on all ranks at once, with the same arguments; what each said, by rank."""
        self.begin(name, *[args] * len(self.ranks))
        return self.finish(limit_s)

    def call_one(self, rank: int, name: str, *args: object, limit_s: float = STEP_LIMIT_S) -> Any:
        """Call a command on one rank alone."""
        self.ranks[rank].send((name, args))
        return self.finish(limit_s, [rank])[0]

    def begin(self, name: str, *each: tuple[object, ...]) -> None:
        """Call a command on all ranks, each with arguments of its own, and do not wait for it."""
        for rank, args in zip(self.ranks, each, strict=True):
            rank.send((name, args))

    def finish(self, limit_s: float = STEP_LIMIT_S, which: Sequence[int] | None = None) -> list[Any]:
        """What the ranks say to what was begun. Raises `Hung`, `Gone` or `Broke`."""
        asked = [self.ranks[number] for number in (range(len(self.ranks)) if which is None else which)]
        self._wait(asked, limit_s)
        answers = [self._answer(rank) for rank in asked]
        broken = [f"{rank.name}: {said}" for rank, (kind, said) in zip(asked, answers, strict=True) if kind == "raised"]
        if broken:
            raise Broke("\n".join(broken))
        return [said for _, said in answers]

    def _wait(self, asked: Sequence[Child], limit_s: float) -> None:
        """Until each has said something or ended."""
        deadline = time.monotonic() + limit_s
        while pending := [rank for rank in asked if not rank.has_message and not rank.done]:
            sources = [source for rank in pending for source in rank.sources()]
            if not wait(sources, max(0.0, deadline - time.monotonic())):
                names = ", ".join(rank.name for rank in pending)
                raise Hung(f"{names} hung, without an answer after {limit_s:.0f} s\n{self.children.abort()}")
            for rank in pending:
                rank.advance()

    def _answer(self, rank: Child) -> tuple[str, Any]:
        try:
            kind, said = rank.receive()
        except ChildEnded as error:
            raise Gone(str(error)) from None
        return kind, said


def start(
    children: Children,
    manager: KvcmManager | None,
    *,
    tp: int = 2,
    pp: int = 1,
    pages: int = 64,
    config: Mapping[str, object] | None = None,
    env: dict[str, str] | None = None,
    attach: bool = True,
    url: str = "",
    root: Path | None = None,
) -> KvcmRanks:
    """Start ranks and, unless ``attach`` says no, their backends, which must come up."""
    if manager is not None:
        url, root = manager.url, manager.blocks.root
    assert root is not None, "a manager, or its address and its folder"
    shape = KvcmShape(url, root, tp=tp, pp=pp, pages=pages, config=config or {})
    started = start_ranks(children, serve, shape, size=shape.ranks, env=env, group=False)
    ranks = KvcmRanks(children, started, shape)
    ranks.finish(START_LIMIT_S)
    if attach:
        said = ranks.attach()
        assert said == [None] * len(ranks), said
    return ranks
