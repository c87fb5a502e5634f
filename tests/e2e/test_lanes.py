"""Other lanes than `cpu` by the command line: real release, real bed, real processes; guards that take no time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from tests.e2e.quick_guards import HOOKED, use_quick_guards
from tests.e2e.test_night import SLUG, Done, Place, copy_workplace

GPU = "tests/regression/gpu"
MARK = f'"kvcm-manager", est_s=5, guards=["{SLUG}"], owner="@acme/pd"'
SCENARIO = f"""\
import os
from pathlib import Path

import pytest

TREE = Path(os.environ["PATCHSTACK_TREE"])
pytestmark = pytest.mark.lane({MARK})


def test_the_patch_is_there() -> None:
    assert "communicators.mooncake_protocol import" in (TREE / "{HOOKED}").read_text()


def test_how_it_runs() -> None:
    assert (os.environ["PATCHSTACK_FORM"], os.environ["PATCHSTACK_LANE"]) == ("rehearsal", "kvcm-manager")
    assert "HOME" in os.environ and "GITHUB_TOKEN" not in os.environ


@pytest.mark.lane("1-gpu")
def test_of_another_lane() -> None:
    raise AssertionError
"""


RED = f"""\
import pytest


@pytest.mark.lane({MARK})
def test_it_fails() -> None:
    assert 1 + 1 == 3, "arithmetic"
