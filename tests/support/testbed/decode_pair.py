"""Prefill sides of `testbed.mooncake_pair` and decode sides with a scheduler, each rank a process.

A guard submits requests to decode as a client would, drives prefill's rooms itself, and runs decode's
scheduler step by step::

    def test_a_request_gets_its_bytes(children, ports):
        bed = start_decode_pair(children, ports)
        bed.decode.submit("a", room=1, pages=2)
        bed.prefill.open_sender(room=1, pages=2)
        assert bed.decode.step_until("a", ["Transferring"]) == "Transferring"
        bed.prefill.send(room=1, source=[1, 2])
        assert bed.decode.step_until("a", ["Ready"]) == "Ready"

Deadlines are reached by `DecodeHandle.move_clock`, not by waiting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.child import Link
from testbed.deadline_clock import MovableClock
from testbed.decode_scheduler import ENDED, Books, DecodeShape, DecodeSide
from testbed.mooncake_pair import CALL_LIMIT_S, FINAL, START_LIMIT_S, Side, SideHandle, serve
from testbed.ports import Ports
from testbed.processes import ChildFailed, Children

__all__ = ["Books", "DecodeHandle", "DecodePair", "DecodeShape", "DecodeSide", "PrefillHandle", "start_decode_pair"]

FIRST_TOKEN = 11


class PrefillHandle(SideHandle):
    """The test's handle on one prefill rank."""

    def open_sender(self, room: int, pages: int, slot: int = 0) -> None:
        """The request's prefill half has come in; its metadata will be in ``slot``."""
        self.call(_open_sender, room, pages, slot)

    def is_told_the_pages(self, room: int) -> bool:
        """Whether decode's metadata came, that is, whether the room waits for its chunks."""
        return self.wait(room, ("WaitingForInput", *FINAL)) == "WaitingForInput"

    def send(self, room: int, source: Sequence[int]) -> None:
        """Hand a chunk over."""
        self.call(_send, room, source)

    def wait_for_transfers(self, count: int, limit_s: float = 30.0) -> bool:
        """Whether ``count`` calls of the engine have returned."""
        return bool(self.call(_wait_for_transfers, count, limit_s, limit_s=limit_s + CALL_LIMIT_S))

    def received(self, kind: bytes, count: int = 0, limit_s: float = 0.0) -> list[tuple[bytes, ...]]:
        """The control messages of one kind that came in; with ``count``, wait for so many."""
        frames: list[tuple[bytes, ...]] = self.call(_received, kind, count, limit_s, limit_s=limit_s + CALL_LIMIT_S)
        return frames


class DecodeHandle(PrefillHandle):
    """The test's handle on one decode rank, or on all of them at once: `DecodePair.decode`."""

    def __init__(self, ranks: Sequence[SideHandle]) -> None:
        super().__init__(ranks[0].child)
        self._ranks = ranks

    def on_all(self, function: Callable[..., Any], *args: object, limit_s: float = CALL_LIMIT_S) -> list[Any]:
        """Run a function on all ranks at once, for there may be collectives in it; what each returned."""
        for rank in self._ranks:
            rank.begin(function, *args)
        return [rank.finish(limit_s) for rank in self._ranks]

    def submit(self, rid: str, room: int, pages: int) -> None:
        """A request with a prompt of that many pages comes in."""
        self.on_all(_submit, rid, room, pages)

    def run_and_retract(self, rid: str, room: int, pages: int, byte: int) -> None:
        """A request runs, with KV that is all one byte, and is retracted: its KV goes to host memory."""
        self.on_all(_run_and_retract, rid, room, pages, byte)

    def queue_retracted(self, rid: str) -> None:
        """The retracted request waits for pages to bring its KV back to."""
        self.on_all(_queue_retracted, rid)

    def abort_request(self, rid: str) -> None:
        self.on_all(_abort_request, rid)

    def step(self, times: int = 1) -> None:
        """Run the scheduler's work on its queues, as the event loop does before each batch."""
        self.on_all(_step, times)

    def step_until(self, rid: str, states: Sequence[str] = ENDED, limit_s: float = 30.0) -> str:
        """Step until the request is in one of ``states``; the state it was in last."""
        return str(self.on_all(_step_until, rid, states, limit_s, limit_s=limit_s + CALL_LIMIT_S)[0])

    def step_until_idle(self, limit_s: float = 30.0) -> bool:
        return all(self.on_all(_step_until_idle, limit_s, limit_s=limit_s + CALL_LIMIT_S))

    def state(self, rid: str) -> str:
        return str(self.call(_state, rid))

    def answer(self, rid: str) -> str:
        """What the client was told when its request was aborted."""
        return str(self.call(_answer, rid))

    def pages_of(self, rid: str) -> list[int]:
        """The pages that the allocator gave to the request."""
        pages: list[int] = self.call(_pages_of, rid)
        return pages

    def books(self) -> Books:
        """What is free, the same on all ranks."""
        here, *others = self.on_all(_books)
        assert all(books == here for books in others), f"ranks differ: {[here, *others]}"
        return Books(**vars(here))

    def move_clock(self, by_s: float) -> None:
        self.on_all(_move_clock, by_s)


