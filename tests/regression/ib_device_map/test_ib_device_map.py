"""``--disaggregation-ib-device`` takes a map from GPU to rails.

Real command line parsing, real ``ServerArgs`` on a model configuration made on
the spot, real Mooncake engines. Injected: the list of HCAs in sysfs, which a
machine without InfiniBand does not have.
"""

from __future__ import annotations

import argparse
import json
import os
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.recording_engine import record_engine_starts

RAILS = ["mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3"]
SYSFS = "/sys/class/infiniband"

ParseDevice = Callable[[str], str]


@pytest.fixture
def four_rails(monkeypatch: pytest.MonkeyPatch) -> None:
    isdir, listdir = os.path.isdir, os.listdir
    monkeypatch.setattr(os.path, "isdir", lambda path: path == SYSFS or isdir(path))
    monkeypatch.setattr(os, "listdir", lambda path=".": list(RAILS) if path == SYSFS else listdir(path))


@pytest.fixture
def parse_device(tmp_path: Path, four_rails: None) -> ParseDevice:
    """Return what ``ServerArgs`` makes of the option's value on a prefill server."""
    from sglang.srt.server_args import prepare_server_args

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "vocab_size": 512,
                "max_position_embeddings": 512,
            }
        )
    )

    def parse(value: str) -> str:
        command = f"--model-path {model} --device cpu --disaggregation-mode prefill"
        options = [*command.split(), "--disaggregation-ib-device", value]
        return prepare_server_args(options).disaggregation_ib_device

    return parse


def accepted(parse: ParseDevice, value: str) -> str:
    try:
        return parse(value)
    except (ValueError, RuntimeError) as refusal:
        pytest.fail(f"a valid map is refused: {refusal}")


def refused(parse: ParseDevice, value: str) -> str:
    try:
        result = parse(value)
    except (ValueError, RuntimeError) as refusal:
        return str(refusal)
    pytest.fail(f"{value!r} is accepted as {result!r}")


def test_json_text(parse_device: ParseDevice) -> None:
    value = '{"1": "mlx5_3, mlx5_2 ,mlx5_3", "0": "mlx5_0"}'
    assert accepted(parse_device, value) == '{"1":"mlx5_3,mlx5_2","0":"mlx5_0"}'


def test_json_file(parse_device: ParseDevice, tmp_path: Path) -> None:
    """The file is read once: what travels on to other processes is its content."""
    rails = tmp_path / "rails.json"
    rails.write_text('{\n  "0": "mlx5_0",\n  "1": "mlx5_1"\n}\n')
    assert accepted(parse_device, str(rails)) == '{"0":"mlx5_0","1":"mlx5_1"}'


def test_gpus_may_share_rails(parse_device: ParseDevice) -> None:
    """https://github.com/sgl-project/sglang/issues/20241"""
    value = '{"0":"mlx5_0,mlx5_1","1":"mlx5_0,mlx5_1"}'
    assert accepted(parse_device, value) == value


def test_a_normalized_map_is_stable(parse_device: ParseDevice) -> None:
    """``ServerArgs`` are rebuilt from each other, and checked each time."""
    once = accepted(parse_device, '{"0": "mlx5_0", "1": "mlx5_1"}')
    assert accepted(parse_device, once) == once


