"""A room whose transfer failed waits beside the queue, and nobody waits for it.

A real prefill with real ZMQ and Mooncake over TCP; injected is the engine's return code. All rooms are on one
queue: what waited for what shows in the order of the engine's calls.
"""

from __future__ import annotations

import pytest

from testbed import Children, Ports, control_wire
from testbed.lone_prefill import LonePrefill, lone_prefill
from testbed.mooncake_pair import Side
from testbed.mooncake_side import wait_until

# The pauses are longer than what goes on in them takes on a busy machine.
PARKING = {
    "SGLANG_DISAGG_TRANSFER_PARKING": "1",
    "SGLANG_DISAGG_TRANSFER_RETRY_BACKOFF_MS": "10000",
    "SGLANG_DISAGG_TRANSFER_SETTLE_MS": "0",
}
TRANSFER_QUEUES = 4
SETTLING = {
    "SGLANG_DISAGG_TRANSFER_PARKING": "1",
    "SGLANG_DISAGG_TRANSFER_RETRY_BACKOFF_MS": "0",
    "SGLANG_DISAGG_TRANSFER_SETTLE_MS": "10000",
}

NO_PAUSES = {**PARKING, "SGLANG_DISAGG_TRANSFER_RETRY_BACKOFF_MS": "0"}


def story(bench: LonePrefill, sizes: dict[int, str]) -> list[str]:
    """The engine's calls in order, KV by the room whose page count it has."""
    page = min((call.bytes for call in bench.calls() if call.kind == "kv"), default=1)
    return [
        f"{sizes[call.bytes // page] if call.kind == 'kv' else call.kind}{'' if call.returned == 0 else ' lost'}"
        for call in bench.calls()
    ]


def test_another_room_overtakes_one_that_waits(children: Children, ports: Ports) -> None:
    """RT-5."""
    with lone_prefill(children, ports, PARKING) as bench:
        bench.prefill.fill("kv", [1, 2], 7)
        bench.prefill.fail_next("kv")
        bench.transfer(room=1, source=[1, 2], target=[5, 6])
        bench.transfer(room=2, source=[3], target=[7])
        assert bench.end_of(2) == "Success"
        assert bench.end_of(1) == "Success"
        assert story(bench, {2: "first", 1: "second"}) == ["first lost", "second", "aux", "first", "aux"]
        assert [bench.prefill.holds("kv", page) for page in (5, 6)] == [{7}, {7}]


def test_chunks_of_a_room_that_waits_stay_in_order(children: Children, ports: Ports) -> None:
    with lone_prefill(children, ports, PARKING) as bench:
        bench.prefill.hold("kv")
        bench.prefill.fail_next("kv")
        bench.open(room=1, target=[5, 6, 7, 8, 9, 10])
        for source in ([1], [2, 3], [1, 2, 3]):
            bench.send(room=1, source=source)
        bench.transfer(room=2, source=[1, 2, 3, 4], target=[11, 12, 13, 14])
        bench.prefill.release()
        assert bench.end_of(1) == "Success"
        assert story(bench, {1: "one", 2: "two", 3: "three", 4: "other"}) == [
            "one lost", "other", "aux", "one", "two", "three", "aux",
        ]  # fmt: skip


def test_success_is_held_until_a_failure_has_settled(children: Children, ports: Ports) -> None:
    """RT-16. What the failed batch may still write is written before decode reads."""
    with lone_prefill(children, ports, SETTLING) as bench:
        bench.prefill.fail_next("kv")
        bench.open(room=1, target=[5, 6, 7])
        bench.send(room=1, source=[1])
        assert bench.prefill.call(wait_for_calls, 2)
        bench.send(room=1, source=[2, 3])
        bench.transfer(room=2, source=[1, 2, 3], target=[8, 9, 10])
        assert bench.end_of(2) == "Success"
        assert bench.end_of(1) == "Success"
        assert story(bench, {1: "one", 2: "last", 3: "other"}) == [
            "one lost", "one", "other", "aux", "last", "aux",
        ]  # fmt: skip


def wait_for_calls(side: Side, count: int) -> bool:
    return side.watched.wait_for_transfers(count)


def test_a_dead_peer_holds_nobody_up(children: Children, ports: Ports) -> None:
    """RT-13. Its rooms fail one after the other, and another decode's rooms all go before their second attempts."""
    with lone_prefill(children, ports, PARKING) as bench:
        peer = bench.peer
        host, port = peer.buffers.session.rsplit(":", 1)
        dead = f"{host}:{int(port) + TRANSFER_QUEUES}"  # nobody listens there; of the same queue
        peer.register(dead)
        for room in range(10, 14):
            bench.prefill.call(open_sender, room, 2)
            peer.publish(room, [5, 6], session=dead)
            bench.wait_until_open(room)
            bench.send(room, [1, 2])
        for room in range(4):
            bench.transfer(room, source=[1], target=[7])
        assert bench.end_of(3) == "Success"
        assert story(bench, {2: "dead", 1: "live"}) == ["dead lost"] * 4 + ["live", "aux"] * 4


