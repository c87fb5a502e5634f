"""No rank stays out of a HiCache collective because of its own queue, its own host pool or its own copies.

What goes wrong without the patch shows at the next collective of the same group: a rank that stayed out meets
its neighbour's MIN there, reads a wrong sum, and leaves the neighbour waiting for ever.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import Children, hicache
from testbed.hicache import HiCacheRank, HiCacheShape
from testbed.hicache_events import lag_of, random_lag
from testbed.hicache_state import NodeState

TREES: tuple[hicache.Tree, ...] = ("hiradix", "unified", "himamba")
NEVER = 10**9  # polls
SWITCHED_OFF = {"SGLANG_HICACHE_COLLECTIVE_ALWAYS": "0"}


def flush_one_rank(rank: HiCacheRank) -> None:
    """Rank 0 has waited for its write by itself, as a write-back eviction does; rank 1's is under way."""
    if rank.number == 1:
        rank.clock.lag = lag_of(NEVER)
    rank.serve("a", range(40))
    assert rank.state().writing == 1
    if rank.number == 0:
        rank.cache.writing_check(write_back=True)
        assert rank.state().writing == 0
    rank.tick()
    rank.assert_next_collective_pairs()


@pytest.mark.parametrize("tree", TREES)
def test_an_empty_queue_keeps_no_rank_out(children: Children, tree: hicache.Tree) -> None:
    hicache.run(children, HiCacheShape(tree=tree), flush_one_rank)


def fill_one_rank(rank: HiCacheRank, pool: str) -> list[NodeState]:
    """Rank 1 has no host room for the first write; then it has, and the prompt comes again and goes on."""
    if rank.number == 1:
        rank.fill_mamba_host() if pool == "mamba" else rank.fill_host()
    rank.serve("a", range(40))
    rank.tick()
    rank.assert_next_collective_pairs()
    rank.assert_same("with rank 1's host pool full")
    rank.free_host()
    rank.serve("b", range(60))
    rank.settle()
    rank.assert_same("with room again")
    return list(rank.state().nodes)


@pytest.mark.parametrize(
    ("shape", "pool"),
    [
        pytest.param(HiCacheShape(tree="hiradix"), "kv", id="hiradix"),
        pytest.param(HiCacheShape(tree="hiradix", cp=2), "kv", id="hiradix-context-parallel"),
        pytest.param(HiCacheShape(tree="unified"), "kv", id="unified"),
        pytest.param(HiCacheShape(tree="himamba"), "kv", id="himamba"),
        pytest.param(HiCacheShape(tree="himamba"), "mamba", id="himamba-states"),
    ],
)
def test_a_full_host_pool_keeps_no_rank_out(children: Children, shape: HiCacheShape, pool: str) -> None:
    """And no node stays locked: the ranks' acknowledgements pair by node, not by position in a queue."""
    here, there = hicache.run(children, shape, fill_one_rank, pool)
    assert here == there
    assert [(node.on_device, node.on_host, node.locks) for node in here] == [(True, True, 0)] * 2


def postpone_after_loading(rank: HiCacheRank) -> list[NodeState]:
    """A prompt is loaded back, but does not fit into the batch; its copy ends on rank 0 first."""
    rank.serve("a", range(40))
    rank.settle()
    rank.evict(40)
    if rank.number == 1:
        rank.clock.lag = lag_of(2)
    rank.postpone(rank.queue("b", range(60)))
    for _ in range(4):
        rank.tick()
        rank.assert_same("with the copy of rank 0 at its end")
    rank.assert_next_collective_pairs()
    return list(rank.state().nodes)


@pytest.mark.parametrize("tree", TREES)
def test_a_load_ends_on_all_ranks_at_once(children: Children, tree: hicache.Tree) -> None:
    """Else a rank that may evict the node evicts something else than the other, and the queues drift apart."""
    here, there = hicache.run(children, HiCacheShape(tree=tree), postpone_after_loading)
    assert here == there
    assert [(node.on_device, node.on_host, node.locks) for node in here] == [(True, True, 0)]


