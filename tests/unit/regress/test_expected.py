"""Expected minus executed: what a guard's file has and pytest did not speak of is missing, never green."""

from __future__ import annotations

import pytest

from patchstack.model import GuardOutcome, GuardResult, Sha, TreeRun
from patchstack.regress.expected import NOT_DECLARED, NOT_HEARD, Due, completed

TREE, OTHER, BASE = Sha("a" * 40), Sha("b" * 40), Sha("c" * 40)
PASS, FAIL, CRASH, MISSING = GuardOutcome.PASS, GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.MISSING
FILE = "tests/regression/x/test_x.py"
DUE = Due("composed", True, TREE, tuple(("x", f"{FILE}::{name}") for name in ("test_a", "TestB::test_b", "test_c")))


def said(test: str, outcome: GuardOutcome = PASS, reason: str = "", slug: str = "x") -> GuardResult:
    return GuardResult(f"{FILE}::{test}" if "/" not in test else test, slug, False, outcome, 1.0, reason)


def silent(test: str, reason: str = NOT_HEARD, slug: str = "x") -> GuardResult:
    return GuardResult(f"{FILE}::{test}", slug, False, MISSING, 0.0, reason)


def ran(*results: GuardResult, label: str = "composed", tree: Sha = TREE) -> TreeRun:
    return TreeRun(label, label == "composed", tree, results)


WHOLE = (said("test_a"), said("TestB::test_b[1::x]"), said("TestB::test_b[2]", FAIL), said("test_c", MISSING))


def test_where_all_have_answered_nothing_changes() -> None:
    runs = (ran(*WHOLE), ran(said("test_a"), label="base", tree=BASE))
    assert completed(runs, [DUE]) == runs
    assert completed(completed(runs, [DUE]), [DUE]) == runs


@pytest.mark.parametrize(
    ("gone", "names"),
    [
        (0, ["test_a"]),
        (3, ["test_c"]),
        (slice(1, 3), ["TestB::test_b"]),
        (slice(0, 4), ["test_a", "TestB::test_b", "test_c"]),
    ],
)
def test_what_pytest_never_spoke_of_is_missing(gone: int | slice, names: list[str]) -> None:
    heard = list(WHOLE)
    del heard[gone]
    assert completed([ran(*heard)], [DUE]) == (ran(*heard, *map(silent, names)),)


def test_an_answer_for_another_patch_or_on_another_tree_is_none() -> None:
    elsewhere = [
        ran(*WHOLE, tree=OTHER),
        ran(*WHOLE, label="base"),
        TreeRun("composed", True, TREE, WHOLE, mutant="x/m"),
    ]
    missing = ran(*map(silent, ("test_a", "TestB::test_b", "test_c")))
    assert completed(elsewhere, [DUE]) == (*elsewhere, missing)
    others = tuple(said(name, slug="y") for name in ("test_a", "TestB::test_b", "test_c"))
    assert completed([ran(*others)], [DUE]) == (ran(*others, *missing.results),)


@pytest.mark.parametrize("whole", [FILE, "tests/regression/x", "tests/regression"])
def test_what_never_began_or_was_not_collected_has_answered_for_all_of_it(whole: str) -> None:
    for outcome in (MISSING, CRASH):
        runs = (ran(said(whole, outcome, "nothing was collected")),)
        assert completed(runs, [DUE]) == runs
    runs = (ran(said("tests/regression/y", MISSING)),)
    assert completed(runs, [DUE])[0].results[1:] == tuple(map(silent, ("test_a", "TestB::test_b", "test_c")))


def test_a_class_that_was_not_collected_has_answered_for_its_tests_alone() -> None:
    broken = said("TestB", CRASH, "cannot be collected")
    assert completed([ran(broken)], [DUE]) == (ran(broken, silent("test_a"), silent("test_c")),)


def test_green_that_no_file_promises_is_not_believed() -> None:
    def stranger(outcome: GuardOutcome, reason: str = "", slug: str = "x") -> GuardResult:
        return said("test_new[1]", outcome, reason, slug)

    (made,) = completed([ran(*WHOLE, stranger(PASS))], [DUE])
    assert made.results == (*WHOLE, stranger(CRASH, NOT_DECLARED))
    # What is not green needs no doubt, and of files that are not due here nothing is said.
    for other in (stranger(FAIL), stranger(MISSING), stranger(PASS, slug="y"), said("a/test_y.py::test_new")):
        assert completed([ran(*WHOLE, other)], [DUE]) == (ran(*WHOLE, other),)


def test_nothing_due_makes_no_run() -> None:
    assert completed([], [Due("base", False, BASE, ())]) == ()


def test_why_is_asked_by_file() -> None:
    (made,) = completed([], [DUE], lambda file: f"not {file}")
    assert {result.reason for result in made.results} == {f"not {FILE}"}
