"""Every scenario of this repository through a real Slurm cluster on loopback, of which a node dies half-way.

They are rehearsed, on the whole stack: real servers of a tiny model. It takes some ten minutes on two cores.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.test_night import ROOT, Place
from tests.support.slurm import cluster, until

pytestmark = pytest.mark.thorough

LANES = ("1-gpu", "2-gpu", "4-gpu", "rdma", "kvcm-manager")
FIRST = LANES[0]
BEGIN_S, END_S = 600.0, 5400.0


@pytest.fixture
def whole(tmp_path: Path) -> Place:
    """This repository as it stands, with two machines of Slurm's for each lane; its stack is composed."""
    place = Place(tmp_path / "fork")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (place.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place.root / name)
    config = place.root / "deploy.yaml"
    text = config.read_text()
    for lane in LANES:
        assert f"    {lane}: {{" in text
        text = text.replace(f"    {lane}: {{", f"    {lane}: {{executor: slurm, shards: 2, limit_min: 60, ")
    config.write_text(text)
    merged = place.run("--local", "merge")
    assert merged.code == 0, merged.err
    return place


def declared(place: Place, run: str) -> set[str]:
    listed = place.run("--local", "test", "--run", run, "--dry-run", "--json")
    assert listed.code == 0, listed.err
    return {test["test"] for test in listed.json["tests"] if test["lane"] != "cpu"}


def test_the_whole_selection_is_answered_though_a_node_dies(whole: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place = whole
    (run,) = (place.root / ".patchstack" / "runs").iterdir()
    argv = [sys.executable, "-c", "from patchstack.cli import main; main()", "--local", "test", "--json"]
    argv += ["--run", run.name, "--executor", "slurm", "--rehearse"]
    argv += [word for name in LANES for word in ("--lane", name)]
    logs = [run / "lanes" / FIRST / number / "log.txt" for number in ("1", "2")]
    pipe = subprocess.PIPE
    with cluster(node_silence_s=5) as slurm:
        monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
        with subprocess.Popen(argv, cwd=place.root, stdout=pipe, stderr=pipe, text=True) as asking:
            try:
                until(lambda: all(log.is_file() and "test_" in log.read_text() for log in logs), "both run", BEGIN_S)
                slurm.nodes["n1"].dies()
                out, err = asking.communicate(timeout=END_S)
            finally:
                asking.kill()
    assert asking.returncode == 0, err
    lanes = json.loads(out)["runs"]
    assert [lane["lane"] for lane in lanes] == list(LANES)
    assert {(lane["executor"], lane["form"]) for lane in lanes} == {("slurm", "rehearsal")}
    ends = {lane["lane"]: [(end["state"], end["begun"]) for end in lane["jobs"]] for lane in lanes}
    # The cluster may have given it both.
    assert ("answered", 2) in ends[FIRST]
    assert {state for each in ends.values() for state, _ in each} == {"answered"}
    said = {result["test"].partition("[")[0]: result["outcome"] for lane in lanes for result in lane["results"]}
    assert said == dict.fromkeys(declared(place, run.name), "pass")
