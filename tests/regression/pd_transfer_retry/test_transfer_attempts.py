"""A transfer that fails fast is tried again; a slow one, or one of a room that has ended, is not.

A real prefill with real ZMQ and Mooncake over TCP. Injected: the engine's return code, and the clock of
SGLang's transfer threads where pauses are looked at.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from testbed import Children, Ports, control_wire
from testbed.clock import WorkerClock
from testbed.lone_prefill import LonePrefill, lone_prefill
from testbed.mooncake_pair import PairShape, Side, start_pair
from testbed.transfers import Transfer

ATTEMPTS = 3
PAUSES_S = [(0.05, 0.06), (0.10, 0.12)]
"""After the first and the second failed attempt: 50 ms and 100 ms, and up to a fifth more."""
ROUNDING_S = 1e-6

JUST_FAST_S, JUST_SLOW_S = 1.9, 2.1
"""Either side of the 2,000 ms that a failed attempt may take to be tried again."""

LONG_PAUSES = {"SGLANG_DISAGG_TRANSFER_RETRIES": "10", "SGLANG_DISAGG_TRANSFER_RETRY_BACKOFF_MS": "10000"}
LONG_PAUSE_S = 10
TWO_STRIKES = {"SGLANG_DISAGG_TRANSFER_RETRIES": "1", "SGLANG_DISAGG_SESSION_FAILURE_THRESHOLD": "2"}
SLOW_ENGINE = {"MC_TRANSFER_TIMEOUT": "5"}
"""Mooncake's own limit for a batch, in seconds; 30 if not set."""


def calls_of(calls: list[Transfer]) -> list[tuple[str, bool]]:
    """Each call's kind, and whether it arrived."""
    return [(call.kind, call.returned == 0) for call in calls]


def install_clock(side: Side) -> None:
    clock: Any = WorkerClock()
    clock.install()
    side.watched.on_call = clock.note_call
    side.clock = clock


def let_failures_take(side: Side, seconds: float) -> None:
    side.clock.calls_take_s = seconds


def pauses_s(side: Side) -> list[float]:
    return list(side.clock.pauses_s)


def watch_unsettled(side: Side) -> None:
    side.unsettled = set()
    side.manager._poison_unsettled_send = side.unsettled.add


def unsettled(side: Side) -> set[int]:
    return set(side.unsettled)


@pytest.mark.parametrize("kind", ["kv", "aux"])
def test_it_is_tried_three_times_with_growing_pauses(children: Children, ports: Ports, kind: str) -> None:
    """RT-1, and RT-10 for metadata."""
    with lone_prefill(children, ports) as bench:
        bench.prefill.call(install_clock)
        bench.prefill.call(watch_unsettled)
        bench.prefill.fill("kv", [1, 2], 7)
        ended, calls = [], []
        for failures in range(ATTEMPTS + 1):
            before = len(bench.calls())
            bench.prefill.fail_next(kind, failures)
            bench.transfer(room=failures, source=[1, 2], target=[4 + 2 * failures, 5 + 2 * failures])
            ended.append(bench.end_of(failures))
            calls.append(bench.calls(before))
        tried = [[call.returned for call in room if call.kind == kind] for room in calls]
        assert tried == [[0], [-1, 0], [-1, -1, 0], [-1, -1, -1]]
        assert ended == ["Success", "Success", "Success", "Failed"]
        assert [bench.prefill.holds("kv", page) for page in range(4, 10)] == [{7}] * 6
        assert_pauses_grow(bench, [call for room in calls for call in room], kind)
        assert_logged(bench, calls[-1], kind)
        assert bench.prefill.call(unsettled) == {1, 2, 3}, "a failed batch may still be writing"


