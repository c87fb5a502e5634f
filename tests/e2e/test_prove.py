"""`patchstack prove` on the real release and in the real bed: a patch of one new file, and mutants of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.e2e.test_night import SLUG, Done, Place, copy_workplace

from patchstack.lock import night_lock

NEW = "page-count"
MODULE = "python/sglang/srt/disaggregation/page_count.py"
SOURCE = '''\
"""How many pages hold some tokens."""

import os

EXACT = os.environ.get("SGLANG_PAGE_COUNT", "1") != "0"


def pages(tokens: int, page_size: int) -> int:
    """Whole pages, the last one perhaps not full."""
    if tokens < 0:
        raise ValueError(f"{tokens} tokens")
    return -(-tokens // page_size)
'''
GUARD = f"""\
import os
import runpy
from pathlib import Path

import pytest

MODULE = Path(os.environ["PATCHSTACK_TREE"], "{MODULE}")


def pages(tokens: int) -> int:
    return runpy.run_path(str(MODULE))["pages"](tokens, 4)


@pytest.mark.control
def test_the_release_is_there() -> None:
    assert MODULE.parent.is_dir()


@pytest.mark.kills("floor")
def test_the_last_page_counts() -> None:
    assert [pages(tokens) for tokens in (4, 5, 8)] == [1, 2, 2]


@pytest.mark.kills("no-check")
def test_less_than_nothing_is_refused() -> None:
    try:
        counted = pages(-1)
    except ValueError:
        return
    assert counted is None, "it was counted"
"""
MUTANTS = {
    "floor": ("return -(-tokens // page_size)", "return tokens // page_size"),
    "no-check": ("if tokens < 0:", "if tokens < -1:"),
}


def git(folder: Path, *argv: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *argv], check=True, capture_output=True, text=True).stdout


def write_patch(place: Place) -> None:
    """As docs/patch-authors.md tells an author: an optional patch of one new file, on another one, with mutants."""
    folder, work = place.root / "patches" / NEW, place.root / "work"
    (folder / "mutants").mkdir(parents=True)
    lines = (place.root / "patches" / SLUG / "patch.md").read_text().splitlines()
    changed = {
        "title": "title: 'pd: count pages'",
        "requires": f"requires: [{SLUG}]",
        "guards": "guards: [tests/regression/page_count/]",
        "mutants": f"mutants: [{', '.join(f'{name}.patch' for name in MUTANTS)}]",
        "kill-switch": "kill-switch: 'SGLANG_PAGE_COUNT=0'",
    }
    text = "".join(f"{changed.get(line.partition(':')[0], line)}\n" for line in lines)
    (folder / "patch.md").write_text(text)
    (place.root / "patches" / "series").write_text(f"{SLUG}\n{NEW} optional\n")
    guard = place.root / "tests" / "regression" / "page_count" / "test_page_count.py"
    guard.parent.mkdir()
    guard.write_text(GUARD)
    assert place.run("patch", "edit", NEW, str(work)).code == 0
    (work / MODULE).write_text(SOURCE)
    git(work, "add", MODULE)
    git(work, "commit", "--quiet", "-m", "pd: count pages")
    exported = place.run("patch", "export", NEW, "--from", str(work))
    assert exported.code == 0, exported.err
    for name, (before, after) in MUTANTS.items():
        assert SOURCE.count(before) == 1
        (work / MODULE).write_text(SOURCE.replace(before, after))
        (folder / "mutants" / f"{name}.patch").write_text(git(work, "diff"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = copy_workplace(tmp_path / "fork", SLUG)
    write_patch(place)
    return place


def told(done: Done) -> list[str]:
    """``base: pass, kept``, a tree a line."""
    return [
        f"{run['label']}: {' '.join(said['outcome'] for said in run['results'])}{', kept' * run['kept']}"
        for run in done.json["runs"]
    ]


WITH, WITHOUT = f"base + {SLUG} + {NEW}", f"base + {SLUG}"
GUARDS = "tests/regression/page_count"


def test_a_patch_of_new_files_is_proven_by_its_mutants_until_one_survives(place: Place) -> None:
    """The patch is optional and in no lane, and stands on another one: nothing else is on its trees."""
    assert place.run("prove", NEW, "--dry-run").out.splitlines() == [
        f"{WITH}: {GUARDS}",
        f"{WITHOUT}: {GUARDS}",
        *(f"mutant {NEW}/{name}: {GUARDS}/test_page_count.py" for name in MUTANTS),
    ]
    assert list((place.root / ".patchstack" / "runs").glob("*")) == []
    proven = place.run("prove", NEW, "--rerun", "all", "--json")
    assert proven.code == 0, proven.err
    assert proven.json["proofs"] == [
        {"slug": NEW, "ground": WITHOUT, "standing": "proven", "detail": "2 guards kill 2 mutants"}
    ]
    assert told(proven) == [
        f"{WITH}: pass pass pass",
        f"{WITHOUT}: pass",
        *(f"mutant {NEW}/{name}: fail" for name in MUTANTS),
    ]
    (run,) = (place.root / ".patchstack" / "runs").iterdir()
    # The mutants' trees are gone.
    assert sorted(path.name for path in run.iterdir()) == ["junit.xml", "logs", "tests.json"]

    guard = place.root / GUARDS / "test_page_count.py"
    guard.write_text(GUARD.replace("assert counted is None", "assert counted is not None"))
    survived = place.run("prove", NEW, "--rerun", "all")
    assert survived.code == 1, survived.err
    assert (
        f"patch {NEW} is unproven: mutant no-check survives: these guards pass on it: "
        f"{GUARDS}/test_page_count.py::test_less_than_nothing_is_refused" in survived.err
    )
    assert "1 of 2 mutants killed" in survived.out

    guard.write_text(GUARD)
    again = place.run("prove", NEW, "--rerun", "none", "--json")
    assert (again.code, told(again)) == (0, [f"{line}, kept" for line in told(proven)])


BED_CONTROL = """\
import pytest


