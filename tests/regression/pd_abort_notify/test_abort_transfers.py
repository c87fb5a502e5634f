"""After an abort nothing more of the room is written, and "drained" is said when that is so (AB-4, AB-5).

Real managers, senders, receivers, ZMQ and Mooncake over TCP. Injected: when the engine's call returns, and
with what. The answers on the wire are read by the test as a decode rank of its own.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from testbed import Children, Ports, room_calls
from testbed.control_peer import DecodePeer
from testbed.control_wire import FAILED, LOOPBACK, SUCCESS, Frames, abort, drained, noted, status
from testbed.mooncake_pair import MooncakePair, PairShape, Side, start_pair, start_side

TOLD_S = 3.0
"""Longer than an ABORT takes; where none is sent the wait ends here."""

KNOCK_S = 1.0
SOON_S = 1.0
TWO_AT_A_TIME = {"SGLANG_DISAGGREGATION_THREAD_POOL_SIZE": "8", "SGLANG_DISAGGREGATION_QUEUE_SIZE": "4"}
ALL_ATTEMPTS = 1000
ALIEN = 77
DIED = "prefill's bootstrap thread died of an ABORT"


class Moment(NamedTuple):
    """Where a room of two chunks, or one, is when decode aborts it."""

    name: str
    chunks: int
    held: str
    """What is in the engine then; empty for nothing."""
    sent: list[str]
    """What may reach the engine, in all."""


MOMENTS = [
    Moment("between two chunks", 2, "", ["kv"]),
    Moment("the first chunk in the engine, the last one queued", 2, "kv", ["kv"]),
    Moment("KV of the last chunk in the engine", 1, "kv", ["kv"]),
    Moment("state in the engine", 1, "state", ["kv", "state"]),
    Moment("metadata in the engine", 1, "aux", ["kv", "state", "aux"]),
]


def test_nothing_follows_an_abort(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports, PairShape(state="swa"))
    pair.transfer(room=100, source=[1, 2], target=[9, 10])
    assert pair.wait(100) == ("Success", "Success")
    seen = {moment.name: aborted(pair, room, moment) for room, moment in enumerate(MOMENTS, start=1)}
    assert seen == {moment.name: (moment.sent, "Failed", "Failed") for moment in MOMENTS}


def aborted(pair: MooncakePair, room: int, moment: Moment) -> tuple[list[str], str, str]:
    """What was sent of a room that decode aborts at this moment, and how both sides see it in the end."""
    before = len(pair.prefill.transfers())
    pair.open(room, target=[3, 4, 5, 6], aux=(0, 1), state_target=[2])
    if moment.held:
        pair.prefill.hold(moment.held)
    first, last = ([1, 2, 3, 4], []) if moment.chunks == 1 else ([1, 2], [3, 4])
    pair.send(room, first, state=None if last else [1])
    if moment.held:
        assert pair.prefill.wait_until_held(), f"{moment.name}: nothing came to be held"
    else:
        pair.prefill.call(wait_for_transfers, before + 1)
    if last and moment.held:
        pair.send(room, last, state=[1])
    pair.decode.abort(room)
    pair.prefill.wait(room, ("Failed",), TOLD_S)
    if last and not moment.held:
        pair.send(room, last, state=[1])
    pair.prefill.release()
    # The same queue's next room: when it is through, this one has been as well.
    pair.transfer(room + 1000, source=[1], target=[8])
    assert pair.wait(room + 1000) == ("Success", "Success")
    sent = [done.kind for done in pair.prefill.transfers()[before:]]
    assert sent[-2:] == ["kv", "aux"]
    return sent[:-2], pair.prefill.wait(room), pair.decode.wait(room)


def wait_for_transfers(side: Side, count: int) -> bool:
    return side.watched.wait_for_transfers(count)


def begin(peer: DecodePeer, room: int, chunks: int = 1) -> None:
    """Open a room for the test's own decode rank and send so many of its two chunks."""
    peer.publish(room, pages=[5, 6])
    peer.prefill.call(room_calls.open_and_send, room, [[1], [2]][:chunks], 2)


def heard_until(peer: DecodePeer, last: Frames) -> list[Frames]:
    """All that came up to ``last``, which must come."""
    heard = peer.receive_until(last)
    assert heard[-1:] == [last], f"{last} did not come after {heard}"
    return heard[:-1]


