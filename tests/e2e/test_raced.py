"""Two nights at once, a remote that refuses or is gone, a full disk: one clear error, and the next night ends it."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.kill_bench import LATER, TONIGHT, Driver, Scene, scenes_in

from patchstack.git import Repository

MORNING = "2026-11-21T10:00:00+00:00"


@pytest.fixture(scope="module")
def scene_of_all(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scenes_in(tmp_path_factory.mktemp("scenes")) as scenes:
        yield scenes[1]


@pytest.fixture
def scene(scene_of_all: Scene, sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("PATCHSTACK_CACHE", str(scene_of_all.root.parent / "cache"))
    return scene_of_all.copied(tmp_path / "fork")


@pytest.fixture(scope="module")
def driver(scene_of_all: Scene) -> Iterator[Driver]:
    with Driver() as driver:
        yield driver


class Gate:
    """The first push waits in the remote until the gate is opened."""

    def __init__(self, scene: Scene) -> None:
        self.arrived, self.opened = scene.root / "arrived", scene.root / "opened"
        for fifo in (self.arrived, self.opened):
            os.mkfifo(fifo)
        once = scene.root / "once"
        self.hook = scene.hook(
            "pre-receive", f"mkdir '{once}' || exit 0\necho here >'{self.arrived}'\ncat '{self.opened}'"
        )

    def wait(self) -> None:
        """Until the first push is there."""
        descriptor = os.open(self.arrived, os.O_RDWR)
        ready, _, _ = select.select([descriptor], [], [], 300)
        os.close(descriptor)
        assert ready, "no push came"

    def open(self) -> None:
        with self.opened.open("w") as stream:
            stream.write("go\n")


def test_the_second_night_on_one_machine_ends_at_once(scene: Scene, driver: Driver, tmp_path: Path) -> None:
    gate = Gate(scene)
    first = scene.begin(driver, TONIGHT)
    gate.wait()
    with Driver() as other:
        second = scene.night(other, TONIGHT)
    assert (second.code, f"another patchstack (process {first.pid}) works on" in second.err) == (10, True), second.err
    gate.open()
    done = first.end()
    assert done.code == 0, done.err
    scene.require_complete(tmp_path / "after.git", done)


def test_of_two_machines_one_wins_and_the_other_s_next_night_is_whole(
    scene: Scene, driver: Driver, tmp_path: Path
) -> None:
    """Both composed and tested the same; the remote is nobody's own."""
    there = Scene(scene.root.with_name("there"), scene.nights)
    shutil.copytree(scene.root, there.root, ignore=shutil.ignore_patterns("remote.git"))
    gate = Gate(scene)
    before = scene.read(tmp_path / "before.git")
    named = ("--remote", str(scene.remote), "nightly", "--json")
    slow = scene.begin(driver, TONIGHT, *named)
    gate.wait()
    with Driver() as other:
        quick = there.night(other, "2026-11-21T08:00:07+00:00", *named)
    assert quick.code == 0, quick.err
    gate.open()
    lost = slow.end()
    assert (lost.code, "another writer has moved deploy: run again" in lost.err) == (8, True), lost.err
    won = scene.require_old_or_new(before, tmp_path / "then.git")
    assert won.history.entries[0].line.night == quick.json["night"]
    assert won.deploy is not None
    scene.require_complete_remote(tmp_path / "won.git")

    assert scene.night(driver, LATER, *named).code == 0
    now = scene.read(tmp_path / "after.git")
    assert won.deploy.commit in [entry.commit for entry in now.history.entries]
    assert {entry.line.tree for entry in now.history.entries[:-1]} == {won.deploy.tree}
    assert now.history.foreign_on_top == 0


def without_history(scene: Scene) -> dict[str, str]:
    """Every night that has tested goes on with it, promoted or not."""
    refs = Repository(scene.remote).refs()
    return {name: commit for name, commit in refs.items() if not name.startswith("refs/heads/history/")}


