"""What a machine of another lane can say in its answer, and what nobody but a forger would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from patchstack.model import (
    Attempt,
    Form,
    GuardOutcome,
    GuardResult,
    Hardware,
    LaneAnswer,
    LaneJob,
    Sample,
    Settings,
    Shard,
)
from patchstack.regress.declared import Declared
from patchstack.regress.lane_answers import problems_of

GPU = "tests/regression/gpu"
FILE, ELSEWHERE = f"{GPU}/test_one.py", f"{GPU}/test_two.py"
FAST, RIGHT, OTHER = f"{FILE}::test_fast", f"{FILE}::test_right", f"{ELSEWHERE}::test_other"
DUE = tuple(Declared(test, "1-gpu", 10.0, ("lock",), "@acme/pd") for test in (FAST, RIGHT, OTHER))
MEASURES = {"tokens-per-s": FAST}
JOB = LaneJob("run-1", "1-gpu", Shard(1, 2, (FILE,)), "c" * 40, "d" * 40, Form.DEVICE, "acme@sha256:0", 1, 600.0)
MACHINE = Hardware("gpu-7", "16 x AMD EPYC 9554", 128, ("NVIDIA H200, 140 GiB",), nics=("mlx5_0, 400 Gb/s",))


def said(test: str, outcome: GuardOutcome = GuardOutcome.PASS, **more: object) -> GuardResult:
    return replace(GuardResult(test, "lock", False, outcome, 1.0), **more)  # type: ignore[arg-type]


SAMPLES = tuple(Sample("tokens-per-s", value) for value in (1.0, 2.0))
CRASHED = (Attempt(GuardOutcome.CRASH, "it was killed", 1.0, by_machine=True),)
HONEST = LaneAnswer(
    JOB,
    MACHINE,
    (said(FAST, samples=SAMPLES), said(f"{RIGHT}[tp-2]", attempts=CRASHED)),
    (Settings(FAST, (("tp", "1"), ("model", "Qwen3-0.6B"))),),
    (said(FAST, samples=SAMPLES),),
)


def with_results(*results: GuardResult) -> Callable[[LaneAnswer], LaneAnswer]:
    return lambda answer: replace(answer, results=results)


def with_machine(**more: object) -> Callable[[LaneAnswer], LaneAnswer]:
    return lambda answer: replace(answer, hardware=replace(MACHINE, **more))  # type: ignore[arg-type]


def with_settings(*settings: Settings) -> Callable[[LaneAnswer], LaneAnswer]:
    return lambda answer: replace(answer, settings=settings)


@pytest.mark.parametrize(
    "also",
    [
        HONEST,
        replace(HONEST, hardware=None, settings=(), beside=()),
        with_results()(HONEST),
        with_results(said(FILE, GuardOutcome.CRASH))(HONEST),
        with_results(said(GPU, GuardOutcome.MISSING, slug="1-gpu"))(HONEST),
        with_results(said(FAST, GuardOutcome.FAIL, attempts=CRASHED), said(RIGHT, GuardOutcome.TIMEOUT))(HONEST),
    ],
)
def test_what_an_honest_machine_says_is_believed(also: LaneAnswer) -> None:
    assert list(problems_of(also, DUE, MEASURES)) == []


FORGED: dict[str, tuple[Callable[[LaneAnswer], LaneAnswer], str]] = {
    "another job's file": (with_results(said(OTHER)), f"{OTHER} is none of its job"),
    "another folder": (
        with_results(said("tests/regression/guard", GuardOutcome.FAIL)),
        "tests/regression/guard is none of its job",
    ),
    "a test of a folder": (with_results(said(f"{GPU}::test_all")), f"{GPU}::test_all is none of its job"),
    "a patch that it does not guard": (with_results(said(FAST, slug="other")), f"{FAST} guards no 'other' there"),
    "two answers of one test": (with_results(said(FAST), said(FAST)), f"{FAST} answers twice"),
    "a pass behind a failure": (
        with_results(said(FAST, attempts=(Attempt(GuardOutcome.FAIL, "", 1.0),))),
        f"{FAST} passed after it had not, and is not called flaky",
    ),
    "attempts without end": (with_results(said(FAST, attempts=CRASHED * 101)), f"{FAST} ran 102 times"),
    "an attempt without end": (
        with_results(said(FAST, attempts=(replace(CRASHED[0], duration_s=float("nan")),))),
        f"{FAST} took no time that there is",
    ),
    "a number of another test": (
        with_results(said(RIGHT, samples=SAMPLES)),
        f"{RIGHT} says numbers that it is not to measure",
    ),
    "a number that nobody measures": (
        with_results(said(FAST, samples=(Sample("joy", 1.0),))),
        f"{FAST} says numbers that it is not to measure",
    ),
    "a number that is none": (
        with_results(said(FAST, samples=(Sample("tokens-per-s", float("nan")),))),
        f"{FAST} says numbers that it is not to measure",
    ),
    "numbers without end": (
        with_results(said(FAST, samples=SAMPLES * 501)),
        f"{FAST} says numbers that it is not to measure",
    ),
    "a time before it began": (with_results(said(FAST, duration_s=-1.0)), f"{FAST} took no time that there is"),
    "a time without end": (with_results(said(FAST, duration_s=float("inf"))), f"{FAST} took no time that there is"),
    "a machine of two lines": (with_machine(gpus=("H200\n| green |",)), "its machine is none"),
    "a machine with a name without end": (with_machine(node="n" * 301), "its machine is none"),
    "a machine of too many cards": (with_machine(gpus=("H200",) * 65), "its machine is none"),
    "a machine without memory": (with_machine(memory_gib=-1), "its machine is none"),
    "settings of another file": (with_settings(Settings(OTHER, ())), f"the settings of {OTHER} are none"),
    "settings that have no end": (
        with_settings(Settings(FAST, (("tp", "1" * 301),))),
        f"the settings of {FAST} are none",
    ),
    "more settings than a test has": (
        with_settings(Settings(FAST, (("tp", "1"),) * 65)),
        f"the settings of {FAST} are none",
    ),
    "settings twice": (
        with_settings(Settings(FAST, ()), Settings(FAST, ())),
        "the settings of a test are there twice",
    ),
    "another image beside, for a test that does not measure": (
        lambda answer: replace(answer, beside=(said(RIGHT),)),
        f"{RIGHT} measures nothing",
    ),
    "another image beside, of another job": (
        lambda answer: replace(answer, beside=(said(OTHER),)),
        f"{OTHER} on the last promoted image is none of its job",
    ),
}


@pytest.mark.parametrize(("forge", "why"), FORGED.values(), ids=FORGED)
def test_what_nobody_but_a_forger_says_is_named(forge: Callable[[LaneAnswer], LaneAnswer], why: str) -> None:
    assert next(problems_of(forge(HONEST), DUE, MEASURES)) == why
