"""Stand-in for SGLang's CUDA kernels, so that CPU tests can import modules that bind names from them.

`kvcacheio` (the copies between device and host pools) and `assign_req_to_token_pool_cpu` do their work, as
plain copies in host memory. Every other name, and every submodule in `SUBMODULES`, can be imported and
raises NotImplementedError when it is called. Nothing is put into ``torch.ops.sgl_kernel``: SGLang asks there
whether the CPU kernels are built in, and must hear no. ``scalar_type`` is left out: it holds values, not
kernels, and SGLang has its own fallback for them.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType

from cuda_standins import refuse_beside_real_kernels

refuse_beside_real_kernels()

__version__ = "0+standin"

SUBMODULES = frozenset(
    {
        "allreduce",
        "attention",
        "cutlass_moe",
        "elementwise",
        "flash_attn",
        "flash_mla",
        "gemm",
        "grammar",
        "mamba",
        "marlin",
        "memory",
        "moe",
        "quantization",
        "sampling",
        "sparse_flash_attn",
        "spatial",
        "speculative",
        "top_k",
        "utils",
    }
)


def _raising(name: str):
    def call(*_args: object, **_options: object):
        raise NotImplementedError(f"{name} is a CUDA kernel; the stand-in for sgl_kernel has no such thing")

    call.__name__ = call.__qualname__ = name.rpartition(".")[2]
    return call


class _RaisingModule(ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _raising(f"{self.__name__}.{name}")


class _Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.rpartition(".")
        if package != __name__ or name not in SUBMODULES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec):
        return _RaisingModule(spec.name)

    def exec_module(self, module) -> None:
        """Nothing to run: the names are made when they are asked for."""


sys.meta_path.append(_Submodules())


def assign_req_to_token_pool_cpu(
    req_pool_indices, req_to_token, start_offset, end_offset, out_cache_loc, *_sizes: int
) -> None:
    """Write each request's new slots into its row: ``req_to_token[req, start:end] = next(end - start) slots``."""
    taken = 0
    for request, start, end in zip(req_pool_indices.tolist(), start_offset.tolist(), end_offset.tolist(), strict=True):
        slots = out_cache_loc[taken : taken + end - start]
        req_to_token[request, start:end] = slots.to(req_to_token.dtype)
        taken += end - start


def __getattr__(name: str):
    if name.startswith("__"):
        raise AttributeError(name)
    return _raising(f"{__name__}.{name}")
