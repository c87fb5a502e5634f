"""What a server of the bed runs on: the CPU, as everywhere in the bed, or one CUDA device for GPU scenarios.

The choice is made here and nowhere else. `SGLANG_USE_CPU_ENGINE=1`, which the bed sets, means the CPU and the
stand-ins; without it a server gets CUDA, its own kernels and no stand-in.
"""

from __future__ import annotations

import enum
import os


class Device(enum.StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


def device() -> Device:
    """The device of this run."""
    return Device.CPU if os.environ.get("SGLANG_USE_CPU_ENGINE") == "1" else Device.CUDA


def device_flags(on: Device) -> list[str]:
    """Server flags for this device. On both: small pools, no warm-up, and no processor time while idle."""
    common = ["--skip-server-warmup", "--grammar-backend", "none", "--sleep-on-idle", "--max-running-requests", "8"]
    if on is Device.CPU:
        backends = ["--attention-backend", "torch_native", "--sampling-backend", "pytorch"]
        return [
            *common,
            *backends,
            *("--device", "cpu", "--dtype", "float32", "--mem-fraction-static", "0.1"),
            "--disable-overlap-schedule",
        ]
    # Two servers share one device in a PD scenario; no graphs, for they take longer to record than a test.
    return [*common, "--device", "cuda", "--mem-fraction-static", "0.35", "--disable-cuda-graph"]


def deterministic_flags(on: Device) -> tuple[str, ...]:
    """A text depends on its prompt alone, not on what is asked beside it. On a CPU it does so anyway."""
    return ("--enable-deterministic-inference",) if on is Device.CUDA else ()


def device_environment(on: Device, tp: int = 1, page_size: int = 1) -> dict[str, str]:
    """What a server of ``tp`` ranks on this device needs besides the flags."""
    if on is Device.CUDA:
        return {}
    environment = {
        "SGLANG_USE_CPU_ENGINE": "1",
        "OMP_NUM_THREADS": "1",
        # With tp > 1 each rank compiles the lookup of its embeddings in C++: that takes longer than most tests.
        "TORCHDYNAMO_DISABLE": "1",
    }
    if page_size > 1:
        environment["TRITON_INTERPRET"] = "1"  # for its kernels that allocate pages
    if tp > 1:
        # SGLang wants a NUMA node for each rank, or to be told which cores each may have.
        cores = sorted(os.sched_getaffinity(0))
        environment["SGLANG_CPU_OMP_THREADS_BIND"] = "|".join(str(cores[rank % len(cores)]) for rank in range(tp))
    return environment
