"""Whatever is sent, the managers' tables stay bounded and are empty in the end (AB-11).

Real managers and ZMQ. The clock of the protocol is put forward past every life time; nothing waits for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from testbed import Children, Ports, room_calls
from testbed.control_peer import BootstrapTable, DecodePeer, PrefillPeer, control_port
from testbed.control_wire import FAILED, SUCCESS, Frames, abort, drained, metadata, noted, registration, status
from testbed.mooncake_pair import PairShape, Side, start_side

MESSAGES = 100_000
BATCH = 5_000
ROOMS = 30_000
SESSIONS = 20_000
MANY_SESSIONS = 5_000
"""More decode ranks than a prefill rank ever serves."""

TOMBSTONES = 500
OPENED = 300
READ_LIMIT_S = 120.0
FOREVER_S = 10_000_000.0

BOUND_BY_SETTING = ("tombstones", "poisoned", "refused", "concluded", "orphans")


def random_messages(peer: DecodePeer, chance: random.Random) -> Iterator[Frames]:
    session = peer.buffers.session
    for _ in range(MESSAGES):
        room = chance.randrange(ROOMS)
        match chance.randrange(6):
            case 0 | 1:
                yield abort(room, peer.port)
            case 2:
                yield abort(room, peer.port, chance.randrange(10))
            case 3 | 4:
                yield metadata(peer.port, session, room, [5, 6], aux=1, ranks=chance.choice((1, 1, 2)))
            case _:
                yield abort(room, peer.port)[: chance.randrange(1, 4)]


def test_prefill_forgets_every_room(children: Children, ports: Ports) -> None:
    bounded = PairShape(env={"SGLANG_DISAGG_ABORT_TOMBSTONE_MAX": str(TOMBSTONES)})
    prefill = start_side(children, ports, "prefill", bounded)
    chance = random.Random(11)
    with DecodePeer(prefill) as peer:
        peer.register()
        assert peer.was_read()
        empty = prefill.call(table_sizes)
        for number, frames in enumerate(random_messages(peer, chance)):
            peer.send(*frames)
            if number % BATCH == 0:
                rooms = chance.sample(range(ROOMS), OPENED * BATCH // MESSAGES)
                prefill.call(open_and_close, rooms, chance.choice(("abort", "clear")))
        assert peer.was_read(READ_LIMIT_S), "prefill's bootstrap thread died"
        full = prefill.call(table_sizes)
        over = {name: full[name] for name in BOUND_BY_SETTING if full[name] > TOMBSTONES}
        assert not over, f"more than SGLANG_DISAGG_ABORT_TOMBSTONE_MAX={TOMBSTONES}: {over}"
        assert full["transfer_infos"] <= TOMBSTONES + OPENED, "metadata of rooms that nobody opened"
        assert full["tombstones"] == TOMBSTONES, "no tombstone was left to forget"

        assert prefill.call(room_calls.advance_clock, FOREVER_S), "no clock was moved"
        assert prefill.call(table_sizes) == empty


def test_sessions_do_not_pile_up(children: Children, ports: Ports) -> None:
    prefill = start_side(children, ports, "prefill")
    with DecodePeer(prefill) as peer:
        for number in range(SESSIONS):
            peer.send(*registration(peer.port, peer.buffers, session=f"10.0.{number // 60_000}.1:{number}"))
        peer.register()
        assert peer.was_read(READ_LIMIT_S)
        assert prefill.call(table_sizes)["decode_kv_args_table"] <= MANY_SESSIONS


def table_sizes(side: Side) -> dict[str, int]:
    """How many rooms (or sessions) each of the manager's tables holds."""
    aborts = getattr(side.manager, "room_aborts", None)
    notifier = getattr(side.manager, "abort_notifier", None)
    # First what the protocol keeps: what has expired there takes the manager's with it.
    sizes = {} if aborts is None else dict(aborts.table_sizes())
    if notifier is not None:
        sizes["acks"] = len(notifier.acks)
    sizes |= {name: len(table) for name, table in vars(side.manager).items() if isinstance(table, dict)}
    sizes.pop("control_drops", None)
    return sizes


def open_and_close(side: Side, rooms: Sequence[int], how: str) -> None:
    """Requests that come and go meanwhile, as the scheduler has them."""
    for room in rooms:
        side.open_sender(room, pages=2, aux_slot=0)
    for room in rooms:
        sender = side.rooms.pop(room)
        if how == "abort":
            sender.abort()
        sender.clear()
        side.manager.failure_records.pop(room, None)


def test_decode_forgets_every_room(children: Children, ports: Ports) -> None:
    decode = start_side(children, ports, "decode")
    chance = random.Random(12)
    with PrefillPeer() as peer, BootstrapTable(ports.take(), [peer], PairShape().page_size) as table:
        port = decode.call(control_port)
        decode.call(room_calls.open_receiver, table.address, 1)
        peer.send(port, status(1, SUCCESS))
        assert decode.call(room_calls.ends_in_decode, 1) == "Success"
        decode.call(forget, 1)
        empty = decode.call(table_sizes)

        for _ in range(ROOMS):
            peer.send(port, status(chance.randrange(100, ROOMS), FAILED))
        decode.call(room_calls.open_receiver, table.address, 2)
        peer.send(port, status(2, SUCCESS))
        assert decode.call(room_calls.ends_in_decode, 2) == "Success"
        decode.call(forget, 2)
        assert decode.call(table_sizes) == empty, "failures of rooms that are not here were kept"

        for _ in range(ROOMS):
            room = chance.randrange(100, ROOMS)
            peer.send(port, chance.choice((noted(room), drained(room, chance.randrange(9)), status(room, SUCCESS))))
        for room in range(10, 60):
            decode.call(room_calls.open_receiver, table.address, room)
            decode.call(abort_and_forget, room)
        decode.call(room_calls.open_receiver, table.address, 3)
        peer.send(port, status(3, SUCCESS))
        assert decode.call(room_calls.ends_in_decode, 3) == "Success", "decode's thread died"
        decode.call(forget, 3)
        assert decode.call(table_sizes) == empty


def forget(side: Side, room: int) -> None:
    """As the scheduler does when a room is over, and the heartbeat some seconds later."""
    side.rooms.pop(room).clear()
    for rooms in side.manager.addr_to_rooms_tracker.values():
        rooms.discard(room)


def abort_and_forget(side: Side, room: int) -> None:
    side.rooms[room].abort()
    assert "Abort" in room_calls.reason(side, room)
    forget(side, room)
