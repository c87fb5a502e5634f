"""After every step of a random schedule, all ranks have the same tree.

The schedule is the same on all ranks, as a scheduler's is. What is not the same: when copies end, and which
rank's host pool is full for a while.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from testbed import Children, hicache
from testbed.hicache import HiCacheRank, HiCacheShape
from testbed.hicache_events import random_lag
from testbed.hicache_schedule import Covered, Mix, Schedule

STEPS = 120
SEED = 1
DEVICE_TOKENS = 220


def run_schedule(rank: HiCacheRank, seed: int) -> Covered:
    rank.clock.lag = random_lag(seed=seed * 100 + rank.number, most=6)
    schedule = Schedule(rank, Mix(seed, pressed=range(rank.shape.tp)))
    for number in range(STEPS):
        schedule.step(number)
        rank.assert_same(f"step {number}")
    schedule.drain()
    rank.assert_same("at the end")
    if rank.shape.storage_dir is not None:
        rank.forget()
        schedule.fetch_all()
    rank.assert_next_collective_pairs()
    assert all(node.locks == 0 for node in rank.state().nodes), "a node is locked for ever"
    return schedule.covered


@pytest.mark.parametrize(
    ("shape", "storage"),
    [
        pytest.param(HiCacheShape(tree="hiradix", page_size=4), False, id="hiradix"),
        pytest.param(HiCacheShape(tree="hiradix"), True, id="hiradix-storage"),
        pytest.param(HiCacheShape(tree="unified"), False, id="unified"),
        pytest.param(HiCacheShape(tree="himamba"), False, id="himamba"),
        pytest.param(HiCacheShape(tree="himamba", prefetch_policy="timeout"), True, id="himamba-storage"),
    ],
)
def test_ranks_agree_after_every_step(children: Children, tmp_path: Path, shape: HiCacheShape, storage: bool) -> None:
    shape = dataclasses.replace(
        shape, device_tokens=DEVICE_TOKENS, storage_dir=tmp_path / "storage" if storage else None
    )
    here, there = hicache.run(children, shape, run_schedule, SEED, limit_s=60.0)
    assert here == there
    # With storage, its threads have a say in what comes back from where; from_storage is sure by fetch_all.
    assert min(here.admitted, here.without_room, here.from_storage if storage else here.loaded_back) > 0, here
