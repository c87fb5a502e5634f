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

    place.propose(9, "python/sglang/nine.py", "NINE = 9\n")
    (place.root / "clone-7").rename(place.root / "clone-7-first")
    place.git("update-ref", "-d", "refs/pull/7/head")
    place.propose(7, COST, "130\n")
    slow = place.night()
    assert slow.code == 0, slow.err
    (finding,) = slow.json["blame"]["findings"]
    assert (finding["certainty"], finding["tests"], [one["name"] for one in finding["suspects"]]) == (
        "CONFIRMED",
        [TEST],
        ["#7"],
    )
    assert names(slow.json["composition"]["included"]) == [SLUG, "#8", "#9"]
    assert measured(slow) == {"value": 100.0, "peer": 104.0, "n": 8, "trend": "pass"}
    assert (kept(place)[0].promoted, kept(place)[0].samples) == (True, (("cost", 100.0),))
    assert kept(place)[0].blamed == (("#7", "CONFIRMED"),)


def test_a_number_that_is_worse_than_both_is_red(place: Place) -> None:
    """Where nobody is asked who it was, the night ends there."""
    config = place.root / "deploy.yaml"
    config.write_text(config.read_text().replace("max_probes: 40", "max_probes: 0"))
    assert place.night().code == 0
    have_had(place, 5)
    place.propose(7, COST, "130\n")
    before = place.refs()
    slow = place.night()
    assert slow.code == 1, slow.err
    assert measured(slow) == {"value": 130.0, "peer": 100.0, "n": 6, "trend": "fail"}
    (reason,) = slow.json["verdicts"][0]["reasons"]
    assert reason == (
        "metric cost: 130 ms: 30.0% worse than the last promoted tree (100); 25.0% worse than the median of 6 nights "
        f"(104, sigma 0, 10 is allowed) ({TEST})"
    )
    assert place.refs() == before
    assert [(night.promoted, night.samples) for night in kept(place)][:2] == [
        (False, (("cost", 130.0),)),
        (True, (("cost", 100.0),)),
    ]


def test_a_metric_that_nobody_measures_keeps_every_channel(place: Place) -> None:
    guard = place.root / "tests/regression/bed/test_cost.py"
    guard.write_text(GUARD.replace("(-1, 0, 1)", "()"))
    night = place.night()
    assert (night.code, night.json["headline"]) == (6, "INCOMPLETE"), night.err
    assert night.json["verdicts"][0]["reasons"] == [f"metric cost is missing: {TEST} passed and measured nothing"]
    guard.write_text(GUARD.replace('"cost"', '"costs"'))
    wrong = place.night()
    assert wrong.code == 6, wrong.err  # it is red on the plain base as well: the bed's fault
    heard = [said["reason"] for run in wrong.json["tests"]["runs"] for said in run["results"]]
    assert any("NotDeclared: metrics.yaml has no costs" in reason for reason in heard), heard
