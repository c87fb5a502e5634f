"""Guards that misbehave: whatever they do, the night hears of it and nothing becomes green."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import date
from pathlib import Path

import pytest

from patchstack.errors import ConfigError, MachineError
from patchstack.model import GuardOutcome, Sha, Standing
from patchstack.regress import unprivileged
from patchstack.regress.enclose import Means
from patchstack.regress.execute import Tree, child_environment, run_suite
from patchstack.regress.lane import run_lane
from patchstack.regress.prove import Claim
from patchstack.regress.record import read_record
from patchstack.regress.steps import Keeping, Rerun, Subject, Trial, decide_steps
from patchstack.regress.suites import BED_SUITE, Suite, find_suites

ROOT = Path(__file__).parents[3]
SUITE = Suite("x", ("tests/regression/x",), "d")


def outcomes(*lines: str) -> dict[str, GuardOutcome]:
    return {result.test: result.outcome for result in read_record(SUITE, lines, "ended with 0")}


COLLECTED = json.dumps({"collected": ["a"]})
PASSED = json.dumps({"test": "a", "outcome": "pass"})


@pytest.mark.parametrize(
    "line",
    [
        "7",
        "null",
        "[]",
        "{}",
        '{"test": "a"}',
        '{"test": 7, "outcome": "pass"}',
        '{"test": "a", "outcome": "quarantined"}',
        '{"test": "a", "outcome": "skipped_by_rule"}',
        '{"collected": 7}',
        '{"started": []}',
        "[" * 100_000,
        "garbage",
        "\N{REPLACEMENT CHARACTER}",
    ],
)
def test_a_line_that_is_not_the_plugin_s_is_a_crash(line: str) -> None:
    assert outcomes(COLLECTED, line[:100_000], PASSED) == {
        "a": GuardOutcome.PASS,
        "tests/regression/x": GuardOutcome.CRASH,
    }


def test_a_test_that_answers_twice_has_crashed() -> None:
    failed = json.dumps({"test": "a", "outcome": "fail"})
    assert outcomes(COLLECTED, failed, PASSED) == {"a": GuardOutcome.CRASH}


def fake_bed(tmp_path: Path, *tests: str) -> tuple[Path, Tree]:
    """A repository with guards ``x`` and the real plugin, its tree, and this interpreter as the bed's."""
    root, tree = tmp_path / "with space", tmp_path / "tree"
    (root / "tests" / "support").mkdir(parents=True)
    ours = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests" / "support" / "testbed", root / "tests" / "support" / "testbed", ignore=ours)
    (root / "tests" / "support" / "standins").mkdir()
    (root / "tests" / "support" / "standins" / "cuda_standins.py").write_text("def install(): pass\n")
    for suite, body in (("x", tests), ("bed", ["def test_bed(): pass\n"])):
        (root / "tests" / "regression" / suite).mkdir(parents=True)
        (root / "tests" / "regression" / suite / f"test_{suite}.py").write_text("import os, pytest\n" + "\n".join(body))
    (tree / "python").mkdir(parents=True)
    return root, Tree(tree, Path(sys.executable), tmp_path / "bytecode")


def run_guards(tmp_path: Path, *tests: str) -> dict[str, GuardOutcome]:
    root, tree = fake_bed(tmp_path, *tests)
    found = run_suite(Suite("x", ("tests/regression/x",), "d"), tree, root, tmp_path / "x.log", 60.0)
    return {result.test.rpartition(":")[2]: result.outcome for result in found}


FINE = "def test_fine(): pass\n"


def test_a_guard_that_leaves_the_interpreter_is_a_crash_and_the_rest_is_missing(tmp_path: Path) -> None:
    assert run_guards(tmp_path, "def test_exit(): os._exit(0)\n", FINE) == {
        "test_exit": GuardOutcome.CRASH,
        "test_fine": GuardOutcome.MISSING,
    }


def test_a_guard_that_kills_its_process_is_a_crash(tmp_path: Path) -> None:
    assert run_guards(tmp_path, "def test_kill(): os.kill(os.getpid(), 9)\n") == {"test_kill": GuardOutcome.CRASH}


