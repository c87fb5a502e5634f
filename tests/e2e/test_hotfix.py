"""A hotfix on what is deployed, through the same gate: real release, quick guards, and the whole command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.e2e.quick_guards import use_quick_guards
from tests.e2e.test_night import DIFF, SLUG, Done, Place, copy_workplace, names, without_hunk


def amend(place: Place, number: int, path: str, text: str) -> None:
    """Push one more commit to a pull request that is open; its branch moves on."""
    work = place.root / f"clone-{number}"
    (work / path).write_text(text)
    for argv in (
        ["commit", "--quiet", "-a", "-m", f"Change {path} again"],
        ["push", "--quiet", str(place.remote), f"HEAD:refs/pull/{number}/head"],
    ):
        subprocess.run(["git", "-C", str(work), *argv], check=True)


def hotfix(place: Place, *argv: str) -> Done:
    return place.night("--onto", "previous", *argv)


@pytest.fixture(scope="module")
def deployed(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A fork whose second night has #7, which was cut from the base, and #8, which was cut from the stack."""
    made = copy_workplace(tmp_path_factory.mktemp("deployed") / "fork", SLUG)
    use_quick_guards(made)
    for day in (20, 21):
        done = made.run("nightly", "--local", "--json", PATCHSTACK_NOW=f"2026-11-{day}T02:00:00+00:00")
        assert done.code == 0, done.err
        if day == 20:
            made.propose(7, "python/sglang/seven.py", "SEVEN = 7\n")
            made.propose(8, "python/sglang/eight.py", "EIGHT = 8\n", onto="stack/production")
    assert names(done.json["composition"]["included"]) == [SLUG, "#7", "#8"]
    return made


