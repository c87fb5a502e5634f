"""Numbers of whole nights: measured in turns with what is deployed, held against history, red when worse than both."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.quick_guards import use_quick_guards
from tests.e2e.test_night import SLUG, Done, Place, copy_workplace, names

from patchstack.git import Repository
from patchstack.model import NightRecord
from patchstack.release.history import history_ref, keep_night, records_in

TEST = "tests/regression/bed/test_cost.py::test_cost"
COST = "python/sglang/cost.py"
GUARD = f"""\
import os
from pathlib import Path

import pytest

COST = Path(os.environ["PATCHSTACK_TREE"]) / "{COST}"


@pytest.mark.control
def test_cost(measure):
    for off in (-1, 0, 1):
        measure("cost", off + (float(COST.read_text()) if COST.is_file() else 100.0))
"""
METRICS = f"""\
cost:
  unit: ms
  better: lower
  test: {TEST}
  floor_share: 0.1
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = copy_workplace(tmp_path / "fork", SLUG)
    use_quick_guards(place)
    (place.root / "tests/regression/bed/test_cost.py").write_text(GUARD)
    (place.root / "tests/regression/metrics.yaml").write_text(METRICS)
    return place


def measured(done: Done) -> dict[str, Any]:
    (measure,) = done.json["measures"]["measures"]
    return {key: measure[key] for key in ("value", "peer", "n", "trend")}


def beside(done: Done) -> list[tuple[str, str, int]]:
    """Outcome, tree and samples of the tests that measured on the last promoted tree."""
    runs = [run for run in done.json["tests"]["runs"] if run["beside"]]
    return [(said["outcome"], run["tree"], len(said["samples"])) for run in runs for said in run["results"]]


def kept(place: Place) -> tuple[NightRecord, ...]:
    remote = Repository(place.remote)
    tip = remote.resolve(history_ref("production"))
    assert tip is not None
    return records_in(remote, tip, "production", datetime.now(UTC)).nights


def have_had(place: Place, days: int) -> None:
    """So many promoted nights before, on this machine, in each of which it cost 104."""
    (like, *_) = kept(place)
    for day in range(days):
        at = datetime(2026, 10, 1, 2, tzinfo=UTC) + timedelta(days=day)
        night = replace(like, night=f"{at:%Y%m%dT%H%M%SZ}", at=at.isoformat(), samples=(("cost", 104.0),))
        assert keep_night(Repository(place.remote), str(place.remote), night, datetime.now(UTC)) == ""


def test_a_number_is_compared_beside_and_with_earlier_nights(place: Place) -> None:
    first = place.night()
    assert first.code == 0, first.err
    assert measured(first) == {"value": 100.0, "peer": None, "n": 0, "trend": "insufficient data"}
    assert beside(first) == []

    place.propose(7, COST, "104\n")
    second = place.night()
    assert second.code == 0, second.err
    assert measured(second) == {"value": 104.0, "peer": 100.0, "n": 1, "trend": "insufficient data"}
    assert beside(second) == [("pass", first.json["composition"]["tree"], 6)]
    assert second.json["measures"]["against"] == first.json["composition"]["tree"]
    assert [(night.promoted, night.samples) for night in kept(place)] == [
        (True, (("cost", 104.0),)),
        (True, (("cost", 100.0),)),
    ]

    have_had(place, 5)
    place.propose(8, "python/sglang/eight.py", "EIGHT = 8\n")
    steady = place.night()
    assert steady.code == 0, steady.err
    assert measured(steady) == {"value": 104.0, "peer": 104.0, "n": 7, "trend": "pass"}

    before = place.refs()
    place.propose(9, "python/sglang/nine.py", "NINE = 9\n")
    (place.root / "clone-7").rename(place.root / "clone-7-first")
    place.git("update-ref", "-d", "refs/pull/7/head")
    place.propose(7, COST, "130\n")
    slow = place.night()
    assert measured(slow) == {"value": 130.0, "peer": 104.0, "n": 8, "trend": "fail"}
    assert slow.code == 1, slow.err
    (reason,) = slow.json["verdicts"][0]["reasons"]
    assert reason == (
        "metric cost: 130 ms: 25.0% worse than the last promoted tree (104); 25.0% worse than the median of 8 nights "
        f"(104, sigma 0, 10 is allowed) ({TEST})"
    )
    assert place.deploy() in before
    assert names(slow.json["composition"]["included"]) == [SLUG, "#7", "#8", "#9"]
    assert [(night.promoted, night.samples) for night in kept(place)][:2] == [
        (False, (("cost", 130.0),)),
        (True, (("cost", 104.0),)),
    ]


def test_a_metric_that_nobody_measures_keeps_every_channel(place: Place) -> None:
    guard = place.root / "tests/regression/bed/test_cost.py"
    guard.write_text(GUARD.replace("(-1, 0, 1)", "()"))
    night = place.night()
    assert (night.code, night.json["headline"]) == (6, "INCOMPLETE"), night.err
    assert night.json["verdicts"][0]["reasons"] == [f"metric cost is missing: {TEST} passed and measured nothing"]
    guard.write_text(GUARD.replace('"cost"', '"costs"'))
    wrong = place.night()
    assert wrong.code in (1, 6), wrong.err
    assert any("NotDeclared: metrics.yaml has no costs" in reason for reason in wrong.json["verdicts"][0]["reasons"])
