"""Other lanes' numbers: held against those of equal hardware and no other; a rehearsal's against none."""

from __future__ import annotations

from dataclasses import replace

from patchstack.model import (
    Deployed,
    Form,
    GuardOutcome,
    GuardResult,
    Hardware,
    JobEnd,
    JobState,
    LaneAnswer,
    LaneJob,
    LaneRecord,
    LaneRun,
    LaneRuns,
    Measures,
    NightRecord,
    Past,
    Sample,
    Sha,
    Shard,
    Trend,
)
from patchstack.regress.hardware import kind
from patchstack.regress.lane_trend import UNKNOWN, lane_measures, lane_past, lane_records
from patchstack.regress.lanes_gate import said_of_lanes
from patchstack.regress.metrics import Better, Metric

FAST, SLOW = "tests/regression/gpu/test_fast.py", "tests/regression/gpu/test_slow.py"
SPEED = Metric("speed", "answers/s", Better.HIGHER, f"{FAST}::test_speed", 0.1)
H200 = Hardware("gpu-07", "16 x Any", 128, ("H200, 140 GiB",), driver="570")
L40 = replace(H200, gpus=("L40, 45 GiB",))
TREE, DEPLOYED = Sha("a" * 40), Sha("b" * 40)
PASS, FAIL, MISSING = GuardOutcome.PASS, GuardOutcome.FAIL, GuardOutcome.MISSING


def said(test: str, *values: float, outcome: GuardOutcome = PASS) -> GuardResult:
    return GuardResult(test, "x", False, outcome, 1.0, samples=tuple(Sample("speed", value) for value in values))


def answer(hardware: Hardware | None, *results: GuardResult, beside: tuple[GuardResult, ...] = ()) -> LaneAnswer:
    files = tuple(dict.fromkeys(result.test.partition("::")[0] for result in results))
    job = LaneJob("20261122T020000Z", "1-gpu", Shard(1, 1, files), TREE, TREE, Form.DEVICE, "i@sha256:0", 1, 60.0)
    return LaneAnswer(job, hardware, results, beside=beside)


def lane(*answers: LaneAnswer, form: Form = Form.DEVICE) -> LaneRun:
    ends = tuple(JobEnd(one.job, JobState.ANSWERED) for one in answers)
    return LaneRun("1-gpu", "local", form, ends, answers, tuple(one for each in answers for one in each.results))


def night(number: int, *records: LaneRecord, promoted: bool = True) -> NightRecord:
    name = f"202611{number:02}T020000Z"
    at = f"2026-11-{number:02}T02:00:00+00:00"
    return NightRecord(name, at, "production", TREE, promoted, "a CPU", (("speed", 1.0),), (), lanes=records)


def past(*nights: NightRecord) -> Past:
    return Past("production", Deployed("n", DEPLOYED, DEPLOYED, DEPLOYED), nights)


def kept(speed: float, hardware: Hardware = H200, *, green: bool = True, lane: str = "1-gpu") -> LaneRecord:
    return LaneRecord(lane, kind(hardware), green, (("speed", speed),))


def measured(run: LaneRun, before: Past | None) -> list[tuple[str, float, float | None, int, Trend]]:
    """Of each number the hardware's GPU, value, peer, nights, and how it ends."""
    gpu = {kind(H200): "H200", kind(L40): "L40"}
    return [
        (gpu[measures.node], one.value, one.peer, one.n, one.trend)
        for measures in lane_measures((SPEED,), run, before)
        for one in measures.measures
    ]


FIVE = past(*(night(number, kept(100.0)) for number in range(1, 6)))


def test_a_number_is_held_against_earlier_nights_of_equal_hardware() -> None:
    assert measured(lane(answer(H200, said(SPEED.test, 99.0))), FIVE) == [("H200", 99.0, None, 5, Trend.PASS)]
    other_node = replace(H200, node="gpu-08")
    assert measured(lane(answer(other_node, said(SPEED.test, 80.0))), FIVE) == [("H200", 80.0, None, 5, Trend.WARN)]


def test_numbers_of_different_hardware_are_never_compared() -> None:
    run = lane(answer(L40, said(SPEED.test, 1.0)))
    assert measured(run, FIVE) == [("L40", 1.0, None, 0, Trend.INSUFFICIENT)]
    newer = replace(H200, driver="580")
    assert [
        one.n
        for each in lane_measures((SPEED,), lane(answer(newer, said(SPEED.test, 1.0))), FIVE)
        for one in each.measures
    ] == [0]


def test_one_lane_on_two_kinds_of_hardware_has_two_measures() -> None:
    slow = said(f"{SLOW}::test_speed", 5.0)
    metrics = (SPEED, replace(SPEED, test=slow.test))
    run = lane(answer(H200, said(SPEED.test, 99.0)), answer(L40, slow))
    assert [
        (each.node, [one.test for one in each.measures], each.missing) for each in lane_measures(metrics, run, FIVE)
    ] == [
        (kind(H200), [SPEED.test], ()),
        (kind(L40), [slow.test], ()),
    ]


