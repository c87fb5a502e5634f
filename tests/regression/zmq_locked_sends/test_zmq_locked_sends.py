"""One thread at a time on a PUSH socket that transfer workers share (AB-10).

Real managers, real ZMQ over loopback. What load does now and then is made to
happen: the gate around the sockets holds a sender after the first frame of its
message until another thread sends on the same socket. So the guards show that
nothing keeps the second thread out; they do not show how often it comes. Where
there is a lock the second thread stays away, and the hold ends by itself.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import zmq

from testbed import Children, Ports
from testbed.mooncake_pair import PairShape, Side, start_pair
from testbed.socket_gate import SocketGate

HOLD_S = 3.0
LIMIT_S = 30.0
QUIET_S = 10.0
THREADS, MESSAGES = 4, 2000

Frames = tuple[bytes, ...]
Work = tuple[Any, ...]


class Message(NamedTuple):
    """A message that prefill's transfer workers send to decode, and its frames on the wire."""

    send: Callable[[Any, int, int], None]
    frames: Callable[[int], Frames]


def send_status(manager: Any, port: int, room: int) -> None:
    manager.sync_status_to_decode_endpoint("127.0.0.1", port, room, 4, 0)


def send_aux(manager: Any, port: int, room: int) -> None:
    manager.send_aux_data_to_endpoint("127.0.0.1", port, room, 1, 2, AUX_DATA)


def send_chunk_ready(manager: Any, port: int, room: int) -> None:
    req = SimpleNamespace(endpoint="127.0.0.1", dst_port=port, room=room, mooncake_session_id="session")
    chunk = SimpleNamespace(index_slice=slice(8, 10), prefill_kv_indices=[1, 2])
    manager._send_chunk_ready(req, 3, chunk, 0)


AUX_DATA = b"token" * 20

KINDS = {
    "status": Message(send_status, lambda room: (b"%d" % room, b"4", b"0")),
    "aux": Message(
        send_aux,
        lambda room: (b"AUX_DATA", b"%d" % room, b"1", b"2", struct.pack(">I", len(AUX_DATA)), AUX_DATA),
    ),
    "chunk_ready": Message(
        send_chunk_ready,
        lambda room: (b"CHUNK_READY", b"%d" % room, b"3", b"8", b"2", b"session", b"0"),
    ),
}


class Peer:
    """A decode rank's end of the socket."""

    def __init__(self) -> None:
        self._socket = zmq.Context().socket(zmq.PULL)
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")

    def receive(self, count: int) -> list[Frames]:
        """The next messages; fewer if none comes for a while."""
        received: list[Frames] = []
        while len(received) < count and self._socket.poll(QUIET_S * 1000):
            received.append(tuple(self._socket.recv_multipart()))
        return received


class Sent(NamedTuple):
    received: list[Frames]
    intrusions: list[str]
    connections: list[int]


def install_gate(hold_s: float = HOLD_S) -> SocketGate:
    gate = SocketGate(hold_s)
    gate.install()
    return gate


