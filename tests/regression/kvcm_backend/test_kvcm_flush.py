"""Writes that are queued when storage stops: a flush of the cache, or a detach.

Each rank tells its own backup thread to end, at a time of its own. A thread that left what is queued would leave out
batches that a peer, whose thread was told later, has already begun.
"""

from __future__ import annotations

import pytest

from testbed import Children
from testbed.kvcm_manager import Kind, KvcmManager
from testbed.kvcm_ranks import keys, start

LIMIT_S = 40.0


@pytest.mark.kills("stops-at-once")
def test_a_flush_on_one_rank_first_leaves_no_rank_in_a_write_alone(children: Children, kvcm: KvcmManager) -> None:
    """Rank 0 is told to stop in the first of two writes, and rank 1 only when both are over."""
    ranks = start(children, kvcm)
    fault = kvcm.inject("startWriteCache", Kind.HELD, at_call=1)
    ranks.call("backup", keys("first", 3))
    ranks.call("backup", keys("second", 3), 3)
    fault.wait_for_call()
    ranks.call_one(0, "stop")
    fault.release()
    assert ranks.call("acked", limit_s=LIMIT_S) == [3, 3], "pages of the first write"
    assert ranks.call("acked", limit_s=LIMIT_S) == [0, 0], "pages of the second write"
    ranks.call("flush", limit_s=LIMIT_S)
    assert fault.injected == 1
    assert len(kvcm.calls("startWriteCache")) == 1, "a server that stops asks for nothing more"
    ranks.call("backup", keys("third", 3), 6)
    assert ranks.call("acked", limit_s=LIMIT_S) == [3, 3], "pages after the flush"
    assert ranks.disabled() == [None] * 2
