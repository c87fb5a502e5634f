"""What decides a night and is edited while it runs: nothing moves, and what was edited is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.builders import TEN, A, edit
from tests.unit.verbs.night_bench import CONFIG, UPSTREAM, Fork, green

from patchstack.errors import Incomplete
from patchstack.model import GuardReport, NightReport, Status
from patchstack.nightly import Part, Until
from patchstack.verbs import plan as plan_verb
from patchstack.verbs import rounds
from patchstack.verbs.promote import promote

PLAIN = CONFIG.format(upstream=UPSTREAM, most=2)
LANE = f"upstream: {UPSTREAM}\n    branch: deploy\n"
CHANGED = "what decides this night was changed after it was planned"


@pytest.fixture
def fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fork:
    """A lane with a required patch and one that is off; nothing is deployed yet."""
    fork = Fork(tmp_path / "fork", monkeypatch)
    fork.patches.patch("first", fork.base, {"python/sglang/first.py": "FIRST = 1\n"})
    fork.patches.patch("extra", fork.base, {"python/sglang/extra.py": "EXTRA = 1\n"}, optional=True)
    for path in ("conftest.py", "regression/thresholds.yaml", "support/locks/l.txt", "support/testbed/t.py"):
        fork.write(f"tests/{path}", "")
    return fork


def meanwhile(fork: Fork, edit_it: Callable[[Fork], object]) -> NightReport:
    """A night during whose guards somebody edits something."""

    def run_guards(*given: Any, **more: Any) -> GuardReport:
        report = green(*given, **more)
        edit_it(fork)
        return report

    fork.monkeypatch.setattr(rounds, "run_guards", run_guards)
    report = fork.night()
    fork.monkeypatch.setattr(rounds, "run_guards", green)
    return report


def write(path: str, text: str = "# another\ndef test_it() -> None: ...\n") -> Callable[[Fork], None]:
    return lambda fork: fork.write(path, text)


def configure(old: str, new: str) -> Callable[[Fork], None]:
    return lambda fork: fork.replace("deploy.yaml", old, new)


EDITS: dict[str, tuple[Callable[[Fork], object], str]] = {
    "a guard": (write("tests/regression/guard/test_it.py"), ": guards of first, guards of extra; what was"),
    "the bed": (write("tests/support/testbed/t.py"), ": test bed, guards of bed, guards of first, "),
    "its locks": (write("tests/support/locks/l.txt"), ": test bed, "),
    "thresholds": (write("tests/regression/thresholds.yaml"), ": guards of bed, guards of first, guards of extra;"),
    "a patch's header": (
        lambda fork: fork.replace("patches/first/patch.md", "is 0.5.13 or", "is 0.5.14 or"),
        ": patch first; what was",
    ),
    "a new patch": (
        lambda fork: fork.patches.patch("third", fork.base, {"python/sglang/third.py": "THIRD = 1\n"}),
        ": series, patch third, guards of third; what was",
    ),
    "a channel": (configure("[cpu]}", "[cpu]}\n  stable: {needs: [cpu, 1-gpu]}"), ": channels; what was"),
    "what nightly needs": (configure("needs: [cpu]", "needs: [cpu, 1-gpu]"), ": channels; what was"),
    "an optional patch": (configure(LANE, f"{LANE}    optional: [extra]\n"), ": optional; what was"),
    "the base": (configure("sglang==0.5.12.post1", "sglang==0.5.23"), ": upstream; what was"),
    "a skip": (configure("max_lost", "pulls: {skip: [{pr: 7, because: x}]}\nmax_lost"), ": skipped; what was"),
    "protected paths": (configure("max_lost", "pulls: {protected: [x/]}\nmax_lost"), ": protected; what was"),
    "the image": (
        configure(LANE, f"{LANE}    image: {{repository: registry.example.com/a/b, runtime: cuda}}\n"),
        ": image; what was",
    ),
    "the lane's name": (configure("production:", "edge:"), "lanes: there is no production any more: put it back"),
    "deploy.yaml, half": (write("deploy.yaml", "schema: 1\nlanes"), "deploy.yaml:2: "),
    "the series, wrongly": (write("patches/series", "nobody\n"), "nobody: it has no folder"),
    "the guards, away": (
        lambda fork: (fork.folder / "tests/regression/guard/test_it.py").unlink(),
        "'tests/regression/guard/' holds no test_*.py",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_nothing_moves_and_what_was_edited_is_named(fork: Fork, name: str) -> None:
    edit_it, named = EDITS[name]
    report = meanwhile(fork, edit_it)
    assert (report.exit_code, report.headline, report.promotion) == (6, Status.INCOMPLETE, None), report.failure
    assert CHANGED in report.failure
    assert named in report.failure
    assert "nothing was moved" in report.failure
    assert fork.refs() == {}


def test_what_decides_nothing_may_be_edited_and_heads_are_the_plan_s(fork: Fork) -> None:
    """Also another head of a pull request: what was planned is merged, proven and promoted."""
    first = fork.night()
    assert first.promotion
    planned = fork.pull(7, {A: edit(TEN, 1, "planned")})

    def edit_it(fork: Fork) -> None:
        fork.write("README.md", "# another\n")
        fork.replace("patches/first/patch.md", "When upstream has it.", "When upstream has it, in full.")
        fork.replace("deploy.yaml", "schema: 1", "# why\nschema: 1")
        fork.pull(7, {A: edit(TEN, 1, "pushed meanwhile")})

    report = meanwhile(fork, edit_it)
    assert report.promotion, report.failure
    assert report.promotion.line.included[-1] == ("#7", planned)
    # Of the next night it is a head like any other.
    assert not fork.night(Part(Until.MERGE)).nothing_to_do


def test_guards_do_not_begin_on_what_is_not_the_plan_s_any_more(fork: Fork) -> None:
    """Nor on another machine, whose checkout is not the one that was planned."""
    pack = fork.folder.parent / "night.tar"
    assert fork.night(Part(Until.MERGE, pack=pack)).exit_code == 0
    fork.write("tests/regression/guard/test_it.py", "# another\ndef test_it() -> None: ...\n")
    fork.monkeypatch.setattr(rounds, "run_guards", lambda *_, **__: pytest.fail("they ran"))
    report = fork.night(Part(Until.TEST, unpack=pack))
    assert (report.exit_code, f"{CHANGED}: guards of first" in report.failure) == (6, True), report.failure


def test_the_part_that_promotes_looks_again(fork: Fork) -> None:
    night, said = fork.folder.parent / "night.tar", fork.folder.parent / "tests.tar"
    assert fork.night(Part(Until.MERGE, pack=night)).exit_code == 0
    assert fork.night(Part(Until.TEST, unpack=night, pack=said)).exit_code == 0
    original = (fork.folder / "tests/regression/guard/test_it.py").read_text()
    fork.write("tests/regression/guard/test_it.py", f"{original}# edited\n")
    shutil.rmtree(fork.work.state.runs)
    stopped = fork.night(Part(unpack=night, tests=said))
    assert (stopped.exit_code, f"{CHANGED}: guards of first" in stopped.failure) == (6, True), stopped.failure
    assert fork.refs() == {}
    # As it was planned, it is promoted: what counts is what is there, not when it was written.
    fork.write("tests/regression/guard/test_it.py", original)
    shutil.rmtree(fork.work.state.runs)
    report = fork.night(Part(unpack=night, tests=said))
    assert report.promotion, report.failure


def test_another_git_promotes_what_one_git_has_merged(fork: Fork) -> None:
    """The machine that promotes merges nothing: its git is none of the night's."""
    pack = fork.folder.parent / "night.tar"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(plan_verb, "git_version", lambda: (9, 9, 9))
        assert fork.night(Part(Until.MERGE, pack=pack)).exit_code == 0
    assert fork.night(Part(unpack=pack)).promotion


def test_the_verb_looks_again_too(fork: Fork) -> None:
    run = fork.run(fork.night(Part(Until.TEST)))
    fork.write("tests/regression/thresholds.yaml", "# lower\n")
    for dry_run in (True, False):
        with pytest.raises(Incomplete, match=f"{CHANGED}: guards of bed"):
            promote(fork.work, run, dry_run=dry_run)
    assert fork.refs() == {}