@pytest.mark.control
def test_the_bed() -> None:
    pass
"""


def test_a_night_runs_the_mutants_too_and_knows_what_prove_found_out(place: Place) -> None:
    bed = place.root / "tests" / "regression" / "bed"
    shutil.rmtree(bed)  # its controls take minutes and are no business of this test
    bed.mkdir()
    (bed / "test_bed.py").write_text(BED_CONTROL)
    config = place.root / "deploy.yaml"
    config.write_text(config.read_text().replace("    branch:", f"    optional: [{NEW}]\n    branch:", 1))
    proven = place.run("prove", NEW, "--rerun", "all", "--json")
    assert proven.code == 0, proven.err
    night = place.run("--local", "test", "--suite", NEW, "--rerun", "none", "--json")
    assert night.code == 6, night.err  # a part of the guards is no night
    mutants = [f"mutant {NEW}/{name}: fail, kept" for name in MUTANTS]
    assert [line for line in told(night) if not line.startswith("base: ")] == [
        "composed: pass pass pass",
        f"{WITHOUT}: pass, kept",
        *mutants,
    ]
    assert night.json["proofs"] == proven.json["proofs"]


def test_an_unknown_slug_and_a_held_lock_are_refused(place: Place) -> None:
    unknown = place.run("prove", "nothing")
    assert (unknown.code, unknown.err) == (
        2,
        f"patchstack: no patch is called 'nothing'; the series has: {SLUG}, {NEW}\n",
    )
    with night_lock(place.root / ".patchstack" / "lock"):
        held = place.run("prove", NEW)
    assert (held.code, "another patchstack" in held.err) == (10, True)


def test_a_mutant_of_a_changed_patch_and_a_name_that_leads_nowhere_leave_it_unproven(place: Place) -> None:
    mutants = place.root / "patches" / NEW / "mutants"
    stale = (mutants / "floor.patch").read_text().replace("-    return", "-    yield")
    (mutants / "floor.patch").write_text(stale)
    guard = place.root / GUARDS / "test_page_count.py"
    guard.write_text(GUARD.replace('kills("no-check")', 'kills("no-checks")'))
    refused = place.run("prove", NEW)
    assert refused.code == 1, refused.err
    assert (
        f"patch {NEW} is unproven: {GUARDS}/test_page_count.py::test_less_than_nothing_is_refused kills no-checks, "
        in (refused.err)
    )
    assert "mutant floor cannot be made: 1: " in refused.err
