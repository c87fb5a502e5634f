"""A stage that stands still, dies, or is a step behind or ahead is noticed, and said, by the others.

Without the patch nobody notices: every stage goes on, with trees that drift apart.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from testbed import Child, Children, hicache
from testbed.hicache import HiCacheRank, HiCacheShape, what_it_raises
from testbed.hicache_events import lag_of
from testbed.hicache_state import TreeState, assert_same_steps
from testbed.processes import State

PP2 = HiCacheShape(tree="hiradix", tp=1, pp=2)
PP2_UNIFIED = HiCacheShape(tree="unified", tp=1, pp=2)
PP4 = HiCacheShape(tree="hiradix", tp=1, pp=4)
TREES = [pytest.param(PP2, id="hiradix"), pytest.param(PP2_UNIFIED, id="unified")]
BEFORE, AFTER = 3, 16  # rounds before and after a stage stands still; more than can be in flight
SOON = {"SGLANG_HICACHE_PP_SYNC_WARN_S": "0.2"}
SHORT = {"SGLANG_HICACHE_PP_SYNC_TIMEOUT_S": "1", "SGLANG_HICACHE_PP_SYNC_WARN_S": "0"}
LIMIT_S = 60.0


def one_round(rank: HiCacheRank, number: int) -> None:
    """A prompt and the events of a step."""
    rank.serve(f"r{number}", range(number % 5 * 100, number % 5 * 100 + 20 + number))
    rank.tick()


# A stage stands still


def stand_still(rank: HiCacheRank, still: int) -> list[TreeState]:
    """One rank waits for the test in the middle; the others tell it of warnings, and when they are through."""
    rank.report_warnings("sglang.srt.mem_cache")
    rank.clock.lag = lag_of(rank.number % 2)
    states = []
    for number in range(BEFORE + AFTER):
        if (rank.number, number) == (still, BEFORE):
            rank.link.send(("still", ""))
            rank.link.receive(LIMIT_S)
        one_round(rank, number)
        states.append(rank.state())
    rank.link.send(("through", ""))
    return states


def warned_about(rank: Child, still: int) -> str:
    """What a rank that waits for another one is warned of; empty if it gets through without."""
    while True:
        what, said = rank.receive()
        if what == "through" or f"for rank {still}" in said:
            return str(said)


@pytest.mark.parametrize(
    ("shape", "still", "waiting"),
    [
        pytest.param(PP2, 0, {1}, id="first"),
        pytest.param(PP2_UNIFIED, 1, {0}, id="last"),
        pytest.param(PP4, 2, {1, 3}, id="between"),
    ],
)
def test_who_waits_for_a_stopped_stage_says_so_and_loses_nothing(
    children: Children, shape: HiCacheShape, still: int, waiting: set[int]
) -> None:
    """One that is ahead of it goes on for some rounds, one behind it for none."""
    ranks = hicache.start(children, shape, stand_still, still, env=SOON)
    while ranks[still].receive() != ("still", ""):
        pass  # on a busy machine it may have been warned of the others before
    ranks[still].signal(signal.SIGSTOP)
    for number in waiting:
        assert "seq" in warned_about(ranks[number], still), f"rank {number} went on without rank {still}"
    ranks[still].signal(signal.SIGCONT)
    ranks[still].send("go on")
    assert_same_steps(hicache.outcomes(children, LIMIT_S))


def stand_still_too_long(rank: HiCacheRank, still: int) -> str:
    """What ends this rank: one stands still from the start, for longer than the others wait."""
    if rank.number == still:
        rank.link.receive(LIMIT_S)
    said = ""
    for number in range(AFTER):
        said = said or what_it_raises(one_round, rank, number)
    rank.link.send(said)
    return said


@pytest.mark.parametrize(
    ("shape", "still"), [pytest.param(PP2, 0, id="first"), pytest.param(PP2_UNIFIED, 1, id="last")]
)
def test_a_stage_that_does_not_come_ends_the_others(children: Children, shape: HiCacheShape, still: int) -> None:
    """And, once it comes, itself: what it has missed cannot be made up for."""
    ranks = hicache.start(children, shape, stand_still_too_long, still, env=SHORT)
    waited = ranks[1 - still].receive()
    assert waited.startswith("PPSyncTimeout: "), f"rank {1 - still} did not notice: {waited!r}"
    assert f"rank {still}" in waited
    assert "seq" in waited
    assert "SGLANG_HICACHE_PP_SYNC_TIMEOUT_S" in waited
    ranks[still].send("go on")
    assert "seq" in hicache.outcomes(children, LIMIT_S)[still]


# A stage dies


def go_on(rank: HiCacheRank, dying: int) -> str:
    """Rounds without work; one rank waits to be killed, once the other has done as many."""
    for number in range(BEFORE):
        one_round(rank, number)
    rank.link.send("here")
    if rank.number == dying:
        rank.link.receive(LIMIT_S)
    for _ in range(10 * AFTER):
        said = what_it_raises(rank.tick)
        if said:
            return said
    return ""


@pytest.mark.parametrize("shape", TREES)
@pytest.mark.parametrize("dying", [0, 1], ids=["first", "last"])
def test_a_stage_that_dies_ends_the_other_at_once(children: Children, shape: HiCacheShape, dying: int) -> None:
    """Not after the time-out, which is five minutes here."""
    ranks = hicache.start(children, shape, go_on, dying)
    assert [rank.receive() for rank in ranks] == ["here", "here"]
    ranks[dying].signal(signal.SIGKILL)
    ended = children.join(LIMIT_S)
    left = ended[f"rank{1 - dying}"]
    assert left.state is State.RETURNED, left.describe()
    assert left.value.startswith("PPSyncPeerLost: "), f"rank {1 - dying} did not notice: {left.value!r}"
    assert f"rank {dying}" in left.value
    assert "seq" in left.value


# A stage is a step behind or ahead


def skip_a_call(rank: HiCacheRank) -> None:
    rank.serve("fault", range(500, 540))


def make_a_call_twice(rank: HiCacheRank) -> None:
    rank.serve("fault", range(500, 540))
    rank.tick()
    rank.tick()


def finish_writes_alone(rank: HiCacheRank) -> None:
    """It waits for its copies by itself, as a write-back eviction does: there are fewer than stage 0 has ended."""
    rank.serve("fault", range(500, 540))
    rank.cache.writing_check(write_back=True)
    rank.tick()


def lose_writes(rank: HiCacheRank) -> None:
    rank.serve("fault", range(500, 540))
    rank.cache.cache_controller.ack_write_queue.clear()
    rank.tick()


def serve_more(rank: HiCacheRank) -> None:
    rank.serve("fault", range(500, 560))
    rank.tick()


def serve_another(rank: HiCacheRank) -> None:
    """As long as that of the others, so that all queues and allocations are the same."""
    rank.serve("fault", range(600, 640))
    rank.tick()


def right(rank: HiCacheRank) -> None:
    rank.serve("fault", range(500, 540))
    rank.tick()


def go_wrong(rank: HiCacheRank, wrong: int, fault: Callable[[HiCacheRank], None]) -> tuple[int, str]:
    """Rounds after the fault until this rank notices, and what it says; it does nothing after that."""
    rank.clock.lag = lag_of(1)
    for number in range(BEFORE):
        one_round(rank, number)
    said = what_it_raises(fault if rank.number == wrong else right, rank)
    rounds = 0
    while not said and rounds < 4:
        said = what_it_raises(one_round, rank, BEFORE + rounds)
        rounds += 1
    return rounds, said


FAULTS = [skip_a_call, make_a_call_twice, finish_writes_alone, lose_writes, serve_more, serve_another]


@pytest.mark.parametrize("wrong", [0, 1], ids=["first", "last"])
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.__name__ for fault in FAULTS])
def test_a_stage_that_does_something_else_is_noticed_within_one_round(
    children: Children, wrong: int, fault: Callable[[HiCacheRank], None]
) -> None:
    """By the stage behind, for word goes one way only; the one ahead then finds the connection gone."""
    shape = PP2 if wrong == 0 else PP2_UNIFIED
    rounds, said = hicache.run(children, shape, go_wrong, wrong, fault, limit_s=LIMIT_S)[1]
    assert said.startswith("PPSyncMismatch: "), f"the last stage did not notice: {said!r}"
    assert rounds <= 1
    assert "seq" in said
    assert "ROUND" in said  # its last messages


def lose_writes_and_look(rank: HiCacheRank) -> tuple[str, str]:
    """What a stage with fewer copies under way than were ended says, and what that changed in it."""
    rank.serve("a", range(40))
    rank.serve("b", range(100, 140))
    if rank.stage == 1:
        rank.cache.cache_controller.ack_write_queue.pop()
    before = rank.state()
    said = what_it_raises(rank.tick)
    return said, rank.state().difference(before)


@pytest.mark.parametrize("shape", TREES)
def test_a_stage_with_too_few_copies_changes_nothing(children: Children, shape: HiCacheShape) -> None:
    said, changed = hicache.run(children, shape, lose_writes_and_look)[1]
    assert said.startswith("PPSyncMismatch: "), f"the last stage did not notice: {said!r}"
    assert changed == ""


def fill_second_stage(rank: HiCacheRank) -> str:
    """The second stage alone has no room on the host, and nothing there that it could evict."""
    if rank.stage == 1:
        rank.fill_host()
    return what_it_raises(rank.serve, "a", range(40))


@pytest.mark.parametrize("shape", TREES)
def test_a_later_stage_without_host_room_is_noticed(children: Children, shape: HiCacheShape) -> None:
    """The first one has begun to copy and cannot be called back."""
    first, second = hicache.run(children, shape, fill_second_stage)
    assert first == ""
    assert second.startswith("PPSyncMismatch: "), f"the last stage did not notice: {second!r}"
    assert "host" in second
