"""What measures runs in two images in turns: what one of them cannot do takes nothing from the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from patchstack.errors import MachineError
from patchstack.model import GuardOutcome, GuardResult, Sample
from patchstack.process import Stopped
from patchstack.regress.metrics import OF_SCENARIOS
from patchstack.regress.record import Said
from patchstack.regress.suites import Suite
from patchstack.verbs.inside import _in_turns

FILE = "tests/regression/gpu/test_speed.py"
FAST, RED = f"{FILE}::test_fast", f"{FILE}::test_red"
METRICS = f'speed: {{unit: tokens/s, better: higher, test: "{FAST}", floor_share: 0.1}}\n'
SUITES = (Suite("pd", (FILE,), ""),)


def fast(speed: float) -> GuardResult:
    return GuardResult(FAST, "pd", False, GuardOutcome.PASS, 1.0, samples=(Sample("speed", speed),))


FIRST = (fast(100.0), GuardResult(RED, "pd", False, GuardOutcome.FAIL, 1.0, "it was slow"))


@dataclass
class Image:
    """One in which the test measures what ``turn`` gives."""

    root: Path
    turn: Callable[[], GuardResult]
    of_whom: str = ""
    names: list[str] = field(default_factory=list)

    @property
    def work(self) -> SimpleNamespace:
        return SimpleNamespace(root=self.root)

    def hear(self, suite: Suite, name: str) -> Said:
        assert suite.paths == (FAST,)
        self.names.append(name)
        return Said((self.turn(),))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    file = tmp_path / FILE
    file.parent.mkdir(parents=True)
    file.write_text("def test_fast(): ...\n\n\ndef test_red(): ...\n")
    (tmp_path / OF_SCENARIOS).write_text(METRICS)
    return tmp_path


def raises(error: Exception) -> Callable[[], GuardResult]:
    def turn() -> GuardResult:
        raise error

    return turn


def test_each_image_measures_twice(root: Path) -> None:
    tonight, promoted = Image(root, lambda: fast(101.0)), Image(root, lambda: fast(90.0), "last-promoted-")
    results, beside = _in_turns(SUITES, tonight, promoted, FIRST)  # type: ignore[arg-type]
    assert [sample.value for sample in results[0].samples] == [100.0, 101.0]
    assert results[1] == FIRST[1]
    assert [[sample.value for sample in said.samples] for said in beside] == [[90.0, 90.0]]
    assert promoted.names == [f"last-promoted-measure-pd-{turn}" for turn in (1, 2)]


def test_an_image_in_which_nothing_begins_is_missing_beside_and_takes_no_answer(root: Path) -> None:
    broken = Image(root, raises(MachineError("no container")))
    results, beside = _in_turns(SUITES, Image(root, lambda: fast(101.0)), broken, FIRST)  # type: ignore[arg-type]
    assert [said.outcome for said in results] == [GuardOutcome.PASS, GuardOutcome.FAIL]
    assert [(said.test, said.outcome, said.reason) for said in beside] == [(FAST, GuardOutcome.MISSING, "no container")]


def test_who_is_stopped_goes_no_further(root: Path) -> None:
    stopped = Image(root, raises(Stopped(["podman"])))
    with pytest.raises(Stopped):
        _in_turns(SUITES, stopped, stopped, FIRST)  # type: ignore[arg-type]
