"""Packs: a run comes back as it was on an empty machine, and whatever is no pack makes nothing."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from patchstack.bundle import read_bundle_header
from patchstack.errors import UsageError
from patchstack.git import EMPTY_TREE, Repository
from patchstack.model import (
    Base,
    Composition,
    Fingerprint,
    GuardReport,
    Kind,
    Mutant,
    NightReport,
    Sha,
    Status,
    Topic,
)
from patchstack.pack import BUNDLE, MOST_BYTES, REPORT_TEXT, commits_of, keep_run, read_value, unpacked, write_pack
from patchstack.store import STAGE_FILES, Run, State, encode

LANE = "production"
NIGHT = "20261121T020000Z"


def report_of(night: str = NIGHT, lane: str = LANE) -> NightReport:
    return NightReport(
        night=night,
        at="2026-11-21T02:00:00+00:00",
        lane=lane,
        remote="r",
        headline=Status.INCOMPLETE,
        nothing_to_do=False,
        composition=None,
        tests=None,
        verdicts=(),
        promotion=None,
        previous=None,
        range_diffs=(),
        timings=(),
        notes=(),
    )


@dataclass
class Machine:
    """A state folder with a store."""

    folder: Path

    def __post_init__(self) -> None:
        self.state = State(self.folder)
        self.store = Repository.init(self.state.store_git)

    def commit(self, text: str, *parents: Sha) -> Sha:
        tree = self.store.edit_tree(EMPTY_TREE, [("100644", self.store.write_blob(text.encode()), "a.py")])
        return self.store.commit(tree, parents, f"{text}\n")

    def compose(self) -> Composition:
        base, tree = self.commit("base"), self.store.tree_of
        topic = self.commit("fix", base)
        mutant = self.commit("mutant", topic)
        octopus = self.commit("fix", base, topic)
        mutants = (Mutant("m", mutant, tree(mutant)), Mutant("n", None, None, ("x",)))
        patch = Topic("fix", Kind.PATCH, "t", "a", topic, topic, base, topic, "i", ("a.py",), mutants=mutants)
        release = Base("sglang==1.0", "1.0", base, tree(base))
        return Composition(LANE, release, octopus, tree(octopus), (patch,), (), Fingerprint("f", ()))

    def night(self) -> Run:
        run = Run(self.state.runs / NIGHT)
        run.write(report_of())
        run.write(self.compose())
        (run.folder / REPORT_TEXT).write_text("# Night\n")
        (run.folder / "traceback.txt").write_text("not for others\n")
        return run

    def unpack(self, pack: Path) -> Run:
        with unpacked(pack, self.state, self.store, LANE) as fresh:
            return keep_run(fresh, self.state)

    def files(self) -> list[str]:
        """All that is in the state folder besides the store."""
        found = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return sorted(path for path in found if not path.startswith("store.git/"))


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    return Machine(tmp_path / 'a: "place"\\ of\nthis kind')


@pytest.fixture
def there(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "there")


@pytest.fixture
def pack(here: Machine, tmp_path: Path) -> Path:
    write_pack(here.night(), here.state, here.store, tmp_path / "night.tar")
    return tmp_path / "night.tar"


def members(pack: Path) -> dict[str, bytes]:
    with tarfile.open(pack) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_a_run_comes_back_on_an_empty_machine_with_all_that_it_needs(here: Machine, there: Machine, pack: Path) -> None:
    run = there.unpack(pack)
    assert there.files() == [f"runs/{NIGHT}/{name}" for name in ("composition.json", "report.json", "report.md")]
    composition = run.read(Composition)
    assert composition == Run(here.state.runs / NIGHT).read(Composition)
    mutant = composition.included[0].mutants[0].commit
    assert mutant is not None
    for commit in (composition.commit, composition.base.commit, mutant):
        assert there.store.run("rev-list", "--objects", commit) == here.store.run("rev-list", "--objects", commit)
    assert there.store.refs() == {}
    assert read_value(pack, Composition) == composition


def test_equal_runs_give_equal_bytes_and_any_tar_reads_them(here: Machine, tmp_path: Path, pack: Path) -> None:
    write_pack(Run(here.state.runs / NIGHT), here.state, here.store, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == pack.read_bytes()
    listed = subprocess.run(["tar", "-tf", str(pack)], capture_output=True, text=True, check=True).stdout.split()
    assert listed == sorted(["composition.json", BUNDLE, "report.json", "report.md"])
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["again.tar", "night.tar"]
    assert set(MOST_BYTES) == {*STAGE_FILES.values(), REPORT_TEXT, BUNDLE}


def test_a_night_that_composed_nothing_has_no_bundle(here: Machine, there: Machine, tmp_path: Path) -> None:
    run = Run(here.state.runs / NIGHT)
    run.write(report_of())
    write_pack(run, here.state, here.store, tmp_path / "night.tar")
    assert list(members(tmp_path / "night.tar")) == ["report.json"]
    assert there.unpack(tmp_path / "night.tar").read(NightReport) == report_of()
    with pytest.raises(UsageError, match=r"has no tests.json: it was packed before that stage"):
        read_value(tmp_path / "night.tar", GuardReport)


def test_the_same_night_is_known_again_and_another_of_its_name_is_refused(
    here: Machine, there: Machine, pack: Path
) -> None:
    run = there.unpack(pack)
    (run.folder / "report.json").write_text("newer")
    (run.folder / "tests.json").write_text("more")
    assert there.unpack(pack) == run
    assert (run.folder / "report.json").read_text() == "newer"
    (run.folder / "composition.json").write_text("{}")
    before = there.files()
    with pytest.raises(UsageError, match=f"run {NIGHT} is in .* already, with another composition.json; move that"):
        there.unpack(pack)
    assert (there.files(), (run.folder / "composition.json").read_text()) == (before, "{}")


# --- what is no pack ---


def tar(held: dict[str, bytes]) -> bytes:
    """A tar that Python's own writer makes as `--pack` would, of any members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name, data in sorted(held.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_a_tar_of_the_same_files_is_the_same_pack(pack: Path) -> None:
    """So that what the others below change is all that is wrong with them."""
    assert tar(members(pack)) == pack.read_bytes()


