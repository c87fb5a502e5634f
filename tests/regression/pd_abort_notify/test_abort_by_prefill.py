"""Decode hears at once that prefill has given a request up (AB-15).

Without that it waits for SGLANG_DISAGGREGATION_WAITING_TIMEOUT, five minutes by default, with the pages held.
https://github.com/sgl-project/sglang/issues/28651
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from testbed import Children, Ports, room_calls
from testbed.control_peer import DecodePeer
from testbed.control_wire import FAILED, LOOPBACK, metadata, status
from testbed.mooncake_pair import MooncakePair, PairShape, Side, start_pair, start_side
from testbed.mooncake_side import wait_until

TOLD_S = 10.0
"""How long decode is given to hear of it: a thirtieth of its own time-out."""

SOON_S = 3.0


def open_receiver(side: Side, room: int) -> None:
    side.open_receiver(room, [3, 4], 1)


def abort_while_queued(side: Side, room: int) -> None:
    """The scheduler's own abort of a request that waits for its prefill batch."""
    from sglang.srt.disaggregation.utils import DisaggregationMode
    from sglang.srt.managers.io_struct import AbortReq
    from sglang.srt.managers.scheduler import Scheduler

    request = SimpleNamespace(
        rid=f"request-{room}",
        disagg_kv_sender=side.rooms[room],
        metadata_buffer_index=-1,
        mamba_pool_idx=None,
    )
    scheduler = SimpleNamespace(
        waiting_queue=[request],
        enable_hicache_storage=False,
        send_to_tokenizer=SimpleNamespace(send_output=lambda *said: None),
        disaggregation_mode=DisaggregationMode.PREFILL,
        req_to_metadata_buffer_idx_allocator=None,
        grammar_manager=SimpleNamespace(abort_requests=lambda asked: None),
        disagg_prefill_bootstrap_queue=SimpleNamespace(queue=[]),
        disagg_prefill_inflight_queue=[],
        cur_batch=None,
        running_batch=SimpleNamespace(reqs=[]),
    )
    Scheduler.abort_request(scheduler, AbortReq(rid=request.rid))
    assert scheduler.waiting_queue == []


def after_its_metadata(pair: MooncakePair, room: int) -> None:
    pair.open(room, target=[3, 4])
    pair.prefill.abort(room)


def before_its_metadata(pair: MooncakePair, room: int) -> None:
    pair.prefill.call(room_calls.open_sender, room)
    pair.prefill.abort(room)
    pair.decode.call(open_receiver, room)


def before_its_metadata_and_forgotten(pair: MooncakePair, room: int) -> None:
    """The scheduler drops a failed request at its next poll, and decode may be later than that."""
    pair.prefill.call(room_calls.open_sender, room)
    pair.prefill.abort(room)
    assert "Abort" in pair.prefill.call(room_calls.reason, room)
    pair.decode.call(open_receiver, room)


def time_out_of_bootstrap(pair: MooncakePair, room: int) -> None:
    pair.prefill.call(room_calls.open_sender, room)
    pair.prefill.call(room_calls.age, room)
    assert pair.prefill.wait(room, limit_s=SOON_S) == "Failed"
    assert "timed out" in pair.prefill.call(room_calls.reason, room)
    pair.decode.call(open_receiver, room)


def in_the_waiting_queue(pair: MooncakePair, room: int) -> None:
    pair.open(room, target=[3, 4])
    pair.prefill.call(abort_while_queued, room)
    assert pair.prefill.failure(room) == "", "nobody asks this sender why: its reason must not stay"


def between_its_chunks(pair: MooncakePair, room: int) -> None:
    pair.open(room, target=[3, 4])
    pair.send(room, [1])
    pair.prefill.abort(room)


WAYS = [
    after_its_metadata,
    before_its_metadata,
    before_its_metadata_and_forgotten,
    time_out_of_bootstrap,
    in_the_waiting_queue,
    between_its_chunks,
]


def test_decode_is_told(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports)
    rooms = {way.__name__: room for room, way in enumerate(WAYS, start=1)}
    for way in WAYS:
        way(pair, rooms[way.__name__])
    states = pair.decode.call(states_in_the_end, list(rooms.values()))
    assert dict(zip(rooms, states, strict=True)) == dict.fromkeys(rooms, "Failed")


def states_in_the_end(side: Side, rooms: list[int]) -> list[str]:
    """How decode sees these rooms when all have failed, or when it should have heard of it."""

    def look() -> list[str]:
        return [side.poll(room) for room in rooms]

    def have_failed(states: list[str]) -> bool:
        return set(states) == {"Failed"}

    states: list[str] = wait_until(look, have_failed, TOLD_S)
    return states


def test_every_decode_rank_of_the_room_is_told_and_no_other(children: Children, ports: Ports) -> None:
    """One prefill rank serves two decode ranks and a dummy; the second one's metadata comes late."""
    prefill = start_side(children, ports, "prefill")
    with DecodePeer(prefill) as one, DecodePeer(prefill) as two, DecodePeer(prefill) as dummy:
        for peer, session in ((one, None), (two, f"{LOOPBACK}:4"), (dummy, f"{LOOPBACK}:8")):
            peer.register(session)
        prefill.call(room_calls.open_sender, 1)
        one.send(*metadata(one.port, one.buffers.session, 1, [5, 6], aux=1, ranks=3))
        nothing = metadata(dummy.port, f"{LOOPBACK}:8", 1, [], aux=1, ranks=3)
        dummy.send(*nothing[:4], b"", b"", *nothing[6:])
        assert one.was_read()
        assert dummy.was_read()
        prefill.abort(1)
        assert one.receive(SOON_S) == status(1, FAILED)
        assert "Abort" in prefill.call(room_calls.reason, 1)
        two.send(*metadata(two.port, f"{LOOPBACK}:4", 1, [5, 6], aux=1, ranks=3))
        assert two.receive(SOON_S) == status(1, FAILED), "a rank that came after the abort waits for its time-out"
        assert dummy.receive(0) is None, "a dummy rank holds nothing"

        # The room's number may come again, and is nobody's fault then
        assert prefill.call(room_calls.open_sender, 1) == "Bootstrapping"
        one.publish(room=1, pages=[5, 6])
        assert prefill.wait(1, ("WaitingForInput", "Failed"), SOON_S) == "WaitingForInput"


@pytest.mark.control
def test_switched_off_decode_is_not_told(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports, PairShape(env={"SGLANG_DISAGG_ABORT_NOTIFY": "0"}))
    after_its_metadata(pair, 1)
    before_its_metadata(pair, 2)
    assert pair.prefill.wait(1) == "Failed"
    pair.transfer(room=3, source=[1], target=[8])
    assert pair.wait(3) == ("Success", "Success")
    assert [pair.decode.wait(room, limit_s=0.1) for room in (1, 2)] == ["WaitingForInput"] * 2
