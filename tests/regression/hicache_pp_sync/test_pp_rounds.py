"""What is sent from stage to stage: one message a round, a bounded number of which is under way."""

from __future__ import annotations

import signal

from testbed import Children, hicache
from testbed.hicache import HiCacheRank, HiCacheShape
from testbed.hicache_events import lag_of
from testbed.hicache_state import TreeState, assert_same_steps

ROUNDS = 10_000
MOST_UNDER_WAY = 8
NEVER = 10**9  # polls
LIMIT_S = 100.0


def many_rounds(rank: HiCacheRank) -> tuple[int, int, TreeState]:
    """Messages sent, how many at most were under way, and the tree after rounds in which only stage 0's copy ends."""
    rank.clock.lag = lag_of(NEVER * rank.stage)
    rank.serve("a", range(40))
    sends = rank.count_sends()
    for _ in range(ROUNDS):
        rank.tick()
    return sends.sent, sends.most_under_way, rank.state()


def test_ten_thousand_rounds_leave_nothing_behind(children: Children) -> None:
    """gloo keeps what was sent until somebody waits for it, and would run out of memory."""
    found = hicache.run(children, HiCacheShape(tp=1, pp=3), many_rounds, limit_s=LIMIT_S)
    sent, under_way, states = zip(*found, strict=True)
    assert sent == (ROUNDS, ROUNDS, 0)
    assert max(under_way) <= MOST_UNDER_WAY
    assert_same_steps([[state] for state in states])
    assert states[-1].writing == 0


def run_ahead(rank: HiCacheRank) -> int:
    """How many messages at most were under way while the last stage stood still."""
    rank.report_warnings("sglang.srt.mem_cache")
    sends = rank.count_sends()
    if rank.number == 1:
        rank.link.send(("still", ""))
        rank.link.receive(LIMIT_S)
    for _ in range(4 * MOST_UNDER_WAY):
        rank.tick()
    rank.link.send(("through", ""))
    return sends.most_under_way


def test_a_stage_runs_ahead_of_the_next_by_eight_rounds(children: Children) -> None:
    ranks = hicache.start(children, HiCacheShape(tp=1, pp=2), run_ahead, env={"SGLANG_HICACHE_PP_SYNC_WARN_S": "0.2"})
    assert ranks[1].receive() == ("still", "")
    ranks[1].signal(signal.SIGSTOP)
    what, _ = ranks[0].receive()
    assert what == "warned", "the first stage went on and on"
    ranks[1].signal(signal.SIGCONT)
    ranks[1].send("go on")
    assert hicache.outcomes(children, LIMIT_S) == [MOST_UNDER_WAY, 0]
