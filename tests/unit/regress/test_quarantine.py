"""Guards that hold no channel for a while: what the file must say, whom it excuses, and for how long."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from tests.unit.regress.test_judgement import COMPOSITION, GROUNDS, PLAIN_TREE, TREE

from patchstack.errors import ConfigError
from patchstack.model import (
    Attempt,
    GuardOutcome,
    GuardReport,
    GuardResult,
    Quarantined,
    Standing,
    Status,
    TreeRun,
    Verdict,
)
from patchstack.regress.gate import Lenience, judge
from patchstack.regress.prove import Claim, prove
from patchstack.regress.quarantine import FILE, excuse, is_meant, overdue, read_quarantine

P, F, C, T, M, FLAKY, Q = (
    GuardOutcome.PASS,
    GuardOutcome.FAIL,
    GuardOutcome.CRASH,
    GuardOutcome.TIMEOUT,
    GuardOutcome.MISSING,
    GuardOutcome.FLAKY,
    GuardOutcome.QUARANTINED,
)
ROOT = Path(__file__).parents[3]
TODAY = date(2026, 11, 22)
TEST = "tests/regression/x/test_x.py"
ENTRY = Quarantined(f"{TEST}::guard", "@acme/pd", "It hangs.", "2026-11-20", "2026-12-04", "Ten green nights.")

GOOD = f"""
- test: {TEST}::test_two
  owner: "@acme/pd"
  because: It hangs now and then.
  since: 2026-11-20
  until: 2026-12-04
  back: Ten green nights.
"""


def read(tmp_path: Path, text: str, today: date = TODAY, *known: str) -> tuple[Quarantined, ...]:
    path = tmp_path / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return read_quarantine(tmp_path, today, known or None)


def problems(tmp_path: Path, text: str, *known: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, TODAY, *known)
    return [problem.removeprefix(f"{tmp_path / FILE}:") for problem in caught.value.problems]


# --- the file ---


def test_the_repository_s_own_can_be_read_and_the_example_in_it_too(tmp_path: Path) -> None:
    text = (ROOT / FILE).read_text()
    assert read_quarantine(ROOT, date.max) == read(tmp_path, text, date.max)
    example = [line[2:] for line in text.splitlines() if line.startswith("#   ")]
    (entry,) = read(tmp_path, "\n".join(example))[-1:]
    assert (ROOT / entry.test.partition("::")[0]).is_file(), "the test that it names is there"


def test_no_file_is_no_entry(tmp_path: Path) -> None:
    assert read_quarantine(tmp_path, TODAY) == ()
    assert read(tmp_path, "# none\n[]\n") == ()


@pytest.mark.parametrize(
    ("today", "expired"),
    [(date(2026, 11, 20), False), (date(2026, 12, 3), False), (date(2026, 12, 4), True), (date(2027, 1, 1), True)],
)
def test_an_entry_ends_on_its_day(tmp_path: Path, today: date, expired: bool) -> None:
    (entry,) = read(tmp_path, GOOD, today)
    assert entry == Quarantined(
        f"{TEST}::test_two",
        "@acme/pd",
        "It hangs now and then.",
        "2026-11-20",
        "2026-12-04",
        "Ten green nights.",
        expired=expired,
    )


def test_every_problem_is_named_with_its_line(tmp_path: Path) -> None:
    text = f"""- test: {TEST}::test_a[1]
  owner: acme
  because: "two\\nlines"
  since: soon
  until: 2026-12-04
  back: ""
  extra: 1
