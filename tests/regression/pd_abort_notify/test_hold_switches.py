"""When decode keeps nothing of an aborted request, and settings that it refuses to start with."""

from __future__ import annotations

import os

import pytest

from testbed import Children, Ports
from testbed.decode_pair import DecodeShape, DecodeSide, start_decode_pair

SOURCE = [1, 2, 3]
ROUNDS = 20
HOLD = "SGLANG_DISAGGREGATION_DEFERRED_DECODE_KV_RELEASE"
NOTIFY = "SGLANG_DISAGG_ABORT_NOTIFY"


@pytest.mark.control
@pytest.mark.parametrize(
    ("env", "prefill_env"),
    [
        pytest.param({HOLD: "0"}, {}, id="hold-off"),
        pytest.param({NOTIFY: "0"}, {}, id="protocol-off"),
        pytest.param({}, {NOTIFY: "0"}, id="prefill-without-capability"),
    ],
)
def test_switched_off_it_is_given_away_at_once(
    children: Children, ports: Ports, env: dict[str, str], prefill_env: dict[str, str]
) -> None:
    bed = start_decode_pair(children, ports, DecodeShape(env=env), prefill_env=prefill_env)
    before = bed.decode.books()
    bed.prefill.hold("kv")
    bed.start_transfer("aborted", room=1, pages=len(SOURCE))
    bed.prefill.send(room=1, source=SOURCE)
    assert bed.prefill.wait_until_held()
    bed.decode.abort_request("aborted")
    bed.decode.step()
    assert bed.decode.books() == before
    bed.prefill.release()
    if NOTIFY in env | prefill_env:
        assert bed.prefill.wait(room=1) == "Success"
        assert bed.prefill.received(b"ABORT") == []


def refusals(side: DecodeSide, settings: list[dict[str, str]]) -> list[str]:
    """What a decode manager says to each of these environments; nothing if it starts."""
    from sglang.srt.disaggregation.utils import DisaggregationMode

    said = []
    plain = dict(os.environ)
    for setting in settings:
        os.environ.update(setting)
        try:
            manager = type(side.manager)(
                side.manager.kv_args, DisaggregationMode.DECODE, side.manager.server_args, False
            )
        except ValueError as error:
            side.kept.append(error)  # with what was made so far, for a ZMQ context is not to be collected here
            said.append(str(error))
        else:
            side.kept.append(manager)
            said.append("")
        finally:
            os.environ.clear()
            os.environ.update(plain)
    return said


def test_a_hold_that_is_shorter_than_a_transfer_is_refused(children: Children, ports: Ports) -> None:
    """A batch that prefill never said to have let go of may run for as long as the engine lets it."""
    bed = start_decode_pair(children, ports, DecodeShape(prefill_ranks=0))
    timeout, engine = f"{HOLD}_TIMEOUT", "MC_TRANSFER_TIMEOUT"
    wrong = [{timeout: "29.9"}, {engine: "31"}, {timeout: "60", engine: "90"}]
    right = [{timeout: "30"}, {timeout: "31", engine: "31"}, {timeout: "1", HOLD: "0"}, {timeout: "1", NOTIFY: "0"}]
    said = bed.decode.call(refusals, wrong + right)
    refused = [timeout in message and engine in message for message in said[: len(wrong)]]
    assert refused == [True] * len(wrong), f"what it says to wrong settings: {said[: len(wrong)]}"
    assert said[len(wrong) :] == [""] * len(right), "right settings are refused"