def with_member(
    kind: bytes, name: str = "plan.json", link: str = "", size: int = 0
) -> Callable[[dict[str, bytes]], bytes]:
    def make(held: dict[str, bytes]) -> bytes:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, link, size
        return member.tobuf(tarfile.USTAR_FORMAT) + tar(held)

    return make


def changed(**more: bytes | None) -> Callable[[dict[str, bytes]], bytes]:
    """The pack with files of the run, by their names without the ending, set or taken away."""

    def make(held: dict[str, bytes]) -> bytes:
        new = {f"{name}.json": data for name, data in more.items()}
        return tar({name: data for name, data in {**held, **new}.items() if data is not None})

    return make


def twice(held: dict[str, bytes]) -> bytes:
    whole, first = tar(held), 512 + -(-len(held["composition.json"]) // 512) * 512
    return whole[:first] + whole


def reordered(held: dict[str, bytes]) -> bytes:
    parts = {}
    for name, data in held.items():
        size = 512 + -(-len(data) // 512) * 512
        parts[name] = tar({name: data})[:size]
    body = b"".join(parts[name] for name in sorted(parts, reverse=True))
    return body + bytes(1024 + -(len(body) + 1024) % tarfile.RECORDSIZE)


def other_owner(held: dict[str, bytes]) -> bytes:
    member = tarfile.TarInfo("base.json")
    member.uid = 7
    return member.tobuf(tarfile.USTAR_FORMAT) + tar(held)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda held: tar({**held, "evil.json": b"{}"}), "holds 'evil.json', which is no file of a pack"),
        (lambda held: tar({**held, "../report.json": b"{}"}), "which is no file of a pack"),
        (lambda held: tar({**held, "/etc/passwd": b"{}"}), "which is no file of a pack"),
        (lambda held: tar({**held, "./plan.json": b"{}"}), "which is no file of a pack"),
        (lambda held: tar({**held, "runs/plan.json": b"{}"}), "which is no file of a pack"),
        (lambda held: tar({**held, "traceback.txt": b"{}"}), "which is no file of a pack"),
        (with_member(tarfile.SYMTYPE, link="/etc/passwd"), "plan.json as something else than a file"),
        (with_member(tarfile.LNKTYPE, link="report.json"), "plan.json as something else than a file"),
        (with_member(tarfile.DIRTYPE), "plan.json"),
        (with_member(tarfile.CHRTYPE), "plan.json as something else than a file"),
        (with_member(tarfile.XHDTYPE, "pax"), "which is no file of a pack"),
        (with_member(tarfile.XHDTYPE), "plan.json as something else than a file"),
        (with_member(tarfile.REGTYPE, size=(64 << 20) + 1), "plan.json has 67108865 bytes; a pack's has at most"),
        (twice, "holds composition.json twice"),
        (reordered, "was not written by `--pack`"),
        (other_owner, "was not written by `--pack`"),
        (changed(report=None), "has no report"),
        (changed(composition=None), f"one of composition.json and {BUNDLE} without the other"),
        (lambda held: tar({n: d for n, d in held.items() if n != BUNDLE}), "without the other"),
        (changed(report=b"{}"), "report.json: not a NightReport of this version"),
        (changed(plan=b"\xff"), "plan.json: it is not text"),
        (changed(tests=b'{"schema_version": 99, "type": "GuardReport"}'), "tests.json: not a GuardReport of this"),
        (
            changed(report=encode(report_of(lane="edge")).encode()),
            "is of lane edge, not of production: use --lane edge",
        ),
        (changed(report=encode(report_of("../../x")).encode()), r"calls its night '../../x', which is no run's name"),
        (changed(report=encode(report_of("20261121T020000Z\n")).encode()), "which is no run's name"),
        (lambda held: tar(held)[:-1024], "behind its end"),
        (lambda held: tar(held) + b"more", "has something behind its end"),
        (lambda held: tar(held)[: len(tar(held)) - tarfile.RECORDSIZE], "cut"),
        (lambda held: tar(held)[:700], "ends early"),
        (lambda held: tar(held)[:300], "ends early"),
        (lambda held: b"", "ends early: it was cut, or is no pack"),
        (lambda held: b"PK\3\4" * 500, "is no pack"),
        (lambda held: bytes(512) + tar(held), "has something behind its end"),
    ],
)
def test_what_is_no_pack_is_refused_and_makes_nothing(
    there: Machine, pack: Path, make: Callable[[dict[str, bytes]], bytes], said: str
) -> None:
    pack.write_bytes(make(members(pack)))
    with pytest.raises(UsageError, match=said):
        there.unpack(pack)
    assert there.files() == []
    assert there.store.refs() == {}


