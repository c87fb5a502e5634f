"""One rank with SGLang's HiCacheController and the kvcm backend behind it: what `testbed.kvcm_ranks` drives.

Real are the parallel groups (gloo), the host pool, the controller with its threads, the backend, its HTTP and its
files. A test may make the transfer client's answers worse (`fail_saves`), no more.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import traceback
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed.gloo import Rank
from testbed.hicache_build import HEAD_DIM, HEADS, LAYERS, HiCacheShape, join_groups

PAGE_SIZE = 2
STORAGE_LIMIT_S = 60.0
"""How long the controller's thread may take for one operation before that is an error of its own."""


@dataclasses.dataclass(frozen=True)
class KvcmShape:
    """What the ranks have in common."""

    url: str
    root: Path
    tp: int = 2
    pp: int = 1
    pages: int = 64
    """Of each rank's host pool."""
    config: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """Laid over the backend's configuration; a value of None takes a key away."""

    @property
    def ranks(self) -> int:
        return self.tp * self.pp


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What a rank raised where it was asked to start."""

    type_name: str
    message: str


class KvcmRank:
    """Commands of a test, each called on all ranks or on some. ``slot`` is the first page of the host pool."""

    def __init__(self, link: Rank, shape: KvcmShape) -> None:
        join_groups(HiCacheShape(tp=shape.tp, pp=shape.pp), link)
        self.number = link.number
        self.shape = shape
        self.pool, self._allocator = _pools(shape)
        self.controller: Any = None
        self._saves = Saves()

    # ---- start and end ----

    def attach(self, config: Mapping[str, object]) -> Refusal | str | None:
        """Start controller and backend; what it raised, else why it is disabled, else None."""
        from sglang.srt.distributed import parallel_state
        from sglang.srt.managers.cache_controller import HiCacheController

        try:
            self.controller = HiCacheController(
                self._allocator,
                self.pool,
                PAGE_SIZE,
                parallel_state.get_tp_group().cpu_group,
                threading.Event(),
                write_policy="write_through",
                io_backend="direct",
                storage_backend="dynamic",
                prefetch_threshold=PAGE_SIZE,
                model_name="tiny",
                storage_backend_extra_config=backend_config(self.shape, config),
                pp_rank=parallel_state.get_pp_group().rank_in_group,
                pp_size=self.shape.pp,
                enable_storage_metrics=True,
            )
        except Exception as error:
            return Refusal(type(error).__name__, str(error))
        if self.backend._transfer is not None:
            self._saves.wrap(self.backend._transfer)
        return self.disabled()

    def switch(self, value: str) -> None:
        """The kill switch of this rank, for the next start."""
        os.environ["SGLANG_KVCM_BACKEND"] = value

    def detach(self) -> None:
        self.controller.detach_storage_backend()

    @property
    def backend(self) -> Any:
        return self.controller.storage_backend

    def disabled(self) -> str | None:
        """Why the backend is disabled, if it is."""
        said: str | None = self.backend.disabled
        return said

    # ---- pages ----

    def fill(self, keys: Sequence[str], slot: int = 0) -> None:
        """Give pages a content that tells rank, key, layer, K and V apart."""
        import torch

        for place, key in enumerate(keys, start=slot):
            draw = torch.Generator().manual_seed(zlib.crc32(f"{self.number}/{key}".encode()))
            page = self._page(place)
            page.copy_(torch.rand(page.shape, generator=draw))

    def clear(self, count: int, slot: int = 0) -> None:
        for place in range(slot, slot + count):
            self._page(place).zero_()

    def pages(self, count: int, slot: int = 0) -> list[bytes]:
        """The content of pages, as it is to lie in storage: layer by layer, K before V."""
        return [
            b"".join(
                self._page(place)[kv, layer].contiguous().numpy().tobytes()
                for layer in range(LAYERS)
                for kv in range(len(self._page(place)))
            )
            for place in range(slot, slot + count)
        ]

    def _page(self, place: int) -> Any:
        """A view: K and V, layers, tokens, heads, dimensions."""
        return self.pool.kv_buffer[:, :, place * PAGE_SIZE : (place + 1) * PAGE_SIZE]

    def _indices(self, count: int, slot: int) -> Any:
        import torch

        return torch.arange(slot * PAGE_SIZE, (slot + count) * PAGE_SIZE)

    # ---- the backend, as the controller's threads call it ----

    def set(self, keys: Sequence[str], slot: int = 0, prefix: Sequence[str] = ()) -> list[bool]:
        said: list[bool] = self.backend.batch_set_v1(list(keys), self._indices(len(keys), slot), _extra(prefix))
        return said

    def get(self, keys: Sequence[str], slot: int = 0, prefix: Sequence[str] = ()) -> list[bool]:
        said: list[bool] = self.backend.batch_get_v1(list(keys), self._indices(len(keys), slot), _extra(prefix))
        return said

    def exists(self, keys: Sequence[str], prefix: Sequence[str] = ()) -> int:
        return int(self.backend.batch_exists(list(keys), _extra(prefix)))

    # ---- the controller ----

    def backup(self, keys: Sequence[str], slot: int = 0) -> None:
        """Queue pages for the backup thread (HiRadixCache.write_backup_storage)."""
        tokens = list(range(len(keys) * PAGE_SIZE))
        self.controller.write_storage(self._indices(len(keys), slot), tokens, list(keys), None)

    def acked(self) -> int:
        """Wait for the next operation that the backup thread is done with: how many of its pages it wrote."""
        operation = self.controller.ack_backup_queue.get(timeout=STORAGE_LIMIT_S)
        return int(operation.completed_tokens) // PAGE_SIZE

    def stop(self) -> None:
        """The first thing that a flush does: it tells the storage threads to end."""
        self.controller.storage_stop_event.set()

    def flush(self) -> None:
        """What /flush_cache does to the controller; it waits for the storage threads, and starts them again."""
        self.controller.reset()

    # ---- faults ----

    def fail_saves(self, mode: str) -> None:
        """What becomes of saves from now on: ``raise``, ``refuse`` (all False), ``short`` or ``work``."""
        self._saves.mode = mode

    def saves(self) -> tuple[int, int]:
        """How many saves there were, and how many of them were made to fail."""
        return self._saves.calls, self._saves.injected

    def pair_up(self) -> int:
        """A sum over SGLang's own tp group: collectives of the backend do not take its place."""
        import torch
        import torch.distributed
        from sglang.srt.distributed import parallel_state

        total = torch.tensor(1)
        torch.distributed.all_reduce(total, group=parallel_state.get_tp_group().cpu_group)
        return int(total.item())