def test_the_last_promoted_image_is_a_peer_where_the_same_job_measured_it() -> None:
    run = lane(answer(H200, said(SPEED.test, 80.0), beside=(said(SPEED.test, 100.0),)))
    assert measured(run, FIVE) == [("H200", 80.0, 100.0, 5, Trend.FAIL)]
    (measures,) = lane_measures((SPEED,), run, FIVE)
    assert measures.against == DEPLOYED


def test_a_test_that_passed_and_said_no_number_is_missing() -> None:
    (measures,) = lane_measures((SPEED,), lane(answer(H200, said(SPEED.test))), FIVE)
    assert measures.missing == (("speed", f"{SPEED.test} passed and measured nothing"),)


def test_a_rehearsal_has_no_numbers() -> None:
    run = lane(answer(H200, said(SPEED.test, 99.0)), form=Form.REHEARSAL)
    assert lane_measures((SPEED,), run, FIVE) == ()
    assert lane_records(LaneRuns(TREE, (run,))) == ()


def test_the_band_is_of_promoted_nights_in_which_the_lane_was_green() -> None:
    nights = (
        night(6, kept(1.0, green=False)),
        night(5, kept(2.0), promoted=False),
        night(4, kept(3.0, lane="2-gpu")),
        night(3, kept(4.0), kept(5.0, L40)),
        night(2),
    )
    found = lane_past(past(*nights), "1-gpu")
    assert found is not None
    assert [(one.node, one.promoted, one.samples) for one in found.nights] == [
        (kind(H200), False, (("speed", 1.0),)),
        (kind(H200), False, (("speed", 2.0),)),
        (kind(H200), True, (("speed", 4.0),)),
        (kind(L40), True, (("speed", 5.0),)),
    ]
    assert lane_past(None, "1-gpu") is None


def test_what_history_keeps_of_a_lane() -> None:
    lost = said(f"{SLOW}::test_lost", outcome=MISSING)
    run = lane(answer(H200, said(SPEED.test, 99.0, 101.0), said(f"{FAST}::test_red", 7.0, outcome=FAIL)))
    run = replace(run, results=(*run.results, lost), measures=lane_measures((SPEED,), run, None))
    assert lane_records(LaneRuns(TREE, (run,))) == (
        LaneRecord("1-gpu", kind(H200), False, (("speed", 100.0),), ((f"{FAST}::test_red", "fail"),)),
        LaneRecord("1-gpu", "", False, (), ((lost.test, "missing"),)),
    )


def test_a_lane_is_green_where_all_of_it_passed_and_no_number_is_red() -> None:
    run = lane(answer(H200, said(SPEED.test, 99.0)))
    excused = replace(run, results=(*run.results, said(f"{FAST}::test_q", outcome=GuardOutcome.QUARANTINED)))
    numbers = lane_measures((SPEED,), lane(answer(H200, said(SPEED.test, 5.0), beside=(said(SPEED.test, 9.0),))), FIVE)
    red = replace(run, measures=numbers)
    answers = [lane_records(LaneRuns(TREE, (one,)))[0].green for one in (run, excused, red)]
    assert answers == [True, True, False]
    assert isinstance(numbers[0], Measures)


def test_the_gate_hears_of_a_lane_s_numbers_as_of_its_tests() -> None:
    slow = said(SPEED.test, 50.0)
    run = lane(answer(H200, slow, beside=(said(SPEED.test, 100.0),)))
    judged = replace(run, measures=lane_measures((SPEED,), run, FIVE))
    found = said_of_lanes(LaneRuns(TREE, (judged,)), TREE, (), None)["1-gpu"]
    assert [sentence.split(": ")[:2] for sentence in found.red] == [["1-gpu", "metric speed"]]
    assert (found.open_ends, found.warnings) == ((), ())

    silent = lane(answer(H200, said(SPEED.test)))
    missing = replace(silent, measures=lane_measures((SPEED,), silent, FIVE))
    assert said_of_lanes(LaneRuns(TREE, (missing,)), TREE, (), None)["1-gpu"].open_ends == (
        f"1-gpu: metric speed is missing: {SPEED.test} passed and measured nothing",
    )


def test_a_machine_that_did_not_say_what_it_is_has_no_number() -> None:
    run = lane(answer(None, said(SPEED.test, 99.0)))
    why = f"{SPEED.test} passed on a machine that did not say what it is"
    (measures,) = lane_measures((SPEED,), run, FIVE)
    assert measures == Measures(UNKNOWN, None, (), (("speed", why),))
    judged = replace(run, measures=(measures,))
    assert said_of_lanes(LaneRuns(TREE, (judged,)), TREE, (), None)["1-gpu"].open_ends == (
        f"1-gpu: metric speed is missing: {why}",
    )
    assert lane_records(LaneRuns(TREE, (judged,))) == (LaneRecord("1-gpu", "", False),)
    assert lane_measures((SPEED,), lane(answer(None, said(SPEED.test, outcome=GuardOutcome.FAIL))), FIVE) == ()
