"""All pipeline stages have the same tree, whichever of them copies faster or has less room on the host.

Each stage has its own copy of the tree, its own pools and its own copies under way. Where two stages disagree about
what may be evicted, they match different prefixes of the next request, and the tensors that one stage hands to the
next have another shape than that one expects.

The ranks here do not wait for each other: each returns its state after every step, and these are compared.
"""

from __future__ import annotations

import pytest

from testbed import Children, hicache
from testbed.hicache import HiCacheRank, HiCacheShape
from testbed.hicache_events import lag_of, random_lag
from testbed.hicache_state import TreeState, assert_same_steps

PP2 = HiCacheShape(tree="hiradix", tp=1, pp=2)
PP2_UNIFIED = HiCacheShape(tree="unified", tp=1, pp=2)
PP4 = HiCacheShape(tree="hiradix", tp=1, pp=4)
PP4_UNIFIED = HiCacheShape(tree="unified", tp=1, pp=4)
GRID = HiCacheShape(tree="hiradix", tp=2, pp=2)
GRID_UNIFIED = HiCacheShape(tree="unified", tp=2, pp=2)
TREES = [pytest.param(PP2, id="hiradix"), pytest.param(PP2_UNIFIED, id="unified")]
NEVER = 10**9  # polls
SWITCHED_OFF = {"SGLANG_HICACHE_PP_SYNC_TIMEOUT_S": "0"}


def copies_end_apart(rank: HiCacheRank, polls: tuple[int, ...]) -> list[TreeState]:
    """Twice as many prompts as the device holds, and all of them again; each rank's copies take their own time.

    A prompt is served in the first step in which the device has room for it.
    """
    rank.clock.lag = lag_of(polls[rank.number])
    prompts = [range(number * 50, number * 50 + 40) for number in [*range(12), *range(12)]]
    states = []
    for number in range(100):
        req = rank.queue(f"r{number}", prompts[0]) if prompts else None
        if req is not None and rank.admit(req):
            rank.finish(req)
            prompts.pop(0)
        rank.tick()
        states.append(rank.state())
    return states


@pytest.mark.parametrize(
    ("shape", "polls"),
    [
        pytest.param(PP2, (0, 3), id="hiradix-second-slow"),
        pytest.param(PP2, (3, 0), id="hiradix-first-slow"),
        pytest.param(PP2_UNIFIED, (0, 3), id="unified-second-slow"),
        pytest.param(PP2_UNIFIED, (3, 0), id="unified-first-slow"),
        pytest.param(PP4, (1, 0, NEVER, 3), id="hiradix-pp4"),
        pytest.param(PP4_UNIFIED, (0, 2, 5, NEVER), id="unified-pp4"),
        pytest.param(GRID, (0, 2, 3, 5), id="hiradix-tp2-pp2"),
        pytest.param(GRID_UNIFIED, (3, 1, 0, 0), id="unified-tp2-pp2"),
    ],
)
def test_a_write_ends_on_all_stages_at_once(children: Children, shape: HiCacheShape, polls: tuple[int, ...]) -> None:
    """The first stage says when; one that is behind waits for its copy, one that is ahead waits for its turn."""
    assert_same_steps(hicache.run(children, shape, copies_end_apart, polls))


def postpone_after_loading(rank: HiCacheRank, polls: tuple[int, ...]) -> list[TreeState]:
    """A prompt is loaded back, but does not fit into the batch; its copy ends on one stage first."""
    rank.serve("a", range(40))
    rank.settle()
    rank.evict(40)
    rank.clock.lag = lag_of(polls[rank.number])
    rank.postpone(rank.queue("b", range(60)))
    states = []
    for _ in range(4):
        rank.tick()
        states.append(rank.state())
    return states


@pytest.mark.parametrize("shape", TREES)
@pytest.mark.parametrize("polls", [(0, 2), (2, 0)], ids=["second-slow", "first-slow"])
def test_a_load_ends_on_all_stages_at_once(children: Children, shape: HiCacheShape, polls: tuple[int, ...]) -> None:
    histories = hicache.run(children, shape, postpone_after_loading, polls)
    assert_same_steps(histories)
    assert (histories[0][0].loading, histories[0][-1].loading) == (int(polls[0] > 0), 0)


def fill_first_stage(rank: HiCacheRank) -> list[TreeState]:
    """The first stage has no host room for a prompt, and so nothing under way; then it has."""
    states = []
    if rank.stage == 0:
        rank.fill_host()
    rank.clock.lag = lag_of(2)
    for first in (0, 100):
        rank.serve(f"r{first}", range(first, first + 40))
        for _ in range(4):
            rank.tick()
            states.append(rank.state())
        rank.free_host()
    return states


