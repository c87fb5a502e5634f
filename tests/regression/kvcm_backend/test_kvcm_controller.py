"""SGLang's own HiCacheController on every rank: its backup thread, its queue, its batches of 128 pages.

The controller ends an operation at the first batch that fails. A rank that ends it where another goes on meets that
other's next collective with its own next operation; so what must hold here is that all ranks end it together.
"""

from __future__ import annotations

import signal

import pytest

from testbed import Children
from testbed.kvcm_manager import Kind, KvcmManager
from testbed.kvcm_ranks import block_key, keys, start

BATCH = 128  # HiCacheController.storage_batch_size
SHORT_S = 6.0
"""Time-out of the backend's collectives, where a test waits for it."""
HANG_LIMIT_S = 20.0
LIMIT_S = 40.0


@pytest.mark.kills("commit-not-shared")
def test_an_operation_that_fails_leaves_the_next_one_whole(children: Children, kvcm: KvcmManager) -> None:
    """Of two queued operations of 384 pages, the commit of the first's first batch fails."""
    ranks = start(children, kvcm, pages=6 * BATCH)
    first, then = keys("first", 3 * BATCH), keys("then", 3 * BATCH)
    ranks.fill(first)
    ranks.fill(then, 3 * BATCH)
    fault = kvcm.inject("finishWriteCache", Kind.INTERNAL_ERROR, at_call=1)
    ranks.call("backup", first)
    ranks.call("backup", then, 3 * BATCH)
    assert ranks.call("acked", limit_s=LIMIT_S) == [0, 0], "pages of the first operation"
    assert ranks.call("acked", limit_s=LIMIT_S) == [3 * BATCH] * 2, "pages of the second operation"
    assert fault.injected == 1
    files, pages = kvcm.files(), ranks.pages(3 * BATCH, 3 * BATCH)
    assert set(files) == {block_key(page_hash) for page_hash in then}
    for place, page_hash in enumerate(then):
        expected = {"tp_0": pages[0][place], "tp_1": pages[1][place]}
        assert files[block_key(page_hash)] == expected, f"page {place} of the second operation"
    assert ranks.disabled() == [None] * 2


@pytest.mark.kills("no-fail-stop")
def test_a_rank_that_stands_still_stops_the_backend_and_not_the_other_rank(
    children: Children, kvcm: KvcmManager
) -> None:
    """A rank is stopped while rank 0 is at the manager, and goes on when the other one has given up."""
    ranks = start(children, kvcm, config={"collective_timeout_seconds": SHORT_S})
    for times, stopped in enumerate((1, 0), start=1):
        fault = kvcm.inject("startWriteCache", Kind.HELD)
        ranks.call("backup", keys("a", 3))
        fault.wait_for_call()
        ranks.ranks[stopped].signal(signal.SIGSTOP)
        fault.release()
        for rank in (1 - stopped, stopped):
            assert ranks.call_one(rank, "acked", limit_s=SHORT_S + HANG_LIMIT_S) == 0
            assert ranks.call_one(rank, "disabled")
            ranks.ranks[stopped].signal(signal.SIGCONT)
        kvcm.clear_faults()
        assert kvcm.files() == {}

        calls = len(kvcm.calls())
        ranks.call("backup", keys("b", 3))
        assert ranks.call("acked") == [0, 0]
        assert ranks.exists(keys("b", 3)) == [0, 0]
        assert len(kvcm.calls()) == calls
        assert ranks.call("pair_up") == [2, 2]
        for rank in (0, 1):
            assert ranks.output(rank).count(f"KVCM backend disabled on rank {rank}") == times
        kvcm.blocks.expire()
        ranks.call("detach")
        assert ranks.attach() == [None, None]
    assert ranks.set(keys("a", 3)) == [[True] * 3] * 2


@pytest.mark.kills("no-fail-stop")
@pytest.mark.parametrize("dead", [1, 0])
def test_a_rank_that_dies_holds_up_no_other(children: Children, kvcm: KvcmManager, dead: int) -> None:
    """The default time-out of two minutes stands: its end is seen as such."""
    left = 1 - dead
    ranks = start(children, kvcm)
    fault = kvcm.inject("startWriteCache", Kind.HELD)
    ranks.call("backup", keys("a", 3))
    fault.wait_for_call()
    ranks.ranks[dead].signal(signal.SIGKILL)
    fault.release()
    assert ranks.call_one(left, "acked", limit_s=LIMIT_S) == 0
    assert ranks.call_one(left, "disabled")
    assert kvcm.files() == {}
    ranks.call_one(left, "backup", keys("b", 3))
    assert ranks.call_one(left, "acked") == 0
    assert len(kvcm.calls("startWriteCache")) <= 1  # that of the dead rank, if it came through
    assert ranks.output(left).count(f"KVCM backend disabled on rank {left}") == 1