REFUSALS = {
    "a hook": ("update", 'case "$1" in refs/heads/deploy) echo branch is protected >&2; exit 1;; esac', "protected"),
    "a hook for tags": ("update", 'case "$1" in refs/tags/*) echo no tags >&2; exit 1;; esac', "no tags"),
    "a hook for all": ("pre-receive", "echo closed for today >&2; exit 1", "closed for today"),
}


@pytest.mark.parametrize("by", REFUSALS)
def test_what_a_remote_refuses_moves_nothing(scene: Scene, driver: Driver, tmp_path: Path, by: str) -> None:
    name, script, said = REFUSALS[by]
    hook, before = scene.hook(name, script), without_history(scene)
    refused = scene.night(driver, TONIGHT)
    assert (refused.code, said in refused.err, "nothing was moved" in refused.err) == (8, True, True), refused.err
    assert without_history(scene) == before
    hook.unlink()
    done = scene.night(driver, LATER)
    assert done.code == 0, done.err
    scene.require_complete(tmp_path / "after.git", done)


def test_a_branch_that_somebody_moved_is_not_pushed_over(scene: Scene, driver: Driver, tmp_path: Path) -> None:
    theirs = Repository(scene.remote).refs()["refs/heads/theirs"]
    hook = scene.hook("pre-receive", f"env -u GIT_QUARANTINE_PATH git update-ref refs/heads/deploy {theirs}")
    refused = scene.night(driver, TONIGHT)
    assert (refused.code, "another writer has moved deploy" in refused.err) == (8, True), refused.err
    assert Repository(scene.remote).refs()["refs/heads/deploy"] == theirs
    hook.unlink()
    assert scene.night(driver, LATER).code == 0


def test_a_remote_that_is_gone_in_the_middle_of_a_night_is_not_made_anew(
    scene: Scene, driver: Driver, tmp_path: Path
) -> None:
    away, named = scene.remote.with_name("away.git"), ("--remote", str(scene.remote), "nightly", "--json")
    hook = scene.hook("pre-receive", f"mv '{scene.remote}' '{away}'; kill -9 $PPID")
    gone = scene.night(driver, TONIGHT, *named)
    assert (gone.code, "whether it arrived is not known" in gone.err) == (8, True), gone.err
    still = scene.night(driver, LATER, *named)
    assert (still.code, "cannot be read" in still.err) == (8, True), still.err
    assert not scene.remote.exists()
    away.rename(scene.remote)
    hook.unlink()
    done = scene.night(driver, MORNING)
    assert done.code == 0, done.err
    scene.require_complete(tmp_path / "after.git", done)


def test_a_lock_on_somebody_else_s_remote_is_left_to_them(scene: Scene, driver: Driver, tmp_path: Path) -> None:
    other = Path(shutil.move(scene.remote, tmp_path / "theirs.git"))
    lock = other / "refs" / "heads" / "deploy.lock"
    lock.touch()
    named = ("--remote", str(other), "nightly", "--json")
    refused = scene.night(driver, TONIGHT, *named)
    assert (refused.code, "whoever runs it removes it" in refused.err) == (8, True), refused.err
    assert lock.exists()
    lock.unlink()
    assert scene.night(driver, LATER, *named).code == 0


# --- a disk that is full, and one that cannot be written ---

FULL = """
set -e
cp -a "$1" "$1.copy"
mount -t tmpfs -o size=48m tmpfs "$1"
cp -a "$1.copy/." "$1/"
cat /dev/zero >"$1/filler" 2>/dev/null || true
[ "$2" = 0 ] || truncate -s "-$2" "$1/filler"
shift 2
exec "$@"
"""
READ_ONLY = 'set -e; mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift 2; exec "$@"'
LIMITED = 'ulimit -f 1; shift 2; exec "$@"'
"""Where there are no mounts: no file may be longer than a block."""


