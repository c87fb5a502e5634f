"""After how many failed rooms a decode session is given up, what starts the count again, and the settings.

A real prefill with real ZMQ and Mooncake over TCP; injected is the engine's return code. Whether a session is
given up shows in whether the next room reaches the engine.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest

from testbed import Children, Ports, control_wire
from testbed.lone_prefill import LonePrefill, lone_prefill
from testbed.mooncake_pair import Side

ONE_ATTEMPT = {"SGLANG_DISAGG_TRANSFER_RETRIES": "1"}
TWO_STRIKES = {**ONE_ATTEMPT, "SGLANG_DISAGG_SESSION_FAILURE_THRESHOLD": "2"}
OFF = {**ONE_ATTEMPT, "SGLANG_DISAGG_SESSION_FAILURE_THRESHOLD": "1"}

SESSIONS = 100_000
SESSIONS_LIMIT_S = 180.0
"""A tenth of it on idle cores."""
FEW_SESSIONS = 10_000
"""Of all those that failed once, how many may be remembered."""


def reach_engine(bench: LonePrefill, rooms: str, kind: str = "kv", first: int = 0) -> str:
    """Send a room for each letter, with a transfer that fails (``f``) or all that arrive (``s``).

    What became of each: the letter, or ``-`` where the engine was not called.
    """
    seen = []
    for room, wanted in enumerate(rooms, first):
        before = len(bench.calls())
        bench.prefill.fail_next(kind, 1 if wanted == "f" else 0)
        bench.transfer(room, source=[1], target=[5])
        state = bench.end_of(room)
        seen.append("-" if len(bench.calls()) == before else "s" if state == "Success" else "f")
    return "".join(seen)


@pytest.mark.parametrize(
    ("env", "rooms"),
    [
        pytest.param(TWO_STRIKES, "fsfsffs", id="two"),
        pytest.param(ONE_ATTEMPT, "fffffffffs" + "ffffffffff" + "s", id="default"),
    ],
)
def test_failures_in_a_row_give_a_session_up(children: Children, ports: Ports, env: dict[str, str], rooms: str) -> None:
    """RT-7. The last room of the row does not reach the engine, all others do."""
    with lone_prefill(children, ports, env) as bench:
        assert reach_engine(bench, rooms) == rooms[:-1] + "-"
        assert bench.log().count(f"Session {bench.calls()[0].session} failed.") == 1


def test_failed_metadata_counts(children: Children, ports: Ports) -> None:
    """RT-10. Pages that arrive do not make up for metadata that never does."""
    with lone_prefill(children, ports, TWO_STRIKES) as bench:
        assert reach_engine(bench, "fsffs", kind="aux") == "fsff-"


def test_registering_again_starts_the_count_again(children: Children, ports: Ports) -> None:
    """RT-9."""
    with lone_prefill(children, ports, TWO_STRIKES) as bench:
        assert reach_engine(bench, "f") == "f"
        register_again(bench)
        assert reach_engine(bench, "ff", first=1) == "ff"
        assert reach_engine(bench, "s", first=3) == "-"
        register_again(bench)
        assert reach_engine(bench, "s", first=4) == "s"


def register_again(bench: LonePrefill) -> None:
    bench.peer.register()
    assert bench.peer.was_read()


def refuse_pages(side: Side) -> None:
    """As if decode ran with fewer layers than prefill: SGLang's own check refuses to send."""
    for info in side.manager.decode_kv_args_table.values():
        info.dst_kv_ptrs = info.dst_kv_ptrs[:1]


def test_what_sglang_refuses_is_no_failure_of_the_session(children: Children, ports: Ports) -> None:
    with lone_prefill(children, ports, TWO_STRIKES) as bench:
        bench.prefill.call(refuse_pages)
        assert reach_engine(bench, "ss") == "--"
        register_again(bench)
        bench.prefill.call(refuse_pages)
        assert reach_engine(bench, "ss", first=2) == "--"
        assert bench.prefill.call(sessions_given_up) == []


def sessions_given_up(side: Side) -> list[str]:
    return sorted(side.manager.failed_sessions)


