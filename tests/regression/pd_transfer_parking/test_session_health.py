"""How a decode session that was given up comes back, and what does not give it up.

A real prefill with real ZMQ and Mooncake over TCP, its probes among them; injected are the engine's return code
and the clock of prefill's process. Whether a session is given up shows in whether a room reaches the engine.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from testbed import Children, Ports, control_wire
from testbed.clock import LaterClock
from testbed.lone_prefill import LonePrefill, lone_prefill
from testbed.mooncake_pair import Side
from testbed.mooncake_side import wait_until

HEALTH = {
    "SGLANG_DISAGG_TRANSFER_PARKING": "1",
    "SGLANG_DISAGG_TRANSFER_RETRIES": "1",
    "SGLANG_DISAGG_TRANSFER_SETTLE_MS": "0",
    "SGLANG_DISAGG_SESSION_FAILURE_THRESHOLD": "2",
}
FOR_GOOD = {**HEALTH, "SGLANG_DISAGG_SESSION_FAILURE_THRESHOLD": "1", "SGLANG_DISAGG_SESSION_COOLDOWN_S": "0"}
FIVE_STRIKES = {**HEALTH, "SGLANG_DISAGG_SESSION_FAILURE_THRESHOLD": "5"}

COOLDOWN_S = 30
HALF_LIFE_S = 60
OVERDUE_S = 4
"""After it a probe has failed."""
A_DAY_S = 86_400
FEW_SESSIONS = 4096
IDLE_S = 600
QUEUES = 4
LOOK_LIMIT_S = 10.0
NOT_YET_LIMIT_S = 1.5
"""Prefill looks at its sessions several times in it."""


def reach_engine(bench: LonePrefill, rooms: str, first: int, session: str | None = None) -> str:
    """Send a room for each letter, whose pages are lost (``f``) or arrive (``s``).

    What became of each: the letter, or ``-`` where the engine was not called.
    """
    seen = []
    for room, wanted in enumerate(rooms, first):
        before = len(bench.calls())
        bench.prefill.fail_next("kv", 1 if wanted == "f" else 0)
        bench.prefill.call(open_sender, room)
        bench.peer.publish(room, [5], session=session)
        bench.wait_until_open(room)
        bench.send(room, [1])
        state = bench.end_of(room)
        seen.append("-" if len(bench.calls()) == before else "s" if state == "Success" else "f")
    return "".join(seen)


def open_sender(side: Side, room: int) -> None:
    side.open_sender(room, 1, aux_slot=0)


def advance(side: Side, seconds: float) -> None:
    LaterClock.of(side.kept).advance(seconds)


def comes_half_open(side: Side, limit_s: float = LOOK_LIMIT_S) -> bool:
    """Whether a session comes to wait for its trial; never where there is no such thing, or no answer."""
    counts = getattr(side.manager.transfer_policy, "counts", None)
    came = threading.Event()

    def look() -> None:
        if wait_until(lambda: counts is not None and counts().sessions_half_open > 0, bool, limit_s):
            came.set()

    threading.Thread(target=look, name="half-open", daemon=True).start()
    return came.wait(limit_s)


def send_on_all_queues(side: Side, port: int, session: str, first: int) -> None:
    """A room to ``session`` on each queue. The queue is by all ports of a room, so each has a dummy rank as well."""
    manager = side.manager
    for room in range(first, first + QUEUES):
        dummy = f"127.0.0.1:{20_000 + room}"
        frames = control_wire.metadata(port, session, room, [5], aux=1)
        no_pages = [*frames[:3], dummy.encode(), b"", b"", *frames[6:]]
        manager.transfer_infos[room] = {session: transfer_info(list(frames)), dummy: transfer_info(no_pages)}
        manager.request_status[room] = 2
        manager.add_transfer_request(room, np_pages([1]), slice(0, 1), True, aux_index=0)


def ends(side: Side, first: int, enough: int) -> list[str]:
    """The states of the rooms of `send_on_all_queues`, once ``enough`` have ended."""

    def look() -> list[str]:
        return sorted(side.names[side.manager.request_status[room]] for room in range(first, first + QUEUES))

    def is_enough(states: list[str]) -> bool:
        return sum(state in ("Failed", "Success") for state in states) >= enough

    ended: list[str] = wait_until(look, is_enough, LOOK_LIMIT_S)
    return ended


def transfer_info(frames: list[bytes]) -> Any:
    from sglang.srt.disaggregation.mooncake.conn import TransferInfo

    return TransferInfo.from_zmq(frames)


def np_pages(pages: list[int]) -> Any:
    import numpy as np

    return np.array(pages, dtype=np.int32)


def test_one_chunk_tries_a_session_again(children: Children, ports: Ports) -> None:
    """RT-8. Four workers ask at once; while the first has its chunk in the engine, the others fail theirs."""
    with lone_prefill(children, ports, HEALTH) as bench:
        assert reach_engine(bench, "ffs", first=1) == "ff-"
        bench.prefill.call(advance, COOLDOWN_S + 1)
        bench.prefill.call(comes_half_open)
        before = len(bench.calls())
        bench.prefill.hold("kv")
        bench.prefill.call(send_on_all_queues, bench.peer.port, bench.peer.buffers.session, 10)
        while_it_lasts = bench.prefill.call(ends, 10, QUEUES - 1)
        bench.prefill.release()
        assert bench.prefill.call(ends, 10, QUEUES) == ["Failed", "Failed", "Failed", "Success"], while_it_lasts
        assert [call.kind for call in bench.calls(before)] == ["kv", "aux"]
        assert reach_engine(bench, "sfs", first=20) == "sfs"


def test_a_failed_trial_doubles_the_cool_down(children: Children, ports: Ports) -> None:
    with lone_prefill(children, ports, HEALTH) as bench:
        assert reach_engine(bench, "ff", first=1) == "ff"
        bench.prefill.call(advance, COOLDOWN_S + 1)
        bench.prefill.call(comes_half_open)
        assert reach_engine(bench, "fs", first=10) == "f-"
        bench.prefill.call(advance, COOLDOWN_S + 1)
        assert not bench.prefill.call(comes_half_open, NOT_YET_LIMIT_S)
        bench.prefill.call(advance, COOLDOWN_S + 1)
        bench.prefill.call(comes_half_open)
        assert reach_engine(bench, "ss", first=20) == "ss"
        counts = bench.prefill.call(counts_of)
        assert (counts["rooms_failed"], counts["sessions_open"], counts["sessions_half_open"]) == (3, 0, 0)


def counts_of(side: Side) -> dict[str, int]:
    return dict(vars(side.manager.transfer_policy.counts()))


def refuse_pages(side: Side, is_refused: bool) -> None:
    """As if decode ran with fewer layers than prefill: SGLang's own check refuses to send."""
    for info in side.manager.decode_kv_args_table.values():
        if is_refused:
            side.kept.append((info, info.dst_kv_ptrs))
            info.dst_kv_ptrs = info.dst_kv_ptrs[:1]
    if not is_refused:
        for info, pointers in [thing for thing in side.kept if isinstance(thing, tuple)]:
            info.dst_kv_ptrs = pointers


