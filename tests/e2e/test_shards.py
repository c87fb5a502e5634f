"""The guards of one run on several machines, and what pytest keeps to itself: real release, quick guards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from junitparser import JUnitXml
from tests.e2e.quick_guards import use_quick_guards
from tests.e2e.test_night import GUARDS, SLUG, Done, Place, copy_workplace

USED = f"{GUARDS}/test_it.py::test_it_is_used"
BED = "tests/regression/bed/test_bed.py::test_the_release_is_there"
DESELECT = """\
def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if item.name != "test_it_is_used"]
"""
INHERIT = """\

class Base:
    def test_in_a_base(self) -> None: ...


class TestIt(Base):
    def test_of_its_own(self) -> None: ...
"""


@pytest.fixture(scope="module")
def composed(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = copy_workplace(tmp_path_factory.mktemp("composed") / "fork", SLUG)
    use_quick_guards(place)
    merged = place.run("--local", "merge")
    assert merged.code == 0, merged.err
    return place


def run_of(place: Place) -> Path:
    (run,) = (place.root / ".patchstack" / "runs").iterdir()
    return run


def ask(place: Place, *argv: str) -> Done:
    return place.run("--local", "test", "--run", run_of(place).name, *argv)


def test_two_shards_are_one_night_and_one_alone_is_none(composed: Place, tmp_path: Path) -> None:
    place = composed
    reports = []
    others = {f"{GUARDS}/test_it.py": BED, "tests/regression/bed/test_bed.py": USED}
    for number in (1, 2):
        done = ask(place, "--shard", f"{number}/2", "--json")
        (mine,) = done.json["shard"]["files"]  # who has which depends on what they took before
        missing = f"{others.pop(mine)}: missing: shard {number}/2 did not run it"
        assert (done.code, missing in done.err) == (6, True), done.err
        reports.append(tmp_path / f"{number}.json")
        reports[-1].write_text(done.out)
    one, two = map(str, reports)
    alone = ask(place, "--gather", one)
    assert (alone.code, ": missing: shard 1/2 did not run it" in alone.err) == (6, True), alone.err
    twice = ask(place, "--gather", one, "--gather", one)
    assert (twice.code, twice.err) == (2, "patchstack: shard 1/2 is there twice: gather each once\n")
    together = ask(place, "--gather", one, "--gather", two, "--json")
    assert (together.code, together.json["proofs"][0]["standing"]) == (0, "proven"), together.err
    suites = {
        suite.name: (suite.tests, suite.failures + suite.errors)
        for suite in JUnitXml.fromfile(str(run_of(place) / "junit.xml"))
    }
    assert suites == {"base": (3, 0), "composed": (2, 0), "proofs": (1, 0)}
    assert place.run("--local", "promote", "--run", run_of(place).name).code == 0
    assert place.deploy()


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda guards: (guards / name).write_text(text)


def append(text: str) -> Callable[[Path], object]:
    return lambda guards: (guards / "test_it.py").write_text((guards / "test_it.py").read_text() + text)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (write("conftest.py", DESELECT), 6, f"{USED}: missing: its file has this test, and pytest said nothing of it"),
        (append(INHERIT), 1, f"{GUARDS}/test_it.py::TestIt::test_in_a_base: crash: its file does not show this test"),
        (append("\n\ndef test_it_is_used() -> None: ...\n"), 3, "test_it_is_used: it stands on line"),
    ],
    ids=["deselected", "inherited", "repeated"],
)
def test_what_pytest_keeps_to_itself_is_seen(
    composed: Place, tmp_path: Path, change: Callable[[Path], object], code: int, said: str
) -> None:
    place = Place(shutil.copytree(composed.root, tmp_path / "fork", symlinks=True))
    change(place.root / GUARDS)
    done = ask(place)
    assert (done.code, said in done.err) == (code, True), done.err
