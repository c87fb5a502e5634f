"""One rank of a HiCache server without its model: real tree, controller, pools and groups.

A scenario is a function of a `HiCacheRank`; `run` calls it in every rank of a `HiCacheShape`::

    def full_pool(rank):
        if rank.number == 1:
            rank.fill_host()
        rank.serve("a", range(40))
        rank.tick()
        return rank.state()

    def test_full_pool(children):
        here, there = hicache.run(children, HiCacheShape(tree="unified"), full_pool)
        assert here == there

With `start` and `outcomes` in place of `run` the test stands between: it talks to a rank through
`HiCacheRank.link`, stops it or kills it.

A `HiCacheRank` does with its tree what the scheduler does, in the same order and through the same
functions: `queue` (and prefetch from storage), `admit` (match, load back, allocate, "forward"), `tick` (the
events of a step), `finish`. The forward pass writes a pattern into the KV pool that tells token, position,
layer and rank apart, and compares what it finds in a reused prefix with it, so a page that was mixed up on
its way through host or storage is seen.

Groups are SGLang's own, over gloo: `tp`, `pp` and `cp` give tp2, pp2, pp4, tp2 x pp2 and so on. Ranks of
one `tp` group must see the same requests; a pipeline stage is a `tp` group of its own. The one thing put in
place of another is the device event, see `testbed.hicache_events`.
"""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from testbed import hicache_events
from testbed.assertions import is_by_the_test
from testbed.child import Task
from testbed.gloo import Rank, start_ranks
from testbed.hicache_build import MAX_TOKENS, HiCacheShape, Tree, build_cache, join_groups
from testbed.hicache_sends import Sends
from testbed.hicache_state import TreeState, first_difference, tree_state
from testbed.processes import Child, Children, Report, State

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

__all__ = ["HiCacheRank", "HiCacheShape", "Tree", "outcomes", "refusals", "run", "start", "what_it_raises"]

START_LIMIT_S = 90.0  # processes, imports, groups and pools
SETTLE_TICKS = 5_000  # steps until storage threads have caught up


def run(
    children: Children,
    shape: HiCacheShape,
    scenario: Callable[..., Any],
    *args: object,
    env: dict[str, str] | None = None,
    limit_s: float = 20.0,
) -> list[Any]:
    """Call `scenario(rank, *args)` in each rank of `shape`; what each returned, by global rank.

    `limit_s` counts from when all ranks are ready; see `start` and `outcomes`.
    """
    start(children, shape, scenario, *args, env=env)
    return outcomes(children, limit_s)


def start(
    children: Children,
    shape: HiCacheShape,
    scenario: Callable[..., Any],
    *args: object,
    env: dict[str, str] | None = None,
) -> list[Child]:
    """Begin `scenario(rank, *args)` in each rank of `shape`, by global rank; all caches stand then.

    A rank that cannot be started is nothing that a scenario tests, and raises ChildEnded or ChildSilent.
    """
    _make_storage(shape)
    ranks = start_ranks(children, _run_scenario, shape, Task.of(scenario, args), size=shape.ranks, env=env, group=False)
    for rank in ranks:
        rank.receive(START_LIMIT_S)
    return ranks


def outcomes(children: Children, limit_s: float = 20.0) -> list[Any]:
    """What the scenario returned in each rank, by global rank.

    Raises AssertionError, with all stacks, if a rank is not through after `limit_s`, raised anything or died:
    once the caches stand, a scenario breaks only on what it tests.
    """
    ended = children.join(limit_s)
    # Gloo ends a process whose peer sends another size; that too is what mixed-up collectives look like.
    broken = sorted((report for report in ended.reports if report.state is not State.RETURNED), key=_says_most)
    assert not broken, "\n".join(report.describe() for report in broken)
    return ended.values()


def _make_storage(shape: HiCacheShape) -> None:
    """SGLang makes the folder itself, but on the first rank of each stage: where there are two, one may fail at it."""
    if shape.storage_dir is not None:
        shape.storage_dir.mkdir(exist_ok=True)


def refusals(
    children: Children, shape: HiCacheShape, *, env: dict[str, str] | None = None, limit_s: float = START_LIMIT_S
) -> list[str]:
    """What each rank says instead of building its cache, by global rank; empty for one that builds it."""
    _make_storage(shape)
    start_ranks(children, _try_to_build, shape, size=shape.ranks, env=env, group=False)
    return children.join(limit_s).values()