class Saves:
    """The transfer client's ``save``, with the answer made worse."""

    def __init__(self) -> None:
        self.mode = "work"
        self.calls = self.injected = 0

    def wrap(self, client: Any) -> None:
        real = client.save

        def save(blocks: Any, *args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.mode == "work":
                return real(blocks, *args, **options)
            self.injected += 1
            if self.mode == "raise":
                raise RuntimeError("an injected failure of the transfer client")
            answer = [False] * len(blocks)
            return answer[:-1] if self.mode == "short" else answer

        client.save = save


def backend_config(shape: KvcmShape, more: Mapping[str, object]) -> dict[str, object]:
    """The extra configuration of the dynamic backend."""
    values: dict[str, object] = {
        "backend_name": "kvcm",
        "module_path": "sglang.srt.mem_cache.storage.kvcm.hicache_kvcm",
        "class_name": "HiCacheKVCM",
        "manager_uri": shape.url,
        "instance_group": "default",
        "instance_id": "tiny",
        "transfer_client": "file",
        "file_root": str(shape.root),
        **shape.config,
        **more,
    }
    return {key: value for key, value in values.items() if value is not None}


def serve(link: Rank, shape: KvcmShape) -> None:
    """A rank's loop: one command, one answer, until the test has no more."""
    rank = KvcmRank(link, shape)
    link.link.send(("ready", None))
    while True:
        name, args = link.link.receive(limit_s=None)
        if name == "end":
            return
        try:
            link.link.send(("said", getattr(rank, name)(*args)))
        except Exception:
            link.link.send(("raised", traceback.format_exc()))


def _extra(prefix: Sequence[str]) -> Any:
    from sglang.srt.mem_cache.hicache_storage import HiCacheStorageExtraInfo

    return HiCacheStorageExtraInfo(prefix_keys=list(prefix)) if prefix else None


def _pools(shape: KvcmShape) -> tuple[Any, Any]:
    """A host pool of the asked size, and the allocator of a device pool half as large."""
    import torch
    from sglang.srt.mem_cache import memory_pool_host
    from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator
    from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

    memory_pool_host.HICACHE_HOST_MEMORY_RESERVE_BYTES = 0  # 10 GB: a server's, not a laptop's
    tokens = shape.pages * PAGE_SIZE // 2
    device_pool = MHATokenToKVPool(
        tokens, PAGE_SIZE, torch.float32, HEADS, HEAD_DIM, LAYERS, "cpu", enable_memory_saver=False
    )
    allocator = PagedTokenToKVPoolAllocator(tokens, PAGE_SIZE, torch.float32, "cpu", device_pool, need_sort=False)
    pool = memory_pool_host.MHATokenToKVPoolHost(device_pool, 2.0, 0, PAGE_SIZE, "layer_first")
    return pool, allocator
