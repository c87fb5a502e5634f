"""Guards that were run again, are flaky or excused; and what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from patchstack.measures import Measure, Measures, Trend
from patchstack.model import Attempt, GuardOutcome, GuardReport, GuardResult, Quarantined, TreeRun, Verdict
from patchstack.report import measure_words, steady_words, words
from patchstack.report.page import Line

from . import fixed_lanes, fixed_night
from .fixed_blame import MEASURES, QUARANTINE, TESTS
from .fixed_night import GUARD, sha

ENTRY = replace(QUARANTINE[0], test=GUARD.test)
QUARANTINED = replace(GUARD, outcome=GuardOutcome.QUARANTINED, reason="crash: OSError")


def plain(line: Line) -> str:
    return "".join(part if isinstance(part, str) else part.text for part in line)


def report(*results: GuardResult, quarantine: tuple[Quarantined, ...] = ()) -> GuardReport:
    return replace(fixed_night.TESTS, runs=(TreeRun("composed", True, sha("e"), results),), quarantine=quarantine)


def told(*results: GuardResult, entry: Quarantined = ENTRY, nights: dict[str, int] | None = None) -> str:
    (line,) = steady_words.quarantined(report(*results, quarantine=(entry,)), nights or {})
    return plain(line).partition("Tonight ")[2].partition(" Out once:")[0]


# --- run again ---


def test_a_night_without_any_of_it_says_nothing() -> None:
    assert steady_words.sections(fixed_night.TESTS) == ()
    assert steady_words.sections(None) == ()


def test_flaky_guards_come_first_and_the_list_is_cut() -> None:
    again = [replace(GUARD, test=f"t.py::a{n}", attempts=(Attempt(GuardOutcome.CRASH, "x", 1.0),)) for n in range(34)]
    flaky = replace(GUARD, test="t.py::z", outcome=GuardOutcome.FLAKY)
    (section,) = steady_words.sections(report(*again, flaky))

    assert [plain(line) for line in section.intro] == [
        "1 guard is flaky: pass and fail on one tree.",
        "34 other guards were run again: the first end was no assertion.",
    ]
    assert plain(section.items[0]) == "t.py::z on composed: flaky"
    assert (len(section.items), section.more) == (30, "5 more in report.json")


def test_many_attempts_are_counted() -> None:
    attempts = tuple(Attempt(GuardOutcome.CRASH, "", 1.0) for _ in range(7))
    run = TreeRun("composed", True, sha("e"), ())

    text = plain(steady_words.attempts_said(run, replace(GUARD, attempts=attempts)))
    assert text.endswith(f"pass; before that {', then '.join(['crash in 1.0 s'] * 5)} and 2 more")


def test_a_flaky_guard_is_told_by_its_attempts_and_one_without_them_by_its_reason() -> None:
    run = TreeRun("composed", True, sha("e"), ())
    flaky = replace(GUARD, outcome=GuardOutcome.FLAKY, reason="on one tree")
    attempts = (
        Attempt(GuardOutcome.TIMEOUT, "5 s", 5.0),
        Attempt(GuardOutcome.PASS, "", 1.0),
        Attempt(GuardOutcome.PASS, "probe 1", 0.0),
    )

    assert plain(steady_words.attempts_said(run, replace(flaky, attempts=attempts))).endswith(
        "flaky: timeout in 5.0 s (5 s), then pass in 1.0 s, then pass (probe 1)"
    )
    assert plain(steady_words.attempts_said(run, flaky)).endswith(" on composed: flaky: on one tree")
    machine = replace(GUARD, attempts=(Attempt(GuardOutcome.CRASH, "killed", 1.0, by_machine=True),))
    assert plain(steady_words.attempts_said(run, machine)).endswith(
        "pass; before that crash with its machine in 1.0 s (killed)"
    )


def test_what_kills_mutants_is_not_run_again() -> None:
    mutant = replace(fixed_night.MUTANTS[0], results=(replace(GUARD, outcome=GuardOutcome.FLAKY),))

    assert steady_words.sections(replace(fixed_night.TESTS, runs=(mutant,))) == ()


# --- quarantine ---


@pytest.mark.parametrize(
    ("test", "entry", "meant"),
    [
        ("a/t.py::f", "a/t.py::f", True),
        ("a/t.py::f[1]", "a/t.py::f", True),
        ("a/t.py::C::f", "a/t.py::C", True),
        ("a/t.py::f", "a/t.py", True),
        ("a/t.py::ff", "a/t.py::f", False),
        ("a/t.pyx::f", "a/t.py", False),
    ],
)
def test_which_guards_an_entry_means(test: str, entry: str, meant: bool) -> None:
    assert steady_words.belongs(test, entry) is meant


def test_what_a_quarantined_guard_said_tonight() -> None:
    assert told(QUARANTINED) == "quarantined (crash: OSError)."
    one, two = (replace(QUARANTINED, test=f"{GUARD.test}[{n}]") for n in (1, 2))
    assert told(one, two, replace(GUARD, test=f"{GUARD.test}[3]")) == (
        "quarantined (crash: OSError), and 1 more of it, 1 pass."
    )
    assert told() == "it gave no answer."
    assert told(GUARD) == "pass."
    assert told(GUARD, nights={GUARD.test: 1}) == "pass."
    assert told(GUARD, nights={GUARD.test: 3, "other": 1}) == "pass, green 3 nights in a row."
    # Of several parameters the one that was red last counts; what is red tonight has no row.
    assert told(GUARD, nights={f"{GUARD.test}[1]": 3, f"{GUARD.test}[2]": 2}) == "pass, green 2 nights in a row."


def test_where_a_guard_is_meant_to_fail_it_says_nothing_of_its_quarantine() -> None:
    failed = replace(GUARD, outcome=GuardOutcome.FAIL, reason="as it should")
    control = replace(GUARD, test="tests/regression/bed/test_bed.py::test_it", slug="bed")
    ground = TreeRun("base", False, sha("9"), (failed, control))
    beside = TreeRun("last promoted", False, sha("9"), (replace(control, outcome=GuardOutcome.FAIL),), beside=True)
    both = (ENTRY, replace(ENTRY, test="tests/regression/bed/test_bed.py", until="2026-12-05"))
    one, bed = steady_words.quarantined(
        replace(
            fixed_night.TESTS, runs=(TreeRun("composed", True, sha("e"), (GUARD,)), ground, beside), quarantine=both
        ),
        {},
    )

    assert "Tonight pass." in plain(one)
    assert "Tonight pass." in plain(bed)


def test_an_expired_entry_is_told_first_and_excuses_nothing() -> None:
    late = replace(ENTRY, test="t.py::late", until="2027-01-01", expired=True)
    red = replace(GUARD, test="t.py::late", outcome=GuardOutcome.FAIL, reason="expired")
    lines = steady_words.quarantined(report(red, QUARANTINED, quarantine=(ENTRY, late)), {})

    assert plain(lines[0]).startswith("t.py::late, of @acme/pd, expired on 2027-01-01 and excused no more: ")
    assert "Tonight fail (expired)." in plain(lines[0])
    assert plain(lines[1]).startswith(f"{GUARD.test}, of @acme/pd until 2026-12-04: ")


def test_one_that_no_entry_of_the_report_explains_is_not_kept_quiet() -> None:
    (line,) = steady_words.quarantined(report(QUARANTINED), {})

    assert plain(line) == f"{GUARD.test}: quarantined (crash: OSError)"


def test_a_file_of_many_entries_is_cut() -> None:
    entries = tuple(replace(ENTRY, test=f"t{n}.py") for n in range(33))
    (section,) = steady_words.sections(report(GUARD, quarantine=entries))

    assert (section.title, len(section.items), section.more) == ("Quarantine", 30, "3 more in report.json")


def test_what_is_quarantined_is_told_there_and_not_among_what_is_not_green() -> None:
    from patchstack.report.sections import not_green

    assert [plain(line).partition(" on ")[0].rpartition("::")[2] for line in not_green(TESTS)] == ["test_both_end"]


# --- metrics ---


def test_each_metric_has_its_row_the_worst_first() -> None:
    failing = replace(MEASURES.measures[0], metric="worst", trend=Trend.FAIL)
    (section,) = measure_words.section(replace(MEASURES, measures=(*MEASURES.measures, failing)))

    assert plain(section.intro[0]) == (
        "On 2 x AMD EPYC 9554, 8 GiB, no GPU: 1 fail, 1 warn, 1 insufficient data, 1 pass, 1 missing. The last "
        "promoted tree, 999999999999, was measured beside."
    )
    assert section.table is not None
    assert [[plain(cell) for cell in row] for row in section.table.rows] == [
        ["worst", "fail", "12.25 us", "12 us", "9", "11.5 us", "0.25 us"],
        ["send_rate", "warn", "91234 1/s", "100000 1/s", "9", "110000 1/s", "250 1/s"],
        ["rooms", "insufficient data", "7", "", "2", "", ""],
        ["send_us", "pass", "12.25 us", "12 us", "9", "11.5 us", "0.25 us"],
    ]
    assert [plain(line).partition(":")[0] for line in section.items] == ["worst", "send_rate", "rooms", "bytes_sent"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0 s"),
        (0.00012344, "0.0001234 s"),
        (999.96, "1000 s"),
        (-1234.6, "-1235 s"),
        (2.5e12, "2.5e+12 s"),
        (float("nan"), "nan s"),
        (float("inf"), "inf s"),
    ],
)
def test_numbers(value: float, shown: str) -> None:
    measure = Measure("m", "s", "", value, None, 0, None, None, Trend.PASS, "")
    (section,) = measure_words.section(Measures("n", None, (measure,)))

    assert section.table is not None
    assert plain(section.table.rows[0][2]) == shown


def test_many_metrics_are_cut_and_none_says_nothing() -> None:
    many = tuple(replace(MEASURES.measures[0], metric=f"m{n}") for n in range(50))
    (section,) = measure_words.section(Measures("n", None, many))

    assert section.table is not None
    assert (len(section.table.rows), section.more) == (40, "10 more in report.json")
    assert measure_words.section(Measures("n", None, ())) == ()
    assert measure_words.section(None) == ()
    (missing,) = measure_words.section(Measures("n", None, (), (("m", "t did not run"),)))
    assert (missing.table, [plain(line) for line in missing.items]) == (None, ["m: missing. T did not run."])


def test_warnings_of_a_verdict_stand_beside_its_reasons_and_are_counted() -> None:
    verdict = Verdict("nightly", fixed_night.VERDICTS[0].status, (), ("x: not needed",), tuple(map(str, range(7))))

    assert plain(words.verdict(verdict, ("nightly",))) == (
        "nightly PASS, moved (warned: 0; 1; 2; 3; 4; 2 more in report.json) (skipped by rule: x: not needed)"
    )


def test_why_nothing_was_measured_beside() -> None:
    measure = Measure("m", "s", "", 1.0, None, 0, None, None, Trend.PASS, "")
    why = "the last promoted tree 999999999999 is not at hand"
    (section,) = measure_words.section(Measures("n", None, (measure,), why_alone=why))
    assert plain(section.intro[0]) == (
        "On n: 1 pass. No other tree was measured beside. The last promoted tree 999999999999 is not at hand."
    )


def test_what_a_lane_says_of_a_quarantined_scenario_is_told_of_its_own_machines_alone() -> None:
    tests = replace(fixed_night.TESTS, quarantine=(replace(QUARANTINE[0], test=fixed_lanes.AGAIN.test),))
    for lanes, said in ((fixed_lanes.LANES, "flaky"), (replace(fixed_lanes.LANES, runs=()), "it gave no answer")):
        (line,) = steady_words.quarantined(tests, {}, lanes)
        assert f" Tonight {said}" in plain(line)
    of_rehearsal = replace(tests, quarantine=(replace(QUARANTINE[0], test=fixed_lanes.STAGES.test),))
    (line,) = steady_words.quarantined(of_rehearsal, {}, replace(fixed_lanes.LANES, runs=(fixed_lanes.FOUR,)))
    assert " Tonight it gave no answer." in plain(line)
