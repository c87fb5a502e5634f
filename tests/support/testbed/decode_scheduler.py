"""A decode server's scheduler without its model: SGLang's own queues, pools, allocator and cache.

`DecodeSide` is a side of `testbed.mooncake_pair` whose pages, request slots and metadata slots are handed out
and taken back as in a server: by `Scheduler.process_decode_queue`, which a test runs step by step. What the
scheduler would send to a client is kept in ``answers`` instead. The only parts that are not there are those
that need a model: forward passes, sampling and grammars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from testbed.deadline_clock import MovableClock
from testbed.mooncake_side import PairShape, Side, attention_pool, wait_until

TOKEN = 7
"""Every prompt is made of this token, but for its first: no prompt is another one's prefix."""

ENDED = ("Ready", "Aborted")


@dataclass(frozen=True)
class DecodeShape(PairShape):
    """A pair whose decode side has a scheduler. ``aux_slots`` is prefill's; decode's follow from ``running``."""

    running: int = 1
    """``--max-running-requests``: decode has twice as many metadata slots."""
    preallocated: int = 3
    """How many more requests may have their pages before they run."""
    reserved_tokens: int = 0
    """``--num-reserved-decode-tokens``: how many tokens each request must still find room for."""
    radix: bool = False
    """``--disaggregation-decode-enable-radix-cache``"""
    prefill_pages: int = 16
    prefill_ranks: int = 1
    decode_ranks: int = 1


@dataclass(frozen=True)
class Books:
    """What a decode scheduler has to give away, and whether it is idle."""

    tokens: int
    request_slots: int
    metadata_slots: int
    idle: bool


class DecodeSide(Side):
    """A decode rank with its scheduler."""

    shape: DecodeShape
    clock: MovableClock
    """What this process's SGLang takes for the time; set by who starts the side."""

    def _make_manager(self, server_args: Any) -> Any:
        from sglang.srt.managers.schedule_batch import Req

        server_args.disaggregation_decode_enable_radix_cache = self.shape.radix
        server_args.num_reserved_decode_tokens = self.shape.reserved_tokens
        self._request_class = Req
        self.answers: dict[str, str] = {}
        """What clients were told of aborted requests, by request id."""
        self.requests: dict[str, Any] = {}
        self.pool, allocator, requests = _pools(self.shape)
        self.scheduler = _scheduler(self.answers)
        values = {
            **_settings(self.shape, self.rank, self.ranks),
            "server_args": server_args,
            "req_to_token_pool": requests,
            "token_to_kv_pool_allocator": allocator,
            "tree_cache": _tree_cache(self.shape, requests, allocator),
        }
        for name, value in values.items():
            setattr(self.scheduler, name, value)
        self.scheduler.init_disaggregation()
        self.metadata = self.scheduler.disagg_metadata_buffers
        self._prealloc = self.scheduler.disagg_decode_prealloc_queue
        self._transfer = self.scheduler.disagg_decode_transfer_queue
        return self._prealloc.kv_manager

    # Requests

    def _request(self, rid: str, room: int, tokens: int) -> Any:
        from sglang.srt.sampling.sampling_params import SamplingParams

        host, port = self.bootstrap_address.rsplit(":", 1)
        params = SamplingParams(max_new_tokens=1)
        params.normalize(None)
        req = self._request_class(
            rid,
            "",
            [room] + [TOKEN] * (tokens - 1),
            params,
            bootstrap_host=host,
            bootstrap_port=int(port),
            bootstrap_room=room,
            vocab_size=1000,
        )
        self.requests[rid] = req
        return req

    def submit(self, rid: str, room: int, pages: int) -> None:
        """A request with a prompt of that many pages comes in."""
        self._prealloc.add(self._request(rid, room, pages * self.shape.page_size))
        self.rooms[room] = self._prealloc.queue[-1].kv_receiver

    def run_and_retract(self, rid: str, room: int, pages: int, byte: int) -> None:
        """A request ran here, with KV that is all one byte, and was retracted; see `queue_retracted`.

        As `ScheduleBatch.release_req` does it: its KV waits in host memory for pages to come back to.
        """
        from sglang.srt.mem_cache.common import release_kv_cache

        req = self._request(rid, room, pages * self.shape.page_size)
        req.output_ids = [TOKEN]
        self._prealloc._pre_alloc(req)
        self.fill("kv", self.pages_of(rid), byte)
        req.offload_kv_cache(self._prealloc.req_to_token_pool, self._prealloc.token_to_kv_pool_allocator)
        release_kv_cache(req, self.scheduler.tree_cache, is_insert=False)
        req.reset_for_retract()

    def queue_retracted(self, rid: str) -> None:
        """The retracted request wants to run again, as soon as there are pages for it."""
        self._prealloc.add(self.requests[rid], is_retracted=True)

    def abort_request(self, rid: str) -> None:
        """What an AbortReq does: the client went away, or it called /abort_request."""
        from sglang.srt.managers.io_struct import AbortReq

        self.scheduler.abort_request(AbortReq(rid=rid))

    def state(self, rid: str) -> str:
        """``Queued`` for pages, ``Transferring``, ``Retracted``, ``Ready`` to run, or ``Aborted``."""
        if rid in self.answers:
            return "Aborted"
        places = {
            "Queued": [entry.req for entry in self._prealloc.queue],
            "Transferring": [entry.req for entry in self._transfer.queue],
            "Retracted": self._prealloc.retracted_queue,
            "Ready": self.scheduler.waiting_queue,
        }
        return next(name for name, reqs in places.items() if any(req.rid == rid for req in reqs))

    def pages_of(self, rid: str) -> list[int]:
        """The pages that the allocator gave to a request, in the order of its prompt."""
        req, size = self.requests[rid], self.shape.page_size
        row = self._prealloc.req_to_token_pool.req_to_token[req.req_pool_idx]
        return [int(token) // size for token in row[: len(req.origin_input_ids) : size]]

    # Steps

    def step(self, times: int = 1) -> None:
        """What the event loop does before each batch."""
        for _ in range(times):
            self.scheduler.process_decode_queue()

    def step_until(self, rid: str, states: Sequence[str], limit_s: float) -> str:
        """Step until a request is in one of ``states`` on all ranks; the state it was in last."""

        def look() -> tuple[str, bool]:
            self.step()
            state = self.state(rid)
            return state, self._everywhere(state in states)

        return str(wait_until(look, lambda seen: seen[1], limit_s)[0])

    def step_until_idle(self, limit_s: float) -> bool:
        """Step until every rank is idle; whether that was in time."""

        def look() -> bool:
            self.step()
            return self._everywhere(self.scheduler.is_fully_idle())

        return bool(wait_until(look, bool, limit_s))

    def _everywhere(self, here: bool) -> bool:
        import torch

        if self.ranks == 1:
            return here
        flag = torch.tensor([int(here)])
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MIN)
        return bool(flag)

    def books(self) -> Books:
        """What is free. Raises AssertionError if something was given back twice."""
        allocator = self._prealloc.token_to_kv_pool_allocator
        free = {
            "page": allocator.free_pages.tolist() + allocator.release_pages.tolist(),
            "request slot": self._prealloc.req_to_token_pool.free_slots,
            "metadata slot": self._prealloc.req_to_metadata_buffer_idx_allocator.free_slots,
        }
        for what, items in free.items():
            assert len(set(items)) == len(items), f"a {what} was given back twice: {items}"
        tree = self.scheduler.tree_cache.evictable_size() if self.shape.radix else 0
        return Books(
            tokens=allocator.available_size() + tree,
            request_slots=len(free["request slot"]),
            metadata_slots=len(free["metadata slot"]),
            idle=self.scheduler.is_fully_idle(),
        )


