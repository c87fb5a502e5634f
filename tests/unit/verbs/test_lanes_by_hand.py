"""How `patchstack test --lane` ends: as the gate takes what the lanes said."""

from __future__ import annotations

import pytest

from patchstack.errors import GateFailed, Incomplete, PatchstackError
from patchstack.model import (
    Form,
    GuardOutcome,
    GuardResult,
    JobEnd,
    JobState,
    LaneJob,
    LaneRun,
    LaneRuns,
    Measure,
    Measures,
    Sha,
    Shard,
    Trend,
)
from patchstack.verbs.lanes import raise_for_lanes

FILE = "tests/regression/gpu/test_speed.py"
TEST = f"{FILE}::test_speed"
SHA = Sha("c" * 40)
JOB = LaneJob("run-1", "1-gpu", Shard(1, 1, (FILE,)), SHA, SHA, Form.DEVICE, "image", 1, 60.0)
PASSED = GuardResult(TEST, "pd", False, GuardOutcome.PASS, 1.0)


def end(*measures: Measures) -> PatchstackError | None:
    """What it ends with where the lane's only test passed, with these numbers."""
    run = LaneRun("1-gpu", "local", Form.DEVICE, (JobEnd(JOB, JobState.ANSWERED),), (), (PASSED,), measures)
    try:
        raise_for_lanes(LaneRuns(SHA, (run,)), ["1-gpu"], "run-1")
    except PatchstackError as error:
        return error
    return None


def numbers(trend: Trend, missing: tuple[tuple[str, str], ...] = ()) -> Measures:
    measure = Measure("speed", "tokens/s", TEST, 10.0, 100.0, 0, None, None, trend, "90 % worse")
    return Measures("16 x Any", None, (measure,), missing)


@pytest.mark.parametrize("trend", [Trend.PASS, Trend.WARN, Trend.INSUFFICIENT])
def test_where_all_passed_and_no_number_is_red_it_ends_well(trend: Trend) -> None:
    assert end() is None
    assert end(numbers(trend)) is None


def test_a_number_that_is_red_makes_the_lane_red() -> None:
    error = end(numbers(Trend.FAIL))
    assert isinstance(error, GateFailed)
    assert str(error) == f"lanes of run run-1 are red:\n  1-gpu: metric speed: 10 tokens/s: 90 % worse ({TEST})"


def test_a_number_that_was_not_measured_leaves_the_lane_open() -> None:
    error = end(numbers(Trend.PASS, (("ttft", "it was not measured"),)))
    assert isinstance(error, Incomplete)
    assert str(error) == "lanes of run run-1 are incomplete:\n  1-gpu: metric ttft is missing: it was not measured"