def open_sender(side: Side, room: int, pages: int) -> None:
    side.open_sender(room, pages, aux_slot=0)


def end_room(side: Side, room: int, how: str) -> bool:
    """Let the scheduler end a room; whether the lot has forgotten it after a while."""
    getattr(side.rooms[room], how)()
    return bool(wait_until(lambda: not rooms_in_the_lot(side), bool, 10))


def rooms_in_the_lot(side: Side) -> list[int]:
    lot = getattr(side.manager.transfer_policy, "_lot", None)
    return [] if lot is None else list(lot._rooms)


@pytest.mark.parametrize("how", ["abort", "clear"])
def test_the_end_of_a_room_brings_it_back(children: Children, ports: Ports, how: str) -> None:
    with lone_prefill(children, ports, PARKING) as bench:
        bench.prefill.fail_next("kv")
        bench.transfer(room=1, source=[1, 2], target=[5, 6])
        bench.transfer(room=2, source=[3], target=[7])
        assert bench.end_of(2) == "Success"
        assert story(bench, {2: "first", 1: "second"}) == ["first lost", "second", "aux"]
        assert bench.prefill.call(end_room, 1, how)
        assert control_wire.status(1, control_wire.SUCCESS) not in bench.peer.receive_until(b"none", limit_s=1)
        assert story(bench, {2: "first", 1: "second"}) == ["first lost", "second", "aux"]


def test_layers_of_a_chunk_wait_together(children: Children, ports: Ports) -> None:
    """Where decode has more tensor ranks, each layer is a transfer of its own."""
    with lone_prefill(children, ports, PARKING) as bench:
        frames = list(control_wire.registration(bench.peer.port, bench.peer.buffers))
        frames[8] = b"2"
        bench.peer.send(*frames)
        bench.prefill.fill("kv", [1, 2], 7)
        bench.prefill.fail_next("kv")
        bench.transfer(room=1, source=[1, 2], target=[5, 6])
        bench.transfer(room=2, source=[3], target=[7])
        assert (bench.end_of(2), bench.end_of(1)) == ("Success", "Success")
        assert [bench.prefill.holds("kv", page) for page in (5, 6)] == [{7}, {7}]
        assert story(bench, {2: "first", 1: "second"}) == [
            "first lost", *["second"] * 4, "aux", *["first"] * 4, "aux",
        ]  # fmt: skip
        assert bench.log().count("recovered on attempt 2/3") == 1


def test_a_room_that_is_aborted_between_chunks_is_forgotten(children: Children, ports: Ports) -> None:
    with lone_prefill(children, ports, NO_PAUSES) as bench:
        bench.prefill.fail_next("kv")
        bench.open(room=1, target=[5, 6, 7])
        bench.send(room=1, source=[1])
        assert bench.prefill.call(wait_for_calls, 2)
        assert bench.prefill.call(rooms_in_the_lot) == [1]
        assert bench.prefill.call(end_room, 1, "abort")


@pytest.mark.control
def test_attempts_are_counted_chunk_by_chunk(children: Children, ports: Ports) -> None:
    with lone_prefill(children, ports, NO_PAUSES) as bench:
        bench.open(room=1, target=[5, 6, 7])
        for count, source in ((3, [1]), (6, [2, 3])):
            bench.prefill.fail_next("kv", 2)
            bench.send(room=1, source=source)
            assert bench.prefill.call(wait_for_calls, count)
        assert bench.end_of(1) == "Success"
        assert [call.returned for call in bench.calls() if call.kind == "kv"] == [-1, -1, 0] * 2
        before = len(bench.calls())
        bench.prefill.fail_next("kv", 3)
        bench.transfer(room=2, source=[1], target=[5])
        assert bench.end_of(2) == "Failed"
        assert [call.returned for call in bench.calls(before)] == [-1, -1, -1]


@pytest.mark.control
def test_switched_off_the_next_room_waits(children: Children, ports: Ports) -> None:
    env = {**PARKING, "SGLANG_DISAGG_TRANSFER_PARKING": "0", "SGLANG_DISAGG_TRANSFER_RETRY_BACKOFF_MS": "50"}
    with lone_prefill(children, ports, env) as bench:
        bench.prefill.hold("kv")
        bench.prefill.fail_next("kv")
        bench.transfer(room=1, source=[1, 2], target=[5, 6])
        bench.transfer(room=2, source=[3], target=[7])
        bench.prefill.release()
        assert bench.end_of(2) == "Success"
        assert story(bench, {2: "first", 1: "second"}) == ["first lost", "first", "aux", "second", "aux"]