def assert_pauses_grow(bench: LonePrefill, calls: list[Transfer], kind: str) -> None:
    """Before a transfer's first attempt there is none, before its second and third the two that are set."""
    row = 0
    for call, slept_s in zip(calls, bench.prefill.call(pauses_s), strict=True):
        shortest, longest = PAUSES_S[row - 1] if row else (0.0, 0.0)
        assert shortest - ROUNDING_S <= slept_s <= longest + ROUNDING_S, f"{slept_s} s before attempt {row + 1}"
        row = row + 1 if call.kind == kind and call.returned != 0 and row + 1 < ATTEMPTS else 0


def assert_logged(bench: LonePrefill, lost: list[Transfer], kind: str) -> None:
    log = bench.log()
    session = lost[0].session
    for attempt in (2, 3):
        assert f"recovered on attempt {attempt}/3 for session {session} room {attempt - 1}" in log
    batch = next(call for call in lost if call.kind == kind)
    assert (
        f"PD_TRANSFER_FAIL session={session} room=3 ret=-1 class=fast attempts=3"
        f" n_slices={batch.blocks} total_bytes={batch.bytes} first_src=0x"
    ) in log


def test_state_is_tried_again(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports, PairShape(state="swa"))
    pair.prefill.fill("state", [1], 9)
    pair.prefill.fail_next("state", ATTEMPTS - 1)
    pair.transfer(room=1, source=[1, 2], target=[5, 6], state=([1], [3]))
    assert pair.wait(room=1) == ("Success", "Success")
    assert calls_of(pair.prefill.transfers()) == [
        ("kv", True),
        ("state", False),
        ("state", False),
        ("state", True),
        ("aux", True),
    ]
    assert pair.decode.holds("state", 3) == {9}


def test_head_slices_are_tried_again(children: Children, ports: Ports) -> None:
    """RT-2. Where decode has more tensor ranks, each layer is a transfer of its own, on an executor's thread."""
    with lone_prefill(children, ports) as bench:
        frames = list(control_wire.registration(bench.peer.port, bench.peer.buffers))
        frames[8] = b"2"  # decode's tensor ranks; this is the first, and takes whole tokens
        bench.peer.send(*frames)
        bench.prefill.fill("kv", [1, 2], 7)
        bench.prefill.fail_next("kv", ATTEMPTS - 1)
        bench.transfer(room=1, source=[1, 2], target=[5, 6])
        assert bench.end_of(1) == "Success"
        kv = [call.returned for call in bench.calls() if call.kind == "kv"]
        assert (kv.count(-1), kv.count(0)) == (ATTEMPTS - 1, 4), "two layers, K and V"
        assert [bench.prefill.holds("kv", page) for page in (5, 6)] == [{7}, {7}]
        bench.prefill.fail_next("kv", 1_000)
        bench.transfer(room=2, source=[1, 2], target=[8, 9])
        assert bench.end_of(2) == "Failed"


def test_only_what_failed_fast_is_tried_again(children: Children, ports: Ports) -> None:
    """Injected: how long a failing call takes."""
    with lone_prefill(children, ports) as bench:
        bench.prefill.call(install_clock)
        for room, seconds in enumerate((JUST_FAST_S, JUST_SLOW_S)):
            bench.prefill.call(let_failures_take, seconds)
            bench.prefill.fail_next("kv", ATTEMPTS)
            bench.transfer(room, source=[1], target=[5])
            assert bench.end_of(room) == "Failed"
        assert calls_of(bench.calls()) == [("kv", False)] * (ATTEMPTS + 1)
        assert "room=1 ret=-1 class=slow attempts=1" in bench.log()
        bench.transfer(2, source=[1], target=[5])
        assert bench.end_of(2) == "Failed"
        assert len(bench.calls()) == ATTEMPTS + 1, "a peer that does not answer is given up at once, as before"


