"""A scheduler whose every choice comes from one seed: what a `testbed.hicache` rank does for hundreds of steps.

All ranks make the same choices, as schedulers do. What is not the same on all of them is up to the scenario:
when copies end (`HiCacheRank.clock`), and which rank's host pool is full for a while (`Mix.pressed`)::

    def run_schedule(rank):
        rank.clock.lag = random_lag(seed=rank.number, most=6)
        schedule = Schedule(rank, Mix(seed=1))
        for number in range(100):
            schedule.step(number)
            rank.assert_same(f"step {number}")
        schedule.drain()
        return schedule.covered
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

from testbed.hicache import HiCacheRank

FAMILIES = 5  # prompts of one family share their first tokens
SHORTEST, LONGEST = 12, 60  # tokens of a prompt
RUNNING = 3  # requests at a time


@dataclasses.dataclass(frozen=True)
class Mix:
    """What happens how often."""

    seed: int
    pressed: Sequence[int] = ()
    """Ranks whose host pool fills up now and then, one at a time; none if empty."""
    retracted: float = 0.0
    """Share of the steps in which a running request gives its device tokens back and waits again."""


@dataclasses.dataclass
class Covered:
    """How often a schedule came to what it is for."""

    admitted: int = 0
    retracted: int = 0
    without_room: int = 0  # steps with a node that found no room on the host
    loaded_back: int = 0  # requests that took tokens from the host
    from_storage: int = 0  # tokens


class Schedule:
    """`step` it, look at the rank, step it again."""

    def __init__(self, rank: HiCacheRank, mix: Mix) -> None:
        self.rank = rank
        self.mix = mix
        self.draw = random.Random(mix.seed)
        self.waiting: list[Any] = []
        self.running: list[Any] = []
        self.covered = Covered()

    def step(self, number: int) -> None:
        """One step of the scheduler: requests come, go, run and end."""
        if self.mix.pressed:
            self._press()
        if len(self.waiting) < RUNNING and self.draw.random() < 0.7:
            self.waiting.append(self.rank.queue(f"r{number}", self._prompt()))
        if self.waiting and self.draw.random() < 0.1:
            self.rank.abort_queued(self.waiting.pop(self.draw.randrange(len(self.waiting))))
        self.rank.tick()
        self._admit()
        if self.running and self.draw.random() < 0.6:
            self.rank.finish(self.running.pop(self.draw.randrange(len(self.running))))
        if self.running:  # a decode step
            self.rank.cache.flush_write_through_acks()
        if self.mix.retracted and self.running and self.draw.random() < self.mix.retracted:
            self._retract()
        self.covered.without_room += not all(node.on_host for node in self.rank.state().nodes)

    def drain(self) -> None:
        """End all requests, give all host room back, and step until nothing is under way."""
        for req in self.waiting:
            self.rank.abort_queued(req)
        for req in self.running:
            self.rank.finish(req)
        self.waiting, self.running = [], []
        self.rank.free_host()
        self.rank.settle()

    def fetch_all(self) -> None:
        """Each family's longest prompt once more, of which only storage has anything."""
        for family in range(FAMILIES):
            req = self.rank.queue(f"again{family}", range(family * 100, family * 100 + LONGEST))
            self.rank.wait_prefetched(req)
            assert self.rank.admit(req), f"no device room for {req.rid}"
            self.rank.finish(req)
            self.rank.settle()
            self.rank.assert_same(f"family {family} again")
            self.covered.from_storage += req.storage_hit_length

    def _press(self) -> None:
        """Now and then one rank's host pool fills up, all but a little, and later has room again."""
        chance, chosen, leave = self.draw.random(), self.draw.choice(self.mix.pressed), self.draw.choice((0, 16))
        if chance < 0.15:
            self.rank.free_host()
            if chosen == self.rank.number:
                self.rank.fill_host(leave)
        elif chance < 0.3:
            self.rank.free_host()

    def _prompt(self) -> range:
        first = self.draw.randrange(FAMILIES) * 100
        return range(first, first + self.draw.randrange(SHORTEST, LONGEST, self.rank.shape.page_size))

    def _retract(self) -> None:
        req = self.running.pop(self.draw.randrange(len(self.running)))
        self.rank.retract(req)
        self.waiting.append(req)
        self.covered.retracted += 1

    def _admit(self) -> None:
        for req in list(self.waiting):
            if len(self.running) == RUNNING or not self.rank.prefetched(req):
                continue
            # A single rank of 0.5.12.post1's HiMambaRadixCache asserts when it evicts around a node that only
            # a load holds, so its schedule has no postponed requests.
            if self.rank.shape.tree != "himamba" and self.draw.random() < 0.2:
                self.rank.postpone(req)
                continue
            if not self.rank.admit(req):
                return
            self.waiting.remove(req)
            self.rank.keep(req)
            self.running.append(req)
            self.covered.admitted += 1
            self.covered.loaded_back += req.host_hit_length > 0
            self.covered.from_storage += req.storage_hit_length
