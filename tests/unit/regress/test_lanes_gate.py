"""What other lanes than `cpu` mean for the channels that need them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.regress.test_judgement import COMMIT, COMPOSITION, GROUNDS, TREE, C, F, M, P, report_of, run

from patchstack.model import (
    Form,
    GuardOutcome,
    GuardResult,
    ImageRef,
    ImageResult,
    JobEnd,
    JobState,
    LaneJob,
    LaneRun,
    LaneRuns,
    Quarantined,
    Sha,
    Shard,
    Status,
    Verdict,
)
from patchstack.regress.gate import Lenience, judge

GREEN = report_of(run("composed", guard=P), run("base", guard=F))
FLAKY = GuardOutcome.FLAKY
A, B = "tests/regression/gpu/test_pd.py::test_a", "tests/regression/gpu/test_pd.py::test_b"
CHANNELS = {"nightly": ["cpu"], "stable": ["cpu", "1-gpu"]}
NOT_RUN = ("1-gpu: nightly does not need it",)


def lane(
    *outcomes: GuardOutcome, form: Form = Form.DEVICE, state: JobState = JobState.ANSWERED, detail: str = ""
) -> LaneRun:
    """Lane 1-gpu with one job and tests that ended so."""
    job = LaneJob("run", "1-gpu", Shard(1, 1, ()), COMMIT, TREE, form, "", 1, 60.0)
    results = tuple(GuardResult(name, "x", False, said, 0.1, "r") for name, said in zip((A, B), outcomes, strict=False))
    return LaneRun("1-gpu", "local", form, (JobEnd(job, state, detail),), (), results)


def stable(*runs: LaneRun, of: Sha = COMMIT, lenience: Lenience | None = None) -> Verdict:
    """The verdict on the channel that needs the lane; the other one stays green whatever the lane says."""
    lanes = LaneRuns(of, runs) if runs else None
    nightly, found = judge(CHANNELS, COMPOSITION, GROUNDS, GREEN, lenience=lenience, lanes=lanes).verdicts
    assert (nightly.status, nightly.reasons, nightly.warnings) == (Status.PASS, (), ())
    assert nightly.skipped_by_rule == (() if runs and of == COMMIT else NOT_RUN)
    return found


def test_a_lane_that_ran_and_passed_is_what_its_channel_needs() -> None:
    assert stable(lane(P, P)) == Verdict("stable", Status.PASS, (), ())


def test_a_lane_that_nobody_asked_leaves_its_channel_open() -> None:
    found = stable()
    assert (found.status, found.reasons) == (Status.INCOMPLETE, ("it needs 1-gpu, which did not run",))


def test_what_was_said_of_another_composition_is_nothing() -> None:
    assert stable(lane(P), of=Sha("9" * 40)).reasons == ("it needs 1-gpu, which did not run",)


def made(digest: str) -> ImageResult:
    labels = (("org.patchstack.tree", TREE),)
    return ImageResult(ImageRef("acme/sglang", digest, "nightly-1", "cpu", "r", digest, labels, 1, False))


def test_what_was_said_inside_another_image_of_the_composition_leaves_its_channel_open() -> None:
    """Whoever makes the image again promotes that one, and no lane has seen it."""
    run = lane(P, P)
    (end,) = run.jobs
    inside = replace(run, jobs=(replace(end, job=replace(end.job, image="acme/sglang@sha256:1")),))
    lanes = LaneRuns(COMMIT, (inside,))
    found = {
        digest: judge(CHANNELS, COMPOSITION, GROUNDS, GREEN, made(digest), lanes=lanes).verdicts[1]
        for digest in ("sha256:1", "sha256:2")
    }
    assert found["sha256:1"] == Verdict("stable", Status.PASS, (), ())
    assert (found["sha256:2"].status, found["sha256:2"].reasons) == (
        Status.INCOMPLETE,
        ("it needs 1-gpu, which ran inside acme/sglang@sha256:1, and tonight's image is acme/sglang@sha256:2",),
    )


@pytest.mark.parametrize("red", [F, C, GuardOutcome.TIMEOUT])
def test_a_red_lane_fails_its_channel_and_no_other(red: GuardOutcome) -> None:
    found = stable(lane(P, red))
    assert (found.status, found.reasons) == (Status.FAIL, (f"1-gpu: {B}: {red.value}: r",))


@pytest.mark.parametrize("neither", [M, GuardOutcome.SKIPPED_BY_RULE, GuardOutcome.QUARANTINED])
def test_what_did_not_run_is_never_green(neither: GuardOutcome) -> None:
    found = stable(lane(P, neither))
    assert (found.status, found.reasons) == (Status.INCOMPLETE, (f"1-gpu: {B}: {neither.value}: r",))


@pytest.mark.parametrize("outcomes", [(P, P), (P, F), (M,)])
def test_a_rehearsal_makes_no_lane_green_and_none_red(outcomes: tuple[GuardOutcome, ...]) -> None:
    found = stable(lane(*outcomes, form=Form.REHEARSAL))
    (reason,) = found.reasons
    assert (found.status, reason.partition(";")[0]) == (
        Status.INCOMPLETE,
        "it needs 1-gpu, which was rehearsed on a CPU, never run on a GPU",
    )
    named = [name for name in (A, B) if name in reason]
    assert named == [name for name, said in zip((A, B), outcomes, strict=False) if said is not P]


@pytest.mark.parametrize("state", [JobState.LOST, JobState.LATE, JobState.REFUSED])
def test_a_lane_without_any_answer_did_not_run(state: JobState) -> None:
    found = stable(lane(M, M, state=state, detail="no GPU"))
    why = f"it needs 1-gpu, which did not run: {state.value}: no GPU"
    assert (found.status, found.reasons) == (Status.INCOMPLETE, (why,))


def test_a_lane_for_which_no_test_is_declared_is_no_green_one() -> None:
    found = stable(lane())
    assert found.reasons == ("it needs 1-gpu, and no test is declared for it",)


def test_flaky_ones_hold_where_that_is_said_and_many_hold_everywhere() -> None:
    assert stable(lane(P, FLAKY)).status is Status.INCOMPLETE
    lenient = stable(lane(P, FLAKY), lenience=Lenience(frozenset(), 1))
    assert (lenient.status, lenient.warnings) == (Status.PASS, (f"1-gpu: {B}: flaky: r",))
    many = stable(lane(FLAKY, P), lenience=Lenience(frozenset(), 0))
    assert (many.status, many.reasons) == (
        Status.INCOMPLETE,
        ("flaky tests of 1-gpu: 1, and tests.max_flaky allows 0",),
    )


def test_what_is_in_quarantine_holds_nothing_and_is_told() -> None:
    entry = Quarantined(B, "@acme/pd", "a driver's fault", "2026-11-01", "2026-11-29", "the driver is mended")
    lenience = Lenience(frozenset(), None, (entry,))
    for outcome in (GuardOutcome.QUARANTINED, F):
        found = stable(lane(P, outcome), lenience=lenience)
        assert (found.status, found.warnings) == (Status.PASS, (f"1-gpu: {B}: {outcome.value}: r",))
    assert stable(lane(F, F), lenience=lenience).status is Status.FAIL
    alone = stable(lane(M, F), lenience=lenience)
    assert alone.reasons == (f"1-gpu: {A}: missing: r", "no test of 1-gpu ran and passed")
