"""Numbers of another machine: only of tests that are to measure them, on tonight's tree and on what is deployed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.unit.verbs.test_handed import report_on, with_results, with_run
from tests.unit.verbs.test_selection import Stack, stack  # noqa: F401

from patchstack.errors import UsageError
from patchstack.model import (
    Composition,
    Deployed,
    GuardOutcome,
    GuardReport,
    GuardResult,
    Past,
    Sample,
    Sha,
    Status,
    TreeRun,
)
from patchstack.verbs.handed import require_said_of
from patchstack.verbs.test import verdicts_on

TEST = "tests/regression/bed/test_bed.py::test_it"
METRICS = f"""\
cost: {{unit: ms, better: lower, test: "{TEST}", floor_share: 0.1, alone_share: 0.5}}
"""
DEPLOYED = Sha("d" * 40)
Night = tuple[Stack, Composition, GuardReport, Past]


def said(*values: float, test: str = TEST, metric: str = "cost") -> GuardResult:
    samples = tuple(Sample(metric, value) for value in values)
    return GuardResult(test, "bed", True, GuardOutcome.PASS, 1.0, samples=samples)


@pytest.fixture
def night(stack: Stack) -> Night:  # noqa: F811
    """The composed tree is the first run of the report, and the deployed one its last."""
    (stack.work.root / "tests/regression/metrics.yaml").write_text(METRICS)
    composition = stack.compose()
    report = with_results(
        report_on(stack, composition, stack.select(composition)), 0, lambda results: (*results, said(100.0, 101.0))
    )
    beside = TreeRun("last promoted", False, DEPLOYED, (said(99.0),), beside=True)
    past = Past("production", Deployed("n", Sha("c" * 40), DEPLOYED, composition.base.commit), ())
    return stack, composition, replace(report, runs=(*report.runs, beside), node="2 x Any"), past


def test_numbers_of_this_night_are_taken(night: Night) -> None:
    stack, composition, report, past = night  # noqa: F811
    require_said_of(stack.work, composition, report, past=past)
    verdict = verdicts_on(stack.work, composition, report, past=past).verdicts[0]
    assert (verdict.status, verdict.warnings) == (Status.PASS, ())


def test_a_machine_need_not_have_what_is_deployed(night: Night) -> None:
    stack, composition, report, past = night  # noqa: F811
    require_said_of(stack.work, composition, replace(report, runs=report.runs[:-1]), past=past)


@pytest.mark.parametrize(
    ("value", "status", "warnings"), [(105.0, Status.PASS, 0), (120.0, Status.PASS, 1), (160.0, Status.FAIL, 0)]
)
def test_what_they_are_worth_is_judged_here(night: Night, value: float, status: Status, warnings: int) -> None:
    stack, composition, report, past = night  # noqa: F811
    worse = with_results(report, 0, lambda results: (*results[:-1], said(value)))
    require_said_of(stack.work, composition, worse, past=past)
    verdict = verdicts_on(stack.work, composition, worse, past=past).verdicts[0]
    assert (verdict.status, len(verdict.warnings)) == (status, warnings)


def test_a_red_guard_on_what_is_deployed_holds_nothing(night: Night) -> None:
    stack, composition, report, past = night  # noqa: F811
    red = with_results(report, -1, lambda results: (replace(results[0], outcome=GuardOutcome.FAIL),))
    require_said_of(stack.work, composition, red, past=past)
    assert verdicts_on(stack.work, composition, red, past=past).verdicts[0].status is Status.PASS


def test_numbers_that_are_not_there_are_missing(night: Night) -> None:
    stack, composition, report, past = night  # noqa: F811
    silent = with_results(report, 0, lambda results: (*results[:-1], said()))
    verdict = verdicts_on(stack.work, composition, silent, past=past).verdicts[0]
    assert (verdict.status, verdict.reasons) == (
        Status.INCOMPLETE,
        (f"metric cost is missing: {TEST} passed and measured nothing",),
    )


Forge = Callable[[GuardReport], GuardReport]


@pytest.mark.parametrize(
    ("forge", "problem"),
    [
        (lambda report: with_run(report, -1, tree=Sha("e" * 40)), r"last promoted \(tree eeeeeeeeeeee\) is no tree"),
        (lambda report: with_run(report, -1, beside=False), "last promoted .* is no tree of it"),
        (lambda report: with_run(report, 0, beside=True), "composed .* is no tree of it"),
        (lambda report: with_run(report, 1, beside=True), "is no tree of it"),
        (lambda report: with_run(report, -1, composed=True), "last promoted .* is no tree of it"),
        (
            lambda report: with_results(report, -1, lambda results: (replace(results[0], slug="lock"),)),
            "on last promoted has no guard of lock",
        ),
        (lambda report: replace(report, node="two\nlines"), "what they ran on has no name that can be shown"),
        (lambda report: replace(report, why_alone="two\nlines"), "why nothing was measured beside is nothing"),
        (
            lambda report: with_results(report, 0, lambda results: (*results[:-1], said(1.0, metric="costs"))),
            f"{TEST} on composed says numbers that it is not to measure",
        ),
        (
            lambda report: with_results(report, 0, lambda results: (*results[:-1], said(float("nan")))),
            f"{TEST} on composed says numbers that it is not to measure",
        ),
        (
            lambda report: with_results(
                report, 0, lambda results: (replace(results[0], samples=(Sample("cost", 1.0),)), *results[1:])
            ),
            "on composed says numbers that it is not to measure",
        ),
        (
            lambda report: with_results(report, 0, lambda results: results[:-1]),
            r"nobody answers for tests/regression/bed/test_bed\.py of bed on composed",
        ),
    ],
)
def test_a_forged_report_is_refused(night: Night, forge: Forge, problem: str) -> None:
    stack, composition, report, past = night  # noqa: F811
    with pytest.raises(UsageError, match=problem):
        require_said_of(stack.work, composition, forge(report), past=past)


def test_without_a_past_nothing_is_measured_beside(night: Night) -> None:
    stack, composition, report, _ = night  # noqa: F811
    with pytest.raises(UsageError, match=r"last promoted .* is no tree of it"):
        require_said_of(stack.work, composition, report)