@dataclass(frozen=True)
class DecodePair:
    prefills: list[PrefillHandle]
    decode: DecodeHandle
    decodes: list[PrefillHandle]

    @property
    def prefill(self) -> PrefillHandle:
        return self.prefills[0]

    def start_transfer(self, rid: str, room: int, pages: int, slot: int = 0) -> list[int]:
        """A request comes in on both sides and gets its pages; prefill knows them, and nothing is sent yet."""
        self.decode.submit(rid, room, pages)
        for rank in self.prefills:
            rank.open_sender(room, pages, slot)
        state = self.decode.step_until(rid, ["Transferring", *ENDED])
        if state != "Transferring":
            raise ChildFailed(f"{rid} is {state}, not Transferring")
        for rank in self.prefills:
            if not rank.is_told_the_pages(room):
                raise ChildFailed(f"prefill was not told where the pages of {rid} are")
        return self.decode.pages_of(rid)


def start_decode_pair(
    children: Children,
    ports: Ports,
    shape: DecodeShape | None = None,
    *,
    prefill_env: dict[str, str] | None = None,
    limit_s: float = START_LIMIT_S,
) -> DecodePair:
    """Start all ranks of both sides, named ``prefill0``, ``decode0``, ..., and wait until they are up."""
    shape = shape or DecodeShape()
    port = ports.take()
    common = {"SGLANG_HOST_IP": "127.0.0.1", "MC_FORCE_TCP": "1", "GLOO_SOCKET_IFNAME": "lo", "TRITON_INTERPRET": "1"}
    started = []
    for role, ranks, own in (("prefill", shape.prefill_ranks, prefill_env or {}), ("decode", shape.decode_ranks, {})):
        meeting = children.folder / f"{role}.rendezvous"
        for rank in range(ranks):
            name, environment = f"{role}{rank}", {**common, **shape.env, **own}
            started.append(children.start(_serve, role, shape, port, meeting, rank, name=name, env=environment))
    for child in started:
        said = child.receive(limit_s)
        if said != "ready":
            raise ChildFailed(f"{child.name} said {said!r} instead of ready")
    decodes = [PrefillHandle(child) for child in started[shape.prefill_ranks :]]
    prefills = [PrefillHandle(child) for child in started[: shape.prefill_ranks]]
    return DecodePair(prefills, DecodeHandle(decodes), decodes)


def _serve(link: Link, role: str, shape: DecodeShape, port: int, rendezvous: Path, rank: int) -> None:
    if role == "prefill":
        own = dataclasses.replace(shape, pages=shape.prefill_pages)
        serve(link, Side(role, own, port, rendezvous, rank, shape.prefill_ranks))
    clock = MovableClock()
    clock.install()
    side = DecodeSide(role, shape, port, rendezvous, rank, shape.decode_ranks)
    side.clock = clock
    serve(link, side)


def _open_sender(side: Side, room: int, pages: int, slot: int) -> None:
    side.write_metadata(slot, room, FIRST_TOKEN)
    side.open_sender(room, pages, slot)


def _send(side: Side, room: int, pages: Sequence[int]) -> None:
    side.send(room, pages)


def _wait_for_transfers(side: Side, count: int, limit_s: float) -> bool:
    return side.watched.wait_for_transfers(count, limit_s)


def _received(side: Side, kind: bytes, count: int, limit_s: float) -> list[tuple[bytes, ...]]:
    return side.messages.wait_for(kind, count, limit_s)


def _submit(side: DecodeSide, rid: str, room: int, pages: int) -> None:
    side.submit(rid, room, pages)


def _run_and_retract(side: DecodeSide, rid: str, room: int, pages: int, byte: int) -> None:
    side.run_and_retract(rid, room, pages, byte)


def _queue_retracted(side: DecodeSide, rid: str) -> None:
    side.queue_retracted(rid)


def _abort_request(side: DecodeSide, rid: str) -> None:
    side.abort_request(rid)


def _step(side: DecodeSide, times: int) -> None:
    side.step(times)


def _step_until(side: DecodeSide, rid: str, states: Sequence[str], limit_s: float) -> str:
    return side.step_until(rid, states, limit_s)


def _step_until_idle(side: DecodeSide, limit_s: float) -> bool:
    return side.step_until_idle(limit_s)


def _state(side: DecodeSide, rid: str) -> str:
    return side.state(rid)


def _answer(side: DecodeSide, rid: str) -> str:
    return side.answers[rid]


def _pages_of(side: DecodeSide, rid: str) -> list[int]:
    return side.pages_of(rid)


def _books(side: DecodeSide) -> Books:
    return side.books()


def _move_clock(side: DecodeSide, by_s: float) -> None:
    side.clock.move(by_s)
