"""A night in parts, each on a machine of its own, beside the same night in one process; real release, quick guards."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.quick_guards import use_quick_guards
from tests.e2e.test_night import GUARDS, SLUG, Done, Place, copy_workplace

from patchstack.nightly import NOT_OVER, Until
from patchstack.verbs.rounds import NO_IMAGE_PART

WAITS = """\
import signal


def test_waits() -> None:
    signal.pause()
"""
NO_INDEX = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_EXTRA_INDEX_URL": ""}


@dataclass(frozen=True)
class Fork:
    """The repository that each machine checks out, and a remote that they share."""

    place: Place
    remote: Path
    machines: Path

    def part(self, machine: str, *argv: str, **env: str) -> Done:
        """`nightly` on a machine whose state folder is its own."""
        before = ("--local", "--remote", str(self.remote), "--state", str(self.machines / machine))
        return self.place.run(*before, "nightly", "--json", *argv, **env)

    def pack(self, name: str) -> str:
        return str(self.machines / f"{name}.tar")

    def until_tests(self) -> tuple[Done, Done]:
        composed = self.part("compose", "--until", "merge", "--pack", self.pack("night"))
        tested = self.part("test", "--unpack", self.pack("night"), "--until", "test", "--pack", self.pack("tests"))
        return composed, tested

    def promote(self, machine: str = "promote", **env: str) -> Done:
        argv = ("--unpack", self.pack("night"), "--tests", self.pack("tests"), "--pack", self.pack("promoted"))
        return self.part(machine, *argv, **env)

    def forget_tags(self) -> None:
        argv = ["git", "--git-dir", str(self.remote), "tag", "--list"]
        tags = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
        assert tags
        subprocess.run([*argv[:3], "tag", "--delete", *tags], capture_output=True, check=True)

    def refs(self) -> str:
        """Without the history, which every night that has tested goes on with, promoted or not."""
        argv = ["git", "--git-dir", str(self.remote), "for-each-ref"]
        listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        return "\n".join(line for line in listed if "refs/heads/history/" not in line)


def members(pack: str) -> dict[str, bytes]:
    with tarfile.open(pack) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def write_members(pack: str, held: dict[str, bytes]) -> None:
    with tarfile.open(pack, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(held.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))


@pytest.fixture(scope="module")
def published(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A fork with one promoted night, and pull requests on it: two that conflict, and one from `stack`."""
    place = copy_workplace(tmp_path_factory.mktemp("published") / "fork", SLUG)
    use_quick_guards(place)
    first = place.night()
    assert first.code == 0, first.err
    place.propose(7, "python/sglang/seven.py", "SEVEN = 7\n")
    place.propose(8, "python/sglang/seven.py", "SEVEN = 8\n")
    place.propose(11, "python/sglang/eleven.py", "ELEVEN = 11\n", onto="stack/production")
    return place


@pytest.fixture
def fork(published: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Fork]:
    """Copies of the fork; a day later."""
    monkeypatch.setenv("PATCHSTACK_NOW", "2026-11-22T02:00:00+00:00")

    def copy(name: str) -> Fork:
        root = tmp_path / name / "fork"
        shutil.copytree(published.root, root, ignore=shutil.ignore_patterns(".patchstack", "clone-*"))
        remote = shutil.copytree(published.remote, tmp_path / name / "remote.git")
        (tmp_path / name / "machines").mkdir()
        return Fork(Place(root), remote, tmp_path / name / "machines")

    return copy


def substance(report: dict[str, Any]) -> dict[str, Any]:
    """A report without its times, which copy of the remote it was, and what was kept."""
    told: dict[str, Any] = json.loads(json.dumps(report))
    told.pop("timings")
    told.pop("remote")
    for run in (told["tests"] or {"runs": []})["runs"]:
        run.pop("kept")
        for result in run["results"]:
            result.pop("duration_s")
    return told


