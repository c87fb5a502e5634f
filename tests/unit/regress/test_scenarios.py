"""Scenarios that need a GPU: read, never imported; the CPU lane does not run them, and the report names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchstack.errors import ConfigError
from patchstack.model import Scenario
from patchstack.regress.scenarios import find_scenarios
from patchstack.regress.suites import find_suites

MARKED = """\
import pytest
import torch_that_is_not_there

pytestmark = [pytest.mark.limit(900), pytest.mark.lane("2-gpu")]


def test_two() -> None: ...


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.lane("4-gpu")
async def test_four(size: int) -> None: ...


def helper() -> None: ...


@pytest.mark.lane("rdma")
class TestWire:
    def test_it(self) -> None: ...

    @pytest.mark.lane("1-gpu")
    def test_one(self) -> None: ...


class TestPair:
    pytestmark = pytest.mark.lane("1-gpu")

    def test_it(self) -> None: ...
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "tests/support/h.py": "",
        "tests/regression/bed/test_bed.py": "def test_bed() -> None: ...\n",
        "tests/regression/x/test_x.py": "def test_x() -> None: ...\n",
        "tests/regression/gpu/test_plain.py": "import nothing\ndef test_plain() -> None: ...\n",
        "tests/regression/gpu/pd/test_marked.py": MARKED,
        "tests/regression/gpu/pd/servers.py": "def test_helper() -> None: ...\n",
    }.items():
        write(tmp_path, name, text)
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_every_scenario_is_known_with_its_lane_and_none_is_imported(root: Path) -> None:
    marked = "tests/regression/gpu/pd/test_marked.py"
    assert find_scenarios(root) == (
        Scenario("2-gpu", f"{marked}::test_two"),
        Scenario("4-gpu", f"{marked}::test_four"),
        Scenario("rdma", f"{marked}::TestWire::test_it"),
        Scenario("1-gpu", f"{marked}::TestWire::test_one"),
        Scenario("1-gpu", f"{marked}::TestPair::test_it"),
        Scenario("1-gpu", "tests/regression/gpu/test_plain.py::test_plain"),
    )


def test_no_gpu_folder_is_no_scenario(tmp_path: Path) -> None:
    assert find_scenarios(tmp_path) == ()


def test_what_cannot_be_read_is_named_and_never_taken_for_nothing(root: Path) -> None:
    lane = "it names no lane of scenarios: write one of 1-gpu, 2-gpu, 4-gpu, rdma, kvcm-manager as plain text"
    for name, text in {
        "test_a.py": "def test_it(:\n",
        "test_b.py": "x = 1\n",
        "test_c.py": "\n@lane('cpu')\ndef test_it() -> None: ...\n",
        "test_d.py": "pytestmark = lane(LANE)\ndef test_it() -> None: ...\n",
        "test_e.py": "pytestmark = pytest.mark.lane\ndef test_it() -> None: ...\n",
        "test_f.py": "x = 1\0\n",
    }.items():
        write(root, f"tests/regression/gpu/{name}", text)
    with pytest.raises(ConfigError) as caught:
        find_scenarios(root)
    said = [problem.removeprefix("tests/regression/gpu/") for problem in caught.value.problems]
    assert [said[0].partition(" (")[0], *said[1:5], said[5].partition(" (")[0]] == [
        "test_a.py:1: : it is not Python",
        "test_b.py:1: : it holds no test: write one, or remove the file",
        f"test_c.py:2: lane('cpu'): {lane}",
        f"test_d.py:1: lane(LANE): {lane}",
        f"test_e.py:1: pytest.mark.lane: {lane}",
        "test_f.py:1: : it is not Python",
    ]
    assert len(said) == 6


def test_the_cpu_lane_never_collects_them(root: Path) -> None:
    gpu, beside = "tests/regression/gpu/test_plain.py", "tests/regression/x/"
    (suite,) = find_suites(root, [("x", [gpu, beside])])[1:]
    assert suite.paths == ("tests/regression/x",)
    before = suite.digest
    write(root, gpu, "def test_other() -> None: ...\n")
    assert find_suites(root, [("x", [gpu, beside])])[1].digest == before
    with pytest.raises(ConfigError) as caught:
        find_suites(
            root,
            [("x", [gpu]), ("y", ["tests/regression/gpu"]), ("z", ["tests/regression/", "tests"]), ("q", [f"{gpu}x"])],
        )
    alone = "guards: all below tests/regression/gpu, where no CPU lane looks: add one beside it"
    assert caught.value.problems == [
        f"patches/x/patch.md:1: {alone}",
        f"patches/y/patch.md:1: {alone}",
        "patches/z/patch.md:1: guards: 'tests/regression/' holds tests/regression/gpu too: name the folders beside it",
        "patches/z/patch.md:1: guards: 'tests' holds tests/regression/gpu too: name the folders beside it",
        f"patches/q/patch.md:1: guards: '{gpu}x' holds no test_*.py: write the guard",
        f"patches/q/patch.md:1: {alone}",
    ]
