"""An abort may come at any time of a room's life, more than once, and for a room that nobody knows (AB-1, 3, 6).

A real prefill, and the test as its decode rank; then a real decode, and the test as its prefill rank.
"""

from __future__ import annotations

from collections.abc import Sequence

from testbed import Children, Ports
from testbed.control_peer import BootstrapTable, DecodePeer, PrefillPeer, control_port
from testbed.control_wire import FAILED, SUCCESS, Frames, drained, noted, status
from testbed.mooncake_pair import PairShape, Side, SideHandle, start_pair, start_side

SETTLE_S = 10.0
TOMBSTONE_TTL_S = 120.0

DIED = "prefill's bootstrap thread died of an ABORT"


def open_sender(side: Side, room: int) -> str:
    """Make the room's sender; the state that it starts in."""
    side.open_sender(room, pages=2, aux_slot=0)
    return side.poll(room)


def poll(side: Side, room: int) -> str:
    return side.poll(room)


def send(side: Side, room: int) -> None:
    side.send(room, [1, 2])


def clear(side: Side, room: int) -> None:
    """As the scheduler does when the room's request is over."""
    side.rooms[room].clear()


def is_published(side: Side, room: int) -> bool:
    return room in side.manager.transfer_infos


def answer(peer: DecodePeer) -> Frames | None:
    """The next message that is more than "this room has failed", which may be said at any time."""
    while (heard := peer.receive()) is not None and heard[1:] == status(0, FAILED)[1:]:
        continue
    return heard


def waits_for_input(prefill: SideHandle, room: int) -> bool:
    return prefill.wait(room, ("WaitingForInput", "Failed"), SETTLE_S) == "WaitingForInput"


def test_abort_before_there_is_a_sender(children: Children, ports: Ports) -> None:
    """Decode may be ahead of prefill's scheduler: the request must not start after its abort."""
    prefill = start_side(children, ports, "prefill")
    with DecodePeer(prefill) as peer:
        peer.register()
        peer.abort(room=1, generation=1)
        assert peer.was_read(), DIED
        assert answer(peer) == drained(1, 1), "nothing of the room is queued or under way"
        assert prefill.call(open_sender, 1) == "Failed"
        peer.publish(room=1, pages=[5, 6])
        assert peer.was_read()
        assert not prefill.call(is_published, 1), "metadata of an aborted room was kept"
        prefill.call(send, 1)

        # Metadata first, then the abort, then the sender
        peer.publish(room=2, pages=[5, 6])
        peer.abort(room=2, generation=2)
        assert answer(peer) == drained(2, 2)
        assert prefill.call(open_sender, 2) == "Failed"
        prefill.call(send, 2)

        # The tombstone is for one sender: room 1 is somebody else's now
        prefill.call(clear, 1)
        assert prefill.call(open_sender, 1) == "Bootstrapping"
        peer.publish(room=1, pages=[5, 6])
        assert waits_for_input(prefill, 1)

        # and not for ever
        peer.abort(room=3)
        assert answer(peer) == noted(3)
        moved = prefill.call(advance_clock, TOMBSTONE_TTL_S + 1)
        assert moved, "no clock was moved"
        assert prefill.call(open_sender, 3) == "Bootstrapping"
        assert prefill.transfers() == []


def advance_clock(side: Side, seconds: float) -> list[str]:
    """Put every clock of the protocol forward; the modules that have one."""
    import sys
    import time

    moved = []
    for name, module in list(sys.modules.items()):
        if name.startswith("sglang.srt.disaggregation.") and hasattr(module, "_now"):
            module._now = lambda: time.monotonic() + seconds  # type: ignore[attr-defined]
            moved.append(name)
    return moved


def test_abort_of_an_open_and_of_a_finished_room(children: Children, ports: Ports) -> None:
    prefill = start_side(children, ports, "prefill")
    with DecodePeer(prefill) as peer:
        peer.register()

        # between the sender and its metadata
        assert prefill.call(open_sender, 1) == "Bootstrapping"
        peer.abort(room=1, generation=1)
        assert peer.was_read(), DIED
        assert (answer(peer), prefill.call(poll, 1)) == (drained(1, 1), "Failed")
        peer.publish(room=1, pages=[5, 6])
        assert peer.was_read()
        assert (prefill.call(is_published, 1), prefill.call(poll, 1)) == (False, "Failed")

        # after its metadata, twice, the second time with another generation
        prefill.call(open_sender, 2)
        peer.publish(room=2, pages=[5, 6])
        assert waits_for_input(prefill, 2)
        for generation in (2, 3):
            peer.abort(room=2, generation=generation)
            assert (answer(peer), prefill.call(poll, 2)) == (drained(2, generation), "Failed")
        prefill.call(send, 2)

        # after its success, before and after the scheduler has cleared it
        prefill.call(open_sender, 3)
        peer.publish(room=3, pages=[5, 6])
        assert waits_for_input(prefill, 3)
        prefill.call(send, 3)
        assert answer(peer) == status(3, SUCCESS)
        peer.abort(room=3, generation=4)
        assert (answer(peer), prefill.call(poll, 3)) == (drained(3, 4), "Success")
        prefill.call(clear, 3)
        peer.abort(room=3, generation=5)
        assert answer(peer) == drained(3, 5)
        assert prefill.call(open_sender, 3) == "Bootstrapping", "a finished room's abort hit the next one of its number"
        assert [done.kind for done in prefill.transfers()] == ["kv", "aux"], "more than room 3 was sent"