def test_drained_is_said_when_nothing_is_under_way(children: Children, ports: Ports) -> None:
    prefill = start_side(children, ports, "prefill")
    with DecodePeer(prefill) as peer, DecodePeer(prefill) as second:
        peer.register()
        second.register(session=f"{LOOPBACK}:1")

        prefill.hold("kv")
        begin(peer, room=1, chunks=2)
        assert prefill.wait_until_held()
        peer.abort(room=1)
        peer.abort(room=1, generation=5)
        second.abort(room=1, generation=6)
        peer.abort(room=ALIEN)
        assert peer.was_read(), DIED
        assert second.was_read(), DIED
        # An ABORT without a generation is answered at once, and what comes later than its answer was not sent before.
        assert heard_until(peer, noted(ALIEN)) == [noted(1)]
        assert second.receive(0) is None
        prefill.release()
        assert set(heard_until(peer, drained(1, 5))) <= {status(1, FAILED)}
        assert second.receive() == drained(1, 6), "each rank is answered with its own generation"

        # Nothing of the room was in the engine: it has drained when its chunk has left the queue
        prefill.hold("kv")
        begin(peer, room=2, chunks=1)
        assert prefill.wait_until_held()
        begin(peer, room=3, chunks=1)
        peer.abort(room=3, generation=7)
        assert peer.was_read()
        prefill.release()
        assert set(heard_until(peer, drained(3, 7))) <= {status(3, FAILED)}
        prefill.call(room_calls.send, 2, [2])
        assert heard_until(peer, status(2, SUCCESS)) == []
        assert [done.kind for done in prefill.transfers()] == ["kv", "kv", "kv", "aux"]

        # All of the room was sent when its abort came: it is not said to have succeeded for that
        prefill.hold("aux")
        begin(peer, room=4, chunks=2)
        assert prefill.wait_until_held()
        peer.abort(room=4, generation=8)
        assert peer.was_read()
        prefill.release()
        heard = heard_until(peer, drained(4, 8))
        begin(peer, room=5, chunks=2)
        heard += heard_until(peer, status(5, SUCCESS))
        assert set(heard) <= {status(4, FAILED)}


def test_layers_that_are_sent_one_by_one(children: Children, ports: Ports) -> None:
    """A decode rank of another tensor size gets each layer in a call of its own, two at a time here."""
    once = {**TWO_AT_A_TIME, "SGLANG_DISAGG_TRANSFER_RETRIES": "1"}  # of the patch above this one, where there is one
    prefill = start_side(children, ports, "prefill", PairShape(env=once))
    with DecodePeer(prefill) as peer:
        # One call fails while another is in the engine: the room has not ended before that one has
        peer.register(tensor_size=2)
        prefill.fail_next("kv")
        prefill.hold("kv", after=1)
        begin(peer, room=1, chunks=1)
        assert prefill.wait_until_held()
        early = peer.receive(SOON_S)
        prefill.release()
        assert (early, peer.receive()) == (None, status(1, FAILED)), "decode was told while a layer was being written"
        assert any(done.injected for done in prefill.transfers()), "no fault was injected"

        # An abort while the first layers are in the engine
        peer.register(tensor_size=2)
        before = len(prefill.transfers())
        prefill.hold("kv")
        begin(peer, room=2, chunks=1)
        assert prefill.wait_until_held()
        peer.abort(room=2, generation=1)
        assert peer.was_read(), DIED
        prefill.release()
        assert set(heard_until(peer, drained(2, 1))) <= {status(2, FAILED)}
        assert 1 <= len(prefill.transfers()) - before <= 2, "layers that had not begun were sent after the abort"


def test_a_room_with_a_failed_call_is_never_said_to_be_drained(children: Children, ports: Ports) -> None:
    """The engine reports a batch as failed when its first task fails; the others may still write."""
    prefill = start_side(children, ports, "prefill")
    with DecodePeer(prefill) as peer:
        # The call fails after the abort
        peer.register()
        prefill.fail_next("kv", ALL_ATTEMPTS)
        prefill.hold("kv")
        begin(peer, room=1, chunks=2)
        assert prefill.wait_until_held()
        peer.abort(room=1, generation=1)
        assert peer.was_read(), DIED
        prefill.release()
        heard = heard_until(peer, status(1, FAILED))
        peer.abort(room=1, generation=2)

        # The call fails before the abort
        peer.register()
        begin(peer, room=2, chunks=2)
        heard += heard_until(peer, status(2, FAILED))
        peer.abort(room=2, generation=3)
        peer.abort(room=ALIEN, generation=4)
        heard += heard_until(peer, drained(ALIEN, 4))

        # Its sender is gone; what was on its way is not
        prefill.call(room_calls.clear, 1)
        peer.abort(room=1, generation=5)
        peer.abort(room=ALIEN, generation=6)
        heard += heard_until(peer, drained(ALIEN, 6))

        assert {done.injected for done in prefill.transfers()} == {True}, "no fault was injected"
        assert [frames for frames in heard if frames[0] == b"ABORT_ACK"] == []


def test_nobody_is_answered_who_is_not_a_decode_rank(children: Children, ports: Ports) -> None:
    """Anybody can send an ABORT, and name anybody's address in it."""
    prefill = start_side(children, ports, "prefill")
    with DecodePeer(prefill) as peer, socket.create_server((LOOPBACK, 0)) as stranger:
        port = stranger.getsockname()[1]
        peer.register()
        begin(peer, room=1, chunks=1)
        for room in (1, ALIEN):
            for generation in (None, 1):
                peer.send(*abort(room, port, generation))
        peer.abort(room=2, generation=1)
        assert peer.was_read(), DIED
        assert peer.receive_until(drained(2, 1))[-1:] == [drained(2, 1)]
        stranger.settimeout(KNOCK_S)
        try:
            stranger.accept()
        except TimeoutError:
            knocked = False
        else:
            knocked = True
        assert not knocked, "prefill connected to an address that no decode rank has given it"
        assert prefill.wait(1, ("Failed",), TOLD_S) == "Failed", "the room is aborted all the same"