@pytest.mark.parametrize(
    "shape", [*TREES, pytest.param(PP4, id="hiradix-pp4"), pytest.param(GRID, id="hiradix-tp2-pp2")]
)
def test_a_stage_with_nothing_under_way_still_says_so(children: Children, shape: HiCacheShape) -> None:
    """And no later stage writes to the host what the first had no room for."""
    histories = hicache.run(children, shape, fill_first_stage)
    assert_same_steps(histories)
    first, second = histories[-1][0], histories[-1][4]
    assert (first.writing, second.writing) == (0, 1)
    assert [(node.on_host, node.locks) for node in histories[-1][-1].nodes] == [(False, 0), (True, 0)]


def fill_one_rank_of_the_grid(rank: HiCacheRank, full: int) -> list[TreeState]:
    states = []
    if rank.number == full:
        rank.fill_host()
    for number in range(3):
        rank.serve(f"r{number}", range(number * 100, number * 100 + 40))
        rank.tick()
        states.append(rank.state())
        rank.free_host()
    return states


def test_a_full_pool_anywhere_in_the_first_stage_counts(children: Children) -> None:
    """Tensor parallel ranks agree first, then the stages."""
    histories = hicache.run(children, GRID, fill_one_rank_of_the_grid, 1)
    assert_same_steps(histories)
    assert [node.on_host for node in histories[0][-1].nodes] == [False, True, True]


def write_back_with_first_stage_full(rank: HiCacheRank) -> list[TreeState]:
    """Write-back: a node goes to the host when the device needs its room, on all stages or on none."""
    rank.serve("a", range(40))
    if rank.stage == 0:
        rank.fill_host()
    rank.evict(20)
    states = [rank.state()]
    rank.free_host()
    rank.evict(20)
    rank.tick()
    return [*states, rank.state()]


def test_write_back_evicts_on_all_stages_or_on_none(children: Children) -> None:
    shape = HiCacheShape(tp=1, pp=2, write_policy="write_back")
    histories = hicache.run(children, shape, write_back_with_first_stage_full)
    assert_same_steps(histories)
    assert [(node.on_device, node.on_host) for node in histories[0][-1].nodes] == [(False, True)]


def decode_on(rank: HiCacheRank) -> list[TreeState]:
    """Steps of a running batch, which look for finished writes alone, then a retraction, and a flush of the cache."""
    rank.clock.lag = lag_of(1 - rank.stage)
    states = []
    req = rank.queue("a", range(40))
    assert rank.admit(req)
    rank.keep(req)
    for _ in range(3):
        rank.cache.flush_write_through_acks()
        states.append(rank.state())
    rank.tick()
    rank.retract(req)
    states.append(rank.state())
    rank.serve("b", range(100, 140))
    rank.forget()
    for _ in range(3):
        rank.serve("c", range(200, 240))
        rank.tick()
        states.append(rank.state())
    return states


@pytest.mark.parametrize("shape", TREES)
def test_decode_steps_retractions_and_flushes_leave_stages_equal(children: Children, shape: HiCacheShape) -> None:
    histories = hicache.run(children, shape, decode_on)
    assert_same_steps(histories)
    # Two nodes: a prompt that comes again is matched but for its last token, which is computed.
    assert [(len(node.tokens), node.on_host, node.locks) for node in histories[0][-1].nodes] == [
        (39, True, 0),
        (40, True, 0),
    ]


# Controls: the bed is sound; the switch, one stage and stages that do all at once are as without the patch.


def write_apart(rank: HiCacheRank) -> list[int]:
    writing = []
    for tree in ("hiradix", "unified"):
        here = rank.with_tree(tree)
        rank.clock.lag = lag_of(NEVER * rank.stage)
        here.serve("a", range(40))
        here.tick()
        writing.append(here.state().writing)
    return writing


@pytest.mark.control
def test_switched_off_each_stage_decides_alone(children: Children) -> None:
    assert hicache.run(children, PP2, write_apart, env=SWITCHED_OFF) == [[0, 0], [1, 1]]


def count_sends(rank: HiCacheRank) -> int:
    sends = rank.count_sends()
    for tree in ("hiradix", "unified", "himamba"):
        here = rank.with_tree(tree)
        here.serve("a", range(40))
        here.settle()
        here.tick()
    return sends.sent


@pytest.mark.control
def test_one_stage_sends_nothing(children: Children) -> None:
    assert hicache.run(children, HiCacheShape(tp=2), count_sends) == [0, 0]


def serve_alike(rank: HiCacheRank) -> list[TreeState]:
    rank.clock.lag = random_lag(seed=1, most=4)
    states = []
    for number in range(8):
        rank.serve(f"r{number}", range(number % 3 * 100, number % 3 * 100 + 20 + number))
        rank.tick()
        states.append(rank.state())
    return states


@pytest.mark.control
@pytest.mark.parametrize("shape", TREES)
def test_stages_whose_copies_end_together_agree(children: Children, shape: HiCacheShape) -> None:
    assert_same_steps(hicache.run(children, shape, serve_alike))