def fail_sessions(side: Side, port: int, session: str, count: int) -> tuple[int, int]:
    """A room on each of ``count`` sessions fails; how many are in the tables of failures then."""
    logging.disable(logging.CRITICAL)
    manager = side.manager
    registration = manager.decode_kv_args_table[session]
    sessions = (f"10.0.0.1:{number}" for number in range(count))
    for room, name in enumerate(sessions, 1):
        manager.decode_kv_args_table[name] = registration
        frames = control_wire.metadata(port, name, room, [5], aux=1)
        manager.transfer_infos[room] = {name: transfer_info(list(frames))}
        manager.request_status[room] = 2
        manager.add_transfer_request(room, np_pages([1]), slice(0, 1), True, aux_index=0)
    assert side.watched.wait_for_transfers(count, SESSIONS_LIMIT_S), "a fault was not injected"
    return len(manager.session_failures), len(manager.failed_sessions)


def transfer_info(frames: list[bytes]) -> Any:
    from sglang.srt.disaggregation.mooncake.conn import TransferInfo

    return TransferInfo.from_zmq(frames)


def np_pages(pages: list[int]) -> Any:
    import numpy as np

    return np.array(pages, dtype=np.int32)


@pytest.mark.limit(300)
def test_sessions_of_peers_long_gone_are_forgotten(children: Children, ports: Ports) -> None:
    """RT-12. A decode process that starts again is a new session, and the old one never comes back.

    One worker: without zmq-locked-sends several would tell the failures on one socket at once, which can end the
    process.
    """
    with lone_prefill(children, ports, {**OFF, **ONE_WORKER}) as bench:
        bench.prefill.fail_next("kv", SESSIONS)
        session = bench.peer.buffers.session
        tables = bench.prefill.call(fail_sessions, bench.peer.port, session, SESSIONS, limit_s=SESSIONS_LIMIT_S + 30)
        assert max(tables) <= FEW_SESSIONS, tables


ONE_WORKER = {"SGLANG_DISAGGREGATION_QUEUE_SIZE": "1", "SGLANG_DISAGGREGATION_THREAD_POOL_SIZE": "1"}

SETTINGS = {
    "SGLANG_DISAGG_TRANSFER_RETRIES": (["0", "-1", "three", "2.5", "", "11"], ["1", "10"]),
    "SGLANG_DISAGG_TRANSFER_RETRY_BACKOFF_MS": (["-1", "soon"], ["0"]),
    "SGLANG_DISAGG_TRANSFER_FAST_FAIL_MS": (["-1", "2s"], ["0"]),
    "SGLANG_DISAGG_SESSION_FAILURE_THRESHOLD": (["0", "-1", "ten"], ["1"]),
}


KEPT: list[ValueError] = []
"""With the managers that were not finished: ZMQ waits for good for a context that is collected with its sockets."""


def refused(side: Side, name: str, values: list[str]) -> dict[str, str]:
    """The values with which no second manager can be made in prefill's process, and why."""
    manager = side.manager
    said = {}
    for value in values:
        os.environ[name] = value
        try:
            type(manager)(manager.kv_args, manager.disaggregation_mode, manager.server_args, False)
        except ValueError as error:
            said[value] = str(error)
            KEPT.append(error)
    del os.environ[name]
    return said


def test_a_wrong_setting_stops_the_start(children: Children, ports: Ports) -> None:
    """RT-14. With no attempt at all, every transfer would be a success without data."""
    with lone_prefill(children, ports) as bench:
        for name, (wrong, right) in SETTINGS.items():
            said = bench.prefill.call(refused, name, [*wrong, *right])
            assert list(said) == wrong, f"{name} was taken"
            for value, error in said.items():
                assert error.startswith(f"{name}={value!r} is not a whole number from ")
                assert "Correct it, or unset it for the default, " in error


@pytest.mark.control
def test_switched_off_the_first_failure_is_the_last(children: Children, ports: Ports) -> None:
    with lone_prefill(children, ports, OFF) as bench:
        assert reach_engine(bench, "sfss") == "sf--"
        register_again(bench)
        assert reach_engine(bench, "s", first=4) == "s"
        assert bench.log().count(f"Session {bench.calls()[0].session} failed.") == 1
