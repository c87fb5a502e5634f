"""`patchstack test --lane --executor slurm` on a real Slurm cluster on loopback, with `patchstack job` on its nodes.

Real release, real bed, guards that take no time; `test_slurm.py` has what else becomes of jobs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.quick_guards import HOOKED, use_quick_guards
from tests.e2e.test_night import SLUG, Place, copy_workplace
from tests.support.slurm import Cluster, cluster, until

LANE = "kvcm-manager"
GPU = "tests/regression/gpu"
BEGINS_S = 60.0
"""A job must have begun its guards by then; it takes seconds."""
QUICK = f"""\
import os
from pathlib import Path

import pytest


@pytest.mark.lane("{LANE}", est_s=5, guards=["{SLUG}"], owner="@acme/pd")
def test_quick() -> None:
    tree = Path(os.environ["PATCHSTACK_TREE"])
    assert "communicators.mooncake_protocol import" in (tree / "{HOOKED}").read_text()
"""
WAITS = f"""\
import signal
from pathlib import Path

import pytest


@pytest.mark.lane("{LANE}", est_s=5, guards=["{SLUG}"], owner="@acme/pd")
def test_waits() -> None:
    if not Path(__file__).with_name("go").exists():
        signal.pause()
"""


@pytest.fixture(scope="module")
def composed(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = copy_workplace(tmp_path_factory.mktemp("composed") / "it's a fork", SLUG)
    use_quick_guards(place)
    (place.root / GPU).mkdir()
    (place.root / GPU / "test_quick.py").write_text(QUICK)
    (place.root / GPU / "test_waits.py").write_text(WAITS)
    config = place.root / "deploy.yaml"
    config.write_text(
        config.read_text().replace(f"{LANE}: {{", f"{LANE}: {{executor: slurm, shards: 2, limit_min: 10, ")
    )
    merged = place.run("--local", "merge")
    assert merged.code == 0, merged.err
    return place


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with cluster(node_silence_s=5) as made:
        monkeypatch.setenv("SLURM_CONF", str(made.conf))
        yield made


def waits(place: Place) -> Path:
    """The folder of the job that has the test that waits, once that has begun."""

    def begun() -> list[Path]:
        logs = (place.root / ".patchstack" / "runs").glob(f"*/lanes/{LANE}/*/log.txt")
        return [log.parent for log in logs if "test_waits.py" in log.read_text()]

    until(lambda: bool(begun()), "the job has begun its guards", BEGINS_S)
    (folder,) = begun()
    return folder


@contextmanager
def asked(place: Place, slurm: Cluster) -> Iterator[subprocess.Popen[str]]:
    """The lane, asked of Slurm."""
    (run,) = (run.name for run in (place.root / ".patchstack" / "runs").iterdir())
    for log in (place.root / ".patchstack" / "runs").glob(f"*/lanes/{LANE}/*/log.txt"):
        log.unlink()
    argv = [sys.executable, "-c", "from patchstack.cli import main; main()", "--local", "test", "--json"]
    argv += ["--run", run, "--lane", LANE, "--executor", "slurm", "--rehearse"]
    pipe = subprocess.PIPE

    def as_at_a_terminal() -> None:
        # In the background of a script Ctrl-C is ignored, and a child inherits that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        argv, cwd=place.root, stdout=pipe, stderr=pipe, text=True, preexec_fn=as_at_a_terminal
    ) as asking:
        try:
            yield asking
        except AssertionError:
            asking.kill()
            sys.stderr.write(asking.communicate()[1])
            raise
        finally:
            asking.kill()


def test_a_lane_goes_on_when_a_node_dies_half_way(composed: Place, slurm: Cluster) -> None:
    place = composed
    with asked(place, slurm) as asking:
        folder = waits(place)
        slurm.nodes["n1"].dies()
        go = place.root / GPU / "go"
        go.touch()
        out, err = asking.communicate(timeout=BEGINS_S)
        go.unlink()
    assert asking.returncode == 0, err
    (lane,) = json.loads(out)["runs"]
    assert (lane["executor"], lane["form"], {end["state"] for end in lane["jobs"]}) == (
        *("slurm", "rehearsal"),
        {"answered"},
    )
    assert {said["test"]: said["outcome"] for said in lane["results"]} == {
        f"{GPU}/test_quick.py::test_quick": "pass",
        f"{GPU}/test_waits.py::test_waits": "pass",
    }
    (again,) = [end for end in lane["jobs"] if str(end["job"]["shard"]["number"]) == folder.name]
    assert (again["node"], again["begun"], again["detail"]) == ("n2", 2, "it was begun 2 times")
    assert "node n1 lost it: Slurm says NODE_FAIL, NodeDown" in err
    assert slurm.queue == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_who_is_stopped_leaves_no_job(composed: Place, slurm: Cluster, how: signal.Signals) -> None:
    with asked(composed, slurm) as asking:
        waits(composed)
        assert len(slurm.queue) >= 1
        asking.send_signal(how)
        _, err = asking.communicate(timeout=BEGINS_S)
    assert (asking.returncode, err.splitlines()[-1]) == (130, "interrupted")
    assert slurm.queue == []
    assert not (composed.root / ".patchstack" / "queued").exists()


def test_of_who_is_killed_the_next_one_cancels_the_jobs(composed: Place, slurm: Cluster) -> None:
    with asked(composed, slurm) as asking:
        waits(composed)
        os.kill(asking.pid, signal.SIGKILL)
        asking.wait()
    (name,) = set(slurm.queue)
    (run,) = (run.name for run in (composed.root / ".patchstack" / "runs").iterdir())
    done = composed.run("--local", "merge", "--run", run)
    assert done.code == 0, done.err
    assert f"Slurm's queue has nothing more of {name}, a killed run's" in done.err
    assert slurm.queue == []
