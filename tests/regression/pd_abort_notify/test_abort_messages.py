"""No control message ends the thread that reads them (AB-1, AB-2).

A real manager in a process of its own; the other rank is the test, on real ZMQ. A thread that died is
started again by the manager's own method, so that each line of the tables is proven by itself.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import NamedTuple

from testbed import Children, Ports, room_calls
from testbed.control_peer import BootstrapTable, DecodePeer, PrefillPeer, control_port
from testbed.control_wire import FAILED, SUCCESS, Frames, abort, drained, metadata, noted, registration, status
from testbed.mooncake_pair import PairShape, Side, SideHandle, start_side

ROOM = 5001
"""The first room of the tables; no room of them is ever opened."""

HUGE = 2**63
FLOOD = 2000
WARNINGS_OF_A_FLOOD = 2
"""The first one, and one more if the flood lasts longer than the warnings keep quiet."""


class Row(NamedTuple):
    name: str
    frames: Frames
    dropped_as: str = ""
    """The kind that it is counted as; empty if it is well formed, or of no harm."""


def replace(frames: Frames, index: int, frame: bytes) -> Frames:
    return (*frames[:index], frame, *frames[index + 1 :])


def prefill_rows(peer: DecodePeer) -> list[Row]:
    good_abort = abort(ROOM, peer.port)
    drain = abort(ROOM, peer.port, generation=1)
    good = metadata(peer.port, peer.buffers.session, ROOM, [1, 2], aux=1)
    hello = registration(peer.port, peer.buffers, session="127.0.0.1:77")
    staging = (b"STAGING_RSP", b"1", b"0", b"0", b"0", b"0", peer.buffers.session.encode())
    return [
        Row("ABORT, well formed", good_abort),
        Row("ABORT with a generation", drain),
        Row("ABORT with frames of a later release", (*drain, b"x", b"\xff")),
        Row("ABORT without an address", good_abort[:2]),
        Row("ABORT alone", good_abort[:1], "ABORT"),
        Row("ABORT of room x", replace(good_abort, 1, b"x"), "ABORT"),
        Row("ABORT of room \\xff", replace(good_abort, 1, b"\xff"), "ABORT"),
        Row("ABORT of room -1", replace(good_abort, 1, b"-1"), "ABORT"),
        Row("ABORT of a room beyond int64", replace(good_abort, 1, b"%d" % HUGE), "ABORT"),
        Row("ABORT with a host name", replace(good_abort, 2, b"decode.example"), "ABORT"),
        Row("ABORT with address \\xff", replace(good_abort, 2, b"\xff"), "ABORT"),
        Row("ABORT with a path for an address", replace(good_abort, 2, b"/tmp/x"), "ABORT"),
        Row("ABORT with port 0", replace(good_abort, 3, b"0"), "ABORT"),
        Row("ABORT with port 65536", replace(good_abort, 3, b"65536"), "ABORT"),
        Row("ABORT with port x", replace(good_abort, 3, b"x"), "ABORT"),
        Row("ABORT with generation x", replace(drain, 4, b"x"), "ABORT"),
        Row("an empty frame", (b"",), "unknown"),
        Row("a first frame that is not ASCII", (b"\xff\xfe", b"1"), "unknown"),
        Row("a tag that nobody knows", (b"HELLO", b"1", b"2"), "unknown"),
        Row("metadata, short", good[:5], "metadata"),
        Row("metadata without the number of ranks", good[:7], "metadata"),
        Row("metadata of room 1.5", replace(good, 0, b"1.5"), "unknown"),
        Row("metadata of room -7", replace(good, 0, b"-7"), "unknown"),
        Row("metadata of a room beyond int64", replace(good, 0, b"%d" % HUGE), "metadata"),
        Row("metadata with half a page index", replace(good, 4, b"\0" * 6), "metadata"),
        Row("metadata with slot x", replace(good, 5, b"x"), "metadata"),
        Row("metadata with port 70000", replace(good, 2, b"70000"), "metadata"),
        Row("metadata without an address", replace(good, 1, b""), "metadata"),
        Row("metadata for x ranks", replace(good, 7, b"x"), "metadata"),
        Row("metadata of a session without a port", replace(good, 3, b"nowhere"), "metadata"),
        Row("registration, short", hello[:6], "registration"),
        Row("registration with half a pointer", replace(hello, 4, b"\0" * 12), "registration"),
        Row("registration with port x", replace(hello, 2, b"x"), "registration"),
        Row("registration of session \\xff", replace(hello, 3, b"\xff"), "registration"),
        Row("STAGING_RSP alone", staging[:1], "STAGING_RSP"),
        Row("STAGING_RSP of room x", replace(staging, 1, b"x"), "STAGING_RSP"),
        Row("WATERMARK alone", (b"WATERMARK",), "WATERMARK"),
        Row("WATERMARK without staging", (b"WATERMARK", b"1", b"2", b"s"), "WATERMARK"),
    ]


def test_prefill_reads_on_after_every_message(children: Children, ports: Ports) -> None:
    prefill = start_side(children, ports, "prefill")
    with DecodePeer(prefill) as peer:
        rows = prefill_rows(peer)
        killed = [row.name for row in rows if kills_prefill(peer, row)]
        assert not killed, f"the bootstrap thread died of {len(killed)} of {len(rows)} messages: {killed}"
        assert prefill.call(drops) == Counter(row.dropped_as for row in rows if row.dropped_as)
        assert prefill.call(rooms_known, ROOM) == []
        assert_room_succeeds(peer)
        before = warnings_of(prefill, "ABORT")
        for _ in range(FLOOD):
            peer.send(*abort(ROOM, peer.port)[:1])
        assert peer.was_read()
        assert prefill.call(drops)["ABORT"] > FLOOD, "not every message was counted"
        assert 1 <= before <= WARNINGS_OF_A_FLOOD
        assert warnings_of(prefill, "ABORT") - before <= WARNINGS_OF_A_FLOOD


def kills_prefill(peer: DecodePeer, row: Row) -> bool:
    peer.send(*row.frames)
    if peer.was_read():
        return False
    peer.prefill.call(revive_prefill)
    return True


def revive_prefill(side: Side) -> None:
    side.manager.start_prefill_thread()


def drops(side: Side) -> Counter[str]:
    """How many messages were dropped, by kind."""
    return Counter(dict(getattr(side.manager, "control_drops", {})))


def rooms_known(side: Side, *rooms: int) -> list[str]:
    """The manager's tables in which one of these rooms is."""
    named = vars(side.manager).items()
    return sorted({name for name, table in named if isinstance(table, dict) and set(rooms) & set(table)})


