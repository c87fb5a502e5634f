"""What nights leave behind of other lanes, and what later ones hold their numbers against."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.unit.builders import TEN, A, edit
from tests.unit.verbs.test_lanes_of_a_night import FILE, GREEN, JOB, ONE, TWO, Scene, scene  # noqa: F401

from patchstack.model import Hardware, LaneRecord, Measures, NightReport
from patchstack.regress.hardware import kind
from patchstack.release.history import history_ref, records_in

H200 = Hardware("gpu-07", "16 x Any", 128, ("H200, 140 GiB",), driver="570")
NEWER = replace(H200, driver="580")
METRICS = f"""\
speed:
  unit: answers/s
  better: higher
  test: {ONE}
  floor_share: 0.1
"""


def measuring(speed: float | None, hardware: Hardware = H200) -> str:
    """The code of a job whose machine is ``hardware``, and whose first test measures ``speed``, or says no number."""
    samples = [] if speed is None else [{"metric": "speed", "value": speed}]
    return f"""{JOB}
answer = json.loads((folder / "answer.json").read_text())
answer["hardware"] = json.loads({json.dumps(asdict(hardware))!r})
for result in answer["results"]:
    result["samples"] = {samples} if result["test"] == {ONE!r} else []
(folder / "answer.json").write_text(json.dumps(answer))
"""


def night(scene: Scene, number: int, code: str, outcomes: dict[str, str] = GREEN) -> NightReport:  # noqa: F811
    """One that has something new from the second on, and whose lane says ``outcomes``."""
    if number > 1:
        scene.fork.pull(7, {A: edit(TEN, number, "x")})
    scene.jobs_say(outcomes, code)
    return scene.fork.night()


def kept(scene: Scene) -> list[tuple[LaneRecord, ...]]:  # noqa: F811
    """What the remote's history has of lanes, the newest first."""
    remote = scene.fork.remote
    tip = remote.resolve(history_ref("production"))
    assert tip is not None
    found = records_in(remote, tip, "production", datetime(2027, 1, 1, tzinfo=UTC))
    assert found.notes == ()
    return [record.lanes for record in found.nights]


def measures(report: NightReport) -> list[Measures]:
    assert report.lanes is not None
    return [one for run in report.lanes.runs for one in run.measures]


@pytest.fixture
def place(scene: Scene) -> Scene:  # noqa: F811
    scene.fork.write(str(Path(FILE).with_name("metrics.yaml")), METRICS)
    return scene


def test_numbers_are_kept_by_hardware_and_held_against_those_of_equal_hardware(place: Scene) -> None:
    night(place, 1, measuring(100.0))
    second = night(place, 2, measuring(90.0))
    third = night(place, 3, measuring(10.0, NEWER))
    first_lane, second_lane, third_lane = reversed(kept(place))
    assert first_lane == (LaneRecord("kvcm-manager", kind(H200), True, (("speed", 100.0),)),)
    assert second_lane == (LaneRecord("kvcm-manager", kind(H200), True, (("speed", 90.0),)),)
    assert third_lane == (LaneRecord("kvcm-manager", kind(NEWER), True, (("speed", 10.0),)),)
    (held,) = measures(second)
    assert [(one.metric, one.value, one.n, one.baseline) for one in held.measures] == [("speed", 90.0, 1, 100.0)]
    (alone,) = measures(third)
    assert [(one.metric, one.value, one.n, one.baseline) for one in alone.measures] == [("speed", 10.0, 0, None)]


def test_what_is_red_is_kept_and_makes_no_band(place: Scene) -> None:
    red = night(place, 1, measuring(100.0), {ONE: "pass", TWO: "fail"})
    assert kept(place) == [(LaneRecord("kvcm-manager", kind(H200), False, (("speed", 100.0),), ((TWO, "fail"),)),)]
    (held,) = measures(night(place, 2, measuring(90.0)))
    assert [one.n for one in held.measures] == [0]
    folder = place.fork.run(red).folder
    suites = ElementTree.parse(folder / "junit.xml").getroot().findall("testsuite")
    (lane,) = [suite for suite in suites if suite.get("name") == "lane kvcm-manager"]
    assert (lane.get("tests"), lane.get("failures")) == ("2", "1")
    text = (folder / "report.md").read_text()
    assert f"- `{TWO}` of `kvcm-manager`: **fail**: r\n" in text
    assert "## Metrics of kvcm-manager\n" in text


def test_a_number_that_is_not_said_keeps_the_channel_where_it_is(place: Scene) -> None:
    report = night(place, 1, JOB)
    (held,) = measures(report)
    assert held.missing == (("speed", f"{ONE} passed on a machine that did not say what it is"),)
    assert report.promotion is not None
    assert report.promotion.line.channels == ("nightly",)
    silent = night(place, 2, measuring(None))
    (held,) = measures(silent)
    assert held.missing == (("speed", f"{ONE} passed and measured nothing"),)
    (_, stable) = silent.verdicts
    assert stable.reasons == (f"kvcm-manager: metric speed is missing: {ONE} passed and measured nothing",)
