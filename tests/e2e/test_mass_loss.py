"""Nights by the command line whose pull requests vanish, or whose guards are edited: real release, one quick guard."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.e2e.quick_guards import use_quick_guards
from tests.e2e.test_night import GUARDS, SLUG, Place, copy_workplace

NUMBERS = (1, 2, 3)


@pytest.fixture(scope="module")
def deployed(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A fork whose deployed night has a patch and three pull requests."""
    place = copy_workplace(tmp_path_factory.mktemp("deployed") / "fork", SLUG)
    use_quick_guards(place)
    first = place.night()
    assert first.code == 0, first.err
    for number in NUMBERS:
        place.propose(number, f"python/sglang/n{number}.py", f"N = {number}\n")
    second = place.night()
    assert second.code == 0, second.err
    assert len(second.json["composition"]["included"]) == 1 + len(NUMBERS)
    return place


@pytest.fixture
def place(deployed: Place, tmp_path: Path) -> Place:
    return Place(shutil.copytree(deployed.root, tmp_path / "fork", symlinks=True))


def test_what_vanished_stops_the_night_until_somebody_has_read_the_names(place: Place) -> None:
    for number in NUMBERS:
        place.git("update-ref", "-d", f"refs/pull/{number}/head")
    before = place.refs()
    stopped = place.night()
    assert (stopped.code, stopped.json["headline"], stopped.json["tests"]) == (6, "INCOMPLETE", None), stopped.err
    assert stopped.json["timings"][-1]["stage"] == "merge"
    for told in (stopped.err, place.run("report").out):
        for said in (*(f"#{number} at " for number in NUMBERS), "no longer listed", "--accept-lost"):
            assert said in told
    assert place.refs() == before
    again = place.night()
    assert (again.code, again.json["nothing_to_do"]) == (6, False)
    for argv in (("--unpack", "x.tar"), ("--dry-run",)):
        refused = place.night("--accept-lost", *argv)
        assert (refused.code, "--accept-lost belongs to the part that merges" in refused.err) == (2, True), refused.err

    accepted = place.night("--accept-lost")
    assert accepted.code == 0, accepted.err
    line = accepted.json["promotion"]["line"]
    assert line["lost"] == [[f"#{number}", "no longer listed"] for number in NUMBERS]
    assert [name for name, _ in line["included"]] == [SLUG]
    report = place.run("report").out
    assert "Somebody has accepted that for this night: --accept-lost." in report
    unchanged = place.night()
    assert (unchanged.code, unchanged.json["nothing_to_do"]) == (0, True), unchanged.err


def test_a_guard_that_is_edited_on_the_way_stops_the_part_that_comes_next(place: Place, tmp_path: Path) -> None:
    guard = place.root / GUARDS / "test_it.py"
    planned = guard.read_text()
    place.propose(4, "python/sglang/n4.py", "N = 4\n")
    night, tests = str(tmp_path / "night.tar"), str(tmp_path / "tests.tar")
    assert place.night("--until", "merge", "--pack", night).code == 0
    before = place.refs()

    def stopped(*argv: str) -> None:
        guard.write_text(f"{planned}\n# edited\n")
        done = place.night("--unpack", night, *argv)
        assert (done.code, f"guards of {SLUG}; what was composed" in done.err) == (6, True), done.err
        assert place.refs() == before
        guard.write_text(planned)
        shutil.rmtree(place.root / ".patchstack" / "runs" / done.json["night"])

    stopped("--until", "test")
    tested = place.night("--unpack", night, "--until", "test", "--pack", tests)
    assert tested.code == 0, tested.err
    shutil.rmtree(place.root / ".patchstack" / "runs" / tested.json["night"])
    stopped("--tests", tests)
    promoted = place.night("--unpack", night, "--tests", tests)
    assert promoted.code == 0, promoted.err
    assert [name for name, _ in promoted.json["promotion"]["line"]["included"]] == [SLUG, "#1", "#2", "#3", "#4"]
