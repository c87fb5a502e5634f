"""The state folder: files whole or absent, values that come back equal, runs found again."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from patchstack.errors import NightRunning, UsageError
from patchstack.lock import night_lock
from patchstack.model import Base, Fingerprint, Kind, LeftOut, MergePlan, Native, Outcome, Reason, Sha, Topic
from patchstack.store import STAGE_FILES, State, decode, encode, write_whole

BASE = Base("sglang==1.0", "1.0", Sha("a" * 40), Sha("b" * 40), (Native("3.11", "linux_x86_64", "x.whl", "c" * 64),))
TOPIC = Topic(
    "#4",
    Kind.PULL,
    "title é\udcff",
    "A <a@example.com>",
    Sha("1" * 40),
    Sha("2" * 40),
    Sha("3" * 40),
    Sha("4" * 40),
    "5",
    ("a",),
)
LEFT = LeftOut("#5", Kind.PULL, "t", "a", None, Outcome.DROPPED, Reason.SAME_HEAD, "d", ("#4",), ("f",))
PLAN = MergePlan("production", BASE, (TOPIC,), (LEFT,), Fingerprint("f", (("lane", "production"),)))


def test_a_value_comes_back_equal_and_equal_values_give_equal_bytes() -> None:
    assert decode(MergePlan, encode(PLAN), "here") == PLAN
    assert encode(PLAN) == encode(decode(MergePlan, encode(PLAN), "here"))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema_version": 2, "type": "Base"}', encode(BASE)])
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="here: not a MergePlan of this version"):
        decode(MergePlan, text, "here")


def test_runs_are_named_by_time_and_the_newest_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path)
    assert state.latest_run() is None
    monkeypatch.setenv("PATCHSTACK_NOW", "2026-11-21T02:00:00+00:00")
    runs = [state.new_run() for _ in range(11)]
    assert [run.id for run in runs[:2]] == ["20261121T020000Z", "20261121T020000Z-2"]
    assert state.latest_run() == runs[10]
    runs[1].write(PLAN)
    assert state.latest_run(having=MergePlan) == runs[1]
    assert runs[1].read(MergePlan) == PLAN
    with pytest.raises(UsageError, match=r"has no plan.json"):
        runs[0].read(MergePlan)
    for name in ("nothing", "..", "", "../runs", "a/b"):
        with pytest.raises(UsageError, match="no run"):
            state.run(name)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_one_night_at_a_time_and_the_lock_of_a_dead_holder_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "state" / "lock"
    with night_lock(lock):
        with pytest.raises(NightRunning, match=f"process {os.getpid()}"), night_lock(lock):
            raise AssertionError("two hold it")
        assert NightRunning.exit_code == 10
    child = os.fork()
    if child == 0:
        descriptor = os.open(lock, os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os._exit(0)
    os.waitpid(child, 0)
    with night_lock(lock):
        assert lock.read_text().strip() == str(os.getpid())


def test_every_stage_has_a_file_of_its_own() -> None:
    assert len(set(STAGE_FILES.values())) == len(STAGE_FILES)
