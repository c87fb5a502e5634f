"""The record that the bed writes, as results: what does not answer is missing, never green."""

from __future__ import annotations

import json

from patchstack.model import GuardOutcome, GuardResult
from patchstack.regress.execute import read_record
from patchstack.regress.suites import Suite

SUITE = Suite("zmq-locked-sends", ("tests/regression/zmq_locked_sends",), "0" * 64)


def record(*entries: object) -> list[str]:
    return [json.dumps(entry) for entry in entries]


def result(test: str, outcome: str, **more: object) -> dict[str, object]:
    return {"test": test, "outcome": outcome, "duration_s": 1.5, "reason": "", "control": False, **more}


def outcomes(results: tuple[GuardResult, ...]) -> dict[str, GuardOutcome]:
    return {entry.test: entry.outcome for entry in results}


def test_each_outcome_is_taken_as_it_was_written() -> None:
    lines = record(
        {"collected": ["a", "b", "c", "d"]},
        *({"started": name} for name in "abcd"),
        result("a", "pass", control=True),
        result("b", "fail", reason="assert 1 == 2"),
        result("c", "crash", reason="ImportError: no"),
        result("d", "timeout", reason="limit of 120 s"),
    )
    found = read_record(SUITE, lines, "ended with 1")
    assert found[0] == GuardResult("a", "zmq-locked-sends", True, GuardOutcome.PASS, 1.5, "")
    assert outcomes(found) == {
        "a": GuardOutcome.PASS,
        "b": GuardOutcome.FAIL,
        "c": GuardOutcome.CRASH,
        "d": GuardOutcome.TIMEOUT,
    }


def test_a_skip_is_missing_not_green() -> None:
    lines = record({"collected": ["a"]}, {"started": "a"}, result("a", "skip", reason="no GPU"))
    assert outcomes(read_record(SUITE, lines, "ended with 0")) == {"a": GuardOutcome.MISSING}


def test_what_was_collected_and_never_answered_is_missing_and_what_was_running_crashed() -> None:
    lines = record({"collected": ["a", "b", "c"]}, {"started": "a"}, result("a", "pass"), {"started": "b"})
    assert outcomes(read_record(SUITE, lines, "ended with -9")) == {
        "a": GuardOutcome.PASS,
        "b": GuardOutcome.CRASH,
        "c": GuardOutcome.MISSING,
    }
    assert outcomes(read_record(SUITE, lines, "was ended after 600 s"))["b"] is GuardOutcome.TIMEOUT


def test_nothing_collected_is_missing() -> None:
    found = read_record(SUITE, [], "ended with 4")
    assert outcomes(found) == {"tests/regression/zmq_locked_sends": GuardOutcome.MISSING}
    assert "ended with 4" in found[0].reason


def test_what_says_nothing_on_a_tree_is_not_missing_there() -> None:
    """On a ground the guards that kill mutants are left out, and may be all that there are."""
    left_out = {"left_out": ["a", "b"]}
    assert read_record(SUITE, record(left_out, {"collected": []}), "ended with 5") == ()
    lines = record(left_out, {"collected": ["c"]}, {"started": "c"}, result("c", "pass"))
    assert outcomes(read_record(SUITE, lines, "ended with 0")) == {"c": GuardOutcome.PASS}


def test_a_result_says_which_mutants_it_kills() -> None:
    lines = record({"collected": ["a"]}, {"started": "a"}, result("a", "fail", kills=["p", "q"]))
    assert read_record(SUITE, lines, "ended with 1") == (
        GuardResult("a", "zmq-locked-sends", False, GuardOutcome.FAIL, 1.5, "", ("p", "q")),
    )


def test_a_torn_last_line_is_no_result() -> None:
    lines = [*record({"collected": ["a"]}, {"started": "a"}), '{"test": "a", "outcome": "pa']
    assert outcomes(read_record(SUITE, lines, "ended with -9")) == {"a": GuardOutcome.CRASH}


def test_a_result_for_what_was_not_collected_is_kept_and_counts() -> None:
    lines = record(result("tests/x/test_y.py", "crash", reason="SyntaxError"))
    assert outcomes(read_record(SUITE, lines, "ended with 2")) == {"tests/x/test_y.py": GuardOutcome.CRASH}
