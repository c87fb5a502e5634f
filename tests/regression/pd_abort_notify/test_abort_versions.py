"""Old and new sides understand each other, and other backends take no part (AB-13, AB-14, AB-16).

The old side is the test, which says what that release says (`testbed.control_wire`) and reads what it is sent:
0.5.12.post1 knows no ABORT and dies of one, 0.5.23 knows all of it but does not say so.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence

import pytest

from testbed import Children, Ports, room_calls
from testbed.control_peer import BootstrapTable, DecodePeer, PrefillPeer, control_port
from testbed.control_wire import FAILED, LOOPBACK, NEW, OLD, SUCCESS, Frames, drained, noted, status
from testbed.mooncake_pair import PairShape, Side, SideHandle, start_pair, start_side

TOLD_S = 3.0

ABORTS = "abort.v1"
DRAINS = "abort.drain.v1"

TOPOLOGY = {
    "attn_tp_size",
    "attn_cp_size",
    "dp_size",
    "pp_size",
    "page_size",
    "kv_cache_dtype",
    "follow_bootstrap_room",
    "target_tp_rank",
    "target_tp_ranks",
    "target_cp_ranks",
    "target_pp_ranks",
    "required_dst_info_num",
    "required_prefill_response_num",
}
"""What 0.5.12.post1 takes for the instance as a whole; it refuses the reply if there is more."""


def route(address: str, rank: int) -> dict[str, object]:
    """The bootstrap server's reply, for one rank, or for the instance (-1)."""
    dp_and_cp = rank if rank == -1 else 0
    asked = "&".join(
        f"{name}={value}"
        for name, value in (
            ("prefill_dp_rank", dp_and_cp),
            ("prefill_cp_rank", dp_and_cp),
            ("target_tp_rank", rank),
            ("target_pp_rank", dp_and_cp),
        )
    )
    with urllib.request.urlopen(f"http://{address}/route?{asked}", timeout=TOLD_S) as reply:
        said: dict[str, object] = json.load(reply)
    return said


def bootstrap_address(side: Side) -> str:
    return side.bootstrap_address


def test_prefill_tells_each_decode_what_it_understands(children: Children, ports: Ports) -> None:
    prefill = start_side(children, ports, "prefill")
    address = prefill.call(bootstrap_address)
    rank, instance = route(address, 0), route(address, -1)
    assert (rank.get("caps"), set(instance)) == ([ABORTS, DRAINS], TOPOLOGY)
    assert set(rank) == {"rank_ip", "rank_port", "caps"}

    with DecodePeer(prefill, OLD) as old:
        old.register()
        old.publish(room=1, pages=[5, 6])
        prefill.call(room_calls.open_sender, 1)
        assert old.was_read()
        prefill.abort(1)
        # three frames, for anything else ends its thread
        assert old.receive() == status(1, FAILED)
        old.publish(room=2, pages=[5, 6])
        prefill.call(room_calls.open_and_send, 2, [[1, 2]], 2)
        assert old.receive() == status(2, SUCCESS)

    with DecodePeer(prefill, NEW) as new:
        new.register()
        new.publish(room=3, pages=[5, 6])
        prefill.call(room_calls.open_sender, 3)
        new.abort(room=3)
        new.abort(room=3, generation=9)
        assert new.was_read(), "prefill's bootstrap thread died of an ABORT of 0.5.23"
        heard = new.receive_until(drained(3, 9))
        assert [said for said in heard if said != status(3, FAILED)] == [noted(3), drained(3, 9)]
        new.publish(room=4, pages=[5, 6])
        prefill.call(room_calls.open_and_send, 4, [[1, 2]], 2)
        assert new.receive_until(status(4, SUCCESS))[-1:] == [status(4, SUCCESS)]


@pytest.mark.control
def test_rooms_of_both_releases_succeed(children: Children, ports: Ports) -> None:
    prefill = start_side(children, ports, "prefill")
    address = prefill.call(bootstrap_address)
    assert {"rank_ip", "rank_port"} <= set(route(address, 0))
    assert set(route(address, -1)) == TOPOLOGY
    for room, release in enumerate((OLD, NEW), start=1):
        with DecodePeer(prefill, release) as peer:
            peer.register()
            peer.publish(room, pages=[5, 6])
            prefill.call(room_calls.open_and_send, room, [[1, 2]], 2)
            assert peer.receive() == status(room, SUCCESS)
            assert peer.receive(0) is None


