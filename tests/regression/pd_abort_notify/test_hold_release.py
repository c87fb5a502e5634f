"""What decode keeps of an aborted request, until when, and what ends it (hold details, AB-12, AB-16).

Real processes, ZMQ, Mooncake and gloo; decode's queues, pools, allocator and cache are SGLang's own. Prefill's
engine is held where a batch must not have ended yet; deadlines are reached by moving decode's clock.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import zmq

from testbed import Children, Ports
from testbed.decode_pair import DecodePair, DecodeShape, start_decode_pair
from testbed.messages import Frames

SOURCE = [1, 2, 3]
HOLD_S = 30.0
"""Default of SGLANG_DISAGGREGATION_DEFERRED_DECODE_KV_RELEASE_TIMEOUT."""
MARGIN_S = 5.0
"""How far before a deadline nothing may have happened yet."""
WAITING_TIMEOUT_S = 400.0
"""More than SGLang waits for a transfer by default."""
SOON_S = 5.0
ROUNDS = 20
ALL_ATTEMPTS = 1000


def start_and_hold(bed: DecodePair, prefill_rank: int = 0) -> None:
    """Room 1 gets its pages and all its chunks; the batch of one prefill rank stays with the engine."""
    bed.prefills[prefill_rank].hold("kv")
    bed.start_transfer("aborted", room=1, pages=len(SOURCE))
    for rank in bed.prefills:
        rank.send(room=1, source=SOURCE)
    assert bed.prefills[prefill_rank].wait_until_held()


@pytest.mark.parametrize("radix", [False, True], ids=["chunk-cache", "radix-cache"])
def test_all_of_it_is_kept_until_prefill_has_let_go(children: Children, ports: Ports, radix: bool) -> None:
    """The client is answered at once; pages, request slot and metadata slot stay taken, and decode is not idle."""
    bed = start_decode_pair(children, ports, DecodeShape(radix=radix))
    before = bed.decode.books()
    start_and_hold(bed)
    taken = bed.decode.books()

    bed.decode.abort_request("aborted")
    bed.decode.step()
    assert "Aborted by AbortReq" in bed.decode.answer("aborted")
    bed.decode.step(ROUNDS)
    assert bed.decode.books() == taken, "given away with its batch under way"

    bed.prefill.release()
    assert bed.decode.step_until_idle(), bed.decode.books()
    assert bed.decode.books() == before


def abort_and_fail(bed: DecodePair) -> None:
    """The client goes away, and then the engine gives the batch up."""
    bed.decode.abort_request("aborted")
    bed.decode.step()
    bed.prefill.release()


def fail(bed: DecodePair) -> None:
    """The engine gives the batch up, and decode learns from prefill that the request has failed."""
    bed.prefill.release()
    assert bed.decode.step_until("aborted") == "Aborted"


@pytest.mark.parametrize("end_it", [abort_and_fail, fail])
def test_a_failed_batch_keeps_it_until_the_deadline(
    children: Children, ports: Ports, end_it: Callable[[DecodePair], None]
) -> None:
    """A failed call of the engine says nothing about the rest of its batch, so prefill never says that it let go."""
    bed = start_decode_pair(children, ports)
    before = bed.decode.books()
    start_and_hold(bed)
    taken = bed.decode.books()
    bed.prefill.fail_next("kv", times=ALL_ATTEMPTS)
    end_it(bed)
    assert bed.prefill.wait_for_transfers(1)
    assert {done.injected for done in bed.prefill.transfers()} == {True}

    bed.decode.move_clock(HOLD_S - MARGIN_S)
    bed.decode.step(ROUNDS)
    assert bed.decode.books() == taken, "given away before the deadline"
    assert bed.decode.received(b"ABORT_ACK") == []

    bed.decode.move_clock(MARGIN_S)
    bed.decode.step()
    assert bed.decode.books() == before
    # Nothing sets logging up here, so that what is not at least a warning is not written.
    assert "Releasing the pages of aborted room 1" in dict(children.logs())["decode0"]


def test_every_prefill_rank_must_have_let_go(children: Children, ports: Ports) -> None:
    """And each is told of an abort once a room, whatever comes first and whatever comes after it."""
    bed = start_decode_pair(children, ports, DecodeShape(prefill_ranks=2))
    before = bed.decode.books()
    start_and_hold(bed, prefill_rank=0)
    assert bed.prefills[1].wait_for_transfers(1)
    taken = bed.decode.books()
    bed.decode.abort_request("aborted")
    bed.decode.step()
    acks = bed.decode.received(b"ABORT_ACK", count=1, limit_s=SOON_S)
    bed.decode.step(ROUNDS)
    assert bed.decode.books() == taken, "given away with a batch of one rank's under way"
    assert [(room, rank) for _, room, rank, _ in acks] == [(b"1", b"1")]

    bed.prefills[0].release()
    assert bed.decode.step_until_idle(), bed.decode.books()
    assert bed.decode.books() == before


def test_a_rank_that_writes_nothing_does_not_count(children: Children, ports: Ports) -> None:
    """With MLA one rank of prefill writes for all; another one's word that it has let go says nothing."""
    bed = start_decode_pair(children, ports, DecodeShape(prefill_ranks=2, mla=True))
    before = bed.decode.books()
    start_and_hold(bed, prefill_rank=0)
    taken = bed.decode.books()
    bed.decode.abort_request("aborted")
    bed.decode.step()
    bed.decode.received(b"ABORT_ACK", count=1, limit_s=SOON_S)
    bed.decode.step(ROUNDS)
    assert bed.decode.books() == taken, "given away with the batch of the rank that writes under way"
    assert bed.prefills[1].transfers() == []

    bed.prefills[0].release()
    assert bed.decode.step_until_idle(), bed.decode.books()
    assert bed.decode.books() == before