def test_three_machines_make_the_night_that_one_makes(fork: Callable[[str], Fork], tmp_path: Path) -> None:
    parts, whole = fork("parts"), fork("whole")
    for copy in (parts, whole):  # only a part that may write makes it again
        copy.forget_tags()
    before = parts.refs()
    output, summary = tmp_path / "output", tmp_path / "summary"
    composed = parts.part(
        "compose",
        *("--until", "merge", "--pack", parts.pack("composed")),
        GITHUB_OUTPUT=str(output),
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert composed.code == 0, composed.err
    assert (composed.json["headline"], composed.json["exit_code"]) == ("INCOMPLETE", 0)
    assert composed.json["notes"][0] == "the night is composed and goes on elsewhere: no guard has run yet"
    assert output.read_text() == "settled=false\nlanes=false\nrun=20261122T020000Z\n"
    assert "mooncake-protocol" in summary.read_text()
    assert parts.refs() == before

    argv = ("--unpack", parts.pack("composed"), "--until", "image", "--pack", parts.pack("night"))
    imaged = parts.part("image", *argv)
    assert (imaged.code, imaged.json["image"]["image"]) == (0, None), imaged.err
    assert imaged.json["notes"][0] == NOT_OVER[Until.IMAGE]
    assert parts.refs() == before

    # Neither a remote nor GitHub, and no token: only what the pack and the package index have.
    nowhere = Fork(parts.place, tmp_path / "nowhere.git", parts.machines)
    tested = nowhere.part("test", "--unpack", parts.pack("night"), "--until", "test", "--pack", parts.pack("tests"))
    assert tested.code == 0, tested.err
    assert tested.json["tests"]["proofs"][0]["standing"] == "proven"
    assert tested.json["remote"] == str(parts.remote)
    assert parts.refs() == before

    empty = tmp_path / "empty-cache"
    promoted = parts.promote(PATCHSTACK_CACHE=str(empty), **NO_INDEX)
    assert promoted.code == 0, promoted.err
    assert list(empty.iterdir()) == []
    assert parts.refs() != before

    alone = whole.part("one", "--pack", whole.pack("night"))
    assert alone.code == 0, alone.err
    assert substance(alone.json) == substance(promoted.json)
    assert whole.refs() == parts.refs()
    assert "was missing and is made again" in promoted.json["notes"][0]
    assert [timing["stage"] for timing in promoted.json["timings"]] == [
        *("remote", "plan", "merge", "image", "remote", "promote")
    ]
    names = {*members(whole.pack("night"))} - {"objects.bundle"}
    assert names == {*members(parts.pack("promoted"))} - {"objects.bundle"}
    assert json.loads(members(parts.pack("promoted"))["report.json"]) == promoted.json

    again = parts.promote("another")
    assert again.code == 0, again.err
    assert [note for note in again.json["notes"] if "is promoted already" in note]
    assert again.json["promotion"]["commit"] == promoted.json["promotion"]["commit"]


def test_an_unchanged_night_is_settled_in_its_pack_too(fork: Callable[[str], Fork], tmp_path: Path) -> None:
    here = fork("here")
    shutil.rmtree(here.remote / "refs" / "pull", ignore_errors=True)
    packed = here.remote / "packed-refs"
    if packed.is_file():
        packed.write_text("".join(line for line in packed.open() if "refs/pull/" not in line))
    output = tmp_path / "output"
    night = here.part("compose", "--until", "merge", "--pack", here.pack("night"), GITHUB_OUTPUT=str(output))
    assert (night.code, night.json["nothing_to_do"], night.json["headline"]) == (0, True, "PASS"), night.err
    assert output.read_text() == "settled=true\nlanes=false\nrun=20261122T020000Z\n"
    assert "objects.bundle" not in members(here.pack("night"))
    for argv in (("--until", "test"), ("--tests", here.pack("none"))):
        later = here.part("later", "--unpack", here.pack("night"), *argv, "--pack", here.pack("later"))
        assert (later.code, later.json) == (0, night.json), later.err
        assert members(here.pack("later")) == members(here.pack("night"))
    state = ("--local", "--remote", str(here.remote), "--state")
    ages = ("status", "--max-age", "20h", "--json")
    known = here.place.run(*state, str(here.machines / "compose"), *ages)
    assert (known.code, known.json["newest"]["what"]) == (0, "found nothing to do"), known.err
    unknown = here.place.run(*state, str(here.machines / "fresh"), *ages)
    assert (unknown.code, unknown.json["newest"]["what"]) == (6, "promoted")
    assert unknown.json["overdue"] in unknown.err
    packed_in = here.place.run(*state, str(here.machines / "fresh"), *ages, "--unpack", here.pack("night"))
    assert (packed_in.code, packed_in.json["overdue"]) == (0, ""), packed_in.err


def test_results_that_were_made_up_promote_nothing(fork: Callable[[str], Fork]) -> None:
    here = fork("here")
    before = here.refs()
    composed, tested = here.until_tests()
    assert (composed.code, tested.code) == (0, 0), tested.err
    assert tested.json["image"] == {"image": None, "why_not": NO_IMAGE_PART}
    honest = members(here.pack("tests"))
    for forge in (
        lambda said: said["runs"][0].update(tree="e" * 40),
        lambda said: said.update(proofs=[]),
        lambda said: said["runs"].pop(),
    ):
        said = json.loads(honest["tests.json"])
        forge(said)
        write_members(here.pack("tests"), {**honest, "tests.json": json.dumps(said).encode()})
        refused = here.promote()
        assert (refused.code, "are not those of composition" in refused.err) == (2, True), refused.err
        assert not (here.machines / "promote" / "runs").exists()
    # Whatever else the pack of the part that ran their code says is not looked at.
    lies = {name: b"lies" for name in honest if name not in {"tests.json", "objects.bundle"}}
    write_members(here.pack("tests"), {**lies, "tests.json": honest["tests.json"]})
    assert here.refs() == before
    promoted = here.promote()
    assert promoted.code == 0, promoted.err


def test_a_deadline_leaves_a_night_incomplete_with_what_it_has(fork: Callable[[str], Fork]) -> None:
    here = fork("here")
    (here.place.root / GUARDS / "test_a_waits.py").write_text(WAITS)
    before = here.refs()
    late = here.part("one", "--deadline-min", "1", "--pack", here.pack("night"))
    assert late.code == 6, late.err
    assert late.json["headline"] == "INCOMPLETE"
    assert "the night's deadline" in late.err
    assert any(note.startswith("the night's deadline of 1 min was over") for note in late.json["notes"])
    assert here.refs() == before
    assert json.loads(members(here.pack("night"))["report.json"]) == late.json


def test_a_part_that_fails_packs_its_report_and_the_next_says_the_same(fork: Callable[[str], Fork]) -> None:
    here = fork("here")
    shutil.rmtree(here.remote)
    red = here.part("compose", "--until", "merge", "--pack", here.pack("night"))
    assert (red.code, red.json["exit_code"]) == (8, 8), red.err
    later = here.part("test", "--unpack", here.pack("night"), "--until", "test", "--pack", here.pack("tests"))
    assert (later.code, later.json, later.err.strip()) == (8, red.json, f"patchstack: {red.json['failure']}")
    assert members(here.pack("tests")) == members(here.pack("night"))


def test_a_bed_is_made_beforehand_and_no_remote_is_asked(published: Place) -> None:
    done = published.run("--local", "--remote", "/nonexistent.git", "--state", ".patchstack-bed", "bed", "--json")
    assert done.code == 0, done.err
    assert (done.json["lane"], done.json["base"]) == ("production", "sglang==0.5.12.post1")
    assert Path(done.json["python"]).exists()
    assert "0.5.12.post1" in done.json["releases"]
    plain = published.run("--local", "--state", ".patchstack-bed", "bed")
    assert done.json["python"] in plain.out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--tests", "t.tar"), "--tests is for the part that promotes"),
        (("--lanes", "answered"), "--lanes and --rehearsed are for the part that promotes"),
        (("--unpack", "n.tar", "--rehearsed"), "--lanes and --rehearsed are for the part that promotes"),
        (("--unpack", "n.tar", "--tests", "t.tar", "--until", "test"), "--tests is for the part that promotes"),
        (("--unpack", "n.tar", "--until", "merge"), "is merged already"),
        (("--unpack", "n.tar", "--force"), "--force belongs to the part that plans"),
        (("--unpack", "n.tar", "--pack", "./n.tar"), "name the same file"),
        (("--pack", "n.tar", "--dry-run"), "--dry-run decides a whole night"),
        (("--unpack", "n.tar"), "there is no pack n.tar"),
        (("--pack", "nowhere/n.tar"), "--pack nowhere/n.tar: its folder is not there"),
        (("--until", "report"), "'report' is not one of"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(published: Place, argv: tuple[str, ...], said: str) -> None:
    done = published.run("--local", "--state", ".patchstack-other", "nightly", *argv)
    assert (done.code, said in done.err) == (2, True), done.err
    assert not (published.root / ".patchstack-other" / "runs").exists()