@pytest.fixture
def place(deployed: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A copy of it, seven hours later."""
    monkeypatch.setenv("PATCHSTACK_NOW", "2026-11-21T09:00:00+00:00")
    return Place(shutil.copytree(deployed.root, tmp_path / "fork", symlinks=True))


def test_only_the_fix_comes_in_and_all_else_is_as_deployed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    nine = place.propose(9, "python/sglang/nine.py", "NINE = 9\n")
    place.propose(10, "python/sglang/ten.py", "TEN = 10\n")
    amend(place, 8, "python/sglang/eight.py", "EIGHT = 88\n")
    then = place.git("rev-parse", "deploy^2").strip()
    before = place.git("show", "-s", "--format=%P", then)

    dry = hotfix(place, "--only", "9", "--dry-run")
    assert (dry.code, names(dry.json["steps"])) == (0, [SLUG, "#7", "#8", "#9"]), dry.err
    assert place.git("rev-parse", "deploy^2") == then

    done = hotfix(place, "--only", "9")
    assert done.code == 0, done.err
    report = done.json
    assert (report["headline"], report["nothing_to_do"], report["losses"]["items"]) == ("PASS", False, [])
    assert report["hotfix"] == {"onto": "20261121T020000Z", "composition": then, "only": ["#9"], "replaced": []}
    assert report["composition"]["left_out"] == []
    assert report["tests"]["proofs"][0]["standing"] == "proven"
    assert [(diff["name"], diff["change"]) for diff in report["range_diffs"]] == [
        (SLUG, "unchanged"),
        ("#7", "unchanged"),
        ("#8", "unchanged"),
        ("#9", "new"),
    ]
    assert place.git("show", "-s", "--format=%P", "deploy^2") == f"{before} {nine}"
    assert place.git("show", "deploy:python/sglang/eight.py") == "EIGHT = 8"
    assert place.git("ls-tree", "--name-only", "deploy", "python/sglang/").split().count("python/sglang/ten.py") == 0
    line = report["promotion"]["line"]
    assert (line["onto"], line["action"], dict(line["included"])["#9"]) == ("20261121T020000Z", "night", nine)
    assert "Hotfix onto: 20261121T020000Z" in place.git("log", "-1", "--format=%B", "deploy")
    told = place.run("report").out
    assert "Hotfix: what is deployed, night 20261121T020000Z, with #9. Nothing else was taken." in told

    # Once more there is nothing to do; the ordinary night after it takes all that there is.
    again = hotfix(place, "--only", "9")
    assert (again.code, again.out) == (2, "")
    assert "#9 is deployed already at the head that was admitted: there is nothing to do" in again.err
    monkeypatch.setenv("PATCHSTACK_NOW", "2026-11-22T02:00:00+00:00")
    next_night = place.night()
    assert next_night.code == 0, next_night.err
    assert next_night.json["hotfix"] is None
    assert names(next_night.json["composition"]["included"]) == [SLUG, "#7", "#8", "#9", "#10"]
    assert place.git("show", "deploy:python/sglang/eight.py") == "EIGHT = 88"


def test_in_parts_it_is_the_same_hotfix(place: Place, tmp_path: Path) -> None:
    place.propose(9, "python/sglang/nine.py", "NINE = 9\n")
    composed, tests = str(tmp_path / "night.tar"), str(tmp_path / "tests.tar")
    before = place.refs()

    def part(machine: str, *argv: str) -> Done:
        there = ("--local", "--remote", str(place.remote), "--state", str(tmp_path / machine))
        return place.run(*there, "nightly", "--json", *argv)

    first = part("compose", "--only", "#9", "--onto", "previous", "--until", "merge", "--pack", composed)
    assert (first.code, first.json["hotfix"]["only"]) == (0, ["#9"]), first.err
    tested = part("test", "--unpack", composed, "--until", "test", "--pack", tests)
    assert (tested.code, tested.json["hotfix"]) == (0, first.json["hotfix"]), tested.err
    assert place.refs() == before
    promoted = part("promote", "--unpack", composed, "--tests", tests)
    assert promoted.code == 0, promoted.err
    assert promoted.json["hotfix"] == first.json["hotfix"]
    assert promoted.json["promotion"]["line"]["onto"] == "20261121T020000Z"
    assert place.git("show", "deploy:python/sglang/nine.py") == "NINE = 9"


def test_what_is_no_hotfix_ends_with_its_own_error_and_changes_nothing(place: Place) -> None:
    place.propose(9, "python/sglang/seven.py", "SEVEN = 9\n")
    before, runs = place.refs(), place.root / ".patchstack" / "runs"
    known = sorted(runs.iterdir())

    conflict = hotfix(place, "--only", "9")
    assert conflict.code == 6, conflict.err
    assert conflict.json["failure"] == (
        "a hotfix onto night 20261121T020000Z would lack what it is for: #9: conflict with #7 in "
        "python/sglang/seven.py: it conflicts with #7: merge #7 into it, or wait; nothing was tested or moved"
    )
    (red,) = set(runs.iterdir()) - set(known)
    assert not (red / "composition.json").exists()
    tested = place.run("--local", "test", "--run", red.name)
    assert (tested.code, "would lack what it is for: #9" in tested.err) == (6, True), tested.err

    for argv, said in (
        (("--only", "7"), "#7 is deployed already"),
        (("--only", "77"), "--only #77: no source lists an open pull request of that name"),
        (("--only", "#7\n"), "'#7\\n' is no pull request"),
    ):
        done = hotfix(place, *argv)
        assert (done.code, done.out, said in done.err) == (2, "", True), done.err

    without_hunk(place.root / DIFF, "mooncake_transfer_engine.py")
    other = hotfix(place, "--only", "9")
    assert (other.code, other.out) == (2, "")
    assert "patches/ is not what night 20261121T020000Z had" in other.err
    assert f"{SLUG} (" in other.err
    assert "check out main as it was at 2026-11-21T02:00:00Z, or run an ordinary night" in other.err

    assert sorted(runs.iterdir()) == sorted([*known, red])
    assert place.refs() == before
    assert json.loads((red / "report.json").read_text())["exit_code"] == 6


def test_a_hotfix_that_is_red_is_not_promoted(place: Place) -> None:
    """It takes back what the patch brought in, where its guards look."""
    source = "python/sglang/srt/distributed/device_communicators/mooncake_transfer_engine.py"
    place.propose(9, source, "raise RuntimeError('broken by #9')\n", onto="stack/production")
    before = place.refs()
    done = hotfix(place, "--only", "9")
    assert (done.code, done.json["headline"], done.json["promotion"]) == (1, "FAIL", None), done.err
    assert place.refs() == before
    assert place.run("--local", "promote").code == 1
    assert place.refs() == before
