"""Prefill and decode as two processes: real managers, ZMQ, bootstrap server and Mooncake over TCP, no model.

A guard starts a pair and runs functions on its sides::

    def test_bytes_arrive(children, ports):
        pair = start_pair(children, ports)
        pair.prefill.fill("kv", [1, 2], 7)
        pair.transfer(room=1, source=[1, 2], target=[5, 6])
        assert pair.wait(room=1) == ("Success", "Success")
        assert pair.decode.holds("kv", 5) == {7}

What is not there as a method is done by `SideHandle.call`, with a function of the guard's that gets the
`Side`: the manager is ``side.manager``, the sender or receiver of a room ``side.rooms[room]``. The only
faults are those of `WatchedEngine` (``fail_next``, ``hold``) and signals to a process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.child import Link, Raised, Task, what_was_raised
from testbed.mooncake_side import PairShape, Side
from testbed.ports import Ports
from testbed.processes import Child, ChildFailed, Children
from testbed.transfers import Transfer

__all__ = ["MooncakePair", "PairShape", "Side", "SideHandle", "start_pair", "start_side"]

START_LIMIT_S = 90.0
"""SGLang's imports take 8 s on an idle pair of cores, and several times that on busy ones."""

CALL_LIMIT_S = 60.0
FINAL = ("Success", "Failed")


class SideHandle:
    """The test's handle on one side."""

    def __init__(self, child: Child) -> None:
        self.child = child

    def call(self, function: Callable[..., Any], *args: object, limit_s: float = CALL_LIMIT_S) -> Any:
        """Run ``function(side, *args)`` over there and return what it returns.

        The function is one of a module's top level. An AssertionError of its own is raised here again;
        anything else that it raises becomes `ChildFailed`.
        """
        self.begin(function, *args)
        return self.finish(limit_s)

    def begin(self, function: Callable[..., Any], *args: object) -> None:
        """The first half of `call`, for functions that several sides must run at once."""
        self.child.send(Task.of(function, args))

    def finish(self, limit_s: float = CALL_LIMIT_S) -> Any:
        """The second half of `call`."""
        kind, payload = self.child.receive(limit_s)
        if kind == "raised":
            raised: Raised = payload
            failure = AssertionError if raised.by_the_test else ChildFailed
            raise failure(f"{self.child.name}: {raised.type_name}: {raised.message}\n{raised.traceback}")
        return payload

    def fill(self, kind: str, items: Sequence[int], byte: int) -> None:
        """Set every byte of these pages (``kv``), slots (``aux``) or items (``state``)."""
        self.call(_fill, kind, items, byte)

    def holds(self, kind: str, item: int) -> set[int]:
        """The different bytes that one page, slot or item holds."""
        held: set[int] = self.call(_holds, kind, item)
        return held

    def wait(self, room: int, states: Sequence[str] = FINAL, limit_s: float = 30.0) -> str:
        """Poll the room until it is in one of ``states``; the state that it was in last."""
        return str(self.call(_wait, room, states, limit_s, limit_s=limit_s + CALL_LIMIT_S))

    def failure(self, room: int) -> str:
        """Why the room failed, as this side's manager recorded it."""
        return str(self.call(_failure, room))

    def thread_is_alive(self, function_name: str) -> bool:
        """Whether a thread lives that runs this function: ``bootstrap_thread``, ``transfer_worker``, ..."""
        return bool(self.call(_thread_is_alive, function_name))

    def abort(self, room: int) -> None:
        """Abort the room's sender or receiver, as the scheduler does for an aborted request."""
        self.call(_abort, room)

    def fail_next(self, kind: str, times: int = 1) -> None:
        """Let the next transfers of ``kv``, ``state`` or ``aux`` from here return -1 without the engine."""
        self.call(_fail_next, kind, times)

    def hold(self, kind: str, after: int = 0) -> None:
        """Let transfers of this kind wait before the engine is called, until `release`; all but the next ``after``."""
        self.call(_hold, kind, after)

    def wait_until_held(self, limit_s: float = 30.0) -> bool:
        return bool(self.call(_wait_until_held, limit_s, limit_s=limit_s + CALL_LIMIT_S))

    def release(self) -> None:
        self.call(_release)

    def transfers(self) -> list[Transfer]:
        """Every transfer of this side so far; ``injected`` tells the faults that were really injected."""
        done: list[Transfer] = self.call(_transfers)
        return done


