"""The faults of plain 0.5.12.post1 that the stack is made against, each seen by the bed without a model.

That one -1 poisons the session is in test_bed.py; with whole servers, test_pd_servers.py has it and the abort.
"""

from __future__ import annotations

import pytest

from testbed import Children, Ports, hicache
from testbed.hicache import HiCacheRank, HiCacheShape
from testbed.mooncake_pair import MooncakePair, Side, start_pair

pytestmark = pytest.mark.control

OF_THE_ABORTED, OF_THE_NEXT = 7, 9


def _wait_for_transfers(side: Side, count: int) -> bool:
    return side.watched.wait_for_transfers(count)


def _reuse(pair: MooncakePair, pages: list[int], slot: int) -> None:
    """Decode gives the aborted room's pages and metadata slot to another request, which fills them."""
    pair.decode.fill("kv", pages, OF_THE_NEXT)
    pair.decode.fill("aux", [slot], OF_THE_NEXT)


def test_after_an_abort_at_decode_prefill_writes_on_into_reused_pages(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports)
    pair.prefill.fill("kv", [1, 2], OF_THE_ABORTED)
    pair.prefill.fill("aux", [0], OF_THE_ABORTED)

    # Between two chunks: prefill is not told, and the last chunk and the metadata land.
    pair.open(1, [5, 6], aux=(0, 1))
    pair.send(1, [1])
    assert pair.prefill.call(_wait_for_transfers, 1)
    pair.decode.abort(1)
    assert pair.decode.wait(1) == "Failed"
    _reuse(pair, [5, 6], slot=1)
    pair.send(1, [2])
    assert pair.prefill.wait(1) == "Success"
    assert [pair.decode.holds("kv", page) for page in (5, 6)] == [{OF_THE_NEXT}, {OF_THE_ABORTED}]
    assert pair.decode.holds("aux", 1) == {OF_THE_ABORTED}

    # With the batch handed over to the engine.
    pair.prefill.hold("kv")
    pair.transfer(2, source=[1], target=[8], aux=(0, 2))
    assert pair.prefill.wait_until_held()
    pair.decode.abort(2)
    assert pair.decode.wait(2) == "Failed"
    _reuse(pair, [8], slot=2)
    pair.prefill.release()
    assert pair.prefill.wait(2) == "Success"
    assert pair.decode.holds("kv", 8) == {OF_THE_ABORTED}
    assert pair.decode.holds("aux", 2) == {OF_THE_ABORTED}


def _fill_one_host(rank: HiCacheRank) -> None:
    if rank.number == 1:
        rank.fill_host()
    rank.serve("a", range(40))
    rank.tick()
    rank.assert_next_collective_pairs()


def test_a_full_host_pool_on_one_rank_mixes_up_the_next_collective(children: Children) -> None:
    """Rank 0 asks both how many writes have ended; rank 1 has none and meets that with its next sum."""
    with pytest.raises(AssertionError, match="the next collective of rank 1 sums up to 1 instead of 201"):
        hicache.run(children, HiCacheShape(tree="hiradix"), _fill_one_host)