def test_a_stopped_peer_is_never_tried_again(children: Children, ports: Ports) -> None:
    """RT-3. What the engine gave up may still be written when the peer goes on."""
    pair = start_pair(children, ports, PairShape(env=SLOW_ENGINE))
    pair.open(room=1, target=[5])
    os.kill(pair.decode.child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pair.decode.child.pid, os.WSTOPPED | os.WNOWAIT)  # until all its threads stand still
    pair.send(room=1, source=[1])
    assert pair.prefill.wait(room=1, limit_s=60) == "Failed"
    assert [(call.returned, call.injected) for call in pair.prefill.transfers()] == [(-1, False)]
    session = pair.prefill.transfers()[0].session
    log = pair.prefill.child.log.read_text()
    assert f"PD_TRANSFER_FAIL session={session} room=1 ret=-1 class=slow attempts=1" in log
    os.kill(pair.decode.child.pid, signal.SIGCONT)


def test_a_dead_peer_fails_fast(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports)
    pair.open(room=1, target=[5])
    pair.decode.child.end()
    pair.send(room=1, source=[1])
    assert pair.prefill.wait(room=1) == "Failed"
    assert [(call.returned, call.injected) for call in pair.prefill.transfers()] == [(-1, False)] * ATTEMPTS
    assert "room=1 ret=-1 class=fast attempts=3" in pair.prefill.child.log.read_text()


def end_in_pause(side: Side, room: int, how: str) -> None:
    """Let the scheduler ``abort`` or ``clear`` a room when the worker first waits before it tries again."""

    def on_pause() -> None:
        side.clock.on_pause = lambda: None
        getattr(side.rooms[room], how)()

    side.clock.on_pause = on_pause


def test_the_end_of_a_room_ends_its_attempts(children: Children, ports: Ports) -> None:
    """RT-4. The worker goes on with the next room at once, and decode is not told that it has its pages."""
    with lone_prefill(children, ports, LONG_PAUSES) as bench:
        bench.prefill.call(install_clock)
        for room, how in ((1, "abort"), (3, "clear")):
            bench.prefill.call(end_in_pause, room, how)
            bench.prefill.fail_next("kv")
            bench.transfer(room, source=[1], target=[5])
            bench.transfer(room + 1, source=[1], target=[6])
            assert bench.end_of(room + 1) == "Success"
        assert calls_of(bench.calls()) == [("kv", False), ("kv", True), ("aux", True)] * 2
        slept_s = bench.prefill.call(pauses_s)
        assert 0 < max(slept_s) < LONG_PAUSE_S
        told = bench.peer.receive_until(control_wire.status(4, control_wire.SUCCESS))
        assert [frames for frames in told if frames[1] == b"4"] == [
            control_wire.status(room, control_wire.SUCCESS) for room in (2, 4)
        ]


