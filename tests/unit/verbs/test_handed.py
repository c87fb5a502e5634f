"""Results of another machine: only whether a guard passed is believed, and only of this very composition's guards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest
from tests.unit.verbs.test_selection import Stack, stack  # noqa: F401

from patchstack.errors import UsageError
from patchstack.model import (
    Attempt,
    Composition,
    GuardOutcome,
    GuardReport,
    GuardResult,
    Proof,
    Quarantined,
    Scenario,
    Sha,
    Standing,
    Status,
    TreeRun,
)
from patchstack.regress.prove import prove
from patchstack.regress.quarantine import excuse
from patchstack.regress.suites import BED_SUITE, files_of
from patchstack.verbs import quarantine
from patchstack.verbs.handed import MOST_BYTES, require_said_of
from patchstack.verbs.selection import Selection
from patchstack.verbs.test import verdicts_on

FAIL, PASS = GuardOutcome.FAIL, GuardOutcome.PASS


def report_on(stack: Stack, composition: Composition, selection: Selection) -> GuardReport:  # noqa: F811
    """What a green run of every guard says."""

    def said(slug: str, file: str, outcome: GuardOutcome) -> GuardResult:
        return GuardResult(f"{file}::test_it", slug, slug == BED_SUITE, outcome, 1.0)

    root = stack.work.root
    composed = [
        said(suite.slug, file, PASS)
        for suite in selection.suites
        if suite.slug != BED_SUITE
        for file in files_of(root, suite)
    ]
    grounds: dict[tuple[str, Sha], list[GuardResult]] = {}
    for suite in selection.on_grounds:
        ground = selection.grounds[suite.slug]
        outcome = PASS if suite.slug == BED_SUITE else FAIL
        grounds.setdefault((ground.label, ground.tree), []).extend(
            said(suite.slug, file, outcome) for file in files_of(root, suite)
        )
    runs = (
        TreeRun(selection.label, True, composition.tree, tuple(composed)),
        *(TreeRun(label, False, tree, tuple(results)) for (label, tree), results in grounds.items()),
    )
    return GuardReport("cpu", "bed", runs, prove(selection.claims, runs), selection.not_run)


@pytest.fixture
def night(stack: Stack) -> tuple[Stack, Composition, GuardReport]:  # noqa: F811
    composition = stack.compose()
    return stack, composition, report_on(stack, composition, stack.select(composition))


def test_the_results_of_this_composition_are_taken(night: tuple[Stack, Composition, GuardReport]) -> None:
    stack, composition, report = night  # noqa: F811
    require_said_of(stack.work, composition, report)
    assert verdicts_on(stack.work, composition, report).verdicts[0].status is Status.PASS


def test_a_red_guard_is_no_forgery(night: tuple[Stack, Composition, GuardReport]) -> None:
    """Also one of which only its file is known, for it never began."""
    stack, composition, report = night  # noqa: F811
    red = with_results(report, 0, lambda results: (replace(results[0], outcome=FAIL), *results[1:]))
    never = with_results(
        report,
        0,
        lambda results: (
            replace(results[0], test="tests/regression/guard", outcome=GuardOutcome.MISSING),
            *results[1:],
        ),
    )
    for changed, status in ((red, Status.FAIL), (never, Status.INCOMPLETE)):
        honest = replace(changed, proofs=prove(stack.select(composition).claims, changed.runs))
        require_said_of(stack.work, composition, honest)
        assert verdicts_on(stack.work, composition, honest).verdicts[0].status is status


ENTRIES = """
- test: tests/regression/guard/test_it.py
  owner: "@acme/pd"
  because: It hangs now and then.
  since: 2026-11-20
  until: 2026-12-04
  back: Ten green nights.
