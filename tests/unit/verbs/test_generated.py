"""Generated files: this repository's are fresh, and what they are made of is read strictly."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.regress.test_records import H200, lane_run

from patchstack.config import Config, load
from patchstack.errors import ConfigError
from patchstack.model import JobEnd, LaneRun
from patchstack.regress.records import record_name
from patchstack.store import encode, write_whole
from patchstack.verbs.generated import GPU_PAGE, README, generated, stale_files

ROOT = Path(__file__).parents[3]
SCENARIO = "tests/regression/gpu/test_pd_abort.py::test_those_who_stay_are_told_the_same"


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Config]:
    """What tables are made of, from this repository."""
    for folder in ("patches", "tests/regression", "records"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (README, GPU_PAGE):
        write_whole(tmp_path / name, (ROOT / name).read_text())
    return tmp_path, load(ROOT / "deploy.yaml")


def ran(night: str) -> LaneRun:
    """One scenario of this repository, on one machine."""
    run = lane_run(night)
    result = replace(run.results[0], test=SCENARIO)
    job = replace(run.jobs[0].job, shard=replace(run.jobs[0].job.shard, files=(SCENARIO.partition("::")[0],)))
    answer = replace(run.answers[0], job=job, results=(result,))
    return replace(run, jobs=(JobEnd(job, run.jobs[0].state),), answers=(answer,), results=(result,))


def row(place: tuple[Path, Config], page: str, begin: str) -> str:
    """The line of a generated page that begins so."""
    root, config = place
    (line,) = [line for line in generated(root, config)[root / page].splitlines() if line.startswith(begin)]
    return line


def test_this_repository_s_generated_files_are_fresh() -> None:
    assert stale_files(ROOT, load(ROOT / "deploy.yaml")) == []


def test_every_scenario_without_a_record_was_never_run(place: tuple[Path, Config]) -> None:
    root, config = place
    shutil.rmtree(root / "records")
    table = generated(root, config)[root / GPU_PAGE]
    rows = [line for line in table.splitlines() if line.startswith("| `test_")]
    assert rows
    assert [line for line in rows if not line.endswith(("| never run on a GPU |", "| never run |"))] == []
    assert row(place, README, "| `1-gpu` |").endswith("| never run on a GPU |")
    assert row(place, README, "| `pd-abort-notify` |").endswith("| never run on a GPU |")


def test_a_record_is_what_changes_that(place: tuple[Path, Config]) -> None:
    root, config = place
    shutil.rmtree(root / "records")
    before = generated(root, config)
    run = ran("20261122T020000Z")
    write_whole(root / "records" / record_name(run), encode(run))
    told = f"[2026-11-22](../records/{record_name(run)}): 1 pass in 30.5 s on `1 x {H200.gpus[0]}`, tree `{'a' * 12}` |"
    assert row(place, GPU_PAGE, f"| `{SCENARIO.rpartition('/')[2]}` |").endswith(told)
    assert " scenarios passed, the newest on 2026-11-22 |" in row(place, README, "| `1-gpu` |")
    assert "| 1 of 3 scenarios passed, the newest on 2026-11-22 |" in row(place, README, "| `pd-abort-notify` |")
    after = generated(root, config)
    changed = {page: sum(map(str.__ne__, before[page].splitlines(), after[page].splitlines())) for page in before}
    assert {path.name: lines for path, lines in changed.items() if lines} == {"README.md": 2, "gpu.md": 1}


def test_a_file_that_is_no_record_stops_it_by_name(place: tuple[Path, Config]) -> None:
    root, config = place
    write_whole(root / "records" / "fast.json", '{"tokens_per_second": 9000}')
    with pytest.raises(ConfigError, match=r"records/fast.json:1: : .* not a LaneRun of this version"):
        stale_files(root, config)


@pytest.mark.parametrize(
    ("page", "name"), [(README, "patches"), (README, "lanes"), (GPU_PAGE, "scenarios"), (GPU_PAGE, "models")]
)
def test_markers_that_are_missing_are_named(place: tuple[Path, Config], page: str, name: str) -> None:
    root, config = place
    write_whole(root / page, (root / page).read_text().replace(f"<!-- end of {name} -->\n", ""))
    with pytest.raises(ConfigError, match=rf"{page}:1: : the markers of {name} are missing: add "):
        generated(root, config)


def test_without_scenarios_no_page_about_gpus_is_asked_for(place: tuple[Path, Config]) -> None:
    root, config = place
    shutil.rmtree(root / "tests/regression/gpu")
    (root / GPU_PAGE).unlink()
    for patch in root.glob("patches/*/patch.md"):
        patch.write_text(re.sub(r", tests/regression/gpu/\w+\.py", "", patch.read_text()))
    assert root / GPU_PAGE not in generated(root, config)
