"""The record that the bed writes, as results: what does not answer is missing, never green."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patchstack.model import GuardOutcome, GuardResult, Hardware, Sample, Settings
from patchstack.regress import record as records
from patchstack.regress.record import LONGEST_REASON, MOST_SAMPLES, hear_record, lines_of, read_record
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


# --- numbers ---


def sample(value: object = 1.5, metric: object = "pd-request-cpu", test: object = "a", **more: object) -> str:
    return json.dumps({"sample": {"test": test, "metric": metric, "value": value, **more}})


BEGUN, ANSWERED = record({"collected": ["a", "b"]}, {"started": "a"}), record(result("a", "pass"))
BED_CRASH = {"tests/regression/zmq_locked_sends": GuardOutcome.CRASH}


def test_what_a_test_measures_is_its_own() -> None:
    lines = [*BEGUN, sample(1.5), sample(2), *ANSWERED, *record({"started": "b"}), sample(3, "x", "b")]
    first, second = read_record(SUITE, [*lines, *record(result("b", "fail"))], "ended with 1")
    assert first.samples == (Sample("pd-request-cpu", 1.5), Sample("pd-request-cpu", 2.0))
    assert second.samples == (Sample("x", 3.0),)


@pytest.mark.parametrize(
    "line",
    [
        sample("1"),
        sample(True),
        sample(None),
        sample(float("nan")),
        sample(float("inf")),
        sample(10**400),
        sample(metric="PD request"),
        sample(metric=""),
        sample(metric="x" * 101),
        sample(metric=7),
        sample(test="b"),
        sample(test="never heard of"),
        sample(test=7),
        sample(unit="ms"),
        '{"sample": [1]}',
        '{"sample": {}}',
    ],
)
def test_a_number_that_no_plugin_writes_is_a_crash(line: str) -> None:
    found = read_record(SUITE, [*BEGUN, line, *ANSWERED], "ended with 0")
    assert outcomes(found) == {"a": GuardOutcome.PASS, "b": GuardOutcome.MISSING, **BED_CRASH}
    assert found[0].samples == ()


def test_a_number_after_the_answer_is_a_crash() -> None:
    found = read_record(SUITE, [*BEGUN, *ANSWERED, sample(), *record(result("b", "pass"))], "ended with 0")
    assert outcomes(found) == {"a": GuardOutcome.PASS, "b": GuardOutcome.PASS, **BED_CRASH}


def test_more_numbers_than_anybody_measures_are_not_taken_in() -> None:
    found = read_record(SUITE, [*BEGUN, *[sample()] * (MOST_SAMPLES + 1), *ANSWERED], "ended with 0")
    assert len(found[0].samples) == MOST_SAMPLES
    assert outcomes(found)["tests/regression/zmq_locked_sends"] is GuardOutcome.CRASH


def test_a_duration_that_is_no_number_and_a_reason_without_end_are_cut() -> None:
    for duration in (float("nan"), 10**400, "1", True):
        lines = [*BEGUN, *record(result("a", "fail", duration_s=duration, reason="x" * 10_000))]
        said = read_record(SUITE, lines, "ended with 0")[0]
        assert (said.duration_s, len(said.reason)) == (0.0, LONGEST_REASON)


def test_a_record_without_end_is_not_read_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RECORD_BYTES", 100)
    path = tmp_path / "record.jsonl"
    path.write_text("\n".join(record({"collected": ["a"]}, *[{"left_out": ["it"]}] * 10)))
    found = read_record(SUITE, lines_of(path), "ended with 0")
    assert found[-1].outcome is GuardOutcome.CRASH
    path.write_text("\n".join(record({"collected": ["a"]}, {"started": "a"})))
    assert len(lines_of(path)) == 2


# --- by whose doing ---


@pytest.mark.parametrize(
    ("ended", "more", "expected"),
    [
        ("ended with -9", {"killed": True}, [("crash", True), ("missing", True)]),
        ("ended with -11", {}, [("crash", False), ("missing", True)]),
        ("was ended after 600 s", {}, [("timeout", False), ("missing", True)]),
        ("ended", {"cut": "the night's deadline"}, [("missing", False), ("missing", False)]),
        ("ended", {"cut": "the night's deadline", "killed": True}, [("missing", False), ("missing", False)]),
    ],
)
def test_what_says_nothing_of_the_code_is_known_as_that(
    ended: str, more: dict[str, object], expected: list[tuple[str, bool]]
) -> None:
    """What was killed, or never begun, is asked again; what was running when it ended by itself has a say."""
    found = read_record(SUITE, BEGUN, ended, **more)  # type: ignore[arg-type]
    assert [(said.outcome.value, said.by_machine) for said in found] == expected


def test_a_skip_has_a_say_and_nothing_collected_has_none_where_it_was_killed() -> None:
    skipped = read_record(SUITE, [*BEGUN, *record(result("a", "skip"))], "ended with 0")[0]
    assert (skipped.outcome, skipped.by_machine) == (GuardOutcome.MISSING, False)
    assert [said.by_machine for said in read_record(SUITE, [], "ended with -9", killed=True)] == [True]
    assert [said.by_machine for said in read_record(SUITE, [], "ended with 4")] == [False]


def test_a_part_that_was_out_of_time_is_late_however_it_ended() -> None:
    lines = [*BEGUN, *record({"out_of_time_s": 1770.0, "stacks": ["part.txt", "gone.txt", 7]})]
    first, second = read_record(SUITE, lines, "ended with -9", killed=True, taken={"part.txt": "logs/part.txt"})
    assert (first.outcome, first.by_machine) == (GuardOutcome.TIMEOUT, False)
    assert first.reason == "pytest was ended after 1770 s while it ran; stacks of every process: logs/part.txt"
    assert (second.outcome, second.by_machine) == (GuardOutcome.MISSING, True)
    assert second.reason == "collected, not run: pytest was ended after 1770 s; stacks of every process: logs/part.txt"


# --- what it ran on, and with ---

CARD = {
    "node": "gpu-1",
    "processor": "16 x AMD EPYC 9554",
    "memory_gib": 128,
    "gpus": ["NVIDIA H200, 140 GiB"],
    "driver": "570.86.15",
    "cuda": "13.0",
    "nccl": "2.28.3",
    "torch": "2.11.0",
    "mooncake": "0.3.13",
    "nics": ["mlx5_0, 400 Gb/s"],
}
WITH = {"model": "Qwen3-4B", "tp": "2"}


def hardware(**changed: object) -> str:
    return json.dumps({"hardware": {**CARD, **changed}})


def settings(values: object = WITH, test: object = "a", **more: object) -> str:
    return json.dumps({"settings": {"test": test, "values": values, **more}})


def test_what_it_ran_on_and_with_is_heard() -> None:
    said = hear_record(SUITE, [hardware(), *BEGUN, settings(), *ANSWERED], "ended with 0")
    assert said.hardware == Hardware(**{**CARD, "gpus": ("NVIDIA H200, 140 GiB",), "nics": ("mlx5_0, 400 Gb/s",)})
    assert said.settings == (Settings("a", (("model", "Qwen3-4B"), ("tp", "2"))),)
    assert outcomes(said.results) == {"a": GuardOutcome.PASS, "b": GuardOutcome.MISSING}
    said = hear_record(SUITE, [*BEGUN, *ANSWERED], "ended with 0")
    assert (said.hardware, said.settings) == (None, ())


@pytest.mark.parametrize(
    "line",
    [
        hardware(memory_gib=-1),
        hardware(memory_gib=True),
        hardware(memory_gib="128"),
        hardware(memory_gib=10**9),
        hardware(gpus="NVIDIA H200"),
        hardware(gpus=[1]),
        hardware(nics=["x"] * 65),
        hardware(driver=["570"]),
        hardware(node="two\nlines"),
        hardware(node="x" * 301),
        hardware(more="x"),
        json.dumps({"hardware": {name: value for name, value in CARD.items() if name != "nccl"}}),
        json.dumps({"hardware": {}}),
        json.dumps({"hardware": CARD, "more": 1}),
        settings({"model": 4}),
        settings({"Model\n": "x"}),
        settings({"": "x"}),
        settings({"model": "x" * 301}),
        settings({str(number): "x" for number in range(65)}),
        settings([]),
        settings(test="b"),
        settings(more="x"),
    ],
)
def test_what_no_plugin_says_of_its_machine_is_a_crash(line: str) -> None:
    said = hear_record(SUITE, [*BEGUN, line, *ANSWERED], "ended with 0")
    assert outcomes(said.results) == {"a": GuardOutcome.PASS, "b": GuardOutcome.MISSING, **BED_CRASH}
    assert (said.hardware, said.settings) == (None, ())


@pytest.mark.parametrize("line", [hardware(), settings()])
def test_what_was_said_once_is_not_said_again(line: str) -> None:
    said = hear_record(SUITE, [*BEGUN, line, line, *ANSWERED], "ended with 0")
    assert outcomes(said.results)["tests/regression/zmq_locked_sends"] is GuardOutcome.CRASH
    assert (said.hardware is None, len(said.settings)) in ((False, 0), (True, 1))