def test_chunks_stay_in_order(children: Children, ports: Ports) -> None:
    """RT-6. The second chunk waits for the attempts of the first, and the metadata for both."""
    with lone_prefill(children, ports) as bench:
        bench.prefill.fill("kv", [1, 2], 7)
        bench.prefill.fill("kv", [3], 8)
        bench.prefill.hold("kv")
        bench.prefill.fail_next("kv", ATTEMPTS - 1)
        bench.open(room=1, target=[5, 6, 7])
        bench.send(room=1, source=[1, 2])
        assert bench.prefill.wait_until_held()
        bench.send(room=1, source=[3])
        bench.prefill.release()
        assert bench.end_of(1) == "Success"
        first, *_, second, _ = bench.calls()
        assert [(call.kind, call.bytes, call.returned) for call in bench.calls()] == [
            ("kv", first.bytes, -1),
            ("kv", first.bytes, -1),
            ("kv", first.bytes, 0),
            ("kv", first.bytes // 2, 0),
            ("aux", bench.calls()[-1].bytes, 0),
        ]
        assert second.returned == 0
        assert [bench.prefill.holds("kv", page) for page in (5, 6, 7)] == [{7}, {7}, {8}]


def fail_second_peer(side: Side) -> None:
    """Let the call after the next one fail."""

    def on_call(injected: bool) -> None:
        side.watched.on_call = lambda injected: None
        side.watched.fail_next("kv")

    side.watched.on_call = on_call


def open_sender(side: Side, room: int, pages: int) -> None:
    side.open_sender(room, pages, aux_slot=0)


def test_one_of_two_peers_fails_once(children: Children, ports: Ports) -> None:
    """RT-11. The other one has its pages already, and gets them once."""
    with lone_prefill(children, ports) as bench:
        peer = bench.peer
        near = peer.buffers.session
        far = near.replace("127.0.0.1", "localhost")
        peer.register(far)
        bench.prefill.fill("kv", [1], 7)
        bench.prefill.call(fail_second_peer)
        bench.prefill.call(open_sender, 1, 1)
        for session, page in ((near, 5), (far, 6)):
            peer.send(*control_wire.metadata(peer.port, session, 1, [page], aux=1, ranks=2))
        bench.wait_until_open(1)
        bench.send(room=1, source=[1])
        assert bench.end_of(1) == "Success"
        assert [(call.kind, call.session, call.returned) for call in bench.calls()] == [
            ("kv", near, 0),
            ("aux", near, 0),
            ("kv", far, -1),
            ("kv", far, 0),
            ("aux", far, 0),
        ]
        assert [bench.prefill.holds("kv", page) for page in (5, 6)] == [{7}, {7}]


def test_a_room_that_failed_sends_nothing_more(children: Children, ports: Ports) -> None:
    """Its last chunk is queued already. It must not write into decode's pages, end in Success, or count again."""
    with lone_prefill(children, ports, TWO_STRIKES) as bench:
        bench.prefill.hold("kv")
        bench.prefill.fail_next("kv")
        bench.open(room=1, target=[5, 6, 7])
        bench.send(room=1, source=[1])
        assert bench.prefill.wait_until_held()
        bench.send(room=1, source=[2, 3])
        bench.transfer(room=2, source=[4], target=[8])
        bench.prefill.release()
        assert bench.end_of(2) == "Success"  # the same worker's next room: all of the first is behind it
        assert bench.end_of(1) == "Failed"
        one_page = bench.calls()[0].bytes
        assert [(call.bytes, call.returned) for call in bench.calls() if call.kind == "kv"] == [
            (one_page, -1),
            (one_page, 0),
        ]


def raised_by_an_engine_without_batches(side: Side) -> str:
    """What the caller of a transfer gets if Mooncake is too old for it."""
    engine, side.engine.engine = side.engine.engine, object()
    try:
        with pytest.raises(RuntimeError) as caught:
            side.manager._transfer_data("127.0.0.1:1", [(1, 2, 3)])
    finally:
        side.engine.engine = engine
    return str(caught.value)


def code_of_a_dead_session(side: Side) -> int:
    """What the caller of a transfer gets if nobody listens there."""
    address, length = side.manager.kv_args.kv_data_ptrs[0], side.manager.kv_args.kv_item_lens[0]
    return int(side.manager._transfer_data("127.0.0.1:1", [(address, address, length)]))


@pytest.mark.control
def test_what_arrives_at_once_is_as_before(children: Children, ports: Ports) -> None:
    with lone_prefill(children, ports) as bench:
        bench.prefill.call(install_clock)
        bench.prefill.fill("kv", [1, 2], 7)
        bench.transfer(room=1, source=[1, 2], target=[5, 6])
        assert bench.end_of(1) == "Success"
        assert calls_of(bench.calls()) == [("kv", True), ("aux", True)]
        assert [bench.prefill.holds("kv", page) for page in (5, 6)] == [{7}, {7}]
        assert bench.prefill.call(pauses_s) == [0.0, 0.0]
        assert bench.prefill.call(code_of_a_dead_session) == -1
        assert "requires mooncake-transfer-engine" in bench.prefill.call(raised_by_an_engine_without_batches)
