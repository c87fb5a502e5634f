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
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.e2e.kill_bench import LATER, TONIGHT, Driver, Scene, make_scenes

A_FEW = 12
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def scenes(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, ...]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield tuple(make_scenes(tmp_path_factory.mktemp("scenes"), monkeypatch))


@pytest.fixture(autouse=True)
def cache(scenes: tuple[Scene, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The release of two files, and not this machine's own cache."""
    monkeypatch.setenv("PATCHSTACK_CACHE", str(scenes[0].root.parent / "cache"))


@pytest.fixture(scope="module")
def driver(sealed_module: Path, scenes: tuple[Scene, ...]) -> Iterator[Driver]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PATCHSTACK_CACHE", str(scenes[0].root.parent / "cache"))
        with Driver() as driver:
            yield driver


@dataclass(frozen=True)
class Kill:
    scene: int
    number: int
    who: str
    moment: str

    def __str__(self) -> str:
        return f"scene {self.scene}, {self.who} at {self.moment}"


def chosen(kills: list[Kill], capsys: pytest.CaptureFixture[str]) -> list[Kill]:
    """As many as `KILLS` says, spread over all moments; which ones is said."""
    wanted = int(os.environ.get("KILLS") or A_FEW)
    seed = int(os.environ.get("KILL_SEED") or datetime.now(UTC).toordinal())
    picked = kills if wanted >= len(kills) else [kills[at] for at in _spread(len(kills), wanted, seed)]
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
