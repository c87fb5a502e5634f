"""The state folder: files whole or absent, values that come back equal, runs found again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from patchstack.errors import MachineError, NightRunning, UsageError
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


def test_a_run_is_the_newest_also_where_the_clock_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path)

    def at(minute: int) -> str:
        monkeypatch.setenv("PATCHSTACK_NOW", f"2026-11-21T02:{minute:02}:00+00:00")
        return state.new_run().id

    (tmp_path / "runs" / "by-hand").mkdir(parents=True)
    assert [at(9), at(5), at(4), at(10)] == [
        *("20261121T020900Z", "20261121T020900Z-2", "20261121T020900Z-3", "20261121T021000Z")
    ]
    (tmp_path / "runs" / "20261121T020900Z-2").rmdir()
    (tmp_path / "runs" / "20261121T021000Z").rmdir()
    assert at(9) == "20261121T020900Z-4"  # and not the name that is free
    with pytest.raises(MachineError) as error:
        at(3)
    assert str(error.value) == (
        "run 20261121T020900Z-4 is of a time to come, for this machine's clock says 20261121T020300Z: set it right; if "
        f"it is, it was ahead then: move {tmp_path}/runs/20261121T020900Z-4 away"
    )
    assert len(state.all_runs()) == 4


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
        with night_lock(lock):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with night_lock(lock) as killed:
        assert (killed, lock.read_text().strip()) == (str(child), str(os.getpid()))
    with night_lock(lock) as killed:
        assert killed == ""
    with pytest.raises(KeyboardInterrupt), night_lock(lock):
        raise KeyboardInterrupt
    with night_lock(lock) as killed:
        assert killed == ""  # an end that was heard of is none by a kill


def test_every_stage_has_a_file_of_its_own() -> None:
    assert len(set(STAGE_FILES.values())) == len(STAGE_FILES)
