"""What an image is called where there is no registry to ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.verbs.fork_bench import TWO_LANES, workplace

from patchstack.errors import MachineError, UsageError
from patchstack.verbs import image
from patchstack.verbs.explain import difference, explain


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(image, "find_program", lambda: None)
    (tmp_path / "deploy.yaml").write_text(TWO_LANES)
    return tmp_path


def test_an_image_of_this_machine_without_the_program_that_has_it(folder: Path) -> None:
    work = workplace(folder, local=True)
    said = "cpu-latest is in the registry of this machine, and docker-registry is not installed: apt-get install "
    for name in ("cpu-latest", "sglang:cpu-latest"):
        with pytest.raises(MachineError, match=said):
            explain(work, name)
    with pytest.raises(MachineError, match=said):
        difference(work, "cpu-latest", "cpu-previous")


def test_an_image_of_a_lane_that_has_none(folder: Path) -> None:
    work = workplace(folder, remote="https://git.example.com/acme/sglang", local=True)
    with pytest.raises(UsageError, match="'nightly' needs its repository: the lane has none"):
        explain(work, "nightly")
