"""The bed's own controls: it runs real parts, and it sees the faults that plain 0.5.12.post1 really has.

A bed that saw no fault would let every guard pass. These tests run on plain and on composed trees; those of
a fault that a patch of the stack cures look only at what the patch leaves alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import Children, Ports, Rank, run_ranks, start_ranks
from testbed.mooncake_pair import PairShape, start_pair

pytestmark = pytest.mark.control

REAL_KERNELS = {
    "distribution": (
        "sglang_kernel-9.9.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: sglang-kernel\nVersion: 9.9\n",
    ),
    "package": ("sgl_kernel/__init__.py", ""),
}


def test_the_tree_under_test_is_the_one_that_is_imported() -> None:
    import sglang

    assert Path(sglang.__file__).is_relative_to(Path(os.environ["PATCHSTACK_TREE"]) / "python")


def test_the_engine_and_torch_are_real_and_see_no_device() -> None:
    import mooncake.engine
    import torch

    assert Path(mooncake.engine.__file__).suffix == ".so"
    assert not torch.cuda.is_available()
    assert not hasattr(torch.ops.sgl_kernel, "convert_weight_packed")


@pytest.mark.parametrize("real", sorted(REAL_KERNELS))
def test_the_standins_refuse_to_load_beside_real_kernels(tmp_path: Path, real: str) -> None:
    name, content = REAL_KERNELS[real]
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(content)
    for statement in ("import sgl_kernel", "import cuda_standins; cuda_standins.install()"):
        ended = subprocess.run(
            [sys.executable, "-c", statement],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(tmp_path)])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 1
        assert "ImportError: the stand-in for sgl_kernel refuses to load" in ended.stderr.splitlines()[-1]


def test_a_kernel_that_is_not_stood_in_for_raises_when_called() -> None:
    from sgl_kernel import awq_dequantize
    from sgl_kernel.flash_attn import flash_attn_with_kvcache

    for kernel in (awq_dequantize, flash_attn_with_kvcache):
        with pytest.raises(NotImplementedError, match="is a CUDA kernel"):
            kernel()


def test_host_pool_copies_bring_every_byte_back() -> None:
    """Each layout, out and back through the real host pool, gives the device pool's bytes again."""
    import torch
    from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool
    from sglang.srt.mem_cache.memory_pool_host import MHATokenToKVPoolHost

    page = 4
    out, back, host = torch.arange(4, 12), torch.arange(20, 28), torch.arange(8, 16)
    for layout, backend in (
        ("layer_first", "kernel"),
        ("layer_first", "direct"),
        ("page_first", "kernel"),
        ("page_head", "kernel"),
        ("page_first_direct", "direct"),
    ):
        device = MHATokenToKVPool(32, page, torch.float32, 2, 8, 3, "cpu", enable_memory_saver=False)
        for buffer in (*device.k_buffer, *device.v_buffer):
            buffer.normal_()
        kept = MHATokenToKVPoolHost(device, 2.0, 0, page, layout)
        kept.backup_from_device_all_layer(device, host, out, backend)
        for layer in range(3):
            kept.load_to_device_per_layer(device, host, back, layer, backend)
        for buffer in (*device.k_buffer, *device.v_buffer):
            assert torch.equal(buffer[back], buffer[out]), (layout, backend)


def _sum_up(rank: Rank) -> int:
    import torch

    mine = torch.tensor([10**rank.number])
    torch.distributed.all_reduce(mine)
    return int(mine)


def test_ranks_are_processes_with_a_gloo_group(children: Children) -> None:
    ended = run_ranks(children, _sum_up, size=3, limit_s=90)
    assert ended.values() == [111] * 3
    assert len({report.pid for report in ended.reports} | {os.getpid()}) == 4


def _skip_one(rank: Rank) -> None:
    rank.barrier()
    rank.link.send("up")
    if rank.number != 1:
        rank.barrier()


def test_a_rank_that_skips_a_collective_is_seen_as_a_hang_of_the_others(children: Children) -> None:
    for rank in start_ranks(children, _skip_one, size=2):
        assert rank.receive(90) == "up"
    ended = children.join(limit_s=2)
    assert ended.hung == ["rank0"]
    assert "in barrier" in ended["rank0"].stacks


def test_a_transfer_brings_the_bytes_and_waits_where_it_is_held(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports)
    pair.prefill.fill("kv", [1, 2], 7)
    pair.prefill.fill("aux", [0], 3)
    pair.prefill.hold("kv")
    pair.transfer(1, source=[1, 2], target=[5, 6], aux=(0, 1))
    assert pair.prefill.wait_until_held()
    assert [pair.decode.holds("kv", page) for page in (4, 5, 6, 7)] == [{0}, {0}, {0}, {0}]
    pair.prefill.release()
    assert pair.wait(1) == ("Success", "Success")
    assert [pair.decode.holds("kv", page) for page in (4, 5, 6, 7)] == [{0}, {7}, {7}, {0}]
    assert [pair.decode.holds("aux", slot) for slot in (0, 1)] == [{0}, {3}]
    assert [(t.kind, t.returned, t.injected) for t in pair.prefill.transfers()] == [("kv", 0, False), ("aux", 0, False)]


def test_a_failed_transfer_fails_its_room_and_under_fail_fast_the_session(children: Children, ports: Ports) -> None:
    """The bed sees a real fault: after one -1 from the engine, it is not even called for the next room.

    Plain 0.5.12.post1 has no other way; ``..._THRESHOLD=1`` asks a tree that has a threshold for it.
    """
    pair = start_pair(children, ports, PairShape(env={"SGLANG_DISAGG_SESSION_FAILURE_THRESHOLD": "1"}))
    pair.prefill.fill("kv", [1], 7)
    pair.prefill.fail_next("kv", times=1_000)
    pair.transfer(1, source=[1], target=[5])
    assert pair.wait(1) == ("Failed", "Failed")
    assert pair.decode.holds("kv", 5) == {0}
    before = pair.prefill.transfers()
    assert {(t.kind, t.injected) for t in before} == {("kv", True)}
    pair.prefill.fail_next("kv", times=0)
    pair.transfer(2, source=[1], target=[6])
    assert pair.wait(2) == ("Failed", "Failed")
    assert pair.prefill.transfers() == before


@pytest.mark.parametrize("state", ["swa", "mamba"])
def test_a_model_with_state_sends_it(children: Children, ports: Ports, state: str) -> None:
    pair = start_pair(children, ports, PairShape(state=state))
    pair.prefill.fill("state", [3], 9)
    pair.transfer(1, source=[1], target=[5], state=([3], [4]))
    assert pair.wait(1) == ("Success", "Success")
    assert [pair.decode.holds("state", item) for item in (3, 4, 5)] == [{0}, {9}, {0}]