class Decode:
    """A real decode side, next to prefill instances that are the test."""

    def __init__(self, side: SideHandle, ports: Ports) -> None:
        self.side = side
        self.port = int(side.call(control_port))
        self._ports = ports

    def tells(self, do: str, caps: Sequence[str] = (), ranks: int = 1) -> list[list[tuple[str, ...]]]:
        """What each prefill rank hears of room 1 but its metadata, when decode does this to it.

        The room after it shows that all has been said: its metadata come on the same socket.
        """
        peers = [PrefillPeer() for _ in range(ranks)]
        with BootstrapTable(self._ports.take(), peers, PairShape().page_size, caps) as table:
            self.side.call(room_calls.open_receiver, table.address, 1)
            self.side.call(DOINGS[do], 1)
            self.side.call(room_calls.open_receiver, table.address, 2)
            heard = [_until_room(peer, 2) for peer in peers]
            self.side.call(forget, (1, 2))
        for peer in peers:
            peer.close()
        return [[self._said(frames) for frames in messages if frames[0] == b"ABORT"] for messages in heard]

    def _said(self, frames: Frames) -> tuple[str, ...]:
        """An ABORT in words: its room, whether the address is decode's own, whether there is a generation."""
        room, ip, port, *generation = (frame.decode() for frame in frames[1:])
        own = "own address" if (ip, port) == (LOOPBACK, str(self.port)) else f"{ip}:{port}"
        assert all(number.isdecimal() for number in generation)
        return (f"room {room}", own, *["generation" for _ in generation])


def _until_room(peer: PrefillPeer, room: int) -> list[Frames]:
    heard = []
    while (frames := peer.receive()) is not None and frames[0] != b"%d" % room:
        heard.append(frames)
    assert frames is not None, f"metadata of room {room} did not come"
    return heard


def forget(side: Side, rooms: Sequence[int]) -> None:
    for room in rooms:
        side.rooms.pop(room).clear()
        side.manager.failure_records.pop(room, None)


def abort_room(side: Side, room: int) -> None:
    side.rooms[room].abort()


def fail_elsewhere(side: Side, room: int) -> None:
    """Another decode rank has failed the room: the scheduler asks each rank's receiver why."""
    assert "another rank" in room_calls.reason(side, room)


def time_out(side: Side, room: int) -> None:
    room_calls.age(side, room)
    assert side.poll(room) == "Failed"


def time_out_then_abort(side: Side, room: int) -> None:
    time_out(side, room)
    abort_room(side, room)
    assert room_calls.reason(side, room)


def nothing(side: Side, room: int) -> None:
    """The room goes its way."""


DOINGS = {
    "abort": abort_room,
    "fail elsewhere": fail_elsewhere,
    "time out": time_out,
    "time out, then abort": time_out_then_abort,
    "nothing": nothing,
}

TOLD = ("room 1", "own address")
HELD = (*TOLD, "generation")


def test_decode_tells_the_ranks_that_understand(children: Children, ports: Ports) -> None:
    decode = Decode(start_side(children, ports, "decode"), ports)
    both = (ABORTS, DRAINS)
    heard = {
        "a release that says nothing of itself": decode.tells("abort"),
        "one that is deaf to ABORT": decode.tells("abort", caps=("other.v1",)),
        "one that does not say when it has drained": decode.tells("abort", caps=(ABORTS,)),
        "two ranks, abort": decode.tells("abort", caps=both, ranks=2),
        "two ranks, time-out, then abort": decode.tells("time out, then abort", caps=both, ranks=2),
        "time-out": decode.tells("time out", caps=both),
        "failed elsewhere": decode.tells("fail elsewhere", caps=both),
        "no abort": decode.tells("nothing", caps=both),
    }
    assert heard == {
        "a release that says nothing of itself": [[]],
        "one that is deaf to ABORT": [[]],
        "one that does not say when it has drained": [[TOLD]],
        "two ranks, abort": [[HELD], [HELD]],
        "two ranks, time-out, then abort": [[HELD], [HELD]],
        "time-out": [[HELD]],
        "failed elsewhere": [[HELD]],
        "no abort": [[]],
    }


def test_decode_tells_all_ranks_when_it_must(children: Children, ports: Ports) -> None:
    """Upstream releases from 0.5.13 on understand an ABORT and do not say so."""
    forced = PairShape(env={"SGLANG_DISAGG_ABORT_NOTIFY": "1"})
    decode = Decode(start_side(children, ports, "decode", forced), ports)
    assert decode.tells("abort", ranks=2) == [[TOLD], [TOLD]], "without a generation: nobody says that it will answer"
    assert decode.tells("abort", caps=(ABORTS, DRAINS)) == [[HELD]]


