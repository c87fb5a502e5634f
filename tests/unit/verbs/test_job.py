"""`patchstack job`: what it takes for a job, and what it says where its time is over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.verbs.fork_bench import TWO_LANES, workplace, write_repository

from patchstack.errors import MachineError, UsageError
from patchstack.model import Form, GuardOutcome, GuardResult, LaneJob, Sha, Shard
from patchstack.regress.execute import Tree
from patchstack.regress.suites import Suite
from patchstack.store import encode
from patchstack.verbs import job as verb
from patchstack.verbs.job import read_job, run_job, scenario_environment

FILE = "tests/regression/gpu/test_it.py"
JOB = LaneJob(
    run="20261121T020000Z",
    lane="1-gpu",
    shard=Shard(1, 1, (FILE,)),
    composition=Sha("c" * 40),
    tree=Sha("d" * 40),
    form=Form.REHEARSAL,
    image="",
    gpus=0,
    limit_s=600.0,
)


def test_a_folder_is_a_job_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no job.json: name a folder below runs/ID/lanes/"):
        read_job(tmp_path)
    file = tmp_path / "job.json"
    file.write_text(encode(JOB))
    assert read_job(tmp_path) == JOB
    file.write_text("{}")
    with pytest.raises(UsageError, match="not a LaneJob of this version"):
        read_job(tmp_path)
    file.write_bytes(b"\xff")
    with pytest.raises(MachineError, match=r"job.json cannot be read"):
        read_job(tmp_path)


def test_a_job_of_a_run_that_is_not_here_is_refused(tmp_path: Path) -> None:
    write_repository(tmp_path)
    (tmp_path / "deploy.yaml").write_text(TWO_LANES)
    (tmp_path / "job.json").write_text(encode(JOB))
    with pytest.raises(UsageError, match=f"no run '{JOB.run}'"):
        run_job(workplace(tmp_path), tmp_path)
    assert not (tmp_path / "answer.json").exists()


def test_what_has_not_begun_when_the_time_is_over_is_missing(tmp_path: Path) -> None:
    write_repository(tmp_path)
    (tmp_path / "deploy.yaml").write_text(TWO_LANES)
    nowhere = Tree(tmp_path, tmp_path, tmp_path)
    rehearsal = verb._Rehearsal(
        workplace(tmp_path), JOB, nowhere, tmp_path / "logs", ends_s=10.0, monotonic=lambda: 10.0
    )
    said = rehearsal.of(Suite("pd-abort", (FILE,), ""))
    why = "the job's limit of 600 s was over before it began"
    assert said.results == (GuardResult(FILE, "pd-abort", False, GuardOutcome.MISSING, 0.0, why),)
    assert not (tmp_path / "logs").exists()


def test_a_scenario_is_told_how_it_runs() -> None:
    told = scenario_environment(replace(JOB, form=Form.DEVICE))
    assert (told["PATCHSTACK_FORM"], told["PATCHSTACK_LANE"], told["HF_HUB_OFFLINE"]) == ("device", "1-gpu", "1")