def test_a_guard_that_skips_itself_or_prints_garbage_is_not_green(tmp_path: Path) -> None:
    garbage = "def test_garbage():\n    os.write(1, bytes(range(256)))\n    assert False\n"
    assert run_guards(tmp_path, garbage, "def test_skip(): pytest.skip('no')\n") == {
        "test_garbage": GuardOutcome.FAIL,
        "test_skip": GuardOutcome.MISSING,
    }


def test_a_guard_that_forks_a_daemon_is_heard_when_it_ends(tmp_path: Path) -> None:
    daemon = """
def test_daemon():
    import signal
    if os.fork() == 0:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        while True:
            signal.pause()
"""
    assert run_guards(tmp_path, daemon) == {"test_daemon": GuardOutcome.PASS}


def test_guards_that_write_into_the_tree_give_no_answer_and_the_next_ones_get_it_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unprivileged, "means", lambda: Means.ENVIRONMENT)  # else they cannot write there
    writes = "def test_writes(): open(os.environ['PATCHSTACK_TREE'] + '/python/new', 'w').close()\n"
    root, tree = fake_bed(tmp_path, writes)
    suites = [Suite(BED_SUITE, ("tests/regression/bed",), "b"), Suite("x", ("tests/regression/x",), "d")]
    composed, base = Subject("composed", True, Sha("a" * 40), tree), Subject("base", False, Sha("b" * 40), tree)
    trials = [Trial(base, suite) for suite in suites]
    keeping = Keeping(tmp_path / "answers", "bed", "natives", "tool", Rerun.DUE, date(2026, 11, 21))
    new = tree.folder / "python" / "new"

    def restore(subject: Subject) -> bool:
        changed = new.exists()
        new.unlink(missing_ok=True)
        return changed

    steps = decide_steps(composed, suites, trials, keeping)
    report = run_lane(
        "cpu",
        steps,
        {"x": Claim("base")},
        keeping,
        root=root,
        logs=tmp_path / "logs",
        workers=1,
        progress=lambda _: None,
        restore=restore,
    )
    said = {(run.label, result.slug): result.outcome for run in report.runs for result in run.results}
    assert said == {
        ("composed", "x"): GuardOutcome.CRASH,
        ("base", "bed"): GuardOutcome.PASS,
        ("base", "x"): GuardOutcome.CRASH,
    }
    assert report.proofs[0].standing is Standing.BROKEN
    assert [step.kept is not None for step in decide_steps(composed, suites, trials, keeping)] == [False, True, False]


def test_a_path_that_python_cannot_import_from_is_refused(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "a:b", Path(sys.executable), tmp_path)
    with pytest.raises(MachineError, match="cannot import from a folder with ':' in its name"):
        child_environment(tmp_path, tree, tmp_path)


def test_suites_are_found_by_way_of_links_and_dots(tmp_path: Path) -> None:
    root, _ = fake_bed(tmp_path, FINE)
    (tmp_path / "link").symlink_to(root)
    plain = find_suites(root, [("x", ["tests/regression/x"])])
    assert find_suites(tmp_path / "link", [("x", ["tests/regression/x"])]) == plain
    assert find_suites(root / ".." / root.name, [("x", ["tests/regression/x"])]) == plain


@pytest.mark.parametrize("path", ["tests/conftest.py", "tests/regression/thresholds.yaml"])
def test_what_guards_read_beside_them_is_in_their_digest(tmp_path: Path, path: str) -> None:
    root, _ = fake_bed(tmp_path, FINE)
    plain = find_suites(root, [("x", ["tests/regression/x"])])
    (root / path).write_text("changed = True\n")
    assert find_suites(root, [("x", ["tests/regression/x"])])[1].digest != plain[1].digest


def test_a_repository_without_the_bed_s_own_guards_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^tests/regression/bed:1: guards: .* holds no test_\*.py"):
        find_suites(tmp_path, [])


def test_a_patch_cannot_pass_for_the_bed_or_go_without_guards(tmp_path: Path) -> None:
    root, _ = fake_bed(tmp_path, FINE)
    with pytest.raises(ConfigError) as caught:
        find_suites(root, [(BED_SUITE, ["tests/regression/x"]), ("y", [])])
    assert caught.value.problems == [
        "patches/bed/patch.md:1: guards: its slug is the bed's own: rename the patch",
        "patches/y/patch.md:1: guards: no guards: name a folder",
    ]
