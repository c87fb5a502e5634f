"""One side of a Mooncake pair, inside its process: the real manager over a real pool in host memory.

Built as SGLang's scheduler builds it in `disaggregation/prefill.py` and `decode.py`, with a pool of a few
pages instead of a model. `Side` is what functions get that a test runs by `SideHandle.call`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from testbed.messages import MessageLog
from testbed.transfers import WatchedEngine

LOOPBACK = "127.0.0.1"
POLL_S = 0.005
"""SGLang's scheduler polls rooms between batches; nothing in it tells of a change."""


@dataclass(frozen=True)
class PairShape:
    """The pool of both sides. A page of KV is ``page_size`` tokens in every layer, K and V."""

    pages: int = 16
    page_size: int = 4
    layers: int = 2
    heads: int = 2
    head_dim: int = 16
    aux_slots: int = 4
    state: str = ""
    """A model with more state than KV: ``swa`` (pages of a sliding window) or ``mamba`` (a slot a request)."""
    state_items: int = 8
    """Pages or slots of that state."""
    mla: bool = False
    """KV that is the same on all tensor parallel ranks: one rank of prefill sends it, the others are dummies."""
    env: dict[str, str] = field(default_factory=dict)
    """Laid over the environment of both processes."""


@dataclass(frozen=True)
class Area:
    """One registered buffer, cut into items: the KV of a page in one layer, one slot of metadata, ..."""

    address: int
    length: int
    item_length: int


