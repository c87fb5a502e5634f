"""Which machines' numbers can be compared: those of one kind. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from patchstack.model import Hardware

_NAMED = {"driver": "driver", "cuda": "CUDA", "nccl": "NCCL", "torch": "torch", "mooncake": "Mooncake"}
"""What is only a version, and the word before it."""
NO_GPU = "no GPU"


def kind(hardware: Hardware) -> str:
    """All of ``hardware`` but the machine's name, in one line: two numbers compare only where it is equal.

    Such as ``16 x AMD EPYC 9554; 128 GiB; 2 x NVIDIA H200, 140 GiB; driver 570.86; CUDA 13.0; ...``. What is not known
    is left out; no two that differ give one line.
    """
    parts = [hardware.processor, f"{hardware.memory_gib} GiB", "; ".join(_counted(hardware.gpus)) or NO_GPU]
    parts += [f"{word} {version}" for name, word in _NAMED.items() if (version := getattr(hardware, name))]
    parts += [f"NIC {nic}" for nic in _counted(hardware.nics)]
    return "; ".join(" ".join(part.split()) for part in parts)


def _counted(devices: Sequence[str]) -> list[str]:
    """Each kind of device once, with how many there are."""
    return [f"{devices.count(one)} x {one}" for one in dict.fromkeys(devices)]