def test_another_lane_s_composition_is_refused(here: Machine, there: Machine, pack: Path) -> None:
    held = members(pack)
    composition = replace(Run(here.state.runs / NIGHT).read(Composition), lane="edge")
    pack.write_bytes(tar({**held, "composition.json": encode(composition).encode()}))
    with pytest.raises(UsageError, match="is of lane edge, not of production"):
        there.unpack(pack)


def test_a_pack_that_is_not_there_or_a_folder_is_named(there: Machine, tmp_path: Path) -> None:
    for place in (tmp_path / "nothing.tar", tmp_path):
        with pytest.raises(UsageError, match="name the file that --pack wrote"):
            there.unpack(place)


# --- bundles ---


def test_a_bundle_holds_what_the_composition_names_and_nothing_else(
    here: Machine, there: Machine, tmp_path: Path, pack: Path
) -> None:
    run = Run(here.state.runs / NIGHT)
    composition = run.read(Composition)
    right = commits_of(composition)
    assert sorted(right) == ["refs/patchstack/pack/composition", "refs/patchstack/pack/mutants/fix/m"]
    file = tmp_path / BUNDLE
    file.write_bytes(members(pack)[BUNDLE])
    assert read_bundle_header(file).refs == right
    other = here.commit("other")
    for wrong in (
        {**right, "refs/heads/main": composition.commit},
        {**right, "refs/patchstack/pack/composition": other},
        {"refs/patchstack/pack/composition": composition.commit},
        {},
    ):
        with pytest.raises(UsageError, match=f"{BUNDLE} does not hold the commits that are named beside it"):
            there.store.fetch_bundle(file, wrong)
    assert not there.store.has(composition.commit)
    there.store.fetch_bundle(file, right)
    assert there.store.has(composition.commit)


def test_a_bundle_makes_no_ref_whatever_its_commits_are_called(here: Machine, there: Machine, tmp_path: Path) -> None:
    composition = here.compose()
    base, (patch,) = composition.base.commit, composition.included
    evil = replace(patch.mutants[0], name=f"m:refs/replace/{base}")
    refs = commits_of(replace(composition, included=(replace(patch, mutants=(*patch.mutants, evil)),)))
    (odd,) = (name for name in refs if ":" in name)
    file = tmp_path / BUNDLE
    here.store.write_bundle(file, {name: sha for name, sha in refs.items() if name != odd})
    header, _, objects = file.read_bytes().partition(b"\n\n")
    file.write_bytes(header + f"\n{refs[odd]} {odd}\n\n".encode() + objects)
    assert read_bundle_header(file).refs == refs

    with pytest.raises(UsageError, match=r"objects.bundle names a commit 'refs/patchstack/pack/mutants/fix/m:refs/"):
        there.store.fetch_bundle(file, refs)

    assert there.store.refs() == {}


def test_nothing_stands_in_the_place_of_an_object_that_was_named(here: Machine) -> None:
    composition = here.compose()
    base = composition.base.commit
    here.store.set_refs({f"refs/replace/{base}": composition.commit})
    assert here.store.show(base, "%s") == "base"


def bundle(machine: Machine, file: Path, *revisions: str) -> bytes:
    """A bundle as git makes it, of refs of the store."""
    machine.store.run("bundle", "create", "--quiet", str(file), *revisions)
    return file.read_bytes()


