"""`nightly.yml` with lanes for runners of ours, run by act: who is asked, who answers, and what is promoted then.

The tests of the lanes take no time, and run as rehearsals; that a lane's answers move `stable` is shown with an image,
in `test_image_lanes.py`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.quick_guards import HOOKED
from tests.support.actions.fork import DEPLOY, SLUG, Fork
from tests.support.actions.runner import OURS, Ran, Runner
from tests.support.github_server import GitHubServer

GPU = "tests/regression/gpu"
ABOUT = f'est_s=5, guards=["{SLUG}"], owner="@acme/pd"'
ONE = f"""\
import os
from pathlib import Path

import pytest

TREE = Path(os.environ["PATCHSTACK_TREE"])
pytestmark = pytest.mark.lane("1-gpu", {ABOUT})


def test_the_patch_is_there() -> None:
    assert "communicators.mooncake_protocol import" in (TREE / "{HOOKED}").read_text()


def test_nothing_of_the_runner_is_seen() -> None:
    assert [name for name in os.environ if name.startswith(("GITHUB_", "ACTIONS_", "RUNNER_"))] == []
"""
RED = f"""\
import pytest


@pytest.mark.lane("1-gpu", {ABOUT})
def test_red() -> None:
    assert "this" == "that"
"""
TWO = f"""\
import pytest


@pytest.mark.lane("2-gpu", {ABOUT})
def test_two_ranks() -> None:
    pass
"""
LANES = f"""\
    1-gpu: {{gpus: 1, shards: 2, executor: github, labels: [{OURS}, gpu], because: "CUDA kernels"}}
    2-gpu: {{gpus: 2, executor: github, labels: [{OURS}, two], because: "two ranks"}}
"""
DIES = {"name": "Lose power", "if": "matrix.lane == '2-gpu'", "run": "exit 1"}
BY_HAND = {"inputs": {"lane": "production", "rehearse": "true"}}


@dataclass
class World:
    fork: Fork
    runner: Runner
    before: dict[str, str]
    night: Ran

    def report(self, ran: Ran) -> dict[str, Any]:
        (pack,) = ran.artifacts["promoted-1"].iterdir()
        with tarfile.open(pack) as tar:
            member = tar.extractfile("report.json")
            assert member is not None
            found: dict[str, Any] = json.load(member)
        return found


@pytest.fixture(scope="module")
def world(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """After a night by hand with three jobs for other lanes: one green, one red, and one whose runner dies."""
    folder = tmp_path_factory.mktemp("world")
    with GitHubServer(folder / "hub") as hub:
        fork = Fork(hub, folder)
        lines = fork.read("main", "deploy.yaml").splitlines(keepends=True)
        kept = [line for line in lines if not line.strip().startswith(("1-gpu:", "2-gpu:"))]
        at = next(number for number, line in enumerate(kept) if line.strip().startswith("4-gpu:"))
        tests = {f"{GPU}/test_one.py": ONE, f"{GPU}/test_red.py": RED, f"{GPU}/test_two.py": TWO}
        config = "".join([*kept[:at], LANES, *kept[at:]])
        fork.change_main({"deploy.yaml": config, **tests}, "Lanes for machines of ours")
        runner = Runner(hub, fork.repository, folder)
        hub.clock.set("2026-11-21T02:00:00Z")
        before, workflow = fork.refs(), runner.read_workflow("nightly")
        workflow["jobs"]["lanes"]["steps"].insert(0, DIES)
        night = runner.run("nightly", "workflow_dispatch", payload=BY_HAND, text=yaml.safe_dump(workflow))
        yield World(fork, runner, before, night)


def test_the_night_goes_on_whatever_other_lanes_say(world: World) -> None:
    assert world.night.exits == {("lanes", "Lose power"): 1}, world.night.why
    green = ("compose", "image", "test", "divide", "promote", "answer")
    assert world.night.jobs == {**dict.fromkeys(green, "success"), "lanes": "failure"}
    report = world.report(world.night)
    assert (report["headline"], report["exit_code"]) == ("PASS", 0)
    moved = {name for name, sha in world.fork.refs().items() if world.before.get(name) != sha}
    assert f"refs/heads/{DEPLOY}" in moved


def test_each_shard_is_a_job_of_its_own_and_hands_in_its_answer(world: World) -> None:
    kept = {name.rpartition("-1-gpu")[2] for name in world.night.artifacts if name.startswith("answer-")}
    assert kept == {"-1", "-2"}
    asked = json.loads((world.night.artifacts["lane-1-gpu-1-1"] / "job.json").read_text())
    assert (asked["lane"], asked["form"], asked["shard"]["number"], asked["shard"]["count"]) == (
        "1-gpu",
        "rehearsal",
        1,
        2,
    )


def test_the_report_has_what_came_and_names_what_never_came(world: World) -> None:
    one, two = world.report(world.night)["lanes"]["runs"]
    assert [(lane["lane"], lane["executor"], lane["form"]) for lane in (one, two)] == [
        ("1-gpu", "github", "rehearsal"),
        ("2-gpu", "github", "rehearsal"),
    ]
    assert [(end["state"], end["detail"]) for end in (*one["jobs"], *two["jobs"])] == [
        ("answered", ""),
        ("answered", ""),
        ("lost", "its answer never came"),
    ]
    assert {said["test"].partition("::")[2]: (said["slug"], said["outcome"]) for said in one["results"]} == {
        "test_the_patch_is_there": (SLUG, "pass"),
        "test_nothing_of_the_runner_is_seen": (SLUG, "pass"),
        "test_red": (SLUG, "fail"),
    }
    (missing,) = two["results"]
    assert (missing["outcome"], missing["reason"]) == ("missing", "job 1/1 was lost: its answer never came")


def test_a_rehearsal_moves_no_channel_that_needs_the_lane(world: World) -> None:
    verdicts = {said["channel"]: said for said in world.report(world.night)["verdicts"]}
    assert {name: said["status"] for name, said in verdicts.items()} == {"nightly": "PASS", "stable": "INCOMPLETE"}
    (why,) = [reason for reason in verdicts["stable"]["reasons"] if "1-gpu" in reason]
    rehearsed = "it needs 1-gpu, which was rehearsed on a CPU, never run on a GPU"
    assert why == f"{rehearsed}; not green there: {GPU}/test_red.py::test_red"