@pytest.mark.control
def test_switched_off_decode_tells_nobody(children: Children, ports: Ports) -> None:
    off = PairShape(env={"SGLANG_DISAGG_ABORT_NOTIFY": "0"})
    decode = Decode(start_side(children, ports, "decode", off), ports)
    assert decode.tells("abort", caps=(ABORTS, DRAINS)) == [[]]
    assert decode.tells("time out, then abort", caps=(ABORTS, DRAINS)) == [[]]


@pytest.mark.control
def test_switched_off_prefill_sends_on(children: Children, ports: Ports) -> None:
    off = PairShape(env={"SGLANG_DISAGG_ABORT_NOTIFY": "0"})
    pair = start_pair(children, ports, off)
    assert not route(pair.prefill.call(bootstrap_address), 0).get("caps")
    pair.open(room=1, target=[3, 4])
    pair.send(room=1, source=[1])
    pair.decode.abort(1)
    pair.send(room=1, source=[2])
    assert pair.wait(1) == ("Success", "Failed")
    assert [done.kind for done in pair.prefill.transfers()] == ["kv", "kv", "aux"]
    assert pair.prefill.call(room_calls.told, 2, ("Failed", "Success")) == "Success", "the base's rules of states"


WRONG = [
    ("prefill", {"SGLANG_DISAGG_ABORT_NOTIFY": "yes"}, "SGLANG_DISAGG_ABORT_NOTIFY"),
    ("decode", {"SGLANG_DISAGG_ABORT_NOTIFY": ""}, "SGLANG_DISAGG_ABORT_NOTIFY"),
    (
        "decode",
        {"SGLANG_DISAGGREGATION_DEFERRED_DECODE_KV_RELEASE_TIMEOUT": "5"},
        "SGLANG_DISAGGREGATION_DEFERRED_DECODE_KV_RELEASE_TIMEOUT",
    ),
    (
        "decode",
        {"MC_TRANSFER_TIMEOUT": "60"},
        "SGLANG_DISAGGREGATION_DEFERRED_DECODE_KV_RELEASE_TIMEOUT",
    ),
    ("prefill", {"SGLANG_DISAGG_ABORT_TOMBSTONE_TTL_S": "-1"}, "SGLANG_DISAGG_ABORT_TOMBSTONE_TTL_S"),
    ("prefill", {"SGLANG_DISAGG_ABORT_TOMBSTONE_MAX": "0"}, "SGLANG_DISAGG_ABORT_TOMBSTONE_MAX"),
]
RIGHT = [
    ("decode", {"SGLANG_DISAGG_ABORT_NOTIFY": "auto"}),
    ("decode", {"SGLANG_DISAGGREGATION_DEFERRED_DECODE_KV_RELEASE_TIMEOUT": "5", "MC_TRANSFER_TIMEOUT": "5"}),
    (
        "decode",
        {
            "SGLANG_DISAGGREGATION_DEFERRED_DECODE_KV_RELEASE_TIMEOUT": "5",
            "SGLANG_DISAGGREGATION_DEFERRED_DECODE_KV_RELEASE": "0",
        },
    ),
    (
        "decode",
        {"SGLANG_DISAGGREGATION_DEFERRED_DECODE_KV_RELEASE_TIMEOUT": "5", "SGLANG_DISAGG_ABORT_NOTIFY": "0"},
    ),
    ("prefill", {"SGLANG_DISAGGREGATION_DEFERRED_DECODE_KV_RELEASE_TIMEOUT": "5"}),
]


def test_a_setting_that_would_not_do_what_it_says_is_refused(children: Children, ports: Ports) -> None:
    prefill = start_side(children, ports, "prefill")
    refused = [prefill.call(error_of, role, env) for role, env, _ in WRONG]
    unnamed = [env for (_, env, name), error in zip(WRONG, refused, strict=True) if name not in error]
    assert not unnamed, f"accepted, or refused without its name: {unnamed}"
    assert [prefill.call(error_of, role, env) for role, env in RIGHT] == [""] * len(RIGHT)


def error_of(side: Side, role: str, env: dict[str, str]) -> str:
    """The ValueError of one more manager under these variables; empty if it starts."""
    import os

    from sglang.srt.disaggregation.utils import DisaggregationMode

    before = dict(os.environ)
    os.environ.update(env)
    try:
        type(side.manager)(side.manager.kv_args, DisaggregationMode(role), side.manager.server_args, False)
    except ValueError as error:
        return str(error)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return ""