def test_each_gpu_starts_on_its_own_rails(parse_device: ParseDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.distributed.device_communicators.mooncake_transfer_engine import (
        MooncakeTransferEngine,
    )

    monkeypatch.delenv("MC_FORCE_TCP", raising=False)  # TCP uses no rails
    starts = record_engine_starts(monkeypatch)
    value = accepted(parse_device, '{"0": "mlx5_2", "1": "mlx5_0,mlx5_1"}')
    engines = [MooncakeTransferEngine("127.0.0.1", gpu, value) for gpu in (0, 1)]
    assert [start.devices for start in starts] == ["mlx5_2", "mlx5_0,mlx5_1"]
    assert len({engine.get_session_id() for engine in engines}) == 2


def test_elastic_ep_filters_the_rails_of_its_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``--mooncake-ib-device`` is checked by the same code, so its reader must follow.

    Runs the real ``ModelRunner.init_torch_distributed`` up to the first look at
    the device's memory; the device and the CUDA-only ``mooncake.ep`` are injected.
    """
    import mooncake
    import torch
    from sglang.srt.model_executor import model_runner

    class ReachedMemoryCheck(Exception):
        pass

    def stop(*args: object, **kwargs: object) -> None:
        raise ReachedMemoryCheck

    filters: list[list[str]] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(
        mooncake,
        "ep",
        types.SimpleNamespace(set_device_filter=filters.append),
        raising=False,
    )
    monkeypatch.setattr(model_runner, "get_available_gpu_memory", stop)
    runner = types.SimpleNamespace(
        device="cuda",
        gpu_id=1,
        server_args=types.SimpleNamespace(
            elastic_ep_backend="mooncake",
            mooncake_ib_device='{"0":"mlx5_0","1":"mlx5_2,mlx5_3"}',
        ),
    )
    with pytest.raises(ReachedMemoryCheck):
        model_runner.ModelRunner.init_torch_distributed(runner)
    assert filters == [["mlx5_2", "mlx5_3"]]


BAD_MAPS = {
    "unknown device": (
        '{"0": "mlx5_0", "1": "mlx5_9"}',
        "GPU 1: no device mlx5_9 on this node",
    ),
    "duplicate GPU": ('{"0": "mlx5_0", "0": "mlx5_1"}', "GPU 0 is given twice"),
    "name as key": ('{"gpu0": "mlx5_0"}', "key 'gpu0' is not a GPU index"),
    "negative key": ('{"-1": "mlx5_0"}', "key '-1' is not a GPU index"),
    "list as value": (
        '{"0": ["mlx5_0"]}',
        "GPU 0: ['mlx5_0'] is not a string of device names",
    ),
    "no device": ('{"0": " , "}', "GPU 0 has no device"),
    "empty": ("{}", "it is empty"),
    "array": ('["mlx5_0"]', "not a JSON object"),
    "unquoted key": ('{0: "mlx5_0"}', "GPU indices are quoted"),
    "missing file": ("no/such/rails.json", "No such file"),
}


@pytest.mark.parametrize(("value", "problem"), BAD_MAPS.values(), ids=BAD_MAPS)
def test_a_bad_map_is_one_clear_error(parse_device: ParseDevice, value: str, problem: str) -> None:
    assert problem in refused(parse_device, value)


def test_all_problems_are_listed(parse_device: ParseDevice) -> None:
    message = refused(parse_device, '{"0": "mlx5_8", "x": "mlx5_0", "2": ""}')
    assert message == (
        'Invalid IB device map {"0": "mlx5_8", "x": "mlx5_0", "2": ""}: '
        "GPU 0: no device mlx5_8 on this node; key 'x' is not a GPU index; "
        "GPU 2 has no device. Expected GPU index -> device names, such as "
        '{"0": "mlx5_0", "1": "mlx5_1,mlx5_2"}; '
        "devices of this node: mlx5_0, mlx5_1, mlx5_2, mlx5_3"
    )


@pytest.mark.parametrize("option", ["--disaggregation-ib-device", "--mooncake-ib-device"])
def test_the_help_says_so(option: str) -> None:
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    (action,) = [action for action in parser._actions if option in action.option_strings]
    assert "per-GPU map" in (action.help or "")
    assert ".json file" in (action.help or "")


@pytest.mark.control
def test_a_gpu_that_the_map_lacks_does_not_start() -> None:
    from sglang.srt.distributed.device_communicators.mooncake_transfer_engine import (
        MooncakeTransferEngine,
    )

    with pytest.raises(ValueError, match="No IB devices configured for GPU 2"):
        MooncakeTransferEngine("127.0.0.1", 2, '{"0":"mlx5_0","1":"mlx5_1"}')


@pytest.mark.control
@pytest.mark.parametrize("switch", ["1", "0"])
def test_a_list_for_all_gpus_is_as_before(
    parse_device: ParseDevice, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setenv("SGLANG_DISAGG_IB_DEVICE_MAP", switch)
    assert parse_device("mlx5_0, mlx5_1,mlx5_0") == "mlx5_0,mlx5_1"
    assert "['mlx5_9']" in refused(parse_device, "mlx5_0,mlx5_9")


@pytest.mark.control
def test_switched_off_a_map_is_split_on_commas(parse_device: ParseDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_DISAGG_IB_DEVICE_MAP", "0")
    message = refused(parse_device, '{"0":"mlx5_0","1":"mlx5_1"}')
    assert """['{"0":"mlx5_0"', '"1":"mlx5_1"}']""" in message
