"""`patchstack record`: what a run's lanes said on their own machines, as files of the repository."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from patchstack.errors import LaneUnavailable, UsageError
from patchstack.model import LaneRun, LaneRuns
from patchstack.regress.records import FOLDER, record_name, record_problem
from patchstack.store import Run, encode, write_whole
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class Recorded:
    """What became of each lane of a run."""

    run: str
    written: tuple[str, ...]
    """Paths from the repository's root."""
    there: tuple[str, ...]
    """Written before, and the same."""
    refused: tuple[tuple[str, str], ...]
    """Lane, and why it makes no record."""


def record(work: Workplace, run_id: str | None, only: Collection[str] = (), *, dry_run: bool = False) -> Recorded:
    """Write a record of each lane of a run; the newest that asked any where ``run_id`` is None.

    ``only`` are the lanes that must have one. Raises `LaneUnavailable` for a lane that the run did not ask,
    `UsageError` where nothing of it was seen on the machines that it is for, or another run of that name is there.
    """
    run = _run(work, run_id)
    runs = run.read(LaneRuns).runs
    unknown = [lane for lane in only if lane not in {said.lane for said in runs}]
    if unknown:
        has = ", ".join(said.lane for said in runs)
        raise LaneUnavailable(f"run {run.id} did not ask lane {unknown[0]}; it has {has or 'none'}")
    asked = [said for said in runs if not only or said.lane in only]
    refused = tuple((said.lane, problem) for said in asked if (problem := record_problem(said)))
    fit = [said for said in asked if not record_problem(said)]
    if not fit or (only and refused):
        told = "\n".join(f"lane {lane}: {problem}" for lane, problem in refused)
        raise UsageError(f"run {run.id} shows nothing of the machines that its lanes are for:\n{told}")
    fresh = [said for said in fit if not _is_there(work, said)]
    for said in fresh if not dry_run else ():
        write_whole(work.root / FOLDER / record_name(said), encode(said))
    there = tuple(_path(said) for said in fit if said not in fresh)
    return Recorded(run.id, tuple(map(_path, fresh)), there, refused)


def _run(work: Workplace, run_id: str | None) -> Run:
    ask = "`patchstack test --lane LANE` asks one"
    run = work.state.run(run_id) if run_id is not None else work.newest(LaneRuns)
    if run is None:
        raise UsageError(f"no run in {work.state.runs} has asked another lane than cpu: {ask}")
    if not run.has(LaneRuns):
        raise UsageError(f"run {run.id} asked no other lane than cpu: {ask}")
    return run


def _is_there(work: Workplace, said: LaneRun) -> bool:
    path = work.root / FOLDER / record_name(said)
    if not path.exists():
        return False
    if path.read_text(encoding="utf-8", errors="replace") != encode(said):
        raise UsageError(f"{_path(said)} is there and says something else: a record is never changed; remove it first")
    return True


def _path(said: LaneRun) -> str:
    return f"{FOLDER}/{record_name(said)}"