def warnings_of(side: SideHandle, kind: str) -> int:
    lines = side.child.log.read_text(errors="replace").splitlines()
    return sum(f"Dropping malformed {kind} control message (" in line for line in lines)


def assert_room_succeeds(peer: DecodePeer, room: int = 1) -> None:
    """A good room after all that; its bytes arrive."""
    peer.prefill.fill("kv", [1, 2], 7)
    peer.register()
    peer.publish(room, pages=[5, 6])
    peer.prefill.call(room_calls.open_and_send, room, [[1, 2]], 2)
    assert peer.receive_until(status(room, SUCCESS))[-1:] == [status(room, SUCCESS)]
    assert [peer.prefill.holds("kv", page) for page in (5, 6)] == [{7}, {7}]


def slot_length(side: Side) -> int:
    """Bytes of one metadata slot in the first buffer."""
    return int(side.manager.kv_args.aux_item_lens[0])


def aux_data(room: int, slot: int, data: bytes) -> Frames:
    """Metadata that are sent as a message: into the first buffer."""
    return (b"AUX_DATA", b"%d" % room, b"0", b"%d" % slot, struct.pack(">I", len(data)), data)


def decode_rows(length: int) -> list[Row]:
    ack = drained(ROOM, generation=1)
    aux = aux_data(ROOM, 0, b"token")
    chunk = (b"CHUNK_READY", b"1", b"0", b"0", b"2", b"session", b"0")
    return [
        Row("ABORT_ACK without a generation", noted(ROOM)),
        Row("ABORT_ACK with a generation", ack),
        Row("ABORT_ACK with frames of a later release", (*ack, b"x", b"\xff")),
        Row("ABORT_ACK alone", ack[:1], "ABORT_ACK"),
        Row("ABORT_ACK of room x", replace(ack, 1, b"x"), "ABORT_ACK"),
        Row("ABORT_ACK of room -1", replace(ack, 1, b"-1"), "ABORT_ACK"),
        Row("ABORT_ACK of rank x", replace(ack, 2, b"x"), "ABORT_ACK"),
        Row("ABORT_ACK with generation \\xff", replace(ack, 3, b"\xff"), "ABORT_ACK"),
        Row("status of an unknown room", status(ROOM, SUCCESS)),
        Row("failure of an unknown room", status(ROOM, FAILED)),
        Row("status, short", status(ROOM, SUCCESS)[:2], "status"),
        Row("status x", replace(status(ROOM, SUCCESS), 1, b"x"), "status"),
        Row("status of rank x", replace(status(ROOM, SUCCESS), 2, b"x"), "status"),
        Row("status of room -3", replace(status(ROOM, SUCCESS), 0, b"-3"), "unknown"),
        Row("an empty frame", (b"",), "unknown"),
        Row("a first frame that is not ASCII", (b"\xff\xfe", b"4", b"0"), "unknown"),
        Row("a tag that nobody knows", (b"HELLO", b"1"), "unknown"),
        Row("AUX_DATA, short", aux[:4], "AUX_DATA"),
        Row("AUX_DATA of room x", replace(aux, 1, b"x"), "AUX_DATA"),
        Row("AUX_DATA for buffer 99", replace(aux, 2, b"99"), "AUX_DATA"),
        Row("AUX_DATA with half a length", replace(aux, 4, b"\0\0"), "AUX_DATA"),
        Row("AUX_DATA that is longer than its slot", aux_data(ROOM, 0, bytes(length + 8)), "AUX_DATA"),
        Row("CHUNK_READY alone", chunk[:1], "CHUNK_READY"),
        Row("CHUNK_READY without staging", chunk, "CHUNK_READY"),
        Row("STAGING_REQ alone", (b"STAGING_REQ",), "STAGING_REQ"),
        Row("STAGING_REQ without staging", (b"STAGING_REQ", b"1", b"0", b"8", b"session"), "STAGING_REQ"),
    ]


