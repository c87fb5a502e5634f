"""Which machines' numbers are compared."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from patchstack.model import Hardware
from patchstack.regress.hardware import kind

SERVER = Hardware(
    node="gpu-17",
    processor="16 x AMD EPYC 9554",
    memory_gib=128,
    gpus=("NVIDIA H200, 140 GiB", "NVIDIA H200, 140 GiB"),
    driver="570.86.15",
    cuda="13.0",
    nccl="2.28.9",
    torch="2.11.0",
    mooncake="0.3.10",
    nics=("mlx5_0, 400 Gb/s", "mlx5_1, 400 Gb/s"),
)


def test_a_kind_is_one_line() -> None:
    assert kind(SERVER) == (
        "16 x AMD EPYC 9554; 128 GiB; 2 x NVIDIA H200, 140 GiB; driver 570.86.15; CUDA 13.0; NCCL 2.28.9; "
        "torch 2.11.0; Mooncake 0.3.10; NIC 1 x mlx5_0, 400 Gb/s; NIC 1 x mlx5_1, 400 Gb/s"
    )
    assert kind(Hardware("laptop", "2 x Intel", 8)) == "2 x Intel; 8 GiB; no GPU"


def test_two_machines_of_one_kind_differ_in_their_names_alone() -> None:
    assert kind(replace(SERVER, node="gpu-18")) == kind(SERVER)


@pytest.mark.parametrize("name", [field.name for field in fields(Hardware) if field.name != "node"])
def test_whatever_else_differs_makes_another_kind(name: str) -> None:
    before = getattr(SERVER, name)
    after = before + 1 if isinstance(before, int) else before[:-1] if isinstance(before, tuple) else f"{before}a"
    assert kind(replace(SERVER, **{name: after})) != kind(SERVER)
