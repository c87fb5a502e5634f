"""Nights are killed at every moment, alone and with all that they started: the remote is whole, the next one ends it.

`KILLS` says how many; without it, a few, which differ from day to day and are printed with their seed.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.e2e.kill_bench import LATER, TONIGHT, Driver, Scene, scenes_in

from patchstack.git import Repository

A_FEW = 12
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def scenes(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, ...]]:
    with scenes_in(tmp_path_factory.mktemp("scenes")) as scenes:
        yield scenes


@pytest.fixture(scope="module")
def driver(scenes: tuple[Scene, ...]) -> Iterator[Driver]:
    with Driver() as driver:
        yield driver


@pytest.fixture(autouse=True)
def cache(scenes: tuple[Scene, ...], sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the checks in this process see is what the nights do."""
    monkeypatch.setenv("PATCHSTACK_CACHE", str(scenes[0].root.parent / "cache"))


@dataclass(frozen=True)
class Kill:
    scene: int
    number: int
    who: str
    moment: str

    def __str__(self) -> str:
        return f"scene {self.scene}, {self.who} at {self.moment}"


def wanted_kills() -> tuple[int, int]:
    """How many, and the seed that chooses them."""
    return int(os.environ.get("KILLS") or A_FEW), int(os.environ.get("KILL_SEED") or datetime.now(UTC).toordinal())


def chosen(kills: list[Kill], capsys: pytest.CaptureFixture[str]) -> list[Kill]:
    """As many as `KILLS` says, spread over all moments; which ones is said."""
    wanted, seed = wanted_kills()
    picked = kills if wanted >= len(kills) else [kills[at] for at in _spread(len(kills), wanted, seed)]
    # The pushes that their starter does not live to see matter most: of what is promoted, and of history.
    always = [kill for kill in kills if kill.scene == 1 and kill.moment.startswith("after starting git push")]
    assert [kill.who for kill in always] == ["process", "group"] * 2
    picked = [*always, *(kill for kill in picked if kill not in always)]
    with capsys.disabled():
        sys.stdout.write(f"\n{len(picked)} of {len(kills)} kills, seed {seed} (KILLS and KILL_SEED choose others)\n")
    return picked