ORDERS = [
    ("Failed", "Success"),
    ("Failed", "WaitingForInput"),
    ("Failed", "Bootstrapping"),
    ("Success", "Failed"),
    ("Success", "Bootstrapping"),
]
CLEARED = ["Success", "Transferring", "Failed"]


def last_states(side: Side, orders: Sequence[tuple[str, str]]) -> list[str]:
    """Where rooms end that are told these states one after the other."""
    return [_told(side, room, order) for room, order in enumerate(orders, start=100)]


def revived(side: Side, states: Sequence[str]) -> list[str]:
    """The states that bring a cleared room back."""
    found = []
    for room, state in enumerate(states, start=200):
        _told(side, room, ("WaitingForInput",))
        side.rooms[room].clear()
        _tell(side, room, state)
        if room in side.manager.request_status:
            found.append(state)
    return found


def _told(side: Side, room: int, states: Sequence[str]) -> str:
    if side.role == "prefill":
        side.open_sender(room, pages=2, aux_slot=0)
    else:
        side.construct_receiver(room)
    for state in states:
        _tell(side, room, state)
    return side.names[side.manager.request_status[room]]


def _tell(side: Side, room: int, state: str) -> None:
    values = {name: value for value, name in side.names.items()}
    side.manager.update_status(room, values[state])


def test_failed_and_success_are_final(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports)
    for side in (pair.prefill, pair.decode):
        ended = side.call(last_states, ORDERS)
        assert ended == [first for first, _ in ORDERS], f"{side.child.name}: {list(zip(ORDERS, ended, strict=True))}"
        assert side.call(revived, CLEARED) == [], f"{side.child.name}: cleared rooms came back"


def test_answers_of_another_generation_do_not_count(children: Children, ports: Ports) -> None:
    decode = start_side(children, ports, "decode")
    with PrefillPeer() as peer, BootstrapTable(ports.take(), [peer], PairShape().page_size) as table:
        port = decode.call(control_port)
        for late in (noted(1), drained(1, 1)):
            peer.send(port, late)
        decode.call(open_receiver, table.address, 7)
        peer.send(port, status(7, SUCCESS))
        assert decode.call(ends, 7) == "Success", "decode's thread died of an ABORT_ACK"

        first = decode.call(arm, 1)
        peer.send(port, noted(1))
        peer.send(port, drained(1, first + 1))
        peer.send(port, drained(2, first))
        assert not answered(decode, peer, port, 1, first)
        again = decode.call(arm, 1)
        assert again != first
        peer.send(port, drained(1, first))
        assert not answered(decode, peer, port, 1, again), "a late answer released the room's next holder"
        peer.send(port, drained(1, again))
        assert answered(decode, peer, port, 1, again)


def open_receiver(side: Side, address: str, room: int) -> None:
    side.bootstrap_address = address
    side.open_receiver(room, [1, 2], 0)


def ends(side: Side, room: int) -> str:
    """How the room ended; what it was in when decode's thread died, if that comes first."""
    from testbed.mooncake_side import wait_until

    def settled() -> bool:
        return side.poll(room) in ("Success", "Failed") or not side.thread_is_alive("decode_thread")

    wait_until(settled, bool, SETTLE_S)
    return side.poll(room)


def arm(side: Side, room: int) -> int:
    """Wait for one prefill rank's answer; the generation that it must have."""
    return int(side.manager.abort_notifier.acks.arm(room, 1))


def answered(decode: SideHandle, peer: PrefillPeer, port: int, room: int, generation: int) -> bool:
    """Whether the room has drained, when decode has read all that was sent."""
    mark = 1000 + generation * 2 + room
    while decode.call(_open_next, mark):
        mark += 100
    peer.send(port, status(mark, SUCCESS))
    assert decode.call(ends, mark) == "Success"
    return bool(decode.call(_is_drained, room, generation))


def _open_next(side: Side, room: int) -> bool:
    """Open this room unless it was opened before."""
    if room in side.rooms:
        return True
    side.open_receiver(room, [1, 2], 0)
    return False


def _is_drained(side: Side, room: int, generation: int) -> bool:
    return bool(side.manager.abort_notifier.acks.drained(room, generation))