@dataclass(frozen=True)
class MooncakePair:
    prefill: SideHandle
    decode: SideHandle

    def open(
        self,
        room: int,
        target: Sequence[int],
        *,
        pages: int | None = None,
        aux: tuple[int, int] = (0, 0),
        state_target: Sequence[int] | None = None,
    ) -> None:
        """Open a room on both sides and wait until prefill knows where its pages go.

        ``target`` are decode's pages, ``pages`` how many prefill will send (as many as those), ``aux`` the
        metadata slots of prefill and decode.
        """
        self.prefill.call(_open_sender, room, len(target) if pages is None else pages, aux[0])
        self.decode.call(_open_receiver, room, target, aux[1], state_target)
        self.prefill.wait(room, ("WaitingForInput", *FINAL))

    def send(self, room: int, source: Sequence[int], state: Sequence[int] | None = None) -> None:
        """Hand a chunk of prefill's pages over; the last one of a room carries the state, if there is any."""
        self.prefill.call(_send, room, source, state)

    def transfer(
        self,
        room: int,
        source: Sequence[int],
        target: Sequence[int],
        *,
        aux: tuple[int, int] = (0, 0),
        state: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> None:
        """`open` and `send` in one chunk; ``state`` are the items of prefill and of decode."""
        self.open(room, target, aux=aux, state_target=None if state is None else state[1])
        self.send(room, source, None if state is None else state[0])

    def wait(self, room: int, limit_s: float = 30.0) -> tuple[str, str]:
        """The final states of the room in prefill and decode, or the last ones if the time is up."""
        return self.prefill.wait(room, FINAL, limit_s), self.decode.wait(room, FINAL, limit_s)


def start_pair(
    children: Children, ports: Ports, shape: PairShape | None = None, *, limit_s: float = START_LIMIT_S
) -> MooncakePair:
    """Start both sides, named ``prefill`` and ``decode``, and wait until both managers are up."""
    port = ports.take()
    sides = [_start(children, role, shape or PairShape(), port) for role in ("prefill", "decode")]
    return MooncakePair(*(_ready(side, limit_s) for side in sides))


def start_side(
    children: Children, ports: Ports, role: str, shape: PairShape | None = None, *, limit_s: float = START_LIMIT_S
) -> SideHandle:
    """Start one side alone; the other one is the test itself, with `testbed.control_peer`."""
    return _ready(_start(children, role, shape or PairShape(), ports.take()), limit_s)


def _start(children: Children, role: str, shape: PairShape, port: int) -> Child:
    environment = {"SGLANG_HOST_IP": "127.0.0.1", "MC_FORCE_TCP": "1", "GLOO_SOCKET_IFNAME": "lo", **shape.env}
    rendezvous = children.folder / f"{role}.rendezvous"
    return children.start(_serve, role, shape, port, rendezvous, name=role, env=environment)


def _ready(side: Child, limit_s: float) -> SideHandle:
    said = side.receive(limit_s)
    if said != "ready":
        raise ChildFailed(f"{side.name} said {said!r} instead of ready")
    return SideHandle(side)


def _serve(link: Link, role: str, shape: PairShape, port: int, rendezvous: Path) -> None:
    serve(link, Side(role, shape, port, rendezvous))


def serve(link: Link, side: Side) -> None:
    """The main thread of a side: one call of the test after the other."""
    link.send("ready")
    while True:
        task: Task = link.receive(limit_s=None)
        try:
            function, args = task.load()
            link.send(("returned", function(side, *args)))
        except Exception as error:
            link.send(("raised", what_was_raised(error)))


def _fill(side: Side, kind: str, items: Sequence[int], byte: int) -> None:
    side.fill(kind, items, byte)


def _holds(side: Side, kind: str, item: int) -> set[int]:
    return side.holds(kind, item)


def _wait(side: Side, room: int, states: Sequence[str], limit_s: float) -> str:
    return side.wait_for(room, states, limit_s)


def _failure(side: Side, room: int) -> str:
    return side.failure(room)


def _thread_is_alive(side: Side, function_name: str) -> bool:
    return side.thread_is_alive(function_name)


def _abort(side: Side, room: int) -> None:
    side.rooms[room].abort()


def _fail_next(side: Side, kind: str, times: int) -> None:
    side.watched.fail_next(kind, times)


def _hold(side: Side, kind: str, after: int) -> None:
    side.watched.hold(kind, after)


def _wait_until_held(side: Side, limit_s: float) -> bool:
    return side.watched.wait_until_held(limit_s)


def _release(side: Side) -> None:
    side.watched.release()


def _transfers(side: Side) -> list[Transfer]:
    return side.watched.transfers()


def _open_sender(side: Side, room: int, pages: int, aux_slot: int) -> None:
    side.open_sender(room, pages, aux_slot)


def _open_receiver(
    side: Side, room: int, pages: Sequence[int], aux_slot: int, state_items: Sequence[int] | None
) -> None:
    side.open_receiver(room, pages, aux_slot, state_items)


def _send(side: Side, room: int, pages: Sequence[int], state_items: Sequence[int] | None) -> None:
    side.send(room, pages, state_items)
