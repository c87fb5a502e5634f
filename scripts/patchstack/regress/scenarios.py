"""Where the tests stand that need more than a CPU: no CPU lane collects them, and `declared.py` says what they need."""

from __future__ import annotations

GPU_GUARDS = "tests/regression/gpu"


def is_scenario(path: str) -> bool:
    """Whether this file or folder of guards is below ``tests/regression/gpu/``."""
    return f"{path.rstrip('/')}/".startswith(f"{GPU_GUARDS}/")