def _spread(many: int, few: int, seed: int) -> list[int]:
    """One of each ``few`` equal stretches of ``many``."""
    dice = random.Random(seed)
    edges = [many * at // few for at in range(few + 1)]
    return [dice.randrange(begin, end) for begin, end in itertools.pairwise(edges)]


def test_a_night_that_is_killed_at_any_moment_is_finished_by_the_next(
    scenes: tuple[Scene, ...], driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kills = []
    for at, scene in enumerate(scenes):
        rehearsal = scene.copied(tmp_path / f"rehearsal-{at}").night(driver, TONIGHT)
        assert (rehearsal.code, rehearsal.json["promotion"] is None) == (0, False), rehearsal.err
        for number, moment in enumerate(rehearsal.moments):
            kills += [Kill(at, number, who, moment) for who in ("process", "group")]
    for kill in chosen(kills, capsys):
        folder = tmp_path / "killed"
        scene = scenes[kill.scene].copied(folder / "fork")
        before = scene.read(folder / "before.git")
        killed = scene.night(driver, TONIGHT, number=kill.number, who=kill.who)
        assert killed.code == KILLED, f"{kill}: it ended with {killed.code}: {killed.err}"
        try:
            scene.require_old_or_new(before, folder / "then.git")
            done = scene.night(driver, LATER)
            assert done.code == 0, done.err
            scene.require_complete(folder / "after.git", done)
        except AssertionError as error:
            raise AssertionError(f"{kill}:\n{error}\n{killed.err}") from error
        shutil.rmtree(folder)


def test_a_night_that_is_killed_at_any_time_is_finished_by_the_next(
    scenes: tuple[Scene, ...], driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also between two moments: within what git does, and within a write."""
    wanted, seed = wanted_kills()
    dice = random.Random(seed)
    began_s = time.monotonic()
    assert scenes[1].copied(tmp_path / "rehearsal").night(driver, TONIGHT).code == 0
    takes_s = time.monotonic() - began_s
    kills = [(dice.uniform(0, takes_s), dice.random() < 0.5) for _ in range(max(2, wanted // 8))]
    with capsys.disabled():
        sys.stdout.write(f"\n{len(kills)} kills at random in {takes_s:.1f} s, seed {seed}\n")
    for after_s, group in kills:
        folder = tmp_path / "killed"
        scene = scenes[1].copied(folder / "fork")
        before = scene.read(folder / "before.git")
        begun = scene.begin(driver, TONIGHT)
        begun.kill_after(after_s, group=group)
        killed = begun.end()
        assert killed.code in (KILLED, 0), killed.err  # the machine may have been quicker this time
        try:
            scene.require_old_or_new(before, folder / "then.git")
            done = scene.night(driver, LATER)
            assert done.code == 0, done.err
            scene.require_complete(folder / "after.git", done)
        except AssertionError as error:
            raise AssertionError(
                f"seed {seed}, after {after_s:.3f} s, group {group}:\n{error}\n{killed.err}"
            ) from error
        shutil.rmtree(folder)


SERVER_DIES = {
    "before it takes anything": ("pre-receive", ""),
    "between two refs that it may move": ("update", '[ "$1" = refs/heads/deploy ] || exit 0'),
    "with every ref locked": ("reference-transaction", '[ "$1" = prepared ] || exit 0'),
    "with every ref moved": ("reference-transaction", '[ "$1" = committed ] || exit 0'),
    "before it says so": ("post-receive", ""),
}


@pytest.mark.parametrize("when", SERVER_DIES)
def test_a_server_that_is_killed_is_found_out_about_at_once(
    scenes: tuple[Scene, ...], driver: Driver, tmp_path: Path, when: str
) -> None:
    name, condition = SERVER_DIES[when]
    scene = scenes[1].copied(tmp_path / "fork")
    before = scene.read(tmp_path / "before.git")
    hook = scene.hook(name, f"{condition}\nkill -9 $PPID")

    done = scene.night(driver, TONIGHT)

    hook.unlink()
    moved = scene.require_old_or_new(before, tmp_path / "then.git").deploy != before.deploy
    assert moved is (when in {"with every ref moved", "before it says so"})
    if moved:
        assert done.code == 0, done.err
        assert any("arrived all the same" in note for note in done.json["notes"])
        assert done.json["promotion"]["commit"] == scene.read(tmp_path / "moved.git").deploy.commit  # type: ignore[union-attr]
    else:
        assert done.code == 8, done.err
        assert "nothing was moved: run again" in done.err
    again = scene.night(driver, LATER)
    assert again.code == 0, again.err
    assert any("left by a git that was killed" in note for note in again.json["notes"]) is (
        when in {"with every ref locked", "before it takes anything"}
    )
    scene.require_complete(tmp_path / "after.git", again)


def test_a_server_that_is_killed_while_it_moves_refs_is_mended(
    scenes: tuple[Scene, ...], driver: Driver, tmp_path: Path
) -> None:
    """The killer is as fast as it can be: right after deploy has moved, or a ref or two later. It kills once."""
    scene = scenes[1].copied(tmp_path / "fork")
    before = scene.read(tmp_path / "before.git")
    lock = "refs/heads/deploy.lock"
    loop = f"n=0; while [ -e {lock} ] && [ $n -lt 1000000 ]; do n=$((n + 1)); done; kill -9 $PPID"
    once = '[ "$1" = prepared ] && mkdir killed-once 2>/dev/null || exit 0'
    hook = scene.hook("reference-transaction", f"{once}\n({loop}) </dev/null >/dev/null 2>&1 &")

    done = scene.night(driver, TONIGHT)

    hook.unlink()
    assert done.code == 0, done.err
    assert scene.require_old_or_new(before, tmp_path / "then.git").deploy != before.deploy
    assert scene.night(driver, LATER, "promote", "--json").code == 0
    scene.require_complete_remote(tmp_path / "promoted.git")
    again = scene.night(driver, LATER)
    assert again.code == 0, again.err
    scene.require_complete(tmp_path / "after.git", again)


@pytest.mark.parametrize("lost", ["stack", "tag", "stack and tag"])
def test_a_night_that_was_killed_within_its_push_is_finished(
    scenes: tuple[Scene, ...], driver: Driver, tmp_path: Path, lost: str
) -> None:
    """As a server that was killed between two refs leaves it: deploy has moved and others not, and are locked."""
    scene = scenes[1].copied(tmp_path / "fork")
    before = Repository(scene.remote).refs()
    number = len(scenes[1].copied(tmp_path / "rehearsal").night(driver, TONIGHT).moments) - 1
    killed = scene.night(driver, TONIGHT, number=number)
    assert killed.code == KILLED
    now = scene.read(tmp_path / "then.git")
    run = scene.state.run(now.history.entries[0].line.night)
    for name in ("report.json", "report.md", "promotion.json"):
        (run.folder / name).unlink(missing_ok=True)
    refs = []
    if "stack" in lost:
        refs.append("refs/heads/stack/production")
    if "tag" in lost:
        refs.append(f"refs/tags/{now.history.entries[0].line.tag}")
    Repository(scene.remote).set_refs({ref: before.get(ref) for ref in refs})
    for ref in refs:
        (scene.remote / f"{ref}.lock").touch()
    (scene.remote / "objects" / "tmp_objdir-incoming-1").mkdir()

    again = scene.night(driver, LATER)

    assert (again.code, again.json["nothing_to_do"]) == (0, True), again.err
    notes = "\n".join(again.json["notes"])
    assert "was killed" in notes
    assert (
        f"removed from remote.git, left by a git that was killed: objects/tmp_objdir-incoming-1, {refs[0]}.lock"
        in notes
    )
    assert f"run {run.id} was promoted, and that was not written down here: it is now" in notes
    scene.require_complete(tmp_path / "after.git", again)
