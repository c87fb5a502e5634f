"""A room whose state (Mamba, sliding window) did not arrive must fail (RT-10, T2).

Two processes with the real managers, senders, receivers, ZMQ and Mooncake over
TCP. Injected: the engine's return code, for transfers of state only. All attempts
fail, not one, so that the guards hold where failed transfers are retried.
"""

from __future__ import annotations

import pytest

from testbed import Children, Ports
from testbed.mooncake_pair import MooncakePair, PairShape, start_pair

ALL_ATTEMPTS = 1000
STATES = ["swa", "mamba"]


def kinds_sent(pair: MooncakePair, since: int = 0) -> list[str]:
    """What reached the engine, in order."""
    return [done.kind for done in pair.prefill.transfers()[since:] if not done.injected]


def fail_state(pair: MooncakePair) -> None:
    pair.prefill.fail_next("state", times=ALL_ATTEMPTS)


def assert_state_failed(pair: MooncakePair) -> None:
    faults = [done.kind for done in pair.prefill.transfers() if done.injected]
    assert set(faults) == {"state"}, "no fault was injected"


@pytest.mark.parametrize("state", STATES)
def test_a_failed_state_transfer_fails_the_room(children: Children, ports: Ports, state: str) -> None:
    pair = start_pair(children, ports, PairShape(state=state))

    pair.transfer(room=1, source=[1, 2], target=[3, 4], state=([1], [2]))
    assert pair.wait(room=1) == ("Success", "Success")

    fail_state(pair)
    before = len(pair.prefill.transfers())
    pair.transfer(room=2, source=[1, 2], target=[5, 6], state=([1], [3]))
    ended = pair.wait(room=2)
    assert_state_failed(pair)
    assert ended == ("Failed", "Failed")
    assert kinds_sent(pair, before) == ["kv"], "metadata of a failed room was sent"
    log = dict(children.logs())["prefill"]
    assert f"State transfer of room 2 to session {session_of(pair)} failed" in log
    assert f"ret=-1 components={state}" in log


def session_of(pair: MooncakePair) -> str:
    return pair.prefill.transfers()[0].session


def test_the_last_of_several_chunks_carries_the_state(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports, PairShape(state="swa"))
    fail_state(pair)
    pair.open(room=1, target=[3, 4, 5], state_target=[1, 2])
    pair.send(room=1, source=[1, 2])
    pair.send(room=1, source=[6], state=[3, 4])
    ended = pair.wait(room=1)
    assert_state_failed(pair)
    assert ended == ("Failed", "Failed")
    assert kinds_sent(pair) == ["kv", "kv"]


def test_a_room_without_new_pages_still_needs_its_state(children: Children, ports: Ports) -> None:
    """With a full prefix hit there is no KV to send, and the state alone decides."""
    pair = start_pair(children, ports, PairShape(state="mamba"))
    fail_state(pair)
    pair.transfer(room=1, source=[], target=[], state=([1], [2]))
    ended = pair.wait(room=1)
    assert_state_failed(pair)
    assert ended == ("Failed", "Failed")
    assert kinds_sent(pair) == []


@pytest.mark.control
@pytest.mark.parametrize("state", STATES)
def test_state_arrives_with_its_room(children: Children, ports: Ports, state: str) -> None:
    pair = start_pair(children, ports, PairShape(state=state))
    pair.prefill.fill("kv", [1, 2], 7)
    pair.prefill.fill("state", [1], 9)
    pair.transfer(room=1, source=[1, 2], target=[5, 6], state=([1], [3]))
    assert pair.wait(room=1) == ("Success", "Success")
    assert [pair.decode.holds("kv", page) for page in (5, 6)] == [{7}, {7}]
    assert pair.decode.holds("state", 3) == {9}
    assert kinds_sent(pair) == ["kv", "state", "aux"]


@pytest.mark.control
def test_other_transfers_are_as_before(children: Children, ports: Ports) -> None:
    pair = start_pair(children, ports, PairShape(state="swa"))
    fail_state(pair)
    pair.transfer(room=1, source=[1, 2], target=[5, 6])
    assert pair.wait(room=1) == ("Success", "Success")
    assert kinds_sent(pair) == ["kv", "aux"], "a room without state has nothing to fail"

    before = len(pair.prefill.transfers())
    pair.prefill.fail_next("kv", times=ALL_ATTEMPTS)
    pair.transfer(room=2, source=[1, 2], target=[5, 6], state=([1], [3]))
    assert pair.wait(room=2) == ("Failed", "Failed")
    assert {done.kind for done in pair.prefill.transfers()[before:]} == {"kv"}, "state of a failed room was sent"


@pytest.mark.control
def test_switched_off_the_room_succeeds_without_its_state(children: Children, ports: Ports) -> None:
    off = {"SGLANG_DISAGG_STATE_FAILURE_FAILS_ROOM": "0"}
    pair = start_pair(children, ports, PairShape(state="swa", env=off))
    fail_state(pair)
    pair.transfer(room=1, source=[1, 2], target=[5, 6], state=([1], [3]))
    ended = pair.wait(room=1)
    assert_state_failed(pair)
    assert ended == ("Success", "Success")
    assert kinds_sent(pair) == ["kv", "aux"]
