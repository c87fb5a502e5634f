"""Turning the stand-ins of `tests/support/standins` on, in pytest's process and in every child."""

from __future__ import annotations

import os

from testbed.device import Device, device


def activate() -> None:
    """Install the stand-ins if this process runs in the bed (``PATCHSTACK_TREE`` names a tree) and on the CPU.

    Cheap: neither torch nor SGLang is imported. Raises ImportError where the real CUDA parts are.
    """
    if not os.environ.get("PATCHSTACK_TREE") or device() is not Device.CPU:
        return
    import cuda_standins

    cuda_standins.install()