- {{test: {TEST}::test_b, owner: "@acme", because: b, since: 2026-11-20, until: 2026-11-20, back: b}}
- {{test: {TEST}::test_c, owner: "@acme", because: b, since: 2026-11-01, until: 2026-12-02, back: b}}
- {{test: {TEST}::test_d, owner: "@acme", because: b, since: 2026-11-20, since: 2026-11-21}}
"""
    no_day = "Input should be a valid date in the format YYYY-MM-DD, input is too short"
    days = "write a later day", "write an earlier day"
    assert problems(tmp_path, text) == [
        f"1: 0.test: '{TEST}::test_a[1]' is not of the right form: write pytest's node id, without parameters",
        "2: 0.owner: 'acme' is not of the right form: write \"@organisation/team\"",
        "3: 0.because: it is no line that can be read: write a sentence in one line",
        f"4: 0.since: {no_day}: write a day, such as 2026-12-04",
        "6: 0.back: String should have at least 1 character: write why",
        "7: 0.extra: Extra inputs are not permitted: remove the key, or mend its spelling",
        f"8: 1: until 2026-11-20 is not after since 2026-11-20: {days[0]}",
        f"9: 2: until 2026-12-02 is more than 30 days after since: {days[1]}",
        "10: 3.back: Field required: add it",
        "10: 3.since: it stands twice: keep one",
        "10: 3.until: Field required: add it",
    ]


def test_what_is_not_there_not_yet_or_there_twice_is_an_error(tmp_path: Path) -> None:
    def entry(test: str, since: str = "2026-11-20") -> str:
        return f'- {{test: "{test}", owner: "@acme", because: b, since: {since}, until: 2026-12-04, back: b}}\n'

    text = entry(TEST) + entry(f"{TEST}::T::test_a") + entry(f"{TEST}x") + entry(f"{TEST[:-4]}y.py", "2026-11-23")
    assert problems(tmp_path, entry(f"{TEST}x")) == [
        f"1: 0.test: '{TEST}x' is not of the right form: write pytest's node id, without parameters"
    ]
    text = text.replace(f"{TEST}x", f"{TEST[:-4]}z.py")
    assert problems(tmp_path, text, f"{TEST}::T::test_a", f"{TEST[:-4]}y.py::test_b") == [
        f"2: 1.test: an entry above means {TEST}: keep one",
        f"3: 2.test: there is no {TEST[:-4]}z.py: mend its name, or remove the entry",
        "4: 3.since: 2026-11-23 is yet to come, and today is 2026-11-22: write the day of the entry",
    ]


@pytest.mark.parametrize("text", ["", "{}", "7", "- &a 1\n- *a\n", "[", "- 7\n", "- []\n"])
def test_what_is_no_list_of_entries_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert ": write - {test: ..., owner: ..." in problem


# --- whom it excuses ---


@pytest.mark.parametrize(
    ("test", "entry", "means"),
    [
        (f"{TEST}::test_a", TEST, True),
        (f"{TEST}::test_a", f"{TEST}::test_a", True),
        (f"{TEST}::test_a[1-x]", f"{TEST}::test_a", True),
        (f"{TEST}::T::test_a", f"{TEST}::T", True),
        (f"{TEST}::test_ab", f"{TEST}::test_a", False),
        (f"{TEST}::T::test_a", f"{TEST}::test_a", False),
        (TEST, f"{TEST}::test_a", False),
        (f"{TEST}x::test_a", TEST, False),
    ],
)
def test_which_tests_an_entry_means(test: str, entry: str, means: bool) -> None:
    assert is_meant(test, entry) is means


CLAIMS = {"x": Claim("base")}


def report(*composed: GuardResult, ground: tuple[GuardResult, ...] = ()) -> GuardReport:
    runs = (
        TreeRun("composed", True, TREE, composed),
        TreeRun("base", False, PLAIN_TREE, ground or tuple(replace(said, outcome=F) for said in composed)),
    )
    return GuardReport("cpu", "bed", runs, prove(CLAIMS, runs))


def said(name: str, outcome: GuardOutcome) -> GuardResult:
    return GuardResult(f"{TEST}::{name}", "x", False, outcome, 1.0, "why")


def verdict(found: GuardReport, *quarantine: Quarantined, holds: bool = False, max_flaky: int | None = 2) -> Verdict:
    lenience = Lenience(frozenset({"nightly"} if holds else ()), max_flaky, quarantine)
    (only,) = judge({"nightly": ["cpu"]}, COMPOSITION, GROUNDS, found, lenience=lenience).verdicts
    return only


@pytest.mark.parametrize("outcome", [F, C, T, FLAKY])
def test_what_is_in_quarantine_holds_nobody_and_is_told(outcome: GuardOutcome) -> None:
    found = excuse(report(said("guard", outcome), said("other", P)), (ENTRY,), CLAIMS)
    assert found.runs[0].results[0] == replace(said("guard", outcome), outcome=Q, reason=f"{outcome.value}: why")
    assert found.runs[1] == report(said("guard", outcome), said("other", P)).runs[1], "there it is to fail"
    assert found.quarantine == (ENTRY,)
    assert excuse(found, (ENTRY,), CLAIMS) == found
    told = verdict(found, ENTRY)
    assert (told.status, told.reasons) == (Status.PASS, ())
    assert told.warnings == (f"{TEST}::guard: quarantined: {outcome.value}: why",)
    assert found.proofs[0].standing is Standing.PROVEN


@pytest.mark.parametrize("outcome", [P, M])
def test_a_pass_stays_one_and_what_did_not_run_is_missing(outcome: GuardOutcome) -> None:
    found = excuse(report(said("guard", outcome), said("other", P)), (ENTRY,), CLAIMS)
    assert found.runs[0].results[0] == said("guard", outcome)
    assert verdict(found, ENTRY).status is (Status.PASS if outcome is P else Status.INCOMPLETE)


def test_a_patch_whose_only_guard_that_turns_is_excused_is_unproven() -> None:
    found = excuse(report(said("guard", F)), (ENTRY,), CLAIMS)
    assert found.proofs[0].standing is Standing.UNPROVEN
    told = verdict(found, ENTRY)
    assert told.status is Status.INCOMPLETE
    assert f"patch x is unproven: flaky, or in quarantine: {TEST}::guard; else it has no guard that must turn" in (
        told.reasons
    )


def test_the_other_guards_prove_nothing_that_passes_without_the_patch() -> None:
    """The one that turned is in doubt: the patch is not redundant for that."""
    found = report(said("guard", F), said("other", P), ground=(said("guard", F), said("other", P)))
    assert excuse(found, (ENTRY,), CLAIMS).proofs[0].standing is Standing.UNPROVEN


def test_a_control_of_the_bed_is_excused_on_the_base() -> None:
    bed = GuardResult(f"{TEST}::guard", "bed", True, C, 1.0, "why")
    base = TreeRun("base", False, PLAIN_TREE, (bed, replace(bed, test=f"{TEST}::guard2")))
    found = excuse(GuardReport("cpu", "bed", (base,), ()), (ENTRY,), {})
    assert [one.outcome for one in found.runs[0].results] == [Q, C]


def test_what_was_measured_beside_is_no_guard_of_tonight() -> None:
    beside = TreeRun("last promoted", True, TREE, (said("guard", F),), beside=True)
    assert excuse(GuardReport("cpu", "bed", (beside,), ()), (ENTRY,), {}).runs == (beside,)


def test_an_expired_entry_excuses_nothing_and_is_red_itself() -> None:
    over = replace(ENTRY, expired=True)
    due = (
        f"{FILE}: {TEST}::guard was to be out of quarantine on 2026-12-04 (@acme/pd; out once: Ten green nights.): "
        "mend it and remove the entry, or give it a new day"
    )
    assert overdue((ENTRY, over)) == (due,)
    green = excuse(report(said("guard", P), said("other", P)), (over,), CLAIMS)
    assert (verdict(green, over).status, verdict(green, over).reasons) == (Status.FAIL, (due,))
    red = excuse(report(said("guard", F), said("other", P)), (over,), CLAIMS)
    assert red.runs[0].results[0].outcome is F
    assert verdict(red, over).reasons[:2] == (f"{TEST}::guard: fail: why", due)


@pytest.mark.parametrize("quarantine", [(), (replace(ENTRY, expired=True),), (replace(ENTRY, test=f"{TEST}::other"),)])
def test_a_report_cannot_excuse_its_guards_itself(quarantine: tuple[Quarantined, ...]) -> None:
    """It may come from where code of pull requests ran, and bring a quarantine of its own."""
    forged = excuse(report(said("guard", F), said("other", P)), (ENTRY,), CLAIMS)
    told = verdict(forged, *quarantine)
    assert told.status is not Status.PASS
    assert f"{TEST}::guard: quarantined: fail: why" in told.reasons


# --- flaky ---


def flaky(*names: str) -> GuardReport:
    return report(*(said(name, FLAKY) for name in names), said("other", P))


def test_a_flaky_guard_warns_or_holds_as_the_channel_says() -> None:
    told = f"{TEST}::guard: flaky: why"
    warned, held = verdict(flaky("guard")), verdict(flaky("guard"), holds=True)
    assert (warned.status, warned.reasons, warned.warnings) == (Status.PASS, (), (told,))
    assert (held.status, held.reasons, held.warnings) == (Status.INCOMPLETE, (told,), ())


def test_a_channel_that_needs_no_guards_hears_nothing_of_them() -> None:
    lenience = Lenience(max_flaky=0)
    (only,) = judge({"images": ["image"]}, COMPOSITION, GROUNDS, flaky("guard"), lenience=lenience).verdicts
    assert "flaky" not in f"{only.reasons} {only.warnings}"


@pytest.mark.parametrize(("count", "status"), [(2, Status.PASS), (3, Status.INCOMPLETE)])
def test_many_flaky_guards_hold_every_channel(count: int, status: Status) -> None:
    told = verdict(flaky(*(f"guard{number}" for number in range(count))))
    assert told.status is status
    assert told.reasons == (() if count == 2 else ("flaky guards: 3, and tests.max_flaky allows 2",))


def test_who_says_nothing_of_flaky_guards_is_held_by_them() -> None:
    (only,) = judge({"nightly": ["cpu"]}, COMPOSITION, GROUNDS, flaky("guard")).verdicts
    assert only.status is Status.INCOMPLETE


@pytest.mark.parametrize("doubt", [FLAKY, Q])
@pytest.mark.parametrize("elsewhere", [P, F, C, T, M])
def test_a_guard_in_doubt_neither_proves_a_patch_nor_breaks_it(doubt: GuardOutcome, elsewhere: GuardOutcome) -> None:
    alone = report(said("guard", doubt), ground=(said("guard", elsewhere),))
    assert alone.proofs[0].standing is Standing.UNPROVEN
    beside = report(said("guard", doubt), said("other", P), ground=(said("guard", elsewhere), said("other", F)))
    assert beside.proofs[0].standing is Standing.PROVEN
    broken = report(said("guard", doubt), said("other", F), ground=(said("guard", elsewhere), said("other", F)))
    assert broken.proofs[0].standing is Standing.BROKEN


def test_who_passed_only_the_second_time_is_named() -> None:
    before = (Attempt(C, "pytest ended with -9", 1.0, by_machine=True),)
    names = [f"g{number}" for number in range(5)]
    found = report(*(replace(said(name, P), attempts=before) for name in names))
    told = verdict(found)
    assert told.status is Status.PASS
    shown = ", ".join(f"{TEST}::{name}" for name in names[:3])
    assert told.warnings == (f"passed only when they ran again, for their process had died: {shown}, 2 more",)


def test_nothing_that_is_not_a_pass_is_taken_for_one() -> None:
    """Whatever two guards say, in quarantine or not: PASS only where a guard passed and proved its patch."""
    for first, second in itertools.product({*GuardOutcome}, repeat=2):
        for entries in ((), (ENTRY,)):
            found = excuse(report(said("guard", first), said("other", second)), entries, CLAIMS)
            told = verdict(found, *entries)
            excused = bool(entries) and first not in {M, GuardOutcome.SKIPPED_BY_RULE}
            passes = (P in {first, second} <= {P, FLAKY}) or (excused and second is P)
            assert (told.status is Status.PASS) == passes, (first, second, entries)
