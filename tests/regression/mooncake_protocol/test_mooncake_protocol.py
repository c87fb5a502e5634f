"""``MOONCAKE_PROTOCOL`` and ``MC_FORCE_TCP`` choose the transport of P2P engines.

Real SGLang start-up code and real Mooncake engines, whose ``initialize`` is
noted and passed on. Without an HCA every engine here ends up on TCP, whatever
it is asked for; so what is asserted is what SGLang asks Mooncake for.
"""

from __future__ import annotations

import ctypes
import logging
import os
import types

import pytest

from testbed.recording_engine import EngineStart, record_engine_starts


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOONCAKE_PROTOCOL", raising=False)
    monkeypatch.delenv("MC_FORCE_TCP", raising=False)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[EngineStart]:
    return record_engine_starts(monkeypatch)


def start_transfer_engine(ib_device: str | None = "mlx5_0"):
    from sglang.srt.distributed.device_communicators.mooncake_transfer_engine import (
        MooncakeTransferEngine,
    )

    return MooncakeTransferEngine("127.0.0.1", gpu_id=0, ib_device=ib_device)


def start_weight_transfer_engine() -> None:
    """The engine that hands weights to remote instances is started elsewhere."""
    from sglang.srt.model_executor.model_runner import ModelRunner

    runner = types.SimpleNamespace()
    ModelRunner.remote_instance_init_transfer_engine(runner)
    assert runner.remote_instance_transfer_engine_session_id.startswith("127.0.0.1:")


def test_efa(monkeypatch: pytest.MonkeyPatch, starts: list[EngineStart]) -> None:
    """https://github.com/sgl-project/sglang/issues/24838"""
    monkeypatch.setenv("MOONCAKE_PROTOCOL", "efa")
    start_transfer_engine("rdmap0")
    assert starts == [EngineStart("efa", "rdmap0", force_tcp=None)]


def test_tcp_is_said_so_that_every_mooncake_build_obeys(
    monkeypatch: pytest.MonkeyPatch, starts: list[EngineStart]
) -> None:
    """Mooncake's stock build ignores the name and would take RDMA if it can."""
    monkeypatch.setenv("MOONCAKE_PROTOCOL", "TCP")
    start_transfer_engine("mlx5_0")
    assert starts == [EngineStart("tcp", "", force_tcp="1")]
    assert "MC_FORCE_TCP" not in os.environ, "it outlives the engine's start"


@pytest.mark.parametrize("value", ["1", "0", ""])
@pytest.mark.parametrize("protocol", [None, "rdma"])
def test_mc_force_tcp_wins(
    monkeypatch: pytest.MonkeyPatch,
    starts: list[EngineStart],
    value: str,
    protocol: str | None,
) -> None:
    """Mooncake asks whether it is set, not to what; SGLang must read it alike."""
    monkeypatch.setenv("MC_FORCE_TCP", value)
    if protocol is not None:
        monkeypatch.setenv("MOONCAKE_PROTOCOL", protocol)
    start_transfer_engine("mlx5_0")
    assert starts == [EngineStart("tcp", "", force_tcp=value)]
    assert os.environ["MC_FORCE_TCP"] == value


def test_weight_transfer_engine(monkeypatch: pytest.MonkeyPatch, starts: list[EngineStart]) -> None:
    monkeypatch.setenv("MOONCAKE_DEVICE", "rdmap0")
    monkeypatch.setenv("MOONCAKE_PROTOCOL", "efa")
    start_weight_transfer_engine()
    monkeypatch.setenv("MOONCAKE_PROTOCOL", "tcp")
    start_weight_transfer_engine()
    assert starts == [
        EngineStart("efa", "rdmap0", force_tcp=None),
        EngineStart("tcp", "", force_tcp="1"),
    ]


def test_the_choice_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("MOONCAKE_PROTOCOL", "efa")
    monkeypatch.setenv("MC_FORCE_TCP", "1")
    with caplog.at_level(logging.INFO):
        start_transfer_engine("mlx5_0")
    messages = [r.getMessage() for r in caplog.records if "sglang" in r.name]
    assert messages == [
        "MC_FORCE_TCP is set: using tcp, not MOONCAKE_PROTOCOL=efa",
        "Mooncake transfer engine: protocol=tcp devices=auto ret=0",
    ]


@pytest.mark.control
def test_rdma_is_the_default(starts: list[EngineStart]) -> None:
    """``envs.MOONCAKE_PROTOCOL`` is the store's, and defaults to tcp here."""
    start_transfer_engine("mlx5_0")
    start_weight_transfer_engine()
    assert starts == [
        EngineStart("rdma", "mlx5_0", force_tcp=None),
        EngineStart("rdma", "", force_tcp=None),
    ]


@pytest.mark.control
def test_switched_off_rdma_is_hard_coded(monkeypatch: pytest.MonkeyPatch, starts: list[EngineStart]) -> None:
    monkeypatch.setenv("SGLANG_MOONCAKE_PROTOCOL_FROM_ENV", "0")
    monkeypatch.setenv("MOONCAKE_PROTOCOL", "efa")
    start_transfer_engine("mlx5_0")
    start_weight_transfer_engine()
    monkeypatch.setenv("MC_FORCE_TCP", "1")
    start_transfer_engine("mlx5_0")
    assert starts == [
        EngineStart("rdma", "mlx5_0", force_tcp=None),
        EngineStart("rdma", "", force_tcp=None),
        EngineStart("rdma", "mlx5_0", force_tcp="1"),
    ]


@pytest.mark.control
def test_ascend_is_not_touched(monkeypatch: pytest.MonkeyPatch, starts: list[EngineStart]) -> None:
    monkeypatch.setenv("ENABLE_ASCEND_TRANSFER_WITH_MOONCAKE", "1")
    monkeypatch.setenv("MOONCAKE_PROTOCOL", "efa")
    start_transfer_engine("mlx5_0")
    assert starts == [EngineStart("ascend", "mlx5_0", force_tcp=None)]


@pytest.mark.control
def test_an_engine_that_does_not_start_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mooncake.engine

    class DeadEngine(mooncake.engine.TransferEngine):
        def initialize(self, *args: object) -> int:
            return -1

    monkeypatch.setattr(mooncake.engine, "TransferEngine", DeadEngine)
    with pytest.raises(RuntimeError, match="initialization failed"):
        start_transfer_engine()


@pytest.mark.control
def test_bytes_arrive_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOONCAKE_PROTOCOL", "tcp")
    sender, receiver = start_transfer_engine(), start_transfer_engine()
    source = ctypes.create_string_buffer(b"rail" * 1024)
    target = ctypes.create_string_buffer(len(source))
    assert sender.batch_register([ctypes.addressof(source)], [len(source)]) == 0
    assert receiver.batch_register([ctypes.addressof(target)], [len(target)]) == 0
    ret = sender.batch_transfer_sync(
        receiver.get_session_id(),
        [ctypes.addressof(source)],
        [ctypes.addressof(target)],
        [len(source)],
    )
    assert (ret, target.raw) == (0, source.raw)
