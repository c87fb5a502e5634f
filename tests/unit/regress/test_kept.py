"""Which results are kept, and what their key is made of."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from patchstack.errors import ConfigError
from patchstack.model import GuardOutcome, GuardResult, Sha
from patchstack.regress.execute import Tree
from patchstack.regress.kept import KeptResults, keep, proof_key, read_kept
from patchstack.regress.steps import Keeping, Rerun, Subject, Trial, decide_steps
from patchstack.regress.suites import BED_SUITE, BED_SUPPORT, Suite, find_suites

SUPPORT = Path(__file__).parents[2] / "support"

SUITE = Suite("x", ("tests/regression/x",), "d")
TREE = Sha("a" * 40)
TODAY = date(2026, 11, 21)


def results(*outcomes: GuardOutcome) -> tuple[GuardResult, ...]:
    return tuple(GuardResult(f"t{index}", "x", False, said, 1.0) for index, said in enumerate(outcomes))


def test_answers_are_kept_and_everything_else_is_asked_again(tmp_path: Path) -> None:
    answers = results(GuardOutcome.PASS, GuardOutcome.FAIL)
    keep(tmp_path, "k", TODAY, answers)
    assert read_kept(tmp_path, "k") == KeptResults("k", "2026-11-21", answers)
    for said in set(GuardOutcome) - {GuardOutcome.PASS, GuardOutcome.FAIL}:
        keep(tmp_path, said.value, TODAY, results(GuardOutcome.PASS, said))
        assert read_kept(tmp_path, said.value) is None
    keep(tmp_path, "none", TODAY, ())
    assert read_kept(tmp_path, "none") is None


def test_a_damaged_or_renamed_file_counts_as_none(tmp_path: Path) -> None:
    keep(tmp_path, "k", TODAY, results(GuardOutcome.PASS))
    (tmp_path / "other.json").write_bytes((tmp_path / "k.json").read_bytes())
    (tmp_path / "torn.json").write_bytes((tmp_path / "k.json").read_bytes()[:40])
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    assert [read_kept(tmp_path, name) for name in ("other", "torn", "binary")] == [None, None, None]


def test_the_key_changes_with_each_part() -> None:
    keys = {
        proof_key(TREE, "n", SUITE, "ground", "bed", "tool"),
        proof_key(TREE, "n", SUITE, "mutant a", "bed", "tool"),
        proof_key(Sha("b" * 40), "n", SUITE, "ground", "bed", "tool"),
        proof_key(TREE, "m", SUITE, "ground", "bed", "tool"),
        proof_key(TREE, "n", replace(SUITE, digest="e"), "ground", "bed", "tool"),
        proof_key(TREE, "n", replace(SUITE, paths=("y",)), "ground", "bed", "tool"),
        proof_key(TREE, "n", SUITE, "ground", "bed2", "tool"),
        proof_key(TREE, "n", SUITE, "ground", "bed", "tool2"),
    }
    assert len(keys) == 8


def test_a_suite_s_digest_covers_guards_and_support_and_nothing_else(tmp_path: Path) -> None:
    bed, other = "tests/support/testbed/h.py", "tests/support/github_server/s.py"
    for name in (bed, other, "tests/regression/bed/test_b.py", "tests/regression/x/test_x.py", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")

    def digest() -> str:
        return find_suites(tmp_path, [("x", ["tests/regression/x/"])])[1].digest

    before = digest()
    (tmp_path / "README.md").write_text("2\n")
    (tmp_path / other).write_text("2\n")
    (tmp_path / "tests/regression/x/__pycache__").mkdir()
    (tmp_path / "tests/regression/x/__pycache__/test_x.pyc").write_text("2\n")
    assert digest() == before
    (tmp_path / bed).write_text("2\n")
    after_support = digest()
    (tmp_path / "tests/regression/x/test_x.py").write_text("2\n")
    assert len({before, after_support, digest()}) == 3


def test_each_folder_of_test_support_is_the_bed_s_or_the_tool_s_own() -> None:
    folders = {path.name for path in SUPPORT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*BED_SUPPORT, "actions", "github_server", "image_registry", "node"}


def test_every_wrong_guard_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "tests/regression/bed").mkdir(parents=True)
    (tmp_path / "tests/regression/bed/test_b.py").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as caught:
        find_suites(tmp_path, [("x", ["empty", "../out"]), ("y", ["missing"])])
    assert caught.value.problems == [
        "patches/x/patch.md:1: guards: 'empty' holds no test_*.py: write the guard",
        "patches/x/patch.md:1: guards: '../out' leads out of the repository: name a folder in it",
        "patches/y/patch.md:1: guards: 'missing' holds no test_*.py: write the guard",
    ]


def test_within_a_week_every_kept_answer_is_made_again_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path, Path("python"), tmp_path)
    composed, base = Subject("composed", True, Sha("a" * 40), tree), Subject("base", False, Sha("b" * 40), tree)
    stacked = Subject("base + 1", False, Sha("c" * 40), tree)
    suites = [replace(SUITE, slug=slug) for slug in (BED_SUITE, *map(str, range(20)))]
    trials = [
        *(Trial(base, suite) for suite in suites if suite.slug not in {"7", "11"}),
        *(Trial(stacked, suite) for suite in suites if suite.slug in {"7", "11"}),
        *(Trial(Subject(f"mutant 3/{name}", False, Sha("d" * 40), tree, f"3/{name}"), suites[4]) for name in "pq"),
    ]

    def keeping(rerun: Rerun, today: date) -> Keeping:
        return Keeping(tmp_path / "answers", "bed", "natives", "tool", rerun, today)

    def running(rerun: Rerun, today: date, *, night: bool = True) -> list[tuple[str, str]]:
        steps = decide_steps(composed, suites, trials, keeping(rerun, today), night=night)
        return [(step.subject.label, step.suite.slug) for step in steps if step.kept is None]

    on_composed = [("composed", str(number)) for number in range(20)]
    elsewhere = [(trial.subject.label, trial.suite.slug) for trial in trials]
    assert running(Rerun.DUE, TODAY) == [*on_composed, *elsewhere]
    for step in decide_steps(composed, suites, trials, keeping(Rerun.NONE, TODAY)):
        must_pass = step.subject.composed or step.suite.slug == BED_SUITE
        keep(tmp_path / "answers", step.key, TODAY, results(GuardOutcome.PASS if must_pass else GuardOutcome.FAIL))
    assert running(Rerun.DUE, TODAY) == running(Rerun.NONE, TODAY) == on_composed
    assert running(Rerun.DUE, TODAY, night=False) == []
    assert running(Rerun.ALL, TODAY) == [*on_composed, *elsewhere]
    # What passes where it is meant to fail is asked for again each time; the next moment may tell more.
    lucky = decide_steps(composed, suites, trials, keeping(Rerun.NONE, TODAY))[-3]
    for outcome, asked in ((GuardOutcome.PASS, [(lucky.subject.label, lucky.suite.slug)]), (GuardOutcome.FAIL, [])):
        keep(tmp_path / "answers", lucky.key, TODAY, results(outcome))
        assert running(Rerun.NONE, TODAY, night=False) == asked
    week = [running(Rerun.DUE, TODAY + timedelta(days=day))[20:] for day in range(1, 8)]
    assert sorted(step for day in week for step in day) == sorted(elsewhere)
