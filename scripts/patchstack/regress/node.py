"""What this machine is, in words that two machines share only when their numbers can be compared."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

LONGEST = 200
_GIB = 1 << 30


def describe_node(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> str:
    """Such as ``2 x AMD EPYC 9554, 8 GiB, no GPU``: the cores and the memory that this process may use."""
    cores = len(os.sched_getaffinity(0))
    gpus = [_field(path, "Model") for path in sorted(proc.glob("driver/nvidia/gpus/*/information"))]
    parts = (f"{cores} x {_processor(proc)}", f"{memory_gib(proc, cgroup)} GiB", ", ".join(gpus) or "no GPU")
    return " ".join(re.sub(r"[^ -~]", " ", ", ".join(parts)).split())[:LONGEST]


def _processor(proc: Path) -> str:
    """Its model; of one that does not say, as ARM's do not, what it understands."""
    return _field(proc / "cpuinfo", "model name") or platform.machine()


def memory_gib(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """What this process may use, rounded up: what the kernel keeps for itself differs from one start to the next."""
    held = int(re.sub(r"\D", "", _field(proc / "meminfo", "MemTotal")) or 0) << 10
    try:
        limit = (cgroup / "memory.max").read_text().strip()
    except OSError:
        limit = ""
    held = min(held, int(limit)) if limit.isdigit() else held
    return -(-held // _GIB)


def _field(path: Path, name: str) -> str:
    """The first ``name: value`` of a file; empty where there is none."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    found = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name)
    return next(found, "")
