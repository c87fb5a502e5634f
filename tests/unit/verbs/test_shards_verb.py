"""Shards of one composition: divided once, each with its own files, and judged together like one machine's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.verbs.test_handed import report_on
from tests.unit.verbs.test_selection import Stack, stack  # noqa: F401

from patchstack.errors import UsageError
from patchstack.model import Composition, Division, GuardOutcome, GuardReport, Sha, Shard, Status
from patchstack.regress.durations import Durations, write_durations
from patchstack.regress.shards import Part
from patchstack.regress.suites import BED_SUITE
from patchstack.store import Run, encode
from patchstack.verbs.handed import require_said_of
from patchstack.verbs.selection import Selection, within
from patchstack.verbs.shards import gathered, shard_of, with_absent
from patchstack.verbs.test import Listing, selected, verdicts_on, write_report

GUARD, BED = "tests/regression/guard/test_it.py", "tests/regression/bed/test_bed.py"
MORE = "tests/regression/guard/test_more.py"
TEST = "def test_it() -> None: ...\n"
ONE, TWO = Part(1, 2), Part(2, 2)


@pytest.fixture
def place(stack: Stack, tmp_path: Path) -> tuple[Stack, Composition, Run]:  # noqa: F811
    (stack.work.root / MORE).write_text(TEST)
    write_durations(stack.work.cache / "answers", Durations({GUARD: 9.0, MORE: 5.0}, {BED: 5.0}))
    return stack, stack.compose(), stack.work.state.new_run()


Place = tuple[Stack, Composition, Run]


def test_a_run_is_divided_once(place: Place) -> None:
    stack, composition, run = place  # noqa: F811
    selection = stack.select(composition)
    assert shard_of(stack.work, run, selection, TWO) == Shard(2, 2, (BED, MORE))
    assert run.read(Division) == Division("cpu", ((GUARD,), (BED, MORE)))
    # What the first shard took would divide another run otherwise.
    write_durations(stack.work.cache / "answers", Durations({GUARD: 1.0, MORE: 50.0}, {BED: 1.0}))
    assert shard_of(stack.work, run, selection, ONE) == Shard(1, 2, (GUARD,))
    assert shard_of(stack.work, stack.work.state.new_run(), selection, ONE).files == (MORE,)
    with pytest.raises(UsageError, match=r"is divided into 2 shards already: --shard 1/3 is none"):
        shard_of(stack.work, run, selection, Part(1, 3))
    (stack.work.root / "tests/regression/guard/test_new.py").write_text(TEST)
    with pytest.raises(UsageError, match="were decided for other guards: test in a new run"):
        shard_of(stack.work, run, stack.select(composition), ONE)


def test_a_shard_runs_its_files_on_every_tree_and_nothing_else(place: Place) -> None:
    stack, composition, _ = place  # noqa: F811
    whole = stack.select(composition)
    mine = within(whole, stack.work.root, (MORE,))
    assert [suite.paths for suite in (*mine.suites, *mine.on_grounds)] == [(MORE,)] * 10
    assert [suite.slug for suite in mine.suites] == [suite.slug for suite in whole.suites[1:]]
    assert (mine.claims, mine.grounds, mine.not_run) == (whole.claims, whole.grounds, whole.not_run)
    assert [suite.slug for suite in within(whole, stack.work.root, (BED,)).suites] == [BED_SUITE]


def test_a_dry_run_lists_the_shard_s_tests_with_what_they_declare(place: Place) -> None:
    stack, composition, run = place  # noqa: F811
    made: Listing = selected(stack.work, run, composition, ["lock"], Part(1, 3))
    assert made.lines == [f"lock: {GUARD}, on base and composed"]
    (test,) = made.tests
    assert (test.test, test.lane, test.est_s, test.owner) == (f"{GUARD}::test_it", "cpu", None, "@acme/pd")
    assert test.guards == ("lock", "other", "pd-abort", "pd-retry", "pd-park", "switched-off")


def shard_report(place: Place, part: Part) -> GuardReport:
    """What the machine of ``part`` says: its own guards are green, all others are not there."""
    stack, composition, run = place  # noqa: F811
    whole = stack.select(composition)
    shard = shard_of(stack.work, run, whole, part)
    said = report_on(stack, composition, within(whole, stack.work.root, shard.files))
    return replace(with_absent(stack.work, said, whole, composition.tree, [shard]), shard=shard)


def test_a_shard_alone_is_incomplete_and_names_what_the_others_have(place: Place) -> None:
    stack, composition, _ = place  # noqa: F811
    report = shard_report(place, TWO)
    missing = [said for run in report.runs for said in run.results if said.outcome is GuardOutcome.MISSING]
    slugs = ["lock", "other", "pd-abort", "pd-retry", "pd-park"]
    why = "shard 2/2 did not run it"
    # Of a ground only the file is known: which of its tests kill mutants, and do not run there, pytest says.
    assert {(said.slug, said.test, said.reason) for said in missing} == {
        (slug, test, why) for slug in slugs for test in (GUARD, f"{GUARD}::test_it")
    }
    assert len(missing) == 10
    assert verdicts_on(stack.work, composition, report).verdicts[0].status is Status.INCOMPLETE


def files(folder: Path, *reports: GuardReport) -> list[Path]:
    paths = [folder / f"report-{number}.json" for number in range(len(reports))]
    for path, report in zip(paths, reports, strict=True):
        path.write_text(encode(report))
    return paths


def test_together_they_are_a_night(place: Place, tmp_path: Path) -> None:
    stack, composition, run = place  # noqa: F811
    paths = files(tmp_path, shard_report(place, ONE), shard_report(place, TWO))
    for order in (paths, paths[::-1]):
        report = gathered(stack.work, composition, order)
        assert {said.outcome for ran in report.runs if ran.composed for said in ran.results} == {GuardOutcome.PASS}
        assert verdicts_on(stack.work, composition, report).verdicts[0].status is Status.PASS
        require_said_of(stack.work, composition, report)
    write_report(run, report)
    assert (run.read(GuardReport), (run.folder / "junit.xml").read_text()[:5]) == (report, "<?xml")


def test_one_that_is_not_handed_in_is_missing_by_its_tests(place: Place, tmp_path: Path) -> None:
    stack, composition, _ = place  # noqa: F811
    report = gathered(stack.work, composition, files(tmp_path, shard_report(place, ONE)))
    missing = {(s.test, s.reason) for ran in report.runs for s in ran.results if s.outcome is GuardOutcome.MISSING}
    assert missing == {(test, "shard 1/2 did not run it") for test in (f"{BED}::test_it", f"{MORE}::test_it", MORE)}
    assert verdicts_on(stack.work, composition, report).verdicts[0].status is Status.INCOMPLETE


def without_its_last_answer(report: GuardReport) -> GuardReport:
    first, *others = report.runs
    last = [said for said in first.results if said.outcome is GuardOutcome.PASS][-1]
    return replace(report, runs=(replace(first, results=tuple(s for s in first.results if s != last)), *others))


def test_a_test_that_its_own_shard_did_not_hear_is_missing_for_itself(place: Place, tmp_path: Path) -> None:
    stack, composition, _ = place  # noqa: F811
    torn = without_its_last_answer(shard_report(place, TWO))
    report = gathered(stack.work, composition, files(tmp_path, shard_report(place, ONE), torn))
    (missing,) = [said for ran in report.runs for said in ran.results if said.outcome is GuardOutcome.MISSING]
    assert (missing.slug, missing.reason) == ("pd-park", "its file has this test, and pytest said nothing of it")


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (lambda report: replace(report, runs=report.runs[:1]), "is missing"),
        (
            lambda report: replace(report, runs=tuple(replace(run, tree=Sha("e" * 40)) for run in report.runs)),
            r"\(tree eeeeeeeeeeee\) is no tree of it",
        ),
    ],
)
def test_what_is_of_another_composition_is_refused(
    place: Place, tmp_path: Path, forge: Callable[[GuardReport], GuardReport], said: str
) -> None:
    stack, composition, _ = place  # noqa: F811
    reports = [forge(shard_report(place, part)) for part in (ONE, TWO)]
    with pytest.raises(UsageError, match=f"the results are not those of composition .*{said}"):
        gathered(stack.work, composition, files(tmp_path, *reports))


def test_what_is_no_report_is_named(place: Place, tmp_path: Path) -> None:
    stack, composition, _ = place  # noqa: F811
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    for name, said in {
        "other.json": "not a GuardReport of this version",
        "binary.json": "it is not text",
        "gone.json": "name what `patchstack test --shard I/N --json` wrote",
    }.items():
        with pytest.raises(UsageError, match=rf"{name}.*{said}"):
            gathered(stack.work, composition, [tmp_path / name])


def test_results_of_elsewhere_that_lack_a_test_are_refused(place: Place) -> None:
    """As a night in parts takes them: a file of which some tests have answered has not answered."""
    stack, composition, _ = place  # noqa: F811
    (stack.work.root / MORE).write_text(f"{TEST}def test_that_was_taken_away() -> None: ...\n")
    selection: Selection = stack.select(composition)
    with pytest.raises(UsageError, match=rf"{MORE}::test_that_was_taken_away of lock on composed: its file has this"):
        require_said_of(stack.work, composition, report_on(stack, composition, selection))
