"""Turning the stand-ins of `tests/support/standins` on, in pytest's process and in every child."""

from __future__ import annotations

import os


def activate() -> None:
    """Install the stand-ins if this process runs in the bed, that is, if ``PATCHSTACK_TREE`` names a tree.

    Cheap: neither torch nor SGLang is imported. Raises ImportError where the real CUDA parts are.
    """
    if not os.environ.get("PATCHSTACK_TREE"):
        return
    import cuda_standins

    cuda_standins.install()
