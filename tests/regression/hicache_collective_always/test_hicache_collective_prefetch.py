"""All ranks prefetch a prompt from storage, at one length, or none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import Children, hicache
from testbed.hicache import HiCacheRank, HiCacheShape

A, B = list(range(100, 140)), list(range(200, 240))


def remember(rank: HiCacheRank) -> None:
    """Two prompts are in storage and nowhere else."""
    rank.serve("a", A)
    rank.serve("b", B)
    rank.settle()
    rank.forget()


def prefetch_with_one_full_pool(rank: HiCacheRank, pool: str, leave: int = 0) -> list[int]:
    """Rank 1 has host room for `leave` tokens (or no mamba state) when A comes back, and for all when B does."""
    remember(rank)
    if rank.number == 1:
        rank.fill_mamba_host() if pool == "mamba" else rank.fill_host(leave)
    loaded = [fetch(rank, "a2", A)]
    rank.free_host()
    return [*loaded, fetch(rank, "b2", B)]


def fetch(rank: HiCacheRank, rid: str, tokens: list[int]) -> int:
    """How many tokens of a prompt came from storage."""
    req = rank.queue(rid, tokens)
    rank.wait_prefetched(req)
    rank.assert_next_collective_pairs()
    assert rank.admit(req)
    rank.assert_same(f"{rid} admitted")
    rank.finish(req)
    rank.settle()
    return int(req.storage_hit_length)


@pytest.mark.parametrize(
    ("tree", "pool"),
    [
        pytest.param("hiradix", "kv", id="hiradix"),
        pytest.param("himamba", "kv", id="himamba"),
        pytest.param("himamba", "mamba", id="himamba-states"),
    ],
)
def test_no_rank_prefetches_what_another_has_no_room_for(
    children: Children, tmp_path: Path, tree: hicache.Tree, pool: str
) -> None:
    shape = HiCacheShape(tree=tree, storage_dir=tmp_path / "storage")
    loaded = [0, len(B)]
    assert hicache.run(children, shape, prefetch_with_one_full_pool, pool) == [loaded, loaded]


def test_all_ranks_prefetch_what_the_fullest_has_room_for(children: Children, tmp_path: Path) -> None:
    shape = HiCacheShape(storage_dir=tmp_path / "storage")
    loaded = [12, len(B)]
    assert hicache.run(children, shape, prefetch_with_one_full_pool, "kv", 12) == [loaded, loaded]
