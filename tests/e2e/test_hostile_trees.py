"""Whole nights with pull requests that mean harm: each is left out by name, and the others ship."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.e2e.test_night import SLUG, Done, Place, first_night, names, promoted

from patchstack.compose.limits import DEEPEST, MOST_BYTES, MOST_PATHS
from patchstack.names import folded, name_problem, with_folders

__all__ = ["first_night", "promoted"]  # fixtures

HERE = "python/sglang"


def planted(place: Place, number: int, files: Mapping[str, tuple[str, bytes]], *, onto: str = "base/production") -> str:
    """Open pull request ``number`` with entries (path -> mode, contents) that a work tree need not be able to hold."""

    def git(*argv: str, stdin: bytes = b"", **env: str) -> str:
        done = subprocess.run(
            ["git", "--git-dir", str(place.remote), *argv],
            input=stdin,
            env={**os.environ, **env},
            capture_output=True,
            check=True,
        )
        return done.stdout.decode().strip()

    index = {"GIT_INDEX_FILE": str(place.root / f"index-{number}")}
    git("read-tree", onto, **index)
    for path, (mode, data) in files.items():
        blob = git("hash-object", "-w", "--stdin", "--no-filters", stdin=data)
        git("-c", "core.protectHFS=false", "-c", "core.protectNTFS=false", "update-index", "-z", "--index-info",
            stdin=f"{mode} {blob}\t{path}\0".encode(), **index)  # fmt: skip
    tree = git("write-tree", **index)
    head = git("commit-tree", tree, "-p", onto, "-m", f"Pull {number}")
    git("update-ref", f"refs/pull/{number}/head", head)
    return head


def fates(done: Done) -> dict[str, str]:
    composition = done.json["composition"]
    found = dict.fromkeys(names(composition["included"]), "in")
    return found | {item["name"]: item["reason"] for item in composition["left_out"]}


def test_a_night_with_hostile_pull_requests_ships_the_others(promoted: Place) -> None:
    place = promoted
    text, link = "100644", "120000"
    good = place.propose(7, f"{HERE}/seven.py", "SEVEN = 7\n")
    planted(place, 11, {f"{HERE}/.gitattributes": (text, b"* export-ignore ident filter=evil\n")})
    planted(place, 12, {f"{HERE}/evil": (link, b"../../../../etc")})
    planted(place, 13, {f"{HERE}/aux.py": (text, b"x\n")})
    planted(place, 14, {f"{HERE}/a\nb.py": (text, b"x\n")})
    planted(place, 15, {f"{HERE}/.wh.srt": (text, b"x\n")})
    planted(place, 16, {f"{HERE}/SRT/x.py": (text, b"x\n")})
    planted(place, 17, {f"{HERE}/Seven.py": (text, b"x\n")})
    planted(place, 18, {f"{HERE}/{'n' * 300}.py": (text, b"x\n")})
    planted(place, 19, {f"{HERE}/large.bin": (text, bytes(MOST_BYTES + 1))})
    planted(place, 20, {f"{HERE}/many/{number}.py": (text, b"x\n") for number in range(3)})
    place.git("update-ref", "refs/pull/21/head", place.git("rev-parse", "base/production^{tree}"))
    place.git("update-ref", "refs/pull/22/head", place.git("rev-parse", "deploy"))

    night = place.night()

    assert night.code == 0, night.err
    assert fates(night) == {
        SLUG: "in",
        "#7": "in",
        "#20": "in",
        **dict.fromkeys(("#11", "#12"), "touches protected paths"),
        **dict.fromkeys((f"#{number}" for number in range(13, 19)), "a name that some file systems cannot hold"),
        "#19": "larger than a pull request may be",
        "#21": "head is missing",
        "#22": "contains a deploy commit",
    }
    twins = {item["name"]: item["twins"] for item in night.json["composition"]["left_out"]}
    assert (twins["#17"], twins["#16"]) == (["#7"], [])
    assert place.git("merge-base", "--is-ancestor", good, "deploy") == ""
    details = {item["name"]: item["detail"] for item in night.json["composition"]["left_out"]}
    assert details["#13"] == f"'{HERE}/aux.py' is the name of a device on Windows: rename what is named"
    assert details["#19"].startswith(f"'{HERE}/large.bin' has 101 MB, and 100 MB are the most")


def test_what_a_night_runs_sees_nothing_of_the_users_git(promoted: Place, sealed: Path, tmp_path: Path) -> None:
    place = promoted
    trace, evil = tmp_path / "trace", tmp_path / "evil"
    evil.write_text(f'#!/bin/sh\necho "$0 $*" >> {trace}\nexit 1\n')
    evil.chmod(0o755)
    for name in ("reference-transaction", "post-receive", "pre-receive", "update", "pre-push", "post-checkout"):
        (sealed / "hooks").mkdir(exist_ok=True)
        (sealed / "hooks" / name).symlink_to(evil)
    place.propose(7, f"{HERE}/seven.py", "SEVEN = 7\n")
    with (sealed / ".gitconfig").open("a") as config:
        config.write(f"[core]\n\thooksPath = {sealed}/hooks\n\tattributesFile = {sealed}/attributes\n")
        config.write(f'[filter "evil"]\n\tclean = {evil}\n\tsmudge = {evil}\n\trequired = true\n')
        config.write(
            f'[merge "evil"]\n\tdriver = {evil}\n[diff]\n\texternal = {evil}\n[init]\n\ttemplateDir = {sealed}\n'
        )
    (sealed / "attributes").write_text("* filter=evil merge=evil\n")

    night = place.night()

    assert night.code == 0, night.err
    assert fates(night) == {SLUG: "in", "#7": "in"}
    assert place.deploy() == night.json["promotion"]["commit"]
    assert not trace.exists(), trace.read_text()


def wheels() -> list[Path]:
    """The releases that this machine has fetched."""
    cache = Path(os.environ.get("PATCHSTACK_CACHE") or Path.home() / ".cache" / "patchstack")
    return sorted((cache / "wheels").glob("*/sglang-0*.whl"))


def test_every_release_passes_the_rules_that_pull_requests_are_held_to(place_with_release: Place) -> None:
    found = wheels()
    assert any("-0.5.12.post1-" in wheel.name for wheel in found)
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        paths = [f"python/{info.filename}" for info in infos]
        assert [f"{path} {name_problem(path)}" for path in paths if name_problem(path)] == []
        spelled = {part for path in paths for part in with_folders(path)}
        assert len({folded(part) for part in spelled}) == len(spelled)
        assert len(paths) < MOST_PATHS
        assert max(path.count("/") for path in paths) < DEEPEST
        sources = [info.file_size for info in infos if not info.filename.endswith(".so")]
        assert sum(sources) < MOST_BYTES


@pytest.fixture
def place_with_release(first_night: tuple[Place, Done]) -> Place:
    return first_night[0]
