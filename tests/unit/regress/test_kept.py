"""Which results are kept, and what their key is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from patchstack.errors import ConfigError
from patchstack.model import GuardOutcome, GuardResult, Sha
from patchstack.regress.kept import keep, proof_key, read_kept
from patchstack.regress.suites import Suite, find_suites

SUITE = Suite("x", ("tests/regression/x",), "d")
TREE = Sha("a" * 40)


def results(*outcomes: GuardOutcome) -> tuple[GuardResult, ...]:
    return tuple(GuardResult(f"t{index}", "x", False, said, 1.0) for index, said in enumerate(outcomes))


def test_answers_are_kept_and_everything_else_is_asked_again(tmp_path: Path) -> None:
    answers = results(GuardOutcome.PASS, GuardOutcome.FAIL)
    keep(tmp_path, "k", answers)
    assert read_kept(tmp_path, "k") == answers
    for said in set(GuardOutcome) - {GuardOutcome.PASS, GuardOutcome.FAIL}:
        keep(tmp_path, said.value, results(GuardOutcome.PASS, said))
        assert read_kept(tmp_path, said.value) is None
    keep(tmp_path, "none", ())
    assert read_kept(tmp_path, "none") is None


def test_a_damaged_or_renamed_file_counts_as_none(tmp_path: Path) -> None:
    keep(tmp_path, "k", results(GuardOutcome.PASS))
    (tmp_path / "other.json").write_bytes((tmp_path / "k.json").read_bytes())
    (tmp_path / "torn.json").write_bytes((tmp_path / "k.json").read_bytes()[:40])
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    assert [read_kept(tmp_path, name) for name in ("other", "torn", "binary")] == [None, None, None]


def test_the_key_changes_with_each_part() -> None:
    keys = {
        proof_key(TREE, "n", SUITE, "bed", "tool"),
        proof_key(Sha("b" * 40), "n", SUITE, "bed", "tool"),
        proof_key(TREE, "m", SUITE, "bed", "tool"),
        proof_key(TREE, "n", replace(SUITE, digest="e"), "bed", "tool"),
        proof_key(TREE, "n", replace(SUITE, paths=("y",)), "bed", "tool"),
        proof_key(TREE, "n", SUITE, "bed2", "tool"),
        proof_key(TREE, "n", SUITE, "bed", "tool2"),
    }
    assert len(keys) == 7


def test_a_suite_s_digest_covers_guards_and_support_and_nothing_else(tmp_path: Path) -> None:
    for name in ("tests/support/h.py", "tests/regression/bed/test_b.py", "tests/regression/x/test_x.py", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")

    def digest() -> str:
        return find_suites(tmp_path, [("x", ["tests/regression/x/"])])[1].digest

    before = digest()
    (tmp_path / "README.md").write_text("2\n")
    (tmp_path / "tests/regression/x/__pycache__").mkdir()
    (tmp_path / "tests/regression/x/__pycache__/test_x.pyc").write_text("2\n")
    assert digest() == before
    (tmp_path / "tests/support/h.py").write_text("2\n")
    after_support = digest()
    (tmp_path / "tests/regression/x/test_x.py").write_text("2\n")
    assert len({before, after_support, digest()}) == 3


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
