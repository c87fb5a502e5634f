"""What guards of rooms do on a side, for `SideHandle.call`: one small step of a scheduler's each.

``prefill.call(room_calls.open_sender, 1)`` runs over there, with the side's real manager.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from testbed.mooncake_side import Side, wait_until

STEP_LIMIT_S = 10.0
READ_LIMIT_S = 120.0
"""A control thread may have a hundred thousand messages to read first."""

LONG_AGO_S = 100_000.0
"""Longer than any time-out of a request."""


def open_sender(side: Side, room: int, pages: int = 2) -> str:
    """Make the room's sender; the state that it starts in."""
    side.open_sender(room, pages, aux_slot=0)
    return side.poll(room)


def open_and_send(side: Side, room: int, chunks: Sequence[Sequence[int]], pages: int) -> None:
    """Make the sender, wait for its metadata and hand these chunks over."""
    side.open_sender(room, pages, aux_slot=0)
    side.wait_for(room, ("WaitingForInput", "Success", "Failed"), STEP_LIMIT_S)
    for chunk in chunks:
        side.send(room, chunk)


def send(side: Side, room: int, pages: Sequence[int]) -> None:
    side.send(room, pages)


def poll(side: Side, room: int) -> str:
    return side.poll(room)


def open_receiver(side: Side, address: str, room: int) -> None:
    """Make the room's receiver, for pages of the prefill instance that is known at this bootstrap server."""
    side.bootstrap_address = address
    side.open_receiver(room, [1, 2], 0)


def construct_receiver(side: Side, room: int) -> None:
    side.construct_receiver(room)


def clear(side: Side, room: int) -> None:
    """As the scheduler does when the room's request is over."""
    side.rooms[room].clear()


def reason(side: Side, room: int) -> str:
    """As the scheduler does with a failed room: it asks why, and with that the room is forgotten."""
    try:
        side.rooms[room].failure_exception()
    except Exception as error:
        return str(error)
    return ""


def age(side: Side, room: int) -> None:
    """Let the sender or receiver be older than its time-out; its clock is the time at which it began to wait."""
    side.rooms[room].init_time -= LONG_AGO_S


def told(side: Side, room: int, states: Sequence[str]) -> str:
    """Make the room, tell the manager these states one after the other, and say in which it is."""
    if side.role == "prefill":
        side.open_sender(room, pages=2, aux_slot=0)
    else:
        side.construct_receiver(room)
    for state in states:
        tell(side, room, state)
    return side.names[side.manager.request_status[room]]


def tell(side: Side, room: int, state: str) -> None:
    values = {name: value for value, name in side.names.items()}
    side.manager.update_status(room, values[state])


def ends_in_decode(side: Side, room: int) -> str:
    """How the room ended; what it was in when decode's thread died, if that comes first."""

    def settled() -> bool:
        return side.poll(room) in ("Success", "Failed") or not side.thread_is_alive("decode_thread")

    wait_until(settled, bool, READ_LIMIT_S)
    return side.poll(room)


def advance_clock(side: Side, seconds: float) -> list[str]:
    """Put the protocol's clocks forward, and say which modules have one: SGLang's ``_now`` of a module."""
    moved = []
    for name, module in list(sys.modules.items()):
        if name.startswith("sglang.srt.disaggregation.") and hasattr(module, "_now"):
            module._now = lambda: time.monotonic() + seconds
            moved.append(name)
    return moved
