"""After every step of a long random schedule, all stages have the same tree.

The schedule is the same on all ranks, as a scheduler's is. What is not the same: when copies end, and that a rank of
the first stage has no host room for a while. No rank waits for another beyond what HiCache itself does: each keeps
its states, and they are compared now and then.
"""

from __future__ import annotations

import dataclasses
import random

import pytest

from testbed import Children, hicache
from testbed.hicache import HiCacheRank, HiCacheShape
from testbed.hicache_events import random_lag
from testbed.hicache_schedule import Covered, Mix, Schedule

BETWEEN_LOOKS = 100
SEED = 1
DEVICE_TOKENS, HOST_RATIO = 220, 2.0


def run_schedule(rank: HiCacheRank, seed: int, steps: int) -> Covered:
    rank.clock.lag = random_lag(seed=seed * 100 + rank.number, most=6)
    flushes = random.Random(seed)
    schedule = Schedule(rank, Mix(seed, pressed=range(rank.shape.tp), retracted=0.1))
    states = []
    for number in range(steps):
        schedule.step(number)
        states.append(rank.state())
        if len(states) == BETWEEN_LOOKS:
            rank.assert_same_history(states, f"in the {BETWEEN_LOOKS} steps to {number}")
            states.clear()
            if flushes.random() < 0.3:
                schedule.drain()
                rank.forget()
    schedule.drain()
    rank.assert_same("at the end")
    assert all(node.locks == 0 for node in rank.state().nodes), "a node is locked for ever"
    return schedule.covered


@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        pytest.param(HiCacheShape(tree="hiradix", tp=1, pp=2, page_size=4), 2000, id="hiradix"),
        pytest.param(HiCacheShape(tree="unified", tp=1, pp=2, page_size=4), 500, id="unified"),
        pytest.param(HiCacheShape(tree="hiradix", tp=2, pp=2), 500, id="hiradix-tp2-pp2"),
    ],
)
def test_stages_agree_after_every_step(children: Children, shape: HiCacheShape, steps: int) -> None:
    shape = dataclasses.replace(shape, device_tokens=DEVICE_TOKENS, host_ratio=HOST_RATIO)
    covered = hicache.run(children, shape, run_schedule, SEED, steps, limit_s=100.0)
    assert all(each == covered[0] for each in covered)
    here = covered[0]
    assert min(here.admitted, here.retracted, here.without_room, here.loaded_back) > 0, here