def _pools(shape: DecodeShape) -> tuple[Any, Any, Any]:
    """The KV pool, its allocator and the request slots."""
    import torch
    from sglang.srt.disaggregation.decode import DecodeReqToTokenPool
    from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator

    torch.cuda.synchronize = lambda _device=None: None  # nothing runs behind the caller's back on a CPU
    tokens = shape.pages * shape.page_size
    pool = attention_pool(shape)
    requests = DecodeReqToTokenPool(
        size=shape.running,
        max_context_len=tokens,
        device="cpu",
        enable_memory_saver=False,
        pre_alloc_size=shape.preallocated,
    )
    allocator = PagedTokenToKVPoolAllocator(tokens, shape.page_size, torch.float32, "cpu", pool, need_sort=True)
    return pool, allocator, requests


def _scheduler(answers: dict[str, str]) -> Any:
    """A scheduler that has nothing yet and puts what it would send to clients into ``answers``."""
    from sglang.srt.managers.scheduler import Scheduler

    class SchedulerWithoutModel(Scheduler):  # type: ignore[misc]
        def __init__(self) -> None:
            """SGLang's own constructor loads a model."""
            self.send_to_tokenizer = SimpleNamespace(send_output=self._note_abort)

        def stream_output(self, reqs: list[Any], return_logprob: bool, skip_req: Any = None) -> None:
            for req in reqs:
                answers[req.rid] = str(req.finished_reason.message)

        def _note_abort(self, output: Any, _req: Any) -> None:
            answers[output.rid] = "aborted before it had any pages"

    return SchedulerWithoutModel()


def _settings(shape: DecodeShape, rank: int, ranks: int) -> dict[str, object]:
    """What the scheduler's own constructor would set, of what its queues ask for."""
    from sglang.srt.distributed import parallel_state
    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    return {
        "model_config": SimpleNamespace(num_hidden_layers=shape.layers),
        "tp_worker": SimpleNamespace(is_hybrid_swa=False),
        "draft_worker": None,
        "spec_algorithm": SpeculativeAlgorithm.NONE,
        "attn_tp_cpu_group": parallel_state.get_tp_group().cpu_group,
        "tp_rank": rank,
        "tp_size": ranks,
        "dp_rank": None,
        "pp_rank": 0,
        "pp_size": 1,
        "gpu_id": 0,
        "max_total_num_tokens": shape.pages * shape.page_size,
        "enable_hisparse": False,
        "enable_metrics": False,
        "enable_overlap": False,
        "enable_priority_scheduling": False,
        "enable_hierarchical_cache": False,
        "enable_hicache_storage": False,
        "decode_offload_manager": None,
        "running_batch": ScheduleBatch(reqs=[], batch_is_full=False),
        "cur_batch": None,
        "last_batch": None,
        "chunked_req": None,
        "waiting_queue": [],
        "grammar_manager": SimpleNamespace(grammar_queue=[], abort_requests=lambda _recv_req: None),
        "dllm_manager": SimpleNamespace(any_staging_reqs=lambda: False),
    }


def _tree_cache(shape: DecodeShape, requests: Any, allocator: Any) -> Any:
    from sglang.srt.mem_cache.cache_init_params import CacheInitParams
    from sglang.srt.mem_cache.chunk_cache import ChunkCache
    from sglang.srt.mem_cache.radix_cache import RadixCache

    params = CacheInitParams(
        disable=not shape.radix,
        req_to_token_pool=requests,
        token_to_kv_pool_allocator=allocator,
        page_size=shape.page_size,
    )
    return (RadixCache if shape.radix else ChunkCache)(params)
