"""Faults around the Mooncake engine of a running server, steered by the test.

`install` runs in each process that the server spawns, if ``TESTBED_ENGINE_CONTROL`` names a folder. It lets
``mooncake.engine.TransferEngine`` hand out the real engine inside a `WatchedEngine`, which fails or holds
transfers when it is told to, and listens for that on a Unix socket in the folder, named after the process's
title. SGLang's code stays as it is: it sees an engine whose transfer returned -1, or took long.

`EngineControl` is the test's end::

    pd.prefill.engine().fail_next("kv")
    ...
    assert [t.kind for t in pd.prefill.engine().transfers() if t.injected] == ["kv"]
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from testbed.transfers import Transfer, WatchedEngine

CONTROL_FOLDER = "TESTBED_ENGINE_CONTROL"
REGISTERED = ("kv", "aux")
"""What a KV manager registers with the engine, in this order; all further batches are state."""

ANSWER_LIMIT_S = 30.0


class EngineControl:
    """The test's handle on the engine of one scheduler; see `WatchedEngine` for what each call does."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def fail_next(self, kind: str, times: int = 1, after: int = 0) -> None:
        self._call("fail_next", kind, times, after)

    def fail_every(self, kind: str, nth: int) -> None:
        self._call("fail_every", kind, nth)

    def hold(self, kind: str, after: int = 0) -> None:
        self._call("hold", kind, after)

    def wait_until_held(self, limit_s: float = 30.0) -> bool:
        return bool(self._call("wait_until_held", limit_s, limit_s=limit_s + ANSWER_LIMIT_S))

    def release(self) -> None:
        self._call("release")

    def transfers(self) -> list[Transfer]:
        """Every transfer so far; ``injected`` tells the faults that were really injected."""
        done: list[Transfer] = self._call("transfers")
        return done

    def wait_for_transfers(self, count: int, limit_s: float = 30.0) -> bool:
        return bool(self._call("wait_for_transfers", count, limit_s, limit_s=limit_s + ANSWER_LIMIT_S))

    def _call(self, name: str, *args: object, limit_s: float = ANSWER_LIMIT_S) -> Any:
        with Client(str(self._socket), "AF_UNIX") as connection:
            connection.send((name, args))
            if not connection.poll(limit_s):
                raise TimeoutError(f"{self._socket.name}: no answer to {name} in {limit_s:.0f} s")
            kind, payload = connection.recv()
        if kind == "raised":
            raise RuntimeError(f"{self._socket.name}: {name}: {payload}")
        return payload


class ControlledEngine(WatchedEngine):
    """A `WatchedEngine` that learns from the registrations which address is what."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine, self._kind)
        self._registered: list[tuple[str, int, int]] = []
        self._batches = 0

    def batch_register_memory(self, addresses: Sequence[int], lengths: Sequence[int]) -> int:
        kind = REGISTERED[self._batches] if self._batches < len(REGISTERED) else "state"
        self._batches += 1
        self._registered += [(kind, *area) for area in zip(addresses, lengths, strict=True)]
        return int(self._engine.batch_register_memory(addresses, lengths))

    def _kind(self, address: int) -> str:
        for kind, start, length in self._registered:
            if start <= address < start + length:
                return kind
        return "other"


def install() -> None:
    """Put a `ControlledEngine` around every engine that this process makes, if a test asks for it."""
    folder = os.environ.get(CONTROL_FOLDER)
    if not folder:
        return
    import mooncake.engine

    real = mooncake.engine.TransferEngine

    def make() -> ControlledEngine:
        engine = ControlledEngine(real())
        _listen(engine, Path(folder) / socket_name())
        return engine

    mooncake.engine.TransferEngine = make


def socket_name() -> str:
    """``scheduler``, ``scheduler_TP1``, ...: the title of this process without SGLang's prefix."""
    import setproctitle

    return str(setproctitle.getproctitle()).removeprefix("sglang::")


def _listen(engine: ControlledEngine, path: Path) -> None:
    listener = Listener(str(path), "AF_UNIX")

    def accept() -> None:
        while True:
            threading.Thread(target=_answer, args=(engine, listener.accept()), daemon=True).start()

    threading.Thread(target=accept, name="testbed-engine-control", daemon=True).start()


def _answer(engine: ControlledEngine, connection: Connection) -> None:
    with connection:
        name, args = connection.recv()
        try:
            connection.send(("returned", getattr(engine, name)(*args)))
        except Exception as error:
            connection.send(("raised", f"{type(error).__name__}: {error}"))
