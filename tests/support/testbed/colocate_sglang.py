"""SGLang's own server on the bed's device, as the server of a colocated engine.

As a module it is the ``server_module`` of ``create_engine``: ``sglang.launch_server`` needs the stand-ins here, in the
first process and in each that it spawns, before anything of SGLang's is imported. `server_arguments` is what such a
server is started with, as keyword arguments.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed import launcher
from testbed.device import Device, device, device_environment
from testbed.standins import activate

MODULE = "testbed.colocate_sglang"


def server_arguments(model: Path, pool_tokens: int = 4096) -> dict[str, Any]:
    """ServerArgs' keyword arguments for a small server on the device of this run."""
    common: dict[str, Any] = {
        "model_path": str(model),
        "max_total_tokens": pool_tokens,
        "max_running_requests": 8,
        "skip_server_warmup": True,
        "grammar_backend": "none",
        "sleep_on_idle": True,
    }
    if device() is Device.CUDA:
        return {**common, "mem_fraction_static": 0.35, "disable_cuda_graph": True, "enable_memory_saver": False}
    return {
        **common,
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "dtype": "float32",
        "mem_fraction_static": 0.1,
        "disable_overlap_schedule": True,
    }


def server_environment(tp: int) -> dict[str, str]:
    """What ranks have in their environment, and hand on to the server that they start."""
    return {**device_environment(device(), tp), "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false"}


def fork_servers_of_this_process() -> None:
    """For an engine that starts its server by itself, as `multiprocessing`'s child of a forked process.

    What that server would spawn has no stand-ins; so it forks.
    """
    multiprocessing.set_start_method = launcher._fork_whatever_is_asked_for


def main(flags: Sequence[str]) -> None:
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args

    run_server(prepare_server_args(list(flags)))


if __name__ in ("__main__", "__mp_main__"):
    activate()
if __name__ == "__main__":
    main(sys.argv[1:])
