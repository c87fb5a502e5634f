"""The parts of one rank of `testbed.hicache`: SGLang's groups, device pools and one of its caches, on a CPU."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from pathlib import Path
from typing import Any, Literal

from testbed.gloo import Rank

Tree = Literal["hiradix", "unified", "himamba"]
LAYERS, HEADS, HEAD_DIM = 2, 1, 4
MAX_TOKENS = 512  # of one request


@dataclasses.dataclass(frozen=True)
class HiCacheShape:
    """What all ranks of one scenario have in common. Sizes are in tokens."""

    tree: Tree = "hiradix"
    tp: int = 2
    pp: int = 1
    cp: int = 1  # attention context parallel; a divisor of tp
    device_tokens: int = 256
    host_ratio: float = 2.0  # host tokens per device token
    host_bytes: int = 0  # instead of the ratio (--hicache-size); a token takes 32 a layer
    stage_layers: tuple[int, ...] = ()  # of each pipeline stage; LAYERS if left out
    page_size: int = 1
    write_policy: str = "write_through"
    storage_dir: Path | None = None  # None: no storage
    prefetch_policy: str = "wait_complete"
    prefetch_threshold: int = 8
    mamba_slots: int = 24  # himamba only

    @property
    def ranks(self) -> int:
        return self.tp * self.pp

    def layers_of(self, stage: int) -> int:
        return self.stage_layers[stage] if self.stage_layers else LAYERS


def join_groups(shape: HiCacheShape, rank: Rank) -> None:
    """Make SGLang's groups of `shape`. Blocks until all ranks have come."""
    from sglang.srt.distributed.parallel_state import (
        init_distributed_environment,
        initialize_model_parallel,
        set_custom_all_reduce,
    )

    set_custom_all_reduce(False)  # needs CUDA
    init_distributed_environment(
        world_size=shape.ranks,
        rank=rank.number,
        local_rank=rank.number,
        distributed_init_method=rank.rendezvous,
        backend="gloo",
    )
    initialize_model_parallel(
        tensor_model_parallel_size=shape.tp,
        pipeline_model_parallel_size=shape.pp,
        attention_context_model_parallel_size=shape.cp,
        backend="gloo",
    )