def test_a_trial_that_never_reached_the_engine_leaves_it_to_the_next(children: Children, ports: Ports) -> None:
    with lone_prefill(children, ports, HEALTH) as bench:
        assert reach_engine(bench, "ff", first=1) == "ff"
        bench.prefill.call(advance, COOLDOWN_S + 1)
        bench.prefill.call(comes_half_open)
        bench.prefill.call(refuse_pages, True)
        assert reach_engine(bench, "s", first=10) == "-"
        bench.prefill.call(refuse_pages, False)
        assert reach_engine(bench, "ss", first=11) == "ss"


def test_failures_half_lives_apart_give_nothing_up(children: Children, ports: Ports) -> None:
    """RT-7."""
    with lone_prefill(children, ports, HEALTH) as bench:
        for room in range(1, 5):
            assert reach_engine(bench, "f", first=room) == "f"
            bench.prefill.call(advance, 3 * HALF_LIFE_S)
        assert reach_engine(bench, "ffs", first=10) == "ff-"
        assert bench.prefill.call(count_failures, FEW_SESSIONS + 100) == FEW_SESSIONS
        bench.prefill.call(advance, IDLE_S)
        assert bench.prefill.call(count_failures, 1) == 1


def count_failures(side: Side, count: int) -> int:
    """A failure on each of ``count`` sessions; how many are remembered then."""
    manager = side.manager
    with manager.session_lock:
        for number in range(count):
            manager.transfer_policy.gives_up(f"10.0.0.1:{number}")
        return len(manager.session_failures)


def test_a_room_that_arrives_takes_half_of_the_failures_away(children: Children, ports: Ports) -> None:
    """RT-7. A link that lets one room in eight through is no healthy one."""
    with lone_prefill(children, ports, FIVE_STRIKES) as bench:
        assert reach_engine(bench, "ffffsfffs", first=1) == "ffffsfff-"