def test_decode_reads_on_after_every_message(children: Children, ports: Ports) -> None:
    decode = start_side(children, ports, "decode")
    with PrefillPeer() as peer, BootstrapTable(ports.take(), [peer], PairShape().page_size) as table:
        port = decode.call(control_port)
        rows = decode_rows(decode.call(slot_length))
        killed = []
        for mark, row in enumerate(rows, start=1):
            decode.call(room_calls.open_receiver, table.address, mark)
            peer.send(port, row.frames)
            peer.send(port, status(mark, SUCCESS))
            if decode.call(room_calls.ends_in_decode, mark) != "Success":
                killed.append(row.name)
                decode.call(revive_decode)
        assert not killed, f"the decode thread died of {len(killed)} of {len(rows)} messages: {killed}"
        assert decode.call(drops) == Counter(row.dropped_as for row in rows if row.dropped_as)
        assert decode.call(rooms_known, ROOM) == []

        decode.call(room_calls.construct_receiver, ROOM)
        decode.call(room_calls.open_receiver, table.address, len(rows) + 1)
        for room in (ROOM, len(rows) + 1):
            peer.send(port, status(room, SUCCESS))
        said = "the decode thread died of a success for a room that has asked for nothing yet"
        assert decode.call(room_calls.ends_in_decode, len(rows) + 1) == "Success", said
        assert warnings_of(decode, "ABORT_ACK") <= WARNINGS_OF_A_FLOOD


def test_metadata_of_an_aborted_room_are_not_written(children: Children, ports: Ports) -> None:
    """With SGLANG_MOONCAKE_SEND_AUX_TCP they come as a message, and their slot may be another request's by then."""
    decode = start_side(children, ports, "decode")
    with PrefillPeer() as peer, BootstrapTable(ports.take(), [peer], PairShape().page_size) as table:
        port, length = decode.call(control_port), decode.call(slot_length)
        decode.fill("aux", [0], 1)
        for room in (1, 2):
            decode.call(room_calls.open_receiver, table.address, room)
        peer.send(port, aux_data(1, 0, bytes([7]) * length))
        peer.send(port, status(1, SUCCESS))
        assert decode.call(room_calls.ends_in_decode, 1) == "Success"
        assert 7 in decode.holds("aux", 0)
        decode.fill("aux", [0], 1)
        decode.abort(2)
        decode.call(room_calls.open_receiver, table.address, 3)
        peer.send(port, aux_data(2, 0, bytes([9]) * length))
        peer.send(port, status(3, SUCCESS))
        assert decode.call(room_calls.ends_in_decode, 3) == "Success"
        assert decode.holds("aux", 0) == {1}, "the slot was written after the abort"


def revive_decode(side: Side) -> None:
    side.manager.start_decode_thread()