def _server_args(shape: HiCacheShape) -> Any:
    """ServerArgs at their defaults, but for what `shape` says.

    __post_init__ is left out: it needs a model and a device.
    """
    from sglang.srt.server_args import ServerArgs, set_global_server_args_for_scheduler

    args = object.__new__(ServerArgs)
    for field in dataclasses.fields(ServerArgs):
        if field.default is not dataclasses.MISSING:
            setattr(args, field.name, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            setattr(args, field.name, field.default_factory())
    storage = shape.storage_dir
    if storage is not None:
        os.environ["SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR"] = str(storage)
    values: dict[str, object] = {
        "model_path": "none",
        "served_model_name": "none",
        "device": "cpu",
        "attention_backend": "torch_native",
        "page_size": shape.page_size,
        "tp_size": shape.tp,
        "pp_size": shape.pp,
        "enable_hierarchical_cache": True,
        "hicache_ratio": shape.host_ratio,
        "hicache_size": shape.host_bytes / 1e9,
        "hicache_write_policy": shape.write_policy,
        "hicache_io_backend": "direct",
        "hicache_mem_layout": "layer_first",
        "hicache_storage_backend": None if storage is None else "file",
        "hicache_storage_prefetch_policy": shape.prefetch_policy,
        "hicache_storage_backend_extra_config": json.dumps({"prefetch_threshold": shape.prefetch_threshold}),
    }
    for name, value in values.items():
        setattr(args, name, value)
    set_global_server_args_for_scheduler(args)
    return args


def build_cache(shape: HiCacheShape) -> Any:
    """A HiRadixCache, UnifiedRadixCache or HiMambaRadixCache with pools and controller of its own."""
    from sglang.srt.distributed import parallel_state
    from sglang.srt.mem_cache import memory_pool_host
    from sglang.srt.mem_cache.cache_init_params import CacheInitParams

    memory_pool_host.HICACHE_HOST_MEMORY_RESERVE_BYTES = 0  # 10 GB: a server's, not a laptop's
    args = _server_args(shape)
    stage = parallel_state.get_pp_group().rank_in_group
    layers = shape.layers_of(stage)
    req_pool, kv_pool = (_mamba_pools if shape.tree == "himamba" else _attention_pools)(shape, layers)
    params = CacheInitParams(
        disable=False,
        req_to_token_pool=req_pool,
        token_to_kv_pool_allocator=_allocator(shape, kv_pool),
        page_size=shape.page_size,
        tp_cache_group=parallel_state.get_tp_group().cpu_group,
        attn_cp_cache_group=parallel_state.get_attn_cp_group().cpu_group,
        attn_tp_cache_group=parallel_state.get_attn_tp_group().cpu_group,
        pp_rank=stage,
        pp_size=shape.pp,
        chunked_prefill_size=MAX_TOKENS,
        **_pipeline_group(args),
    )
    if shape.tree == "unified":
        from sglang.srt.mem_cache.unified_cache_components import ComponentType
        from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

        params.tree_components = (ComponentType.FULL,)
        cache = UnifiedRadixCache(params)
        cache.init_hicache(args, params)
        cache.load_back_threshold = 1  # 256 tokens by default: more than fits here
        return cache
    if shape.tree == "himamba":
        from sglang.srt.mem_cache.hi_mamba_radix_cache import HiMambaRadixCache

        return HiMambaRadixCache(params=params, server_args=args)
    from sglang.srt.mem_cache.hiradix_cache import HiRadixCache

    return HiRadixCache(params=params, server_args=args)


def _pipeline_group(args: Any) -> dict[str, Any]:
    """The group over which pipeline stages agree, as the scheduler makes it; none on a tree without hicache-pp-sync."""
    if importlib.util.find_spec("sglang.srt.mem_cache.pp_sync") is None:
        return {}
    from sglang.srt.distributed import parallel_state
    from sglang.srt.mem_cache.pp_sync import make_pp_cache_group

    return {"pp_cache_group": make_pp_cache_group(args, parallel_state.get_pp_group())}


def _allocator(shape: HiCacheShape, kv_pool: Any) -> Any:
    import torch
    from sglang.srt.mem_cache.allocator import (
        PagedTokenToKVPoolAllocator,
        TokenToKVPoolAllocator,
    )

    if shape.page_size == 1:
        return TokenToKVPoolAllocator(shape.device_tokens, torch.float32, "cpu", kv_pool, need_sort=False)
    return PagedTokenToKVPoolAllocator(
        shape.device_tokens, shape.page_size, torch.float32, "cpu", kv_pool, need_sort=False
    )


def _attention_pools(shape: HiCacheShape, layers: int) -> tuple[Any, Any]:
    """The request pool and the device KV pool."""
    import torch
    from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool, ReqToTokenPool

    req_pool = ReqToTokenPool(size=16, max_context_len=MAX_TOKENS, device="cpu", enable_memory_saver=False)
    kv_pool = MHATokenToKVPool(
        shape.device_tokens,
        shape.page_size,
        torch.float32,
        HEADS,
        HEAD_DIM,
        layers,
        "cpu",
        enable_memory_saver=False,
    )
    return req_pool, kv_pool


def _mamba_pools(shape: HiCacheShape, layers: int) -> tuple[Any, Any]:
    """The same with one layer of mamba states after the attention layers."""
    import torch
    from sglang.srt.configs.mamba_utils import Mamba2CacheParams, Mamba2StateShape
    from sglang.srt.mem_cache.memory_pool import HybridLinearKVPool, HybridReqToTokenPool

    states = Mamba2StateShape.create(
        tp_world_size=1,
        intermediate_size=8,
        n_groups=1,
        num_heads=2,
        head_dim=4,
        state_size=4,
        conv_kernel=4,
    )
    req_pool = HybridReqToTokenPool(
        size=8,
        mamba_size=shape.mamba_slots,
        mamba_spec_state_size=0,
        max_context_len=MAX_TOKENS,
        device="cpu",
        enable_memory_saver=False,
        cache_params=Mamba2CacheParams(shape=states, layers=[layers]),
        mamba_layer_ids=[layers],
        enable_mamba_extra_buffer=False,
        enable_overlap_schedule=False,
    )
    kv_pool = HybridLinearKVPool(
        size=shape.device_tokens,
        dtype=torch.float32,
        page_size=shape.page_size,
        head_num=HEADS,
        head_dim=HEAD_DIM,
        full_attention_layer_ids=list(range(layers)),
        enable_kvcache_transpose=False,
        device="cpu",
        mamba_pool=req_pool.mamba_pool,
    )
    return req_pool, kv_pool