@contextlib.contextmanager
def stopped_peer() -> Iterator[socket.socket]:
    """A port that connects and does not answer, as that of a stopped process: the kernel connects."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


def probes_that_came(listener: socket.socket) -> int:
    listener.settimeout(0)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


def test_a_stopped_peer_holds_no_other_session_up(children: Children, ports: Ports) -> None:
    """RT-15. The real engine's probe of it does not come back; it is asked first."""
    with lone_prefill(children, ports, HEALTH) as bench, stopped_peer() as stopped:
        silent = f"127.0.0.1:{stopped.getsockname()[1]}"
        bench.peer.register(silent)
        assert bench.peer.was_read()
        assert reach_engine(bench, "ff", first=1, session=silent) == "ff"
        assert reach_engine(bench, "ff", first=10) == "ff"
        bench.prefill.call(advance, COOLDOWN_S + 1)
        bench.prefill.call(comes_half_open)
        assert reach_engine(bench, "s", first=20) == "s"
        assert reach_engine(bench, "s", first=30, session=silent) == "-"
        for cooldown_s in (2 * COOLDOWN_S, 4 * COOLDOWN_S):
            bench.prefill.call(advance, OVERDUE_S)
            assert bench.prefill.call(is_told, silent, cooldown_s)
            bench.prefill.call(advance, cooldown_s)
        assert probes_that_came(stopped) == 1


def is_told(side: Side, session: str, cooldown_s: float) -> bool:
    """Whether a session comes to be given up for so long."""
    sessions = side.manager.transfer_policy._health._sessions
    return bool(wait_until(lambda: sessions[session].cooldown_s == cooldown_s, bool, LOOK_LIMIT_S))


SETTINGS = {
    "SGLANG_DISAGG_TRANSFER_PARKING": (["2", "-1", "yes", ""], ["0", "1"]),
    "SGLANG_DISAGG_TRANSFER_SETTLE_MS": (["-1", "soon"], ["0"]),
    "SGLANG_DISAGG_SESSION_FAILURE_HALF_LIFE_S": (["0", "-1", "1m"], ["1"]),
    "SGLANG_DISAGG_SESSION_COOLDOWN_S": (["-1", "301", "long"], ["0", "300"]),
}
KEPT: list[ValueError] = []
"""With the managers that were not finished: ZMQ waits for good for a context that is collected with its sockets."""


def refused(side: Side, name: str, values: list[str]) -> dict[str, str]:
    """The values with which no second manager can be made in prefill's process, and why."""
    manager = side.manager
    said = {}
    before = os.environ.get(name)
    for value in values:
        os.environ[name] = value
        try:
            type(manager)(manager.kv_args, manager.disaggregation_mode, manager.server_args, False)
        except ValueError as error:
            said[value] = str(error)
            KEPT.append(error)
    if before is None:
        del os.environ[name]
    else:
        os.environ[name] = before
    return said


def test_a_wrong_setting_stops_the_start(children: Children, ports: Ports) -> None:
    """RT-14."""
    with lone_prefill(children, ports, HEALTH) as bench:
        for name, (wrong, right) in SETTINGS.items():
            said = bench.prefill.call(refused, name, [*wrong, *right])
            assert list(said) == wrong, f"{name} was taken"
            for value, error in said.items():
                assert error.startswith(f"{name}={value!r} is not a whole number from ")
                assert "Correct it, or unset it for the default, " in error


@pytest.mark.control
def test_without_a_cool_down_it_is_for_good(children: Children, ports: Ports) -> None:
    with lone_prefill(children, ports, FOR_GOOD) as bench:
        assert reach_engine(bench, "fs", first=1) == "f-"
        bench.prefill.call(advance, A_DAY_S)
        assert not bench.prefill.call(comes_half_open, NOT_YET_LIMIT_S)
        assert reach_engine(bench, "s", first=10) == "-"
        bench.peer.register()
        assert bench.peer.was_read()
        assert reach_engine(bench, "s", first=20) == "s"
        assert bench.log().count(f"Session {bench.calls()[0].session} failed.") == 1


@pytest.mark.control
def test_a_registration_brings_a_session_back_at_once(children: Children, ports: Ports) -> None:
    """RT-9."""
    with lone_prefill(children, ports, HEALTH) as bench:
        assert reach_engine(bench, "ffs", first=1) == "ff-"
        bench.peer.register()
        assert bench.peer.was_read()
        assert reach_engine(bench, "sfs", first=10) == "sfs"
