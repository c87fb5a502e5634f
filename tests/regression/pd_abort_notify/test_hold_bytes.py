"""A page that decode gave up is not handed out while prefill may still write to it (AB-8, AB-9).

Real managers, ZMQ and Mooncake over TCP; on decode SGLang's own queues, pools, allocator and caches. Who gets
a page next is the allocator's choice. Each request's KV is made of one byte, and pages are read some time
after the last transfer has ended, for a write may land late.
"""

from __future__ import annotations

import signal

import pytest

from testbed import Children, Ports
from testbed.decode_pair import DecodePair, DecodeShape, start_decode_pair

ABORTED, NEXT = 0xA, 0xB
"""What the KV of the aborted request is made of, and that of the one that gets its pages."""
SOURCE, NEXT_SOURCE = [1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]
"""Prefill's pages of the two."""
LATE_S = 2.0
SOON_S = 2.0
ENGINE_TIMEOUT_S = 5
HOLD_S = 30.0

# Of 8 pages one request gets 6: the next one does not fit beside it.
SMALL = DecodeShape(pages=8)
# 40 MB and more in each of two buffers: Linux takes in 36 MB at most for a process that does not read.
LARGE = DecodeShape(
    pages=8, page_size=512, layers=1, heads=32, head_dim=128, env={"MC_TRANSFER_TIMEOUT": str(ENGINE_TIMEOUT_S)}
)


def fill_prefill(bed: DecodePair) -> None:
    bed.prefill.fill("kv", SOURCE, ABORTED)
    bed.prefill.fill("kv", NEXT_SOURCE, NEXT)


def let_late_writes_land(bed: DecodePair) -> None:
    """Nothing tells of a late write, so there is no event to wait for, and the time is not cut short."""
    bed.prefill.received(b"no such message", count=1, limit_s=LATE_S)


def bytes_of(bed: DecodePair, pages: list[int]) -> set[int]:
    return set().union(*(bed.decode.holds("kv", page) for page in pages))


@pytest.mark.control
def test_a_request_gets_its_pages_its_bytes_and_its_first_token(children: Children, ports: Ports) -> None:
    bed = start_decode_pair(children, ports, SMALL)
    fill_prefill(bed)
    before = bed.decode.books()
    pages = bed.start_transfer("first", room=1, pages=6)
    bed.prefill.send(room=1, source=SOURCE[:2])
    bed.prefill.send(room=1, source=SOURCE[2:])
    assert bed.decode.step_until("first") == "Ready"
    assert bytes_of(bed, pages) == {ABORTED}
    after = bed.decode.books()
    assert (before.tokens - after.tokens, after.metadata_slots) == (len(pages) * 4, before.metadata_slots)


def test_chunks_that_are_computed_after_the_abort(children: Children, ports: Ports) -> None:
    """The next request has got its bytes and is about to start when prefill comes to the aborted one's rest."""
    bed = start_decode_pair(children, ports, SMALL)
    fill_prefill(bed)
    bed.start_transfer("other", room=9, pages=1)  # keeps the first metadata slot: the next has the aborted one's
    bed.start_transfer("aborted", room=1, pages=6, slot=1)
    bed.prefill.send(room=1, source=SOURCE[:2])
    assert bed.prefill.wait_for_transfers(1)

    bed.decode.abort_request("aborted")
    bed.decode.step()
    assert bed.decode.state("aborted") == "Aborted"
    pages = bed.start_transfer("next", room=2, pages=6, slot=2)
    bed.prefill.send(room=2, source=NEXT_SOURCE)
    assert bed.prefill.wait(room=2) == "Success"

    bed.prefill.send(room=1, source=SOURCE[2:])
    let_late_writes_land(bed)
    state = bed.decode.step_until("next")
    assert bytes_of(bed, pages) == {NEXT}, f"KV of the aborted request is in pages of the next one, which is {state}"
    assert state == "Ready", bed.decode.answer("next")


def start_and_hold(bed: DecodePair) -> None:
    """The aborted request's second chunk is with the engine; another request waits in host memory for its pages."""
    fill_prefill(bed)
    bed.decode.run_and_retract("next", room=2, pages=6, byte=NEXT)
    bed.start_transfer("aborted", room=1, pages=6)
    bed.prefill.send(room=1, source=SOURCE[:1])
    assert bed.prefill.wait_for_transfers(1)
    bed.prefill.hold("kv")
    bed.prefill.send(room=1, source=SOURCE[1:])
    assert bed.prefill.wait_until_held()
    bed.decode.abort_request("aborted")
    bed.decode.step()
    assert bed.decode.state("aborted") == "Aborted"
    bed.decode.queue_retracted("next")
    bed.decode.step()


def returned_by_engine(bed: DecodePair) -> int:
    """What the engine said of the held chunk."""
    assert bed.prefill.wait_for_transfers(2)
    held = bed.prefill.transfers()[1]
    assert (held.kind, held.injected) == ("kv", False)
    return held.returned


def test_a_batch_that_is_with_the_engine(children: Children, ports: Ports) -> None:
    """And the wait for it ends although a retracted request waits, which keeps all else from being looked at."""
    bed = start_decode_pair(children, ports, SMALL)
    start_and_hold(bed)
    while_held = bed.decode.state("next")

    bed.prefill.release()
    assert returned_by_engine(bed) == 0, "nothing was written"
    state = bed.decode.step_until("next")
    pages = bed.decode.pages_of("next")
    let_late_writes_land(bed)
    assert bytes_of(bed, pages) == {NEXT}, f"KV of the aborted request is in pages of one that is {state}"
    assert (while_held, state) == ("Retracted", "Ready")


def test_a_batch_that_the_engine_gave_up_lands_later(children: Children, ports: Ports) -> None:
    """Decode is stopped for a while: the engine's call fails, and no answer of prefill's says that all is quiet.

    Then only the deadline ends the hold.
    """
    bed = start_decode_pair(children, ports, LARGE)
    start_and_hold(bed)

    bed.decode.child.signal(signal.SIGSTOP)
    bed.prefill.release()
    returned = returned_by_engine(bed)
    bed.decode.child.signal(signal.SIGCONT)
    assert returned == -1, "the engine's call did not fail"
    before_deadline = bed.decode.step_until("next", limit_s=SOON_S)
    bed.decode.move_clock(HOLD_S)
    state = bed.decode.step_until("next")
    pages = bed.decode.pages_of("next")
    let_late_writes_land(bed)
    assert bytes_of(bed, pages) == {NEXT}, f"KV of the aborted request is in pages of one that is {state}"
    assert (before_deadline, state) == ("Retracted", "Ready")
    assert bed.decode.received(b"ABORT_ACK") == []
