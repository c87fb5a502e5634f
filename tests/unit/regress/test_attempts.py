"""Guards that run again on the same tree: an assertion never, and no pass that comes after a hang is green."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import product

import pytest

from patchstack.model import Attempt, GuardOutcome, GuardResult
from patchstack.regress.attempts import MOST_NAMED, follows, is_asked_again, merge_attempts, run_with_attempts

P, F, C, T, M, FLAKY = (
    GuardOutcome.PASS,
    GuardOutcome.FAIL,
    GuardOutcome.CRASH,
    GuardOutcome.TIMEOUT,
    GuardOutcome.MISSING,
    GuardOutcome.FLAKY,
)
FILE = "tests/regression/x/test_x.py"


def said(outcome: GuardOutcome, test: str = "a", *, machine: bool = False, reason: str = "") -> GuardResult:
    return GuardResult(test, "x", False, outcome, 1.0, reason or f"r{outcome.value}", by_machine=machine)


KILLED, NEVER_BEGAN = said(C, machine=True), said(M, machine=True)


@pytest.mark.parametrize(
    ("runs", "outcome"),
    [
        ([said(P)], P),
        ([said(P), said(P)], P),
        ([KILLED, said(P)], P),
        ([NEVER_BEGAN, said(P)], P),
        ([said(C), said(P)], FLAKY),
        ([said(T), said(P)], FLAKY),
        ([said(F), said(P)], FLAKY),
        ([said(P), said(F)], FLAKY),
        ([said(P), said(C)], FLAKY),
        ([KILLED, said(C), said(P)], FLAKY),
        ([said(C), said(F)], F),
        ([said(F), said(C)], F),
        ([KILLED, said(F)], F),
        ([said(C), said(C)], C),
        ([said(C), said(T)], T),
        ([said(T), KILLED], T),
        ([said(T), NEVER_BEGAN], T),
        ([said(T), said(M)], T),
        ([KILLED, KILLED], C),
        ([KILLED, NEVER_BEGAN], M),
        ([said(M), said(P)], P),
        ([said(P), KILLED], P),
    ],
)
def test_what_several_ends_mean_together(runs: list[GuardResult], outcome: GuardOutcome) -> None:
    merged = merge_attempts(runs)
    assert merged.outcome is outcome
    assert follows(merged)


def test_all_is_kept_of_what_was_before() -> None:
    merged = merge_attempts([KILLED, said(C, reason="KeyError: 'x'"), said(P, reason="")])
    assert merged == GuardResult(
        "a",
        "x",
        False,
        FLAKY,
        1.0,
        "on one tree it ended otherwise each time: crash (rcrash), then crash (KeyError: 'x'), then pass (rpass)",
        attempts=(
            Attempt(C, "rcrash", 1.0, by_machine=True),
            Attempt(C, "KeyError: 'x'", 1.0),
            Attempt(P, "rpass", 1.0),
        ),
    )
    assert merge_attempts([said(C), said(F)]).attempts == (Attempt(C, "rcrash", 1.0),)
    assert merge_attempts([said(F), said(C)]).attempts == (Attempt(C, "rcrash", 1.0),)


def test_it_makes_no_difference_how_ends_were_put_together() -> None:
    """Such as in the lane first, and then with a probe that found it out."""
    ends = [said(P), said(F), said(C), said(T), KILLED, NEVER_BEGAN]
    for runs in product(ends, repeat=3):
        at_once = merge_attempts(runs)
        in_steps = merge_attempts([merge_attempts(runs[:2]), runs[2]])
        assert at_once.outcome is in_steps.outcome, runs
        assert sorted(at_once.attempts, key=repr) == sorted(in_steps.attempts, key=repr)


def test_no_pass_hides_an_end_of_the_guard_s_own_and_no_failure_becomes_green() -> None:
    draw = random.Random(8)
    ends = [said(P), said(F), said(C), said(T), KILLED, NEVER_BEGAN]
    for _ in range(500):
        runs = draw.choices(ends, k=draw.randint(1, 6))
        own = {run.outcome for run in runs if not run.by_machine}
        assert (merge_attempts(runs).outcome is P) == (own == {P})


@pytest.mark.parametrize("forged", [said(P), said(FLAKY)])
def test_what_does_not_follow_from_its_attempts_is_seen(forged: GuardResult) -> None:
    """A result of elsewhere that says pass beside a crash of its own, or flaky without a pass."""
    from dataclasses import replace

    assert not follows(replace(forged, attempts=(Attempt(C, "r", 1.0),)))
    assert not follows(said(FLAKY))
    assert not follows(replace(said(P), attempts=(Attempt(FLAKY, "r", 1.0),)))


@pytest.mark.parametrize(
    ("result", "must_pass", "asked"),
    [
        (said(P), True, False),
        (said(F), True, False),
        (said(C), True, True),
        (said(T), True, True),
        (said(M), True, False),
        (KILLED, True, True),
        (NEVER_BEGAN, True, True),
        (said(F), False, False),
        (said(C), False, False),
        (said(T), False, False),
        (KILLED, False, True),
        (NEVER_BEGAN, False, True),
    ],
)
def test_who_is_asked_again(result: GuardResult, must_pass: bool, asked: bool) -> None:
    assert is_asked_again(result, must_pass=must_pass) is asked


def lane(*attempts: dict[str, GuardResult]) -> tuple[Callable[[tuple[str, ...], int], tuple[GuardResult, ...]], list]:
    """What runs say one after the other, and what each was asked."""
    asked: list[tuple[str, ...]] = []

    def run(paths: tuple[str, ...], number: int) -> tuple[GuardResult, ...]:
        asked.append(paths)
        assert number == len(asked)
        found = attempts[number - 1]
        wanted = found if number == 1 else {test: result for test, result in found.items() if test in paths}
        return tuple(
            GuardResult(test, "x", False, r.outcome, 1.0, r.reason, by_machine=r.by_machine)
            for test, r in (wanted or found).items()
        )

    return run, asked


def outcomes(results: tuple[GuardResult, ...]) -> dict[str, GuardOutcome]:
    return {result.test.removeprefix(f"{FILE}::"): result.outcome for result in results}


ALL = tuple(f"{FILE}::{name}" for name in ("fails", "crashes", "killed", "after", "passes"))


def test_only_those_run_again_that_may_and_no_more_often_than_they_may() -> None:
    first = dict(zip(ALL, (said(F), said(C), KILLED, NEVER_BEGAN, said(P)), strict=True))
    run, asked = lane(first, dict.fromkeys(ALL, said(P)), dict.fromkeys(ALL, said(P)))
    assert outcomes(run_with_attempts(run, ("tests/regression/x",), 2, must_pass=True, files=[FILE])) == {
        "fails": F,
        "crashes": FLAKY,
        "killed": P,
        "after": P,
        "passes": P,
    }
    assert asked == [("tests/regression/x",), ALL[1:4]]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_what_never_passes_is_asked_as_often_as_is_said(retries: int) -> None:
    run, asked = lane(*[{ALL[0]: said(C)}] * 5)
    assert outcomes(run_with_attempts(run, (FILE,), retries, must_pass=True)) == {"fails": C}
    assert len(asked) == retries + 1


def test_a_file_that_could_not_be_read_lends_its_end_to_each_of_its_tests() -> None:
    run, asked = lane({FILE: said(C)}, {ALL[0]: said(P), ALL[1]: said(F)})
    found = run_with_attempts(run, ("tests/regression/x",), 1, must_pass=True, files=[FILE])
    assert outcomes(found) == {"fails": FLAKY, "crashes": F}
    assert asked == [("tests/regression/x",), (FILE,)]


def test_a_suite_whose_process_could_not_begin_has_said_nothing() -> None:
    run, asked = lane({"tests/regression/x": NEVER_BEGAN}, {ALL[0]: said(P)})
    (found,) = run_with_attempts(run, ("tests/regression/x",), 1, must_pass=False, files=[FILE])
    assert (found.test, found.outcome, found.attempts) == (ALL[0], P, (Attempt(M, "rmissing", 1.0, by_machine=True),))
    assert asked == [("tests/regression/x",), ("tests/regression/x",)]


def test_a_record_that_somebody_wrote_in_is_not_asked_again() -> None:
    """Its file is a crash beside tests that have answered, and these are not to answer once more."""
    first = {FILE: said(C), ALL[0]: said(F), ALL[4]: said(P)}
    run, asked = lane(first)
    assert run_with_attempts(run, (FILE,), 3, must_pass=True) == tuple(
        GuardResult(test, "x", False, r.outcome, 1.0, r.reason) for test, r in first.items()
    )
    assert len(asked) == 1


def test_what_is_of_another_file_is_never_an_argument() -> None:
    run, asked = lane({"--rootdir=/x::t": said(C), "tests/regression/y/test_y.py::t": said(C)})
    run_with_attempts(run, (FILE,), 3, must_pass=True)
    assert len(asked) == 1


def test_what_is_not_heard_of_again_keeps_its_end() -> None:
    run, _ = lane({ALL[0]: said(C), ALL[1]: said(T)}, {ALL[0]: said(M, reason="the night's deadline")})
    found = run_with_attempts(run, (FILE,), 1, must_pass=True)
    assert [(result.outcome, result.reason) for result in found] == [(C, "rcrash"), (T, "rtimeout")]


def test_more_tests_than_a_program_can_be_named_keep_their_ends() -> None:
    """The names are a candidate's; what cannot be started would end the night as the machine's fault."""
    many = [f"{FILE}::{number:05}" + "\0" * 50 for number in range(1000)]
    run, asked = lane(dict.fromkeys(many, KILLED), {many[0]: said(P)})
    found = run_with_attempts(run, (FILE,), 1, must_pass=True)
    (_, again) = asked
    assert again == tuple(many[: len(again)])
    assert sum(len(ascii(test)) for test in again) in range(MOST_NAMED - 1000, MOST_NAMED + 1)
    assert len(json.dumps(again)) < 128 << 10, "https://man7.org/linux/man-pages/man2/execve.2.html: MAX_ARG_STRLEN"
    assert [result.outcome for result in found] == [P] + [C] * 999


def test_names_of_files_that_nobody_asked_are_held_against_nothing() -> None:
    """Each against each would take the rest of the night."""
    names = [str(number) for number in range(200_000)]
    run, asked = lane(dict.fromkeys(names, NEVER_BEGAN))
    assert len(run_with_attempts(run, (FILE,), 1, must_pass=True)) == len(names)
    assert len(asked) == 1
