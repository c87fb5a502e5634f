"""An abort may come at any time of a room's life, more than once, and for a room that nobody knows (AB-1, 3, 6).

A real prefill, and the test as its decode rank; then a real decode, and the test as its prefill rank.
"""

from __future__ import annotations

from collections.abc import Sequence

from testbed import Children, Ports, room_calls
from testbed.control_peer import BootstrapTable, DecodePeer, PrefillPeer, control_port
from testbed.control_wire import FAILED, SUCCESS, Frames, drained, noted, status
from testbed.mooncake_pair import PairShape, Side, SideHandle, start_pair, start_side

SETTLE_S = 10.0
TOMBSTONE_TTL_S = 120.0

DIED = "prefill's bootstrap thread died of an ABORT"


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
        assert prefill.call(room_calls.open_sender, 1) == "Failed"
        peer.publish(room=1, pages=[5, 6])
        assert peer.was_read()
        assert not prefill.call(is_published, 1), "metadata of an aborted room was kept"
        prefill.call(room_calls.send, 1, [1, 2])

        # The abort, then the metadata, then the sender
        peer.abort(room=4, generation=4)
        peer.publish(room=4, pages=[5, 6])
        assert peer.was_read()
        assert answer(peer) == drained(4, 4)
        assert not prefill.call(is_published, 4), "metadata of an aborted room was kept"

        # Metadata first, then the abort, then the sender
        peer.publish(room=2, pages=[5, 6])
        peer.abort(room=2, generation=2)
        assert answer(peer) == drained(2, 2)
        assert prefill.call(room_calls.open_sender, 2) == "Failed"
        prefill.call(room_calls.send, 2, [1, 2])

        # The tombstone is for one sender: room 1 is somebody else's now
        prefill.call(room_calls.clear, 1)
        assert prefill.call(room_calls.open_sender, 1) == "Bootstrapping"
        peer.publish(room=1, pages=[5, 6])
        assert waits_for_input(prefill, 1)

        # and not for ever
        peer.abort(room=3)
        assert answer(peer) == noted(3)
        moved = prefill.call(room_calls.advance_clock, TOMBSTONE_TTL_S + 1)
        assert moved, "no clock was moved"
        assert prefill.call(room_calls.open_sender, 3) == "Bootstrapping"
        assert prefill.transfers() == []


def test_abort_of_an_open_and_of_a_finished_room(children: Children, ports: Ports) -> None:
    prefill = start_side(children, ports, "prefill")
    with DecodePeer(prefill) as peer:
        peer.register()

        # between the sender and its metadata
        assert prefill.call(room_calls.open_sender, 1) == "Bootstrapping"
        peer.abort(room=1, generation=1)
        assert peer.was_read(), DIED
        assert (answer(peer), prefill.call(room_calls.poll, 1)) == (drained(1, 1), "Failed")
        peer.publish(room=1, pages=[5, 6])
        assert peer.was_read()
        assert (prefill.call(is_published, 1), prefill.call(room_calls.poll, 1)) == (False, "Failed")

        # after its metadata, twice, the second time with another generation
        prefill.call(room_calls.open_sender, 2)
        peer.publish(room=2, pages=[5, 6])
        assert waits_for_input(prefill, 2)
        for generation in (2, 3):
            peer.abort(room=2, generation=generation)
            assert (answer(peer), prefill.call(room_calls.poll, 2)) == (drained(2, generation), "Failed")
        prefill.call(room_calls.send, 2, [1, 2])

        # after its success, before and after the scheduler has cleared it
        prefill.call(room_calls.open_sender, 3)
        peer.publish(room=3, pages=[5, 6])
        assert waits_for_input(prefill, 3)
        prefill.call(room_calls.send, 3, [1, 2])
        assert answer(peer) == status(3, SUCCESS)
        peer.abort(room=3, generation=4)
        assert (answer(peer), prefill.call(room_calls.poll, 3)) == (drained(3, 4), "Success")
        prefill.call(room_calls.clear, 3)
        peer.abort(room=3, generation=5)
        assert answer(peer) == drained(3, 5)
        assert prefill.call(room_calls.open_sender, 3) == "Bootstrapping", (
            "a finished room's abort hit the next one of its number"
        )
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
    return [room_calls.told(side, room, order) for room, order in enumerate(orders, start=100)]


def revived(side: Side, states: Sequence[str]) -> list[str]:
    """The states that bring a cleared room back."""
    found = []
    for room, state in enumerate(states, start=200):
        room_calls.told(side, room, ("WaitingForInput",))
        room_calls.clear(side, room)
        room_calls.tell(side, room, state)
        if room in side.manager.request_status:
            found.append(state)
    return found


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
        decode.call(room_calls.open_receiver, table.address, 7)
        peer.send(port, status(7, SUCCESS))
        assert decode.call(room_calls.ends_in_decode, 7) == "Success", "decode's thread died of an ABORT_ACK"

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


def arm(side: Side, room: int) -> int:
    """Wait for one prefill rank's answer; the generation that it must have."""
    return int(side.manager.abort_notifier.acks.arm(room, 1))


def answered(decode: SideHandle, peer: PrefillPeer, port: int, room: int, generation: int) -> bool:
    """Whether the room has drained, when decode has read all that was sent."""
    mark = 1000 + generation * 2 + room
    while decode.call(_open_next, mark):
        mark += 100
    peer.send(port, status(mark, SUCCESS))
    assert decode.call(room_calls.ends_in_decode, mark) == "Success"
    return bool(decode.call(_is_drained, room, generation))


def _open_next(side: Side, room: int) -> bool:
    """Open this room unless it was opened before."""
    if room in side.rooms:
        return True
    side.open_receiver(room, [1, 2], 0)
    return False


def _is_drained(side: Side, room: int, generation: int) -> bool:
    return bool(side.manager.abort_notifier.acks.drained(room, generation))
