"""Other lanes than `cpu`: one that is red on a GPU and lost a machine, one that was refused, one rehearsed."""

from __future__ import annotations

from dataclasses import replace

from patchstack.model import (
    Attempt,
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
    Measure,
    Measures,
    Shard,
    Trend,
)

from . import fixed_night

FILES = ("tests/regression/gpu/test_pd_abort.py", "tests/regression/gpu/test_hicache_pp.py")
H200 = Hardware(
    node="gpu-07",
    processor="16 x AMD EPYC 9554",
    memory_gib=128,
    gpus=("NVIDIA H200, 140 GiB",),
    driver="570.86.15",
    cuda="13.0",
    nccl="2.27.5",
    torch="2.11.0",
    mooncake="0.3.10.post2",
    nics=("mlx5_0, 400 Gb/s",),
)
LAPTOP = Hardware(node="laptop", processor="2 x AMD EPYC 9554", memory_gib=8, torch="2.13.0")


def job(lane: str, number: int, count: int, form: Form = Form.DEVICE) -> LaneJob:
    image = f"{fixed_night.IMAGE.repository}@{fixed_night.IMAGE.digest}" if form is Form.DEVICE else ""
    shard = Shard(number, count, FILES[number - 1 : number])
    commit, tree = fixed_night.COMPOSITION.commit, fixed_night.COMPOSITION.tree
    return LaneJob(fixed_night.NIGHT.night, lane, shard, commit, tree, form, image, int(lane[0]), 7200.0)


def said(test: str, outcome: GuardOutcome = GuardOutcome.PASS, reason: str = "") -> GuardResult:
    return GuardResult(test, "pd-abort-notify", False, outcome, 30.5, reason)


ABORTS = said(f"{FILES[0]}::test_those_who_stay_are_told_the_same", GuardOutcome.FAIL, "AssertionError: 198 of 200")
STAGES = said(f"{FILES[1]}::test_one_stage")
AGAIN = replace(
    said(f"{FILES[1]}::test_two_passes", GuardOutcome.FLAKY, "passed, then failed"),
    attempts=(Attempt(GuardOutcome.CRASH, "OSError: x", 2.0), Attempt(GuardOutcome.PASS, "", 1.0)),
)
LOST = said(f"{FILES[1]}::test_two_stages", GuardOutcome.MISSING, "job 2/2 gave no answer")
SLOWER = Measure(
    metric="answers-a-second",
    unit="answers/s",
    test=f"{FILES[1]}::test_one_stage",
    value=70.5,
    peer=None,
    n=5,
    baseline=100.25,
    sigma=1.5,
    trend=Trend.FAIL,
    detail="29.7% worse than the median of 5 nights (100.2)",
)

ONE = LaneRun(
    lane="1-gpu",
    executor="slurm",
    form=Form.DEVICE,
    jobs=(
        JobEnd(job("1-gpu", 1, 2), JobState.ANSWERED, node="gpu-07"),
        JobEnd(job("1-gpu", 2, 2), JobState.ANSWERED, "node gpu-03 went away", node="gpu-07", begun=2),
    ),
    answers=(
        LaneAnswer(job("1-gpu", 1, 2), H200, (ABORTS,)),
        LaneAnswer(job("1-gpu", 2, 2), H200, (STAGES, AGAIN)),
    ),
    results=(STAGES, ABORTS, AGAIN),
    measures=(Measures("16 x AMD EPYC 9554; 128 GiB; 1 x NVIDIA H200, 140 GiB", None, (SLOWER,)),),
)
TWO = LaneRun(
    lane="2-gpu",
    executor="local",
    form=Form.DEVICE,
    jobs=(JobEnd(job("2-gpu", 2, 2), JobState.REFUSED, "this machine has 1 GPU, and the job needs 2", begun=0),),
    answers=(),
    results=(LOST,),
)
FOUR = LaneRun(
    lane="4-gpu",
    executor="local",
    form=Form.REHEARSAL,
    jobs=(JobEnd(job("4-gpu", 1, 1, Form.REHEARSAL), JobState.ANSWERED, node="laptop"),),
    answers=(LaneAnswer(job("4-gpu", 1, 1, Form.REHEARSAL), LAPTOP, (STAGES, ABORTS)),),
    results=(STAGES, ABORTS),
)
LANES = LaneRuns(fixed_night.COMPOSITION.commit, (ONE, TWO, FOUR))

NIGHT = replace(fixed_night.NIGHT, lanes=LANES)
RED = replace(fixed_night.RED, lanes=LANES)