def test_a_bundle_that_builds_on_what_it_does_not_hold_is_refused(
    here: Machine, there: Machine, tmp_path: Path
) -> None:
    composition = here.compose()
    ref = "refs/patchstack/pack/composition"
    here.store.set_refs({ref: composition.commit})
    thin = tmp_path / "thin.bundle"
    bundle(here, thin, ref, f"^{composition.base.commit}")
    assert read_bundle_header(thin).prerequisites == (composition.base.commit,)
    for machine in (there, here):  # also where what it builds on is at hand
        with pytest.raises(UsageError, match=f"thin.bundle builds on {composition.base.commit}, which is not in it"):
            machine.store.fetch_bundle(thin, {ref: composition.commit})


@pytest.mark.parametrize("begin", [b"", b"# v3 git bundle\n@filter=blob:none\n\n", b"# v2 git bundle\nHEAD\n\n"])
def test_what_is_no_bundle_of_ours_is_refused(there: Machine, tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "x.bundle").write_bytes(begin + b"PACK")
    with pytest.raises(UsageError, match=r"x.bundle is no git bundle of version 2"):
        there.store.fetch_bundle(tmp_path / "x.bundle", {})


@pytest.mark.parametrize("cut", [1, 25, 60])
def test_a_damaged_bundle_is_refused(here: Machine, there: Machine, pack: Path, cut: int) -> None:
    held = members(pack)
    pack.write_bytes(tar({**held, BUNDLE: held[BUNDLE][:-cut]}))
    with pytest.raises(UsageError, match=f"{BUNDLE} is damaged"):
        there.unpack(pack)
    assert there.files() == []


def test_a_bundle_that_lacks_a_file_of_a_tree_is_refused(here: Machine, there: Machine, tmp_path: Path) -> None:
    lost = here.store.write_blob(b"lost\n")
    tree = here.store.edit_tree(EMPTY_TREE, [("100644", lost, "lost")])
    commit = here.store.commit(tree, (), "x\n")
    pack = here.store.attempt_ok("pack-objects", "--stdout", stdin=f"{commit}\n{tree}\n".encode()).stdout
    file = tmp_path / "x.bundle"
    file.write_bytes(f"# v2 git bundle\n{commit} refs/x\n\n".encode() + pack)
    with pytest.raises(UsageError, match=r"x.bundle is damaged"):
        there.store.fetch_bundle(file, {"refs/x": commit})


# --- kill -9 ---

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.unit.frame.test_pack import NIGHT, Machine
from patchstack import pack
from patchstack.git import Repository
from patchstack.store import Run

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

machine = Machine(Path({folder!r}))
{where} = die
{then}
"""
UNPACK, PACK = "machine.unpack(Path({file!r}))", "pack.write_pack({run}, machine.state, machine.store, Path({file!r}))"
"""What is begun, and ended by the kernel where ``where`` stands."""


def killed(where: str, folder: Path, then: str, file: Path) -> None:
    begun = then.format(file=str(file), run="Run(machine.state.runs / NIGHT)")
    code = KILLED.format(root=str(Path(__file__).parents[3]), folder=str(folder), where=where, then=begun)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("where", ["pack._decoded", "Repository.fetch_bundle", "pack.commits_of", "pack._copy"])
def test_an_unpack_that_is_killed_leaves_no_run_and_the_next_one_sweeps(there: Machine, pack: Path, where: str) -> None:
    killed(where, there.folder, UNPACK, pack)
    assert there.state.all_runs() == ()
    assert there.store.refs() == {}
    assert there.unpack(pack).id == NIGHT
    assert there.files() == [f"runs/{NIGHT}/{name}" for name in ("composition.json", "report.json", "report.md")]


@pytest.mark.parametrize("where", ["Repository.write_bundle", "pack._write_tar", "pack._end", "Path.replace"])
def test_a_pack_that_is_killed_leaves_what_was_there_and_the_next_one_sweeps(
    here: Machine, pack: Path, where: str
) -> None:
    before = pack.read_bytes()
    killed(where, here.folder, PACK, pack)
    assert pack.read_bytes() == before
    write_pack(Run(here.state.runs / NIGHT), here.state, here.store, pack)
    assert pack.read_bytes() == before
    assert sorted(path.name for path in pack.parent.iterdir() if path.is_file()) == ["night.tar"]
    assert [path.name for path in here.folder.iterdir() if path.name.startswith(".")] == []


def test_a_pack_that_fails_leaves_what_was_there(here: Machine, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pack.read_bytes()
    monkeypatch.setattr("patchstack.pack._end", lambda size: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_pack(Run(here.state.runs / NIGHT), here.state, here.store, pack)
    assert pack.read_bytes() == before
    assert sorted(path.name for path in pack.parent.iterdir() if path.is_file()) == ["night.tar"]
