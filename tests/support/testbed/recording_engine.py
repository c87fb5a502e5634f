"""A real Mooncake engine that also notes how it was started."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest


class EngineStart(NamedTuple):
    """One ``TransferEngine.initialize`` call, and what Mooncake could see during it."""

    protocol: str
    devices: str
    force_tcp: str | None  # MC_FORCE_TCP, which Mooncake reads while it starts

    def __repr__(self) -> str:
        return f"{self.protocol}:{self.devices}:{self.force_tcp}"  # short: pytest cuts what it compares


def record_engine_starts(monkeypatch: pytest.MonkeyPatch) -> list[EngineStart]:
    """Let every engine made from now on append its start to the returned list.

    The engine stays the real one: the call is noted and passed on unchanged.
    """
    import mooncake.engine

    starts: list[EngineStart] = []

    class NotingEngine(mooncake.engine.TransferEngine):
        def initialize(self, hostname: str, metadata_server: str, protocol: str, devices: str) -> int:
            starts.append(EngineStart(protocol, devices, os.environ.get("MC_FORCE_TCP")))
            return super().initialize(hostname, metadata_server, protocol, devices)

    monkeypatch.setattr(mooncake.engine, "TransferEngine", NotingEngine)
    return starts