class Side:
    """A manager, its memory and its rooms. ``role`` is ``prefill`` or ``decode``.

    ``rendezvous`` is a file that is not there yet: the ``ranks`` processes of this side meet in it as tensor
    parallel ranks, with the heads of ``shape`` shared out between them.
    """

    def __init__(
        self, role: str, shape: PairShape, bootstrap_port: int, rendezvous: Path, rank: int = 0, ranks: int = 1
    ) -> None:
        from sglang.srt.disaggregation.base.conn import KVPoll
        from sglang.srt.disaggregation.utils import KVClassType, TransferBackend, get_kv_class

        self.role = role
        self.rank = rank
        self.ranks = ranks
        self.shape = dataclasses.replace(shape, heads=shape.heads // ranks)
        self.bootstrap_address = f"{LOOPBACK}:{bootstrap_port}"
        self.names = {value: name for name, value in vars(KVPoll).items() if not name.startswith("_")}
        """``KVPoll`` values by name: Failed, Bootstrapping, WaitingForInput, Transferring, Success."""
        self.rooms: dict[int, Any] = {}
        """The sender or receiver of each room that was opened here."""
        self.kept: list[object] = []
        """What a guard's functions must not let go of."""
        server_args = _server_args(role, shape, bootstrap_port, ranks)
        _start_parallel_state(server_args, rendezvous, rank)
        self.messages = MessageLog()
        self.messages.install()
        self.engine = _start_engine()
        self.watched = WatchedEngine(self.engine.engine, self.kind_of)
        self.engine.engine = self.watched
        self._kv_class: Callable[[str], Any] = lambda name: get_kv_class(TransferBackend.MOONCAKE, KVClassType[name])
        if role == "prefill" and rank == 0:
            self.bootstrap_server = self._kv_class("BOOTSTRAP_SERVER")(LOOPBACK, bootstrap_port)
            _wait_until_listening(bootstrap_port)
        if ranks > 1:
            import torch

            torch.distributed.barrier()  # the other ranks register with the server of the first
        self.areas: dict[str, list[Area]] = {}
        self.manager = self._make_manager(server_args)
        self.areas = _areas(self.manager.kv_args)

    def _make_manager(self, server_args: Any) -> Any:
        from sglang.srt.disaggregation.utils import DisaggregationMode

        self.pool, self.request_pool = _pools(self.shape)
        self.metadata = _metadata(self.shape)
        args = _kv_args(self.pool, self.request_pool, self.metadata, self.rank, self.ranks)
        return self._kv_class("MANAGER")(args, DisaggregationMode(self.role), server_args, self.shape.mla)

    # Memory

    def fill(self, kind: str, items: Sequence[int], byte: int) -> None:
        """Set every byte of these items (pages of ``kv``, slots of ``aux``, items of ``state``), in all buffers."""
        for area in self.areas[kind]:
            for item in items:
                ctypes.memset(area.address + item * area.item_length, byte, area.item_length)

    def read(self, kind: str, item: int) -> bytes:
        """The bytes of one item, of all buffers one after the other."""
        return b"".join(
            ctypes.string_at(area.address + item * area.item_length, area.item_length) for area in self.areas[kind]
        )

    def holds(self, kind: str, item: int) -> set[int]:
        """The different bytes in one item: ``{7}`` if it was filled with 7 throughout."""
        return set(self.read(kind, item))

    def kind_of(self, address: int) -> str:
        """The area in which an address lies: ``kv``, ``state``, ``aux``, else ``other``."""
        for kind, areas in self.areas.items():
            if any(area.address <= address < area.address + area.length for area in areas):
                return kind
        return "other"

    def write_metadata(self, slot: int, room: int, token: int) -> None:
        """Prefill: what the model leaves for decode in a metadata slot, the first token and whose it is."""
        self.metadata.bootstrap_room[slot, 0] = room
        self.metadata.output_ids[slot, 0] = token

    # Rooms

    def open_sender(self, room: int, pages: int, aux_slot: int) -> None:
        """Prefill: make the sender of a room that will get ``pages`` pages; its metadata is in ``aux_slot``."""
        sender = self._kv_class("SENDER")(
            mgr=self.manager,
            bootstrap_addr=self.bootstrap_address,
            bootstrap_room=room,
            dest_tp_ranks=[self.rank],
            pp_rank=0,
        )
        sender.init(pages, aux_slot)
        self.rooms[room] = sender

    def send(self, room: int, pages: Sequence[int], state_items: Sequence[int] | None = None) -> None:
        """Prefill: hand over a chunk; the last one, which completes the room's pages, may carry state."""
        self.rooms[room].send(np.array(pages, dtype=np.int32), None if state_items is None else [list(state_items)])

    def open_receiver(
        self, room: int, pages: Sequence[int], aux_slot: int, state_items: Sequence[int] | None = None
    ) -> None:
        """Decode: make the receiver of a room and tell prefill where its pages go."""
        if not self.manager.try_ensure_parallel_info(self.bootstrap_address):
            raise ConnectionError(f"the bootstrap server at {self.bootstrap_address} does not answer")
        receiver = self.construct_receiver(room)
        receiver.init(0)
        receiver.send_metadata(
            np.array(pages, dtype=np.int32), aux_slot, None if state_items is None else [list(state_items)]
        )

    def construct_receiver(self, room: int) -> Any:
        """Decode: make the receiver of a room, no more: it has asked for nothing yet."""
        self.rooms[room] = self._kv_class("RECEIVER")(
            mgr=self.manager, bootstrap_addr=self.bootstrap_address, bootstrap_room=room
        )
        return self.rooms[room]

    def poll(self, room: int) -> str:
        """What the sender or receiver says of its room, by name."""
        return self.names[self.rooms[room].poll()]

    def wait_for(self, room: int, states: Sequence[str], limit_s: float) -> str:
        """Poll a room until it is in one of ``states`` or the time is up; the state it was in last."""
        return wait_until(lambda: self.poll(room), lambda state: state in states, limit_s)

    def failure(self, room: int) -> str:
        """The reason that the manager recorded for a failed room; empty if none."""
        return str(self.manager.failure_records.get(room, ""))

    def thread_is_alive(self, function_name: str) -> bool:
        """Whether a thread that runs this function (``bootstrap_thread``, ``transfer_worker``, ...) lives."""
        return any(f"({function_name})" in thread.name for thread in threading.enumerate())


def wait_until(look: Callable[[], Any], enough: Callable[[Any], bool], limit_s: float) -> Any:
    """Look again and again until it is enough or ``limit_s`` seconds are over; what was seen last."""
    pause = threading.Event()
    for _ in range(max(1, round(limit_s / POLL_S))):
        seen = look()
        if enough(seen):
            return seen
        pause.wait(POLL_S)
    return look()


def _server_args(role: str, shape: PairShape, bootstrap_port: int, ranks: int) -> Any:
    from sglang.srt.server_args import ServerArgs

    return ServerArgs(
        model_path="dummy",  # SGLang's own name for "there is no model": nothing is looked up
        device="cpu",
        host=LOOPBACK,
        tp_size=ranks,
        page_size=shape.page_size,
        disaggregation_mode=role,
        disaggregation_bootstrap_port=bootstrap_port,
    )


def _start_parallel_state(server_args: Any, rendezvous: Path, rank: int) -> None:
    """The managers ask SGLang's parallel state for their rank and size."""
    import torch
    from sglang.srt.distributed import init_distributed_environment, initialize_model_parallel
    from sglang.srt.distributed.parallel_state import set_custom_all_reduce
    from sglang.srt.layers.dp_attention import initialize_dp_attention
    from sglang.srt.server_args import set_global_server_args_for_scheduler

    set_global_server_args_for_scheduler(server_args)
    ranks = server_args.tp_size
    set_custom_all_reduce(False)  # needs CUDA
    init_distributed_environment(
        backend="gloo", world_size=ranks, rank=rank, local_rank=rank, distributed_init_method=f"file://{rendezvous}"
    )
    initialize_model_parallel(tensor_model_parallel_size=ranks, backend="gloo")
    initialize_dp_attention(server_args, SimpleNamespace(hidden_size=16, dtype=torch.float32))


def _start_engine() -> Any:
    from sglang.srt.distributed.device_communicators.mooncake_transfer_engine import init_mooncake_transfer_engine

    return init_mooncake_transfer_engine(hostname=LOOPBACK, gpu_id=0, ib_device=None)


def _pools(shape: PairShape) -> tuple[Any, Any]:
    """The token pool, and the request pool where the state is one slot a request."""
    import torch
    from sglang.srt.mem_cache.memory_pool import HybridReqToTokenPool
    from sglang.srt.mem_cache.swa_memory_pool import SWAKVPool

    common = {"page_size": shape.page_size, "dtype": torch.float32, "head_num": shape.heads, "device": "cpu"}
    tokens = shape.pages * shape.page_size
    if shape.state == "swa":
        pool = SWAKVPool(
            size=tokens,
            size_swa=shape.state_items * shape.page_size,
            head_dim=shape.head_dim,
            full_attention_layer_ids=list(range(shape.layers)),
            swa_attention_layer_ids=[shape.layers],
            enable_kvcache_transpose=False,
            **common,
        )
        return pool, None
    pool = attention_pool(shape)
    if shape.state != "mamba":
        return pool, None
    from sglang.srt.configs.mamba_utils import Mamba2CacheParams, Mamba2StateShape

    state_shape = Mamba2StateShape.create(
        tp_world_size=1, intermediate_size=32, n_groups=1, num_heads=2, head_dim=16, state_size=8, conv_kernel=4
    )
    requests = HybridReqToTokenPool(
        size=shape.state_items,
        mamba_size=shape.state_items,
        mamba_spec_state_size=0,
        max_context_len=tokens,
        device="cpu",
        enable_memory_saver=False,
        cache_params=Mamba2CacheParams(shape=state_shape, layers=[shape.layers]),
        mamba_layer_ids=[shape.layers],
        enable_mamba_extra_buffer=False,
    )
    return pool, requests


def attention_pool(shape: PairShape) -> Any:
    """The KV of a model with attention alone."""
    import torch
    from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool, MLATokenToKVPool

    common = {
        "size": shape.pages * shape.page_size,
        "page_size": shape.page_size,
        "dtype": torch.float32,
        "layer_num": shape.layers,
        "device": "cpu",
        "enable_memory_saver": False,
    }
    if shape.mla:
        return MLATokenToKVPool(kv_lora_rank=shape.head_dim, qk_rope_head_dim=shape.head_dim, **common)
    return MHATokenToKVPool(head_num=shape.heads, head_dim=shape.head_dim, **common)


def _metadata(shape: PairShape) -> Any:
    import torch
    from sglang.srt.disaggregation.utils import MetadataBuffers

    return MetadataBuffers(shape.aux_slots, hidden_size=16, hidden_states_dtype=torch.float32)


def _kv_args(pool: Any, request_pool: Any, metadata: Any, rank: int, ranks: int) -> Any:
    from sglang.srt.disaggregation.base.conn import KVArgs
    from sglang.srt.disaggregation.utils import setup_state_kv_args

    args = KVArgs()
    args.engine_rank = rank
    args.pp_rank = args.gpu_id = 0
    args.system_dp_rank = None
    args.ib_device = None
    args.prefill_start_layer = 0
    args.prefill_end_layer = None
    args.mla_compression_ratios = None
    args.page_size = pool.page_size
    if hasattr(pool, "head_num"):
        args.kv_head_num = pool.head_num
        args.total_kv_head_num = pool.head_num * ranks
    args.kv_data_ptrs, args.kv_data_lens, args.kv_item_lens = pool.get_contiguous_buf_infos()
    args.aux_data_ptrs, args.aux_data_lens, args.aux_item_lens = metadata.get_buf_infos()
    setup_state_kv_args(args, pool, req_to_token_pool=request_pool)
    return args


def _areas(args: Any) -> dict[str, list[Area]]:
    def of(addresses: Sequence[int], lengths: Sequence[int], item_lengths: Sequence[int]) -> list[Area]:
        return [Area(*area) for area in zip(addresses, lengths, item_lengths, strict=True)]

    state = zip(args.state_data_ptrs, args.state_data_lens, args.state_item_lens, strict=True)
    return {
        "kv": of(args.kv_data_ptrs, args.kv_data_lens, args.kv_item_lens),
        "aux": of(args.aux_data_ptrs, args.aux_data_lens, args.aux_item_lens),
        "state": [area for component in state for area in of(*component)],
    }


def _wait_until_listening(port: int, limit_s: float = 30.0) -> None:
    def is_listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, port)) == 0

    if not wait_until(is_listening, bool, limit_s):
        raise TimeoutError(f"nothing listens on {LOOPBACK}:{port} after {limit_s:.0f} s")
