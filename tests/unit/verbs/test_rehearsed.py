"""Which rehearsals are made again."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from patchstack.model import Attempt, Form, GuardOutcome, GuardResult, LaneAnswer
from patchstack.regress.declared import Declared
from patchstack.regress.lane_jobs import Asked, decide_jobs
from patchstack.regress.steps import DAYS_TO_SEE_ALL, Rerun
from patchstack.verbs.rehearsed import Rehearsals

TODAY = date(2026, 11, 22)
TEST = "tests/regression/gpu/test_pd.py::test_abort"
ASKED = Asked("run-1", "1-gpu", "c" * 40, "d" * 40, Form.REHEARSAL, 0, 600.0)
(JOB,) = decide_jobs(ASKED, [Declared(TEST, "1-gpu", 60.0, (), "@acme/pd")], 1)
PASSED = GuardResult(TEST, "pd", False, GuardOutcome.PASS, 1.0)


def rehearsals(folder: Path, *, rerun: Rerun = Rerun.DUE, today: date = TODAY, bed: str = "bed") -> Rehearsals:
    return Rehearsals(folder, ("scenarios", bed), rerun, today)


def test_one_that_passed_answers_the_same_job_of_another_run(tmp_path: Path) -> None:
    rehearsals(tmp_path).keep(LaneAnswer(JOB, None, (PASSED,)))
    tomorrow = replace(JOB, run="run-2", composition="e" * 40)
    found = rehearsals(tmp_path).known(tomorrow)
    assert found is not None
    assert (found.made_on, found.answer) == ("2026-11-22", LaneAnswer(tomorrow, None, (PASSED,)))


@pytest.mark.parametrize(
    "other",
    [
        replace(JOB, tree="f" * 40),
        replace(JOB, lane="2-gpu"),
        replace(JOB, shard=replace(JOB.shard, files=("tests/regression/gpu/test_kv.py",))),
    ],
    ids=["tree", "lane", "files"],
)
def test_other_inputs_are_asked(tmp_path: Path, other: object) -> None:
    rehearsals(tmp_path).keep(LaneAnswer(JOB, None, (PASSED,)))
    assert rehearsals(tmp_path).known(other) is None  # type: ignore[arg-type]
    assert rehearsals(tmp_path, bed="another").known(JOB) is None


def test_each_is_made_again_once_a_week_and_whenever_all_are(tmp_path: Path) -> None:
    rehearsals(tmp_path).keep(LaneAnswer(JOB, None, (PASSED,)))
    week = [TODAY + timedelta(days=number) for number in range(1, DAYS_TO_SEE_ALL + 1)]
    assert [rehearsals(tmp_path, today=day).known(JOB) is None for day in week].count(True) == 1
    assert all(rehearsals(tmp_path, today=day, rerun=Rerun.NONE).known(JOB) for day in week)
    assert rehearsals(tmp_path, rerun=Rerun.ALL).known(JOB) is None


@pytest.mark.parametrize(
    "results",
    [
        (),
        (PASSED, replace(PASSED, outcome=GuardOutcome.FAIL)),
        (PASSED, replace(PASSED, outcome=GuardOutcome.MISSING)),
        (replace(PASSED, attempts=(Attempt(GuardOutcome.CRASH, "", 1.0, by_machine=True),)),),
    ],
    ids=["nothing", "red", "missing", "again"],
)
def test_only_what_passed_at_once_is_kept(tmp_path: Path, results: tuple[GuardResult, ...]) -> None:
    rehearsals(tmp_path).keep(LaneAnswer(JOB, None, results))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_none(tmp_path: Path) -> None:
    rehearsals(tmp_path).keep(LaneAnswer(JOB, None, (PASSED,)))
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"\xff")
    assert rehearsals(tmp_path).known(JOB) is None
    file.write_text("{}")
    assert rehearsals(tmp_path).known(JOB) is None