"""
HANGS = RED.replace('assert 1 + 1 == 3, "arithmetic"', "import signal; signal.pause()")
BEGINS_S = 120.0
"""A job must have begun its guards by then; it takes seconds."""


@pytest.fixture(scope="module")
def composed(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = copy_workplace(tmp_path_factory.mktemp("composed") / "fork", SLUG)
    use_quick_guards(place)
    (place.root / GPU).mkdir()
    (place.root / GPU / "test_quick.py").write_text(SCENARIO)
    merged = place.run("--local", "merge")
    assert merged.code == 0, merged.err
    return place


def run_of(place: Place) -> Path:
    (run,) = (place.root / ".patchstack" / "runs").iterdir()
    return run


def ask(place: Place, *argv: str) -> Done:
    return place.run("--local", "test", "--run", run_of(place).name, *argv, GITHUB_TOKEN="secret")


def test_a_rehearsal_shows_that_the_tests_work_and_proves_nothing(composed: Place) -> None:
    place = composed
    done = ask(place, "--lane", "kvcm-manager", "--rehearse", "--json")
    assert done.code == 0, done.err
    (lane,) = done.json["runs"]
    assert (lane["lane"], lane["executor"], lane["form"]) == ("kvcm-manager", "local", "rehearsal")
    assert {said["test"]: (said["slug"], said["outcome"]) for said in lane["results"]} == {
        f"{GPU}/test_quick.py::test_the_patch_is_there": (SLUG, "pass"),
        f"{GPU}/test_quick.py::test_how_it_runs": (SLUG, "pass"),
    }
    folder = run_of(place) / "lanes" / "kvcm-manager" / "1"
    assert {path.name for path in folder.iterdir()} == {"job.json", "answer.json", "log.txt", "logs"}
    assert json.loads((run_of(place) / "lanes.json").read_text()) == done.json
    kept = place.run("--local", "record")
    assert (kept.code, "lane kvcm-manager: it was rehearsed on a CPU" in kept.err) == (2, True), kept.err
    assert not (place.root / "records").exists()


def test_a_rehearsal_that_passed_is_kept_where_that_is_asked_for_until_its_inputs_change(composed: Place) -> None:
    place = composed
    scenario = place.root / GPU / "test_kept.py"
    scenario.write_text(SCENARIO)

    def jobs(rerun: str) -> list[tuple[str, int]]:
        done = ask(place, "--lane", "kvcm-manager", "--rehearse", "--rerun", rerun, "--json")
        assert done.code == 0, done.err
        (lane,) = done.json["runs"]
        assert {(said["test"].partition("::")[0], said["outcome"]) for said in lane["results"]} == {
            (f"{GPU}/test_quick.py", "pass"),
            (f"{GPU}/test_kept.py", "pass"),
        }
        return [(end["detail"].rpartition(" ")[0], end["begun"]) for end in lane["jobs"]]

    kept = [("not run again: equal inputs passed on", 0)]
    try:
        assert jobs("all") == [("", 1)]
        assert jobs("due") == kept
        assert jobs("all") == [("", 1)]
        # Words that no run of this test has had before: the cache outlives it.
        scenario.write_text(f"{SCENARIO}\n# {uuid.uuid4()}\n")
        assert jobs("none") == [("", 1)]
        assert jobs("none") == kept
    finally:
        scenario.unlink()


def test_a_red_rehearsal_ends_with_1_and_a_lane_that_nobody_can_run_with_9(composed: Place) -> None:
    place = composed
    red = place.root / GPU / "test_red.py"
    red.write_text(RED)
    try:
        done = ask(place, "--lane", "kvcm-manager", "--rehearse")
    finally:
        red.unlink()
    assert done.code == 1, done.err
    assert f"{GPU}/test_red.py::test_it_fails: fail: " in done.err
    assert "rehearsed on a CPU, never run on a GPU" in done.out
    no_image = ask(place, "--lane", "1-gpu", "--executor", "local")
    assert (no_image.code, "the run has no image of this composition" in no_image.err) == (9, True), no_image.err
    lanes = json.loads((run_of(place) / "lanes.json").read_text())["runs"]
    assert [(run["lane"], [end["state"] for end in run["jobs"]]) for run in lanes] == [
        ("1-gpu", ["refused"]),
        ("kvcm-manager", ["answered"]),
    ]


def test_a_dry_run_names_the_jobs(composed: Place) -> None:
    done = ask(composed, "--lane", "kvcm-manager", "--rehearse", "--dry-run", "--suite", "mooncake")
    said = f"kvcm-manager 1/1: {GPU}/test_quick.py; rehearsal by local\n"
    assert (done.code, done.out) == (0, said), done.err
    jobs = ask(composed, "--lane", "1-gpu", "--executor", "local", "--dry-run", "--json").json["jobs"]
    assert [(job["gpus"], job["form"], job["shard"]["files"]) for job in jobs] == [
        (1, "device", [f"{GPU}/test_quick.py"])
    ]


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--lane", "gpu"], 9, "deploy.yaml has no test lane 'gpu'; it has: cpu, 1-gpu"),
        (["--lane", "cpu"], 2, "lane cpu runs where the night runs"),
        (["--lane", "1-gpu"], 2, "lane 1-gpu: deploy.yaml says no `executor` of it"),
        (["--rehearse"], 2, "name one by --lane"),
        (["--lane", "1-gpu", "--shard", "1/2"], 2, "give neither --shard nor --gather"),
        (["--lane", "1-gpu", "--rehearse", "--suite", "x"], 2, "no patch or group is called 'x'"),
    ],
)
def test_what_cannot_be_asked_changes_nothing(composed: Place, argv: list[str], code: int, said: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_of(composed).rglob("*")}
    done = ask(composed, *argv)
    assert (done.code, done.out, said in done.err) == (code, "", True), done.err
    assert {path: path.stat().st_mtime_ns for path in run_of(composed).rglob("*")} == before


def test_a_job_of_another_composition_is_refused(composed: Place, tmp_path: Path) -> None:
    place = composed
    assert ask(place, "--lane", "kvcm-manager", "--rehearse").code == 0
    job = json.loads((run_of(place) / "lanes" / "kvcm-manager" / "1" / "job.json").read_text())
    (tmp_path / "job.json").write_text(json.dumps(job | {"composition": "0" * 40}))
    done = place.run("--local", "job", str(tmp_path))
    assert (done.code, "the job is of composition 000000000000" in done.err) == (2, True), done.err
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def process_of(folder: Path, log: str) -> int:
    """The id of the process that does the job in ``folder``, once it has said ``log``."""
    ends_s = time.monotonic() + BEGINS_S
    while time.monotonic() < ends_s:
        said = folder / "log.txt"
        for process in Path("/proc").glob("[0-9]*") if said.is_file() and log in said.read_text() else ():
            try:
                argv = (process / "cmdline").read_text().split("\0")
            except OSError:
                continue  # it has ended
            if argv[-3:-1] == ["job", str(folder)]:
                return int(process.name)
        time.sleep(0.1)
    raise AssertionError(f"no job began in {folder}")


def test_a_job_that_is_killed_half_way_is_lost_and_its_tests_are_missing(composed: Place) -> None:
    place = composed
    config, hangs = place.root / "deploy.yaml", place.root / GPU / "test_hangs.py"
    text = config.read_text()
    config.write_text(text.replace("tests:\n", "tests:\n  retries: 0\n", 1))
    hangs.write_text(HANGS)
    folder = run_of(place) / "lanes" / "kvcm-manager" / "1"
    (folder / "log.txt").unlink(missing_ok=True)
    argv = [sys.executable, "-c", "from patchstack.cli import main; main()", "--local", "test", "--json"]
    argv += ["--run", run_of(place).name, "--lane", "kvcm-manager", "--rehearse"]
    asking = subprocess.Popen(argv, cwd=place.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        os.kill(process_of(folder, "test_hangs.py"), signal.SIGKILL)
        out, err = asking.communicate(timeout=BEGINS_S)
    finally:
        asking.kill()
        hangs.unlink()
        config.write_text(text)
    assert asking.returncode == 6, err
    (lane,) = [run for run in json.loads(out)["runs"] if run["lane"] == "kvcm-manager"]
    (end,) = lane["jobs"]
    assert (end["state"], end["detail"], end["begun"]) == ("lost", "it was killed (SIGKILL)", 1)
    assert {(said["outcome"], said["reason"]) for said in lane["results"]} == {
        ("missing", "job 1/1 was lost: it was killed (SIGKILL)")
    }
    assert len(lane["results"]) == 3
    assert not (folder / "answer.json").exists()