def what_it_raises(call: Callable[..., object], *args: object) -> str:
    """Type and message of the exception that `call(*args)` raises; empty if it raises none."""
    try:
        call(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


class Broke(AssertionError):
    """A scenario raised something: mixed-up collectives surface wherever their values are used next."""


def _says_most(report: Report) -> int:
    """What a rank saw for itself comes before what its peers make of its end."""
    if report.raised is not None:
        return 2 if report.raised.type_name == Broke.__name__ else 0
    return 1 if report.state is State.EXITED else 3


def _run_scenario(member: Rank, shape: HiCacheShape, task: Task) -> Any:
    scenario, args = task.load()
    rank = start_rank(shape, member)
    rank.link.send("ready")
    try:
        return scenario(rank, *args)
    except Exception as error:
        if is_by_the_test(error):
            raise
        raise Broke(f"{error}\n{traceback.format_exc()}") from error


def _try_to_build(member: Rank, shape: HiCacheShape) -> str:
    return what_it_raises(start_rank, shape, member)


class HiCacheRank:
    """A rank of the server, as far as HiCache can tell."""

    def __init__(
        self, shape: HiCacheShape, member: Rank, clock: hicache_events.DmaClock, witnesses: ProcessGroup
    ) -> None:
        """Build the cache. `witnesses` is a group of all ranks that SGLang does not know."""
        self.shape = shape
        self.number = member.number  # global rank
        self.link = member.link  # to the test
        self.stage = self.number // shape.tp  # of the pipeline
        self.layers = shape.layers_of(self.stage)
        self.clock = clock
        self._member = member
        self.cache = build_cache(shape)
        self._witnesses = witnesses
        self._held: list[tuple[Any, torch.Tensor]] = []

    def with_tree(self, tree: Tree) -> HiCacheRank:
        """A new, empty cache of another kind in the same groups; for scenarios without storage."""
        assert self.shape.storage_dir is None, "the storage threads of the first cache would still run"
        return HiCacheRank(dataclasses.replace(self.shape, tree=tree), self._member, self.clock, self._witnesses)

    # ---- the host pools of this rank ----

    def fill_host(self, leave: int = 0) -> None:
        """Take this rank's free host pages away, all but `leave` tokens, by allocating them."""
        self._fill(self.cache.cache_controller.mem_pool_host, leave)

    def fill_mamba_host(self) -> None:
        """Take this rank's free host slots for mamba states away."""
        self._fill(self.cache.mamba_pool_host, 0)

    def free_host(self) -> None:
        """Give back what was taken."""
        while self._held:
            pool, slots = self._held.pop()
            pool.free(slots)

    def _fill(self, pool: Any, leave: int) -> None:
        take = (pool.available_size() - leave) // pool.page_size * pool.page_size
        if take > 0:
            self._held.append((pool, pool.alloc(take)))

    def evict(self, tokens: int) -> None:
        """The device needs room for `tokens` (evict_from_tree_cache)."""
        from sglang.srt.mem_cache.base_prefix_cache import EvictParams

        self.cache.evict(EvictParams(num_tokens=tokens))

    # ---- what ranks have in common ----

    def state(self) -> TreeState:
        """What the ranks of a tp group must agree on whenever the scheduler acts."""
        pool = self.cache.cache_controller.mem_pool_host
        held = sum(len(slots) for owner, slots in self._held if owner is pool)
        return tree_state(self.cache, held)

    def states(self) -> list[TreeState]:
        """`state` of all ranks, by global rank, over a group of the test's own."""
        import torch.distributed

        everyone: list[Any] = [None] * self.shape.ranks
        torch.distributed.all_gather_object(everyone, self.state(), group=self._witnesses)
        return everyone

    def assert_same(self, when: str) -> None:
        """All ranks have the same tree; the first difference is the message."""
        states = self.states()
        for number, other in enumerate(states):
            assert other == states[0], f"{when}: rank {number} differs from rank 0: {other.difference(states[0])}"

    def assert_same_history(self, states: Sequence[TreeState], when: str) -> None:
        """All ranks have kept the same `states`; the first difference is the message."""
        import torch.distributed

        everyone: list[Any] = [None] * self.shape.ranks
        torch.distributed.all_gather_object(everyone, states, group=self._witnesses)
        difference = first_difference(everyone)
        assert not difference, f"{when}: {difference}"

    def assert_next_collective_pairs(self) -> None:
        """The next collective on the scheduler's tp group, a sum of 100 + rank, has all its ranks."""
        import torch
        import torch.distributed
        from sglang.srt.distributed import parallel_state

        group = parallel_state.get_tp_group()
        total = torch.tensor(100 + self.number, dtype=torch.int)
        torch.distributed.all_reduce(total, group=group.cpu_group)
        expected = sum(100 + number for number in group.ranks)
        assert total.item() == expected, (
            f"the next collective of rank {self.number} sums up to {total.item()} instead of {expected}"
        )

    def count_all_reduces(self) -> list[Any]:
        """From now on, the tensors that this rank reduces, in the returned list; each is still reduced."""
        import torch.distributed

        reduced: list[Any] = []
        real = torch.distributed.all_reduce

        def counting(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
            reduced.append(tensor)
            return real(tensor, *args, **options)

        torch.distributed.all_reduce = counting
        return reduced

    def count_sends(self) -> Sends:
        """From now on, the messages that this rank sends to one other rank without waiting; they are still sent."""
        return Sends()

    def report_warnings(self, of: str) -> None:
        """From now on, the test gets ("warned", text) for each warning of a logger whose name begins with `of`."""
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.link.send(("warned", record.getMessage()))  # type: ignore[method-assign]
        logging.getLogger(of).addHandler(handler)

    def jump_clock(self, module: str, after_calls: int, by_s: float) -> None:
        """Let `time.monotonic` in one module of this rank run ahead once it was called `after_calls` times."""
        import importlib
        import time
        import types

        calls = 0

        def monotonic() -> float:
            nonlocal calls
            calls += 1
            return time.monotonic() + (by_s if calls > after_calls else 0.0)

        clock = types.SimpleNamespace(**{**vars(time), "monotonic": monotonic})
        importlib.import_module(module).time = clock  # type: ignore[attr-defined]

    # ---- what the scheduler does ----

    def tick(self) -> None:
        """The start of a scheduler step (Scheduler._get_new_batch_prefill_raw)."""
        self.cache.check_hicache_events()

    def queue(self, rid: str, tokens: Sequence[int]) -> Any:
        """A request comes in; what storage has of it is prefetched (Scheduler._prefetch_kvcache)."""
        from sglang.srt.managers.schedule_batch import Req
        from sglang.srt.sampling.sampling_params import SamplingParams

        req = Req(rid, "", list(tokens), SamplingParams(max_new_tokens=1))
        if self.shape.storage_dir is not None:
            req.init_next_round_input(self.cache, cow_mamba=False)
            host_node = req.last_host_node
            if host_node.backuped or host_node is self.cache.root_node:
                matched = len(req.prefix_indices) + req.host_hit_length
                self.cache.prefetch_from_storage(
                    rid, host_node, req.fill_ids[matched:], host_node.get_last_hash_value(), None
                )
        return req

    def settle(self) -> None:
        """Steps until nothing is under way any more."""
        for _ in range(SETTLE_TICKS):
            self.tick()
            state = self.state()
            if state.writing == state.loading == state.archiving == 0:
                return
        raise AssertionError(f"not settled after {SETTLE_TICKS} steps: {state}")

    def forget(self) -> None:
        """Empty tree and pools; storage keeps what it has (Scheduler.flush_cache)."""
        self.cache.reset()
        self.cache.req_to_token_pool.clear()
        self.cache.token_to_kv_pool_allocator.clear()

    def wait_prefetched(self, req: Any) -> None:
        """Steps until the prefetch of a queued request is over."""
        for _ in range(SETTLE_TICKS):
            self.tick()
            if self.prefetched(req):
                return
        raise AssertionError(f"the prefetch of {req.rid} was not over after {SETTLE_TICKS} steps")

    def prefetched(self, req: Any) -> bool:
        """Whether the prefetch of a queued request is over (Scheduler._get_new_batch_prefill_raw)."""
        if self.shape.storage_dir is None:
            return True
        done: bool = self.cache.check_prefetch_progress(req.rid)
        if done:
            req.storage_hit_length += self.cache.pop_prefetch_loaded_tokens(req.rid)
        return done

    def admit(self, req: Any) -> bool:
        """Match, load back, allocate and run one prefill; False if the device has no room.

        As PrefillAdder.add_one_req, alloc_for_extend and the forward pass. A
        reused prefix that does not hold its tokens' pattern is an AssertionError.
        """
        import torch
        from sglang.srt.mem_cache.common import alloc_req_slots, evict_from_tree_cache

        if not self._match(req, runs=True):
            return False
        cache = self.cache
        alloc_req_slots(cache.req_to_token_pool, [req], cache)
        start, end = len(req.prefix_indices), len(req.fill_ids)
        evict_from_tree_cache(cache, end - start)
        slots = cache.token_to_kv_pool_allocator.alloc(end - start)
        assert slots is not None, f"no {end - start} device tokens for {req.rid}"
        row = req.req_pool_idx
        cache.req_to_token_pool.write((row, slice(0, start)), req.prefix_indices.to(torch.int32))
        cache.req_to_token_pool.write((row, slice(start, end)), slots.to(torch.int32))
        req.kv_committed_len = req.kv_allocated_len = end
        loads = self._start_loads()
        if loads is not None:
            loads.synchronize()  # the forward pass waits for each layer
        self._forward(req, start)
        return True

    def postpone(self, req: Any) -> None:
        """Match and load back a request that then does not fit into the batch (the OTHER of add_one_req).

        Another batch takes its loads along. The request stays queued, so nothing but the load holds them.
        """
        if self._match(req, runs=False):
            self._start_loads()

    def finish(self, req: Any) -> None:
        """The request is over and its KV goes into the tree (release_kv_cache)."""
        from sglang.srt.mem_cache.common import release_kv_cache

        release_kv_cache(req, self.cache)

    def retract(self, req: Any) -> None:
        """The device is full, and the request waits again with nothing in the tree (ScheduleBatch.release_req)."""
        from sglang.srt.mem_cache.common import release_kv_cache

        release_kv_cache(req, self.cache, is_insert=False)
        req.reset_for_retract()

    def abort_queued(self, req: Any) -> None:
        """The client has gone before the request was admitted (Scheduler.abort_request)."""
        if self.shape.storage_dir is not None:
            self.cache.release_aborted_request(req.rid)

    def serve(self, rid: str, tokens: Sequence[int]) -> None:
        """Queue, admit and finish one request, in one step."""
        req = self.queue(rid, tokens)
        assert self.admit(req), f"no device room for {rid}"
        self.finish(req)

    def keep(self, req: Any) -> None:
        """The prefill is done and the request decodes on (process_batch_result_prefill)."""
        self.cache.cache_unfinished_req(req)

    def _match(self, req: Any, runs: bool) -> bool:
        """What the tree has of a request, loaded back and, if it `runs`, locked; False if the rest has no room."""
        import torch
        from sglang.srt.mem_cache.base_prefix_cache import InitLoadBackParams

        cache = self.cache
        req.init_next_round_input(cache)
        matched = req.last_node
        lock = cache.inc_lock_ref(matched)
        room = cache.token_to_kv_pool_allocator.available_size() + self.state().evictable
        fits = len(req.fill_ids) - len(req.prefix_indices) <= room
        if fits and req.host_hit_length > 0:
            loaded, req.last_node = cache.init_load_back(
                InitLoadBackParams(best_match_node=req.best_match_node, host_hit_length=req.host_hit_length, req=req)
            )
            req.prefix_indices = torch.cat([req.prefix_indices, loaded])
            req.cache_protected_len = len(req.prefix_indices)
        if fits and runs:
            cache.inc_lock_ref(req.last_node)
        cache.dec_lock_ref(matched, lock.to_dec_params())
        return fits

    def _start_loads(self) -> Any:
        """Let the loads that are queued run; the event of their end, or None if there are none."""
        counter = self.cache.cache_controller.layer_done_counter
        # Three batches of loads can be told apart; the forward passes in between have waited for the first.
        counter.events[(counter.producer_index + 1) % counter.num_counters].finish_event.synchronize()
        consumer = self.cache.ready_to_load_host_cache()
        return counter.events[consumer].finish_event if consumer >= 0 else None

    def _forward(self, req: Any, start: int) -> None:
        """Check the prefix and compute the rest."""
        pool = self.kv_pool
        slots = self.cache.req_to_token_pool.req_to_token[req.req_pool_idx, : len(req.fill_ids)].long()
        for layer in range(self.layers):
            pattern = self._pattern(req.fill_ids, layer)
            for buffer in (pool.k_buffer[layer], pool.v_buffer[layer]):
                found = buffer[slots[:start], 0, 0]
                assert found.equal(pattern[:start]), (
                    f"rank {self.number}, {req.rid}, layer {layer}: the cached prefix holds "
                    f"{found.tolist()} instead of {pattern[:start].tolist()}"
                )
                buffer[slots[start:]] = pattern[start:, None, None]

    @property
    def kv_pool(self) -> Any:
        """The device KV pool with the attention layers' buffers."""
        pool = self.cache.token_to_kv_pool_allocator.get_kvcache()
        return getattr(pool, "full_kv_pool", pool)

    def _pattern(self, tokens: Sequence[int], layer: int) -> torch.Tensor:
        """One number a token, exact in float32 for tokens below 1024."""
        import torch

        ids = torch.tensor(list(tokens), dtype=torch.float32)
        return ((ids * MAX_TOKENS + torch.arange(len(tokens))) * self.layers + layer) * 8 + self.number


def start_rank(shape: HiCacheShape, member: Rank) -> HiCacheRank:
    """Join the groups of `shape` and build this rank's cache. Blocks until all ranks have come."""
    clock = hicache_events.DmaClock()
    hicache_events.install(clock)
    join_groups(shape, member)
    import torch.distributed

    return HiCacheRank(shape, member, clock, torch.distributed.new_group(backend="gloo"))