def may_mount() -> bool:
    argv = ("unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt")
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "room", "code"),
    [
        *(("store.git", 0, 11), ("store.git", 16 << 10, 11)),
        *(("remote.git", 0, 8), ("remote.git", 8 << 10, 8)),
        *(("runs", 0, 11), ("runs", 24 << 10, 11)),
    ],
)
def test_a_full_disk_is_said_and_the_next_night_is_whole(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, room: int, code: int
) -> None:
    place, before = scene.root / ".patchstack" / name, scene.read(tmp_path / "before.git")
    if may_mount():
        argv = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", FULL, "-", str(place), str(room))
    else:
        with capsys.disabled():
            os.write(1, b"\nno mount namespace here: files are limited in size, whatever folder they are in\n")
        argv, code = ("bash", "-c", LIMITED, "-", "", ""), 11
    with Driver(*argv) as driver:
        full = scene.night(driver, TONIGHT)
        assert full.code == code, (full.code, full.err)
        said = ("No space left on device", "File too large")
        assert any(words in full.err for words in said), full.err
        assert "Traceback" not in full.err
        inside = Path(f"/proc/{driver.pid}/root{place}") if may_mount() else place
        if may_mount():
            (inside / "filler").unlink()
            done = scene.night(driver, LATER)
            shutil.copytree(inside, tmp_path / "then", symlinks=True)
    if may_mount():
        shutil.rmtree(place)
        (tmp_path / "then").rename(place)
    else:
        with Driver() as driver:
            done = scene.night(driver, LATER)
    assert done.code == 0, done.err
    scene.require_old_or_new(before, tmp_path / "then.git")
    scene.require_complete(tmp_path / "after.git", done)


def test_a_remote_that_cannot_be_written_is_said_and_moves_nothing(
    scene: Scene, driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Repository(scene.remote).refs()
    if may_mount():
        argv = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, "-", str(scene.remote), "")
        with Driver(*argv) as within:
            refused = scene.night(within, TONIGHT)
        assert (refused.code, "its disk is full, or it may not be written" in refused.err) == (8, True), refused.err
    else:
        with capsys.disabled():
            os.write(1, b"\nno mount namespace here: a hook refuses what a disk would\n")
        hook = scene.hook("pre-receive", "exit 1")
        assert scene.night(driver, TONIGHT).code == 8
        hook.unlink()
    assert Repository(scene.remote).refs() == before
    done = scene.night(driver, LATER)
    assert done.code == 0, done.err
    scene.require_complete(tmp_path / "after.git", done)


def test_a_clock_that_jumped_back_is_said_before_anything_is_made(scene: Scene, driver: Driver, tmp_path: Path) -> None:
    assert scene.night(driver, TONIGHT).code == 0
    runs, before = sorted(scene.state.runs.iterdir()), Repository(scene.remote).refs()
    back = scene.night(driver, "2026-11-21T07:00:00+00:00")
    assert (back.code, "20260" in back.err, "this machine's clock says 20261121T070000Z" in back.err) == (
        11,
        False,
        True,
    )
    assert (sorted(scene.state.runs.iterdir()), Repository(scene.remote).refs()) == (runs, before)

    fresh = Scene(scene.root.with_name("there"), scene.nights)
    shutil.copytree(scene.root, fresh.root, ignore=shutil.ignore_patterns("remote.git", "runs"))
    named = ("--remote", str(scene.remote), "nightly", "--json")
    told = fresh.night(driver, "2026-11-21T07:00:00+00:00", *named)
    assert (told.code, "deploy was moved by 20261121T080000Z at 2026-11-21T08:00:00Z" in told.err) == (11, True), (
        told.err
    )
    assert Repository(scene.remote).refs() == before
    # A little is no matter: the ledger goes on from its newest moment.
    Repository(scene.remote).set_refs({"refs/pull/7/head": None})
    near = fresh.night(driver, "2026-11-21T07:57:00+00:00", *named)
    assert near.code == 0, near.err
    assert near.json["promotion"]["line"]["at"] == "2026-11-21T08:00:00Z"