"""


@pytest.mark.parametrize(("day", "status"), [("2026-12-03", Status.INCOMPLETE), ("2026-12-04", Status.FAIL)])
def test_what_an_entry_excuses_is_judged_by_the_file_and_the_day_of_here(
    night: tuple[Stack, Composition, GuardReport], monkeypatch: pytest.MonkeyPatch, day: str, status: Status
) -> None:
    """The machine that has run the guards may have been sure of another file, and of another day."""
    stack, composition, report = night  # noqa: F811
    today = datetime.fromisoformat(f"{day}T12:00:00+00:00")
    monkeypatch.setattr(quarantine, "now_utc", lambda: today)
    (stack.work.root / "tests" / "regression" / "quarantine.yaml").write_text(ENTRIES)
    red = with_results(report, 0, lambda results: (replace(results[0], outcome=FAIL), *results[1:]))
    entries = tuple(replace(entry, expired=False) for entry in quarantine.quarantine_now(stack.work))
    claims = stack.select(composition).claims
    said = excuse(red, entries, claims)
    assert said.runs[0].results[0].outcome is GuardOutcome.QUARANTINED
    require_said_of(stack.work, composition, said)
    verdict = verdicts_on(stack.work, composition, said).verdicts[0]
    assert verdict.status is status, "its patch has no other guard"


Change = Callable[[tuple[GuardResult, ...]], tuple[GuardResult, ...]]


def with_results(report: GuardReport, index: int, change: Change) -> GuardReport:
    runs = list(report.runs)
    runs[index] = replace(runs[index], results=change(runs[index].results))
    return replace(report, runs=tuple(runs))


def with_run(report: GuardReport, index: int, **fields: object) -> GuardReport:
    runs = list(report.runs)
    runs[index] = replace(runs[index], **fields)  # type: ignore[arg-type]
    return replace(report, runs=tuple(runs))


OTHER = Sha("e" * 40)


def excused(result: GuardResult) -> GuardResult:
    return replace(result, outcome=GuardOutcome.QUARANTINED, reason="fail: off by one")


def ran_before(result: GuardResult, times: int = 1) -> GuardResult:
    return replace(result, attempts=(Attempt(GuardOutcome.CRASH, "OSError", 1.0),) * times)


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (lambda report: with_run(report, 0, tree=OTHER), r"composed \(tree eeeeeeeeeeee\) is no tree of it"),
        (lambda report: with_run(report, 1, tree=OTHER), r"\(tree eeeeeeeeeeee\) is no tree of it"),
        (lambda report: with_run(report, 1, label="elsewhere"), "elsewhere .* is no tree of it"),
        (lambda report: with_run(report, 1, composed=True), "is no tree of it"),
        (lambda report: with_run(report, 0, mutant="fix/m"), "is no tree of it"),
        (lambda report: replace(report, runs=report.runs[1:]), "composed .* is missing"),
        (lambda report: replace(report, runs=(*report.runs, report.runs[0])), "composed .* is there twice"),
        (lambda report: replace(report, lane="1-gpu"), "they are of lane '1-gpu'"),
        (lambda report: replace(report, not_run=(Scenario("1-gpu", "x"),)), "other scenarios are skipped by rule"),
        (
            lambda report: with_results(report, 0, lambda results: results[1:]),
            r"nobody answers for tests/regression/guard/test_it.py of lock on composed",
        ),
        (
            lambda report: with_results(
                report, 0, lambda results: (replace(results[0], slug="pd-abort"), *results[1:])
            ),
            "of pd-park on composed|answers twice for pd-abort",
        ),
        (
            lambda report: with_results(
                report, 0, lambda results: (*results, replace(results[0], test="tests/regression/x/test_x.py::test"))
            ),
            r"tests/regression/x/test_x.py on composed has no guard of lock",
        ),
        (
            lambda report: with_results(report, 0, lambda results: (*results, results[0])),
            "on composed answers twice for lock",
        ),
        (
            lambda report: replace(
                report, proofs=(Proof("lock", "base", Standing.PROVEN, "believe me"), *report.proofs[1:])
            ),
            "what they are said to prove does not follow",
        ),
        (
            lambda report: with_results(report, 1, lambda results: tuple(replace(r, outcome=PASS) for r in results)),
            "what they are said to prove does not follow",
        ),
        (lambda report: replace(report, proofs=()), "what they are said to prove does not follow"),
        (
            lambda report: with_results(report, 0, lambda results: (excused(results[0]), *results[1:])),
            "on composed is in no quarantine",
        ),
        (
            lambda report: replace(report, quarantine=(Quarantined("t", "@a", "b", "2026-11-20", "2026-12-04", "c"),)),
            "another quarantine than tests/regression/quarantine.yaml",
        ),
        (
            lambda report: with_results(report, 0, lambda results: (ran_before(results[0]), *results[1:])),
            "on composed passed after it had not, and is not called flaky",
        ),
        (
            lambda report: with_results(report, 0, lambda results: (ran_before(results[0], 101), *results[1:])),
            "on composed ran 102 times",
        ),
        (
            lambda report: with_results(
                report, 0, lambda results: (replace(results[0], reason="x" * MOST_BYTES), *results[1:])
            ),
            "no night's have more than 33554432 bytes",
        ),
        (
            lambda report: with_results(
                report, 0, lambda results: (replace(results[0], test="tests/x.py" * 100_000), *results[1:])
            ),
            r"^.{,1000}$",
        ),
    ],
)
def test_results_of_something_else_are_refused(
    night: tuple[Stack, Composition, GuardReport], forge: Callable[[GuardReport], GuardReport], said: str
) -> None:
    stack, composition, report = night  # noqa: F811
    with pytest.raises(UsageError, match=said) as refused:
        require_said_of(stack.work, composition, forge(report))
    assert "nothing was moved" in str(refused.value)


def test_another_composition_s_results_are_refused(night: tuple[Stack, Composition, GuardReport]) -> None:
    stack, composition, _ = night  # noqa: F811
    other = stack.compose("pd-park")
    with pytest.raises(UsageError, match="is no tree of it"):
        require_said_of(stack.work, composition, report_on(stack, other, stack.select(other)))
