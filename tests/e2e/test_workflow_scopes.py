"""What the token of each job of each workflow can do, asked by a step in that very job, run by act."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.support.actions.fork import ROOT, Fork
from tests.support.actions.runner import ACT, MACHINE, Runner
from tests.support.github_server import GitHubServer

PROBE = ROOT / "tests" / "support" / "actions" / "probe.py"
NOTHING = {"push": False, "comment": False, "issue": False, "change": False}
MAY = {
    ("ci", "test"): NOTHING,
    ("nightly", "compose"): NOTHING,
    ("nightly", "image"): NOTHING,
    ("nightly", "test"): NOTHING,
    ("nightly", "divide"): NOTHING,
    ("nightly", "lanes"): NOTHING,
    ("nightly", "promote"): {**NOTHING, "push": True},
    ("nightly", "answer"): {**NOTHING, "comment": True, "issue": True, "change": True},
    ("patch-comment", "comment"): {**NOTHING, "comment": True, "change": True},
    ("patch-pr", "review"): NOTHING,
    ("watchdog", "watch"): NOTHING,
    ("watchdog", "say"): {**NOTHING, "issue": True},
}


@pytest.fixture(scope="module")
def runner(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("scopes")
    with GitHubServer(folder / "hub") as hub:
        fork = Fork(hub, folder)
        fork.repository.push("patch", fork.commit("main", {"a.txt": "a\n"}, "A patch"), "ann")
        fork.repository.open_pull("patch", "main", "ann", number=7)
        yield Runner(hub, fork.repository, folder)


def probed(runner: Runner, workflow: str) -> str:
    """The workflow with its jobs, and in each after the checkout nothing but the probe."""
    document = runner.read_workflow(workflow)
    probe = {
        "name": "Probe",
        "env": {"PROBE_TOKEN": "${{ github.token }}", "PULL": "7"},
        "run": f"python3 {PROBE}",
    }
    for job in document["jobs"].values():
        checkout = {**job["steps"][0], "with": {"persist-credentials": False}}
        assert checkout["uses"].startswith("actions/checkout@")
        job["steps"] = [checkout, probe]
        job["runs-on"] = MACHINE
        for key in ("name", "needs", "if", "outputs", "env", "strategy", "timeout-minutes"):
            job.pop(key, None)
    return yaml.safe_dump({**document, "on": "workflow_dispatch"})


@pytest.mark.parametrize("workflow", sorted({workflow for workflow, _ in MAY}))
def test_a_job_may_do_what_it_is_for_and_no_more(runner: Runner, workflow: str) -> None:
    ran = runner.run(workflow, "workflow_dispatch", text=probed(runner, workflow))
    found = {
        (workflow, job): json.loads(said.splitlines()[-1]) for (job, step), said in ran.said.items() if step == "Probe"
    }
    assert found == {key: may for key, may in MAY.items() if key[0] == workflow}, ran.log[-3000:]
    pushed = {name for name in runner.repository.branches if name.startswith(f"probe-{workflow}-")}
    assert pushed == {f"probe-{workflow}-{job}" for (_, job), may in found.items() if may["push"]}


def test_every_job_is_asked(runner: Runner) -> None:
    names = [path.stem for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    assert {(name, job) for name in names for job in runner.read_workflow(name)["jobs"]} == set(MAY)


@pytest.mark.parametrize("workflow", sorted({workflow for workflow, _ in MAY}))
def test_the_runner_reads_every_workflow(workflow: str) -> None:
    path = ROOT / ".github" / "workflows" / f"{workflow}.yml"
    argv = [str(ACT), "--workflows", str(path), "--validate", "--strict"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, "rror" in done.stderr) == (0, False), done.stderr


def test_make_tool_makes_all_that_the_verbs_import(sealed_module: Path, tmp_path: Path) -> None:
    """As on a machine that has nothing: the stand-in of setup-python leaves this out of every other run."""
    for name in ("Makefile", "README.md", "LICENSE", "NOTICE", "pyproject.toml", "requirements.lock"):
        shutil.copy2(ROOT / name, tmp_path / name)
    shutil.copy2(ROOT / "requirements-tool.lock", tmp_path)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    made = make(tmp_path, "tool")
    assert made.returncode == 0, made.stderr
    python = tmp_path / ".venv" / "bin" / "python"
    code = """
import importlib, pkgutil, patchstack
for found in pkgutil.walk_packages(patchstack.__path__, "patchstack."):
    importlib.import_module(found.name)
"""
    imported = subprocess.run([str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert imported.returncode == 0, imported.stderr
    assert "making" not in make(tmp_path, "tool").stdout
    only_tests = subprocess.run([str(python), "-c", "import pytest"], capture_output=True, check=False)
    assert only_tests.returncode != 0


def make(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    argv = ["make", target, f"PYTHON={sys.base_prefix}/bin/python3"]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