def test_each_prefill_rank_is_told_once(children: Children, ports: Ports) -> None:
    bed = start_decode_pair(children, ports, DecodeShape(prefill_ranks=2))

    bed.start_transfer("late", room=1, pages=1)
    bed.decode.move_clock(WAITING_TIMEOUT_S)
    assert bed.decode.wait(room=1, states=["Failed"]) == "Failed"
    for rank in bed.prefills:
        assert rank.received(b"ABORT", count=1, limit_s=SOON_S), "prefill was not told of the time-out"
    bed.decode.abort_request("late")
    bed.decode.step()
    assert bed.decode.state("late") == "Aborted"

    bed.start_transfer("aborted", room=2, pages=1)
    bed.decode.abort_request("aborted")
    bed.decode.move_clock(WAITING_TIMEOUT_S)
    bed.decode.abort_request("aborted")
    assert bed.decode.wait(room=2, states=["Failed"]) == "Failed"
    bed.decode.step()
    bed.start_transfer("last", room=3, pages=1)  # nothing of the two is still to come when this one is known
    for rank in bed.prefills:
        told = [frames[1] for frames in rank.received(b"ABORT", count=2, limit_s=SOON_S)]
        assert told == [b"1", b"2"], f"told of the aborts of rooms {told}"


def send_to_decode(abort: Frames, messages: list[Frames]) -> None:
    """From a peer of its own to the decode rank that sent this ABORT."""
    _, _, host, port, _ = abort
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(f"tcp://{host.decode()}:{port.decode()}")
        for message in messages:
            socket.send_multipart(message)


def test_only_its_own_acknowledgement_counts(children: Children, ports: Ports) -> None:
    """Not one that only says that prefill heard, not that of another abort of this room, or of another room."""
    bed = start_decode_pair(children, ports)
    before = bed.decode.books()
    start_and_hold(bed)
    taken = bed.decode.books()
    bed.decode.abort_request("aborted")
    bed.decode.step()
    told = bed.prefill.received(b"ABORT", count=1, limit_s=SOON_S)
    assert [len(frames) for frames in told] == [5], "decode asked for no acknowledgement"
    room, generation = told[0][1], int(told[0][4])
    wrong: list[Frames] = [
        (b"ABORT_ACK", room),
        *((b"ABORT_ACK", room, b"0", b"%d" % other) for other in (generation - 1, generation + 1, 0)),
        (b"ABORT_ACK", b"2", b"0", b"%d" % generation),
        (b"ABORT_ACK", room, b"0", b"none"),
        (b"ABORT_ACK", room, b"0"),
    ]
    send_to_decode(told[0], wrong)
    assert len(bed.decode.received(b"ABORT_ACK", count=len(wrong), limit_s=SOON_S)) == len(wrong)
    bed.decode.step(ROUNDS)
    assert bed.decode.books() == taken, "given away with its batch under way"

    bed.prefill.release()
    assert bed.decode.step_until_idle(), bed.decode.books()
    assert bed.decode.books() == before


@pytest.mark.parametrize("arrived", [False, True], ids=["nothing-more-comes", "all-has-arrived"])
def test_ranks_of_decode_release_together(children: Children, ports: Ports, arrived: bool) -> None:
    """One rank may release its half of the request, and the other one's is still being written.

    The one is the rank that fails, by itself, and takes the other along. Either its prefill rank has nothing
    under way and says so, or all is there and it has nothing to wait for.
    """
    bed = start_decode_pair(children, ports, DecodeShape(prefill_ranks=2, decode_ranks=2))
    before = bed.decode.books()
    bed.prefills[0].hold("kv")
    bed.start_transfer("aborted", room=1, pages=len(SOURCE))
    bed.prefills[0].send(room=1, source=SOURCE)
    bed.prefills[1].send(room=1, source=SOURCE if arrived else SOURCE[:1])
    assert bed.prefills[0].wait_until_held()
    assert bed.prefills[1].wait_for_transfers(1)
    if arrived:
        assert bed.decodes[1].wait(room=1, states=["Success"]) == "Success"
    taken = bed.decode.books()

    bed.decodes[1].abort(room=1)
    bed.decode.step()
    assert bed.decode.state("aborted") == "Aborted"
    bed.decodes[1].received(b"ABORT_ACK", count=1, limit_s=SOON_S)
    bed.decode.step(ROUNDS)
    assert bed.decode.books() == taken, "given away with a batch of one rank's under way"
    assert bed.decodes[0].received(b"ABORT_ACK") == []
    assert len(bed.decodes[1].received(b"ABORT_ACK")) == 1

    bed.prefills[0].release()
    assert bed.decode.step_until_idle(), bed.decode.books()
    assert bed.decode.books() == before
    for rank in bed.prefills:
        assert [frames[1] for frames in rank.received(b"ABORT")] == [b"1"]
