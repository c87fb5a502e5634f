"""Backends that do not know ABORT neither advertise it nor send it, whatever the switch says (AB-14).

An ABORT ends the thread of a NIXL prefill, which takes every message for one of its own. SGLang's classes for
NIXL and MORI are the real ones, with real ZMQ; only the transport below them, which this machine cannot have,
is an empty stand-in that moves nothing.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from testbed import Children, Ports
from testbed.control_peer import BootstrapTable, PrefillPeer
from testbed.control_wire import Frames
from testbed.mooncake_pair import PairShape, Side, start_side

CAPS = ("abort.v1", "abort.drain.v1")


class Transport:
    """A transport that takes everything and moves nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.name = self.key = "stand-in"
        self.port = 1

    def get_plugin_list(self) -> list[str]:
        return ["UCX"]

    def get_engine_desc(self) -> Transport:
        return self

    def register_memory(self, *args: object) -> list[int] | Transport:
        return self

    def pack(self) -> bytes:
        return b"memory"

    def get_agent_metadata(self) -> bytes:
        return b"agent"

    def get_new_notifs(self) -> dict[str, list[bytes]]:
        return {}

    def __len__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def lay_transports_under() -> None:
    """Make ``nixl`` and ``mori`` importable; refused where a real one is installed."""
    import importlib.util

    for name in ("nixl", "mori"):
        assert importlib.util.find_spec(name) is None, f"{name} is installed: use it"
    modules: dict[str, dict[str, Any]] = {
        "nixl": {},
        "nixl._api": {"nixl_agent": Transport, "nixl_agent_config": Transport},
        "mori": {},
        "mori.cpp": {"TransferStatus": Transport},
        "mori.io": {
            **dict.fromkeys(("EngineDesc", "IOEngine", "IOEngineConfig", "MemoryDesc", "RdmaBackendConfig"), Transport),
            "BackendType": types.SimpleNamespace(RDMA=0),
            "MemoryLocationType": types.SimpleNamespace(GPU=0, CPU=1),
            "PollCqMode": types.SimpleNamespace(POLLING=types.SimpleNamespace(name="polling")),
        },
    }
    for name, names in modules.items():
        module = types.ModuleType(name)
        vars(module).update(names)
        sys.modules[name] = module


def manager_of(side: Side, backend: str) -> Any:
    from sglang.srt.disaggregation.utils import DisaggregationMode, KVClassType, TransferBackend, get_kv_class

    make = get_kv_class(TransferBackend(backend), KVClassType.MANAGER)
    return make(side.manager.kv_args, DisaggregationMode(side.role), side.manager.server_args, False)


def caps_of_prefill(side: Side, backend: str) -> list[str]:
    """What the bootstrap server says of a prefill rank of this backend."""
    import requests

    if "nixl" not in sys.modules:
        lay_transports_under()
    manager_of(side, backend)
    asked = {"prefill_dp_rank": 0, "prefill_cp_rank": 0, "target_tp_rank": 0, "target_pp_rank": 0}
    said = requests.get(f"http://{side.bootstrap_address}/route", params=asked, timeout=5).json()
    return said.get("caps") or []


def abort_two_rooms(side: Side, backend: str, address: str) -> None:
    import numpy as np
    from sglang.srt.disaggregation.utils import KVClassType, TransferBackend, get_kv_class

    if "nixl" not in sys.modules:
        lay_transports_under()
    manager = manager_of(side, backend)
    assert manager.try_ensure_parallel_info(address)
    receive = get_kv_class(TransferBackend(backend), KVClassType.RECEIVER)
    for room in (1, 2):
        receiver = receive(mgr=manager, bootstrap_addr=address, bootstrap_room=room)
        receiver.init(0)
        receiver.send_metadata(np.array([1, 2], dtype=np.int32), 0, None)
        receiver.abort()


@pytest.mark.control
@pytest.mark.parametrize("notify", ["auto", "1"])
def test_other_backends_take_no_part(children: Children, ports: Ports, notify: str) -> None:
    shape = PairShape(env={"SGLANG_DISAGG_ABORT_NOTIFY": notify})
    if notify == "auto":
        prefill = start_side(children, ports, "prefill", shape)
        assert [prefill.call(caps_of_prefill, backend) for backend in ("nixl", "mori")] == [[], []]
    decode = start_side(children, ports, "decode", shape)
    for backend in ("nixl", "mori"):
        with PrefillPeer() as peer, BootstrapTable(ports.take(), [peer], shape.page_size, CAPS) as table:
            decode.call(abort_two_rooms, backend, table.address)
            assert [frames[0] for frames in heard_until_room(peer, 2)] == [frames_guard(backend)] * 3, backend


def frames_guard(backend: str) -> bytes:
    return {"nixl": b"NixlMsgGuard", "mori": b"MoriMsgGuard"}[backend]


def heard_until_room(peer: PrefillPeer, room: int) -> list[Frames]:
    """All messages: the registration, and metadata up to those of this room."""
    heard: list[Frames] = []
    while (frames := peer.receive()) is not None:
        heard.append(frames)
        if frames[1:2] == (b"%d" % room,):
            break
    return heard
