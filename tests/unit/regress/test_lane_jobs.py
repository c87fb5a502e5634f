"""What the machines of a lane are asked, and what their answers come to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from patchstack.model import (
    Form,
    GuardOutcome,
    GuardResult,
    Hardware,
    JobEnd,
    JobState,
    LaneAnswer,
    LaneJob,
    LaneRun,
    LaneRuns,
)
from patchstack.regress.declared import Declared
from patchstack.regress.expected import NOT_DECLARED, NOT_HEARD
from patchstack.regress.lane_jobs import (
    NOT_ASKED,
    NOT_ITS_FILE,
    Asked,
    decide_jobs,
    due_on,
    joined,
    lane_run,
    suites_of,
)

PD, KV = "tests/regression/gpu/test_pd.py", "tests/regression/gpu/test_kv.py"
ABORT, RETRY, READ = f"{PD}::test_abort", f"{PD}::test_retry", f"{KV}::test_read"
PASS, FAIL, CRASH, MISSING = GuardOutcome.PASS, GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.MISSING
TONIGHT, LAST = "acme/sglang@sha256:0", "acme/sglang@sha256:1"
ASKED = Asked("run-1", "1-gpu", "c" * 40, "d" * 40, Form.DEVICE, 1, 600.0, TONIGHT, LAST)


def declared(name: str, *guards: str, lane: str = "1-gpu", est_s: float | None = 60.0) -> Declared:
    return Declared(name, lane, est_s, guards, "@acme/pd")


DUE = (declared(ABORT, "pd-abort"), declared(RETRY, "pd-retry"), declared(READ, "kvcm", est_s=300.0))


def said(name: str, outcome: GuardOutcome = PASS, slug: str = "pd-abort") -> GuardResult:
    return GuardResult(name, slug, False, outcome, 1.0)


def answered(job: LaneJob, *results: GuardResult) -> tuple[JobEnd, LaneAnswer]:
    return JobEnd(job, JobState.ANSWERED), LaneAnswer(job, None, results)


def run_of(*pairs: tuple[JobEnd, LaneAnswer | None]) -> dict[str, tuple[str, GuardOutcome, str]]:
    ends, answers = [end for end, _ in pairs], [answer for _, answer in pairs if answer is not None]
    found = lane_run("1-gpu", "local", Form.DEVICE, ASKED.tree, ends, answers, DUE)
    assert (found.jobs, found.answers) == (tuple(ends), tuple(answers))
    return {one.test: (one.slug, one.outcome, one.reason) for one in found.results}


def test_due_is_what_the_lane_has_for_a_patch_that_is_there() -> None:
    every = (*DUE, declared(f"{PD}::test_two", "pd-abort", lane="2-gpu"), declared(f"{PD}::test_all"))
    assert [one.test for one in due_on(every, "1-gpu", ["pd-retry"])] == [RETRY, f"{PD}::test_all"]


def test_jobs_divide_the_files_by_the_time_that_their_tests_are_said_to_take() -> None:
    one, two = decide_jobs(ASKED, DUE, 5)
    assert [(str(job.shard), job.shard.files) for job in (one, two)] == [("1/2", (KV,)), ("2/2", (PD,))]
    assert one == LaneJob(
        run="run-1",
        lane="1-gpu",
        shard=one.shard,
        composition="c" * 40,
        tree="d" * 40,
        form=Form.DEVICE,
        image=TONIGHT,
        gpus=1,
        limit_s=600.0,
        last_promoted=LAST,
    )
    assert [(suite.slug, suite.paths) for suite in suites_of(two, DUE)] == [("pd-abort", (PD,))]


def test_a_rehearsal_needs_no_gpu_and_where_nothing_is_due_nobody_is_asked() -> None:
    (job,) = decide_jobs(replace(ASKED, form=Form.REHEARSAL, image=""), DUE, 1)
    assert (job.gpus, job.image, job.shard.files) == (0, "", (KV, PD))
    assert decide_jobs(ASKED, (), 3) == ()


def test_answers_are_told_by_the_patch_that_each_test_guards() -> None:
    one, two = decide_jobs(ASKED, DUE, 2)
    answers = (
        answered(one, said(READ, slug="kvcm")),
        answered(two, said(ABORT), said(f"{RETRY}[tcp]"), said(f"{RETRY}[rdma]", FAIL)),
    )
    assert run_of(*answers) == {
        READ: ("kvcm", PASS, ""),
        ABORT: ("pd-abort", PASS, ""),
        f"{RETRY}[tcp]": ("pd-retry", PASS, ""),
        f"{RETRY}[rdma]": ("pd-retry", FAIL, ""),
    }


@pytest.mark.parametrize(
    ("state", "detail", "reason"),
    [
        (JobState.LOST, "it was killed (SIGKILL)", "job 1/2 was lost: it was killed (SIGKILL)"),
        (JobState.LATE, "", "job 1/2 was late"),
        (JobState.REFUSED, "no GPU", "job 1/2 was refused: no GPU"),
    ],
)
def test_what_has_no_answer_is_missing_and_says_why(state: JobState, detail: str, reason: str) -> None:
    one, two = decide_jobs(ASKED, DUE, 2)
    found = run_of((JobEnd(one, state, detail), None), answered(two, said(ABORT)))
    assert found == {
        ABORT: ("pd-abort", PASS, ""),
        RETRY: ("pd-retry", MISSING, NOT_HEARD),
        READ: ("kvcm", MISSING, reason),
    }


def test_what_nobody_asked_for_is_missing_too() -> None:
    (job,) = decide_jobs(ASKED, DUE[2:], 1)
    found = run_of(answered(job, said(READ, slug="kvcm")))
    assert {name: reason for name, (_, outcome, reason) in found.items() if outcome is MISSING} == {
        ABORT: NOT_ASKED,
        RETRY: NOT_ASKED,
    }


@pytest.mark.parametrize(("gpus", "outcome"), [((), MISSING), (("NVIDIA H200, 140 GiB",), PASS)])
def test_what_passed_where_not_all_gpus_were_seen_did_not_run_on_its_lane(
    gpus: tuple[str, ...], outcome: GuardOutcome
) -> None:
    (job,) = decide_jobs(ASKED, DUE[2:], 1)
    end, answer = answered(job, said(READ, slug="kvcm"))
    found = run_of((end, replace(answer, hardware=Hardware("gpu-7", "16 x AMD EPYC 9554", 128, gpus))))
    why = "" if gpus else "it passed where 0 of its lane's 1 GPUs were seen"
    assert found[READ] == ("kvcm", outcome, why)


def test_a_green_that_no_file_promises_or_that_is_of_another_job_is_a_crash() -> None:
    one, two = decide_jobs(ASKED, DUE, 2)
    more = f"{PD}::test_more"
    found = run_of(
        answered(one, said(READ, slug="kvcm"), said(f"{ABORT}[x]")), answered(two, said(ABORT), said(RETRY), said(more))
    )
    assert (found[more][1:], found[f"{ABORT}[x]"][1:]) == ((CRASH, NOT_DECLARED), (CRASH, NOT_ITS_FILE))
    assert [name for name, (_, outcome, _) in found.items() if outcome is PASS] == [READ, ABORT, RETRY]


def test_a_file_that_could_not_be_read_has_answered_for_all_of_its_tests() -> None:
    one, two = decide_jobs(ASKED, DUE, 2)
    found = run_of(answered(one, said(KV, CRASH, "kvcm")), answered(two, said(ABORT), said(RETRY)))
    assert {name: outcome for name, (_, outcome, _) in found.items()} == {KV: CRASH, ABORT: PASS, RETRY: PASS}


def test_what_other_lanes_said_of_the_same_composition_stays() -> None:
    def run(lane: str, executor: str) -> LaneRun:
        return LaneRun(lane, executor, Form.DEVICE, (), (), ())

    before = LaneRuns("c" * 40, (run("2-gpu", "slurm"), run("1-gpu", "slurm")))
    fresh, order = [run("1-gpu", "local")], ["cpu", "1-gpu", "2-gpu"]
    assert joined(before, "c" * 40, fresh, order).runs == (run("1-gpu", "local"), run("2-gpu", "slurm"))
    assert joined(before, "e" * 40, fresh, order) == LaneRuns("e" * 40, (run("1-gpu", "local"),))
    assert joined(None, "c" * 40, fresh, order).runs == (run("1-gpu", "local"),)
