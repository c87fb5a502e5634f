"""Other lanes than `cpu` by the command line: real release, real bed, real processes; guards that take no time."""

from __future__ import annotations

import json
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
