"""`patchstack record`: what lanes said on their own machines becomes files of the repository; all else is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.unit.regress.test_records import TREE, lane_run, on
from tests.unit.report.fixed_night import BASE, COMPOSITION
from tests.unit.verbs.fork_bench import TWO_LANES

from patchstack.cli import main_group
from patchstack.errors import LaneUnavailable, PatchstackError, UsageError
from patchstack.model import Form, LaneRun, LaneRuns, MergePlan
from patchstack.regress.records import Record, read_records
from patchstack.store import Run, encode, write_whole

NIGHT = "20261122T020000Z"
ONE = lane_run(NIGHT)
REHEARSED = replace(ONE, lane="2-gpu", form=Form.REHEARSAL)
FILE = f"records/{NIGHT}-1-gpu.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "deploy.yaml").write_text(TWO_LANES)
    return tmp_path


def ran(root: Path, *runs: LaneRun, night: str = NIGHT) -> None:
    """A run of lane `production` of which other lanes have said ``runs``."""
    run = Run(root / ".patchstack" / "runs" / night)
    run.folder.mkdir(parents=True)
    run.write(MergePlan("production", BASE, (), (), COMPOSITION.fingerprint))
    if runs:
        run.write(LaneRuns(TREE, runs))


def record(root: Path, *argv: str) -> str:
    """What the verb prints; it raises what the command line would end with."""
    found = CliRunner().invoke(main_group, ["--config", str(root / "deploy.yaml"), "record", *argv])
    if isinstance(found.exception, PatchstackError):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.stdout


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.glob("records/*"))


def test_a_lane_that_ran_on_its_machines_is_written_and_read_back(root: Path) -> None:
    ran(root, ONE, REHEARSED)
    assert record(root) == (
        f"{FILE}: written\n"
        "lane 2-gpu: no record: it was rehearsed on a CPU, which shows nothing of a GPU\n"
        "`make schema` writes the tables again; commit both\n"
    )
    assert files(root) == [FILE]
    assert read_records(root) == (Record(f"{NIGHT}-1-gpu.json", ONE),)


def test_a_dry_run_says_the_same_and_writes_nothing(root: Path) -> None:
    ran(root, ONE)
    assert record(root, "--dry-run") == f"{FILE}: would be written\n"
    assert json.loads(record(root, "--dry-run", "--json")) == {
        "run": NIGHT,
        "written": [FILE],
        "there": [],
        "refused": [],
        "dry_run": True,
    }
    assert files(root) == []


def test_said_twice_is_written_once_and_a_record_is_never_changed(root: Path) -> None:
    ran(root, ONE)
    record(root)
    assert record(root) == f"{FILE}: is there already\n"
    other = encode(replace(ONE, executor="local"))
    write_whole(root / FILE, other)
    with pytest.raises(UsageError, match="is there and says something else: a record is never changed"):
        record(root)
    assert (root / FILE).read_text() == other


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (replace(ONE, form=Form.REHEARSAL), "lane 1-gpu: it was rehearsed on a CPU"),
        (on(ONE, None), "lane 1-gpu: job 1/2 does not say what hardware it ran on"),
    ],
    ids=["rehearsed", "no hardware"],
)
def test_what_shows_nothing_of_a_gpu_is_refused(root: Path, run: LaneRun, why: str) -> None:
    ran(root, run)
    with pytest.raises(UsageError) as raised:
        record(root)
    assert str(raised.value).startswith(f"run {NIGHT} shows nothing of the machines that its lanes are for:\n{why}")
    assert files(root) == []


def test_a_lane_that_is_asked_for_must_have_one(root: Path) -> None:
    ran(root, ONE, REHEARSED)
    with pytest.raises(UsageError, match="lane 2-gpu: it was rehearsed"):
        record(root, "--lane", "1-gpu", "--lane", "2-gpu")
    with pytest.raises(LaneUnavailable, match=f"run {NIGHT} did not ask lane rdma; it has 1-gpu, 2-gpu"):
        record(root, "--lane", "rdma")
    assert files(root) == []
    assert record(root, "--lane", "1-gpu").startswith(f"{FILE}: written\n")


def test_the_newest_run_that_asked_a_lane_is_taken(root: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no run in .* has asked another lane than cpu: `patchstack test --lane LANE`"
    ):
        record(root)
    ran(root, ONE)
    ran(root, night="20261123T020000Z")
    assert record(root).startswith(f"{FILE}: written\n")
    with pytest.raises(UsageError, match="run 20261123T020000Z asked no other lane than cpu"):
        record(root, "--run", "20261123T020000Z")
