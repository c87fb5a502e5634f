"""The machine of a lane's results, as the record says it: the fields of the tool's ``Hardware``.

It is looked at where the tests run, inside an image if they run inside one. As a program this file prints what CUDA
says, in a process of its own: the one that runs the tests must not hold memory of a card.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LONGEST = 300
LOOK_LIMIT_S = 300.0
"""For the first import of torch from a cold disk."""

MOONCAKE = ("mooncake-transfer-engine", "mooncake-transfer-engine-cuda13", "mooncake-transfer-engine-non-cuda")
_GIB = 1 << 30


class NotLookedAt(Exception):
    """There are GPUs, and torch cannot say which."""


def hardware(*, cuda: bool, root: Path = Path("/")) -> dict[str, Any]:
    """What the record's line ``hardware`` holds; with ``cuda`` what torch says of the cards, else none.

    Raises `NotLookedAt`.
    """
    cards = _cards() if cuda else {"gpus": [], "cuda": "", "nccl": ""}
    return {
        "node": _plain(platform.node()),
        "processor": _plain(f"{len(os.sched_getaffinity(0))} x {_processor(root / 'proc')}"),
        "memory_gib": _memory_gib(root / "proc", root / "sys/fs/cgroup"),
        **cards,
        "driver": _driver(root / "proc/driver/nvidia/version"),
        "torch": _version("torch"),
        "mooncake": next(filter(None, map(_version, MOONCAKE)), ""),
        "nics": _nics(root / "sys/class/infiniband"),
    }


def _cards() -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=LOOK_LIMIT_S)
    if done.returncode != 0:
        raise NotLookedAt(f"torch does not say which GPUs there are: {(done.stderr.strip().splitlines() or [''])[-1]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def look_at_cards() -> dict[str, Any]:
    """What torch says, in a process of its own."""
    import torch

    count = torch.cuda.device_count()
    cards = [torch.cuda.get_device_properties(number) for number in range(count)]
    return {
        "gpus": [_plain(f"{card.name}, {round(card.total_memory / _GIB)} GiB") for card in cards],
        "cuda": torch.version.cuda or "",
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if count else "",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _driver(path: Path) -> str:
    """``NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  ...``"""
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", _text(path))
    return found[1] if found else ""


def _nics(folder: Path) -> list[str]:
    """Each device with the rate of its first port, such as ``400 Gb/sec (4X NDR)``."""
    found = []
    for device in sorted(folder.iterdir()) if folder.is_dir() else ():
        rate = _text(device / "ports/1/rate").partition("(")[0].strip().replace("/sec", "/s")
        found.append(_plain(f"{device.name}, {rate}" if rate else device.name))
    return found


def _processor(proc: Path) -> str:
    lines = (line.partition(":") for line in _text(proc / "cpuinfo").splitlines())
    names = (value.strip() for name, _, value in lines if name.strip() == "model name")
    return next(names, "") or platform.machine()


def _memory_gib(proc: Path, cgroup: Path) -> int:
    """Rounded up, as the tool does: what the kernel keeps for itself differs from one start to the next."""
    held = int((re.findall(r"(?m)^MemTotal:\s*(\d+)", _text(proc / "meminfo")) or ["0"])[0]) << 10
    limit = _text(cgroup / "memory.max").strip()
    return -(-(min(held, int(limit)) if limit.isdigit() else held) // _GIB)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # this machine has none
        return ""


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^ -~]", " ", text).split())[:LONGEST]


def main(_arguments: Sequence[str] = ()) -> None:
    sys.stdout.write(json.dumps(look_at_cards()) + "\n")


if __name__ == "__main__":
    main()