def start(name: str, target: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    thread.start()
    return thread


def two_at_once(gate: SocketGate, first: Work, second: Work, hold: str) -> None:
    """Run ``first`` until it is held, and ``second`` meanwhile; each is a function and its arguments."""
    gate.hold_next(hold)
    one = start("one", *first)
    assert gate.wait_until_held(LIMIT_S), "the first sender did not reach the socket"
    two = start("two", *second)
    for thread in (one, two):
        thread.join(LIMIT_S)
        assert not thread.is_alive(), f"sender {thread.name} is stuck"


def two_senders(side: Side, kind: str, hold: str) -> Sent:
    """One worker sends a message and is held inside the socket; another sends a status meanwhile."""
    gate, peer = install_gate(), Peer()
    two_at_once(
        gate,
        (KINDS[kind].send, side.manager, peer.port, 1),
        (send_status, side.manager, peer.port, 2),
        hold,
    )
    return Sent(peer.receive(2), gate.intrusions, list(gate.connections.values()))


def test_a_message_is_not_broken_into(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports)
    for kind, message in KINDS.items():
        sent = pair.prefill.call(two_senders, kind, "message")
        assert not sent.intrusions, f"{kind}: {sent.intrusions[0]}"
        assert set(sent.received) == {message.frames(1), KINDS["status"].frames(2)}


def test_workers_share_one_socket_from_the_first_message_on(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports)
    sent = pair.prefill.call(two_senders, "status", "connect")
    assert sent.connections == [1], "two sockets were made for one peer"
    assert set(sent.received) == {KINDS["status"].frames(1), KINDS["status"].frames(2)}


def many_senders(side: Side) -> Sent:
    gate, peer = install_gate(), Peer()
    gate.hold_next("message")

    def send_all(first_room: int) -> None:
        for room in range(first_room, first_room + MESSAGES):
            kind_of(room).send(side.manager, peer.port, room)

    for number in range(THREADS):
        start(f"worker-{number}", send_all, number * MESSAGES)
    received = peer.receive(THREADS * MESSAGES)
    return Sent(received, gate.intrusions[:3], list(gate.connections.values()))


def kind_of(room: int) -> Message:
    return list(KINDS.values())[room % len(KINDS)]


def test_four_threads_send_two_thousand_messages_each(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports)
    sent = pair.prefill.call(many_senders)
    assert not sent.intrusions, sent.intrusions[0]
    assert sent.connections == [1]
    expected = [kind_of(room).frames(room) for room in range(THREADS * MESSAGES)]
    assert sorted(sent.received) == sorted(expected)
    position = {frames: index for index, frames in enumerate(sent.received)}
    order = [position[frames] for frames in expected]
    for first in range(0, len(order), MESSAGES):
        ours = order[first : first + MESSAGES]
        assert ours == sorted(ours), "one thread's messages were reordered"


def finish_two_rooms(side: Side, decode_port: int) -> None:
    """Both rooms end at once, each with a worker of its own."""
    two_at_once(
        install_gate(),
        (send_status, side.manager, decode_port, 1),
        (send_status, side.manager, decode_port, 2),
        "message",
    )


def rank_port(side: Side) -> int:
    return int(side.manager.rank_port)


def test_two_rooms_that_end_at_once_reach_decode(children: Children, ports: Ports) -> None:
    """The symptom: decode's thread dies of a broken message, and every room there waits for ever."""
    pair = start_pair(children, ports)
    pair.open(room=1, target=[1])
    pair.open(room=2, target=[2])
    pair.prefill.call(finish_two_rooms, pair.decode.call(rank_port))
    states = [pair.decode.wait(room, limit_s=5.0) for room in (1, 2)]
    alive = pair.decode.thread_is_alive("decode_thread")
    assert (states, alive) == (["Success", "Success"], True)


@pytest.mark.control
def test_switched_off_a_message_is_broken_into(children: Children, ports: Ports) -> None:
    off = {"SGLANG_DISAGG_ZMQ_LOCKED_SENDS": "0"}
    pair = start_pair(children, ports, PairShape(env=off))
    sent = pair.prefill.call(two_senders, "aux", "message")
    assert "two sent into a message of one" in sent.intrusions
    mixed, rest = sent.received
    assert mixed[:2] == (KINDS["aux"].frames(1)[0], KINDS["status"].frames(2)[0])
    assert rest not in (KINDS["aux"].frames(1), KINDS["status"].frames(2))


def send_to_another_peer(side: Side) -> list[Frames]:
    gate, peer, other = install_gate(hold_s=LIMIT_S), Peer(), Peer()
    gate.hold_next("message")
    one = start("one", send_aux, side.manager, peer.port, 1)
    assert gate.wait_until_held(LIMIT_S)
    send_status(side.manager, other.port, 2)
    received = other.receive(1)
    assert one.is_alive(), "the first sender was not held"
    gate.release()
    return [*received, *peer.receive(1)]


def send_after_an_error(side: Side) -> list[Frames]:
    gate, peer = install_gate(), Peer()
    gate.fail_next()
    with pytest.raises(zmq.Again):
        send_status(side.manager, peer.port, 1)
    two = start("two", send_status, side.manager, peer.port, 2)
    two.join(LIMIT_S)
    return peer.receive(1)


@pytest.mark.control
def test_a_lock_holds_up_one_peer_and_never_stays(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports)
    assert pair.prefill.call(send_to_another_peer) == [KINDS["status"].frames(2), KINDS["aux"].frames(1)]
    assert pair.prefill.call(send_after_an_error) == [KINDS["status"].frames(2)]


def open_two_rooms(side: Side) -> list[str]:
    gate = install_gate()
    two_at_once(
        gate,
        (side.open_receiver, 1, [1], 0),
        (side.open_receiver, 2, [2], 1),
        "message",
    )
    return gate.intrusions


@pytest.mark.control
def test_decode_locked_its_sends_before(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports)
    assert pair.decode.call(open_two_rooms) == []