def evict_with_one_full_pool(rank: HiCacheRank) -> list[NodeState]:
    """Write-back: a node goes to the host when the device needs its room, on all ranks or on none."""
    rank.serve("a", range(40))
    if rank.number == 1:
        rank.fill_host()
    rank.evict(20)
    rank.assert_same("with rank 1's host pool full")
    rank.free_host()
    rank.evict(20)
    rank.assert_same("with room again")
    rank.assert_next_collective_pairs()
    return list(rank.state().nodes)


def test_write_back_evicts_on_all_ranks_or_on_none(children: Children) -> None:
    here, there = hicache.run(children, HiCacheShape(write_policy="write_back"), evict_with_one_full_pool)
    assert here == there
    assert [(node.on_device, node.on_host) for node in here] == [(False, True)]


def reset_with_a_fast_clock(rank: HiCacheRank) -> None:
    """Rank 0's clock jumps a minute ahead once the 30 s that a reset may wait for storage have begun."""
    if rank.number == 0:
        rank.jump_clock("sglang.srt.mem_cache.hi_mamba_radix_cache", after_calls=1, by_s=60.0)
    rank.cache.reset()
    rank.assert_next_collective_pairs()


def test_a_fast_clock_keeps_no_rank_out(children: Children, tmp_path: Path) -> None:
    hicache.run(children, HiCacheShape(tree="himamba", storage_dir=tmp_path / "storage"), reset_with_a_fast_clock)


# Controls: the bed is sound; the switch and a single rank are as without the patch.


def stay_out(rank: HiCacheRank) -> dict[str, bool]:
    """Rank 0 alone looks for finished writes, with none under way; rank 1 alone has a full host pool."""
    on_host = {}
    for tree in TREES:
        here = rank.with_tree(tree)
        if rank.number == 0:
            here.cache.flush_write_through_acks()
        here.assert_next_collective_pairs()
        if rank.number == 1:
            here.fill_host()
        here.serve("a", range(40))
        (node,) = here.state().nodes
        on_host[tree] = node.on_host
    return on_host


@pytest.mark.control
def test_switched_off_each_rank_decides_alone(children: Children) -> None:
    here, there = hicache.run(children, HiCacheShape(), stay_out, env=SWITCHED_OFF)
    assert here == dict.fromkeys(TREES, True)
    assert there == dict.fromkeys(TREES, False)


def count_collectives(rank: HiCacheRank) -> int:
    """One rank with work, then with a full host pool."""
    counted = rank.count_all_reduces()
    for tree in TREES:
        here = rank.with_tree(tree)
        here.serve("a", range(40))
        here.settle()
        here.fill_host()
        here.serve("b", range(100, 140))
        here.settle()
        here.tick()
    return len(counted)


@pytest.mark.control
def test_one_rank_enters_no_collective(children: Children) -> None:
    assert hicache.run(children, HiCacheShape(tp=1), count_collectives) == [0]


def serve_with_room(rank: HiCacheRank, trees: tuple[hicache.Tree, ...]) -> None:
    """Writes that end at another time on each rank, and room for all of them."""
    rank.clock.lag = random_lag(seed=rank.number, most=4)
    for tree in trees:
        here = rank.with_tree(tree)
        for number in range(6):
            here.serve(f"r{number}", range(number % 3 * 100, number % 3 * 100 + 20 + number))
            here.tick()
        here.settle()
        here.assert_same(f"{tree} at the end")
        here.assert_next_collective_pairs()


@pytest.mark.control
@pytest.mark.parametrize(
    ("shape", "trees"),
    [
        pytest.param(HiCacheShape(tp=2), TREES, id="tp2"),
        pytest.param(HiCacheShape(tp=2, pp=2), ("hiradix", "unified"), id="tp2-pp2"),
    ],
)
def test_with_room_everywhere_the_ranks_agree(
    children: Children, shape: HiCacheShape, trees: tuple[hicache.Tree, ...]
) -> None:
    hicache.run(children, shape, serve_with_room, trees)
