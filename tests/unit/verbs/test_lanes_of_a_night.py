"""Nights with other lanes: real processes as jobs, whose tests are said to end as a test here says.

The image is said to be in order, as the guards of the bench are said to be green; what a job does inside an image,
and in the bed, is `tests/e2e`'s.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.unit.verbs.night_bench import CONFIG, UPSTREAM, Fork
from tests.unit.verbs.red_bench import RedFork
from tests.unit.verbs.test_night_parts import members, write_members

from patchstack.errors import UsageError
from patchstack.model import GuardOutcome, JobState, LaneRuns, NightReport, Status, Verdict
from patchstack.nightly import Part, Until
from patchstack.regress.executor import Begin
from patchstack.store import decode, encode
from patchstack.verbs import lanes, rounds
from patchstack.verbs.lanes import NO_IMAGE

FILE = "tests/regression/gpu/test_it.py"
ONE, TWO = f"{FILE}::test_one", f"{FILE}::test_two"
SCENARIO = """\
import pytest

pytestmark = pytest.mark.lane("kvcm-manager", est_s=5, guards=["first"], owner="@acme/pd")


def test_one() -> None: ...


def test_two() -> None: ...
"""
JOB = """\
import json, pathlib, sys
folder, said = pathlib.Path(sys.argv[2]), json.loads(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
head = {"schema_version": job.pop("schema_version"), "type": "LaneAnswer"}
results = [
    {"test": test, "slug": "first", "control": False, "outcome": outcome, "duration_s": 1.0, "reason": "r"}
    for test, outcome in said.items()
]
(folder / "answer.json").write_text(json.dumps({**head, "job": job, "hardware": None, "results": results}))
"""
IMAGE = "acme/sglang@sha256:" + "0" * 64
GREEN = {ONE: "pass", TWO: "pass"}


@dataclass
class Scene:
    fork: RedFork
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        channels = "nightly: {needs: [cpu]}\n  stable: {needs: [cpu, kvcm-manager]}\n"
        lanes_of_tests = (
            'tests:\n  lanes:\n    cpu: {because: "x"}\n    kvcm-manager: {because: "x", executor: local}\n'
        )
        plain = CONFIG.format(upstream=UPSTREAM, most=2).replace("nightly: {needs: [cpu]}\n", channels)
        self.fork.configure(plain.replace("branch: deploy", "branch: deploy\n    optional: [extra]") + lanes_of_tests)
        self.fork.write(FILE, SCENARIO)
        self.has_image(IMAGE)

    def has_image(self, image: str) -> None:
        self.monkeypatch.setattr(lanes, "image_of_run", lambda *_: image)
        self.monkeypatch.setattr(rounds, "image_in_order", lambda *_: image)

    def jobs_say(self, outcomes: dict[str, str], code: str = JOB) -> None:
        argv = [sys.executable, "-c", code, json.dumps(outcomes)]
        begin = Begin(lambda folder: [*argv, str(folder)], self.folder, {})
        self.monkeypatch.setattr(lanes, "beginning", lambda _: begin)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("PATCHSTACK_CACHE", str(tmp_path / "cache"))
    fork = RedFork(tmp_path / "fork", monkeypatch)
    made = Scene(fork, tmp_path, monkeypatch)
    for path in ("conftest.py", "support/locks/l.txt", "support/testbed/t.py"):
        fork.write(f"tests/{path}", "")
    fork.write("README.md", "# A fork\n")
    fork.patch("first")
    fork.patch("extra")
    return made


def stable(report: NightReport) -> Verdict:
    """The verdict on the channel that needs the lane; the night itself is promoted, whatever the lane says."""
    assert (report.failure, report.headline, report.exit_code) == ("", Status.PASS, 0)
    nightly, found = report.verdicts
    assert (nightly.status, nightly.reasons) == (Status.PASS, ())
    return found


def said(report: NightReport) -> dict[str, GuardOutcome]:
    assert report.lanes is not None
    (run,) = report.lanes.runs
    return {result.test: result.outcome for result in run.results}


def test_a_green_lane_lets_the_channel_move_that_needs_it(scene: Scene) -> None:
    scene.jobs_say(GREEN)
    report = scene.fork.night()
    assert stable(report).status is Status.PASS
    assert said(report) == {ONE: GuardOutcome.PASS, TWO: GuardOutcome.PASS}
    assert report.promotion is not None
    assert report.promotion.line.channels == ("nightly", "stable")
    assert scene.fork.run(report).read(LaneRuns) == report.lanes
    assert [timing.stage for timing in report.timings if timing.stage in {"test", "lanes", "promote"}] == [
        "test",
        "lanes",
        "promote",
    ]


def test_a_red_lane_fails_that_channel_and_nobody_is_blamed(scene: Scene) -> None:
    scene.jobs_say({ONE: "pass", TWO: "fail"})
    report = scene.fork.night()
    assert stable(report) == Verdict("stable", Status.FAIL, (f"kvcm-manager: {TWO}: fail: r",), ())
    assert (report.blame, scene.fork.asked) == (None, [])
    assert report.promotion is not None
    assert report.promotion.line.channels == ("nightly",)


def test_where_nightly_needs_the_lane_a_red_one_stops_the_night(scene: Scene) -> None:
    scene.fork.replace("deploy.yaml", "nightly: {needs: [cpu]}", "nightly: {needs: [cpu, kvcm-manager]}")
    scene.jobs_say({ONE: "fail", TWO: "pass"})
    report = scene.fork.night()
    assert (report.headline, report.exit_code, report.promotion, report.blame) == (Status.FAIL, 1, None, None)
    assert f"kvcm-manager: {ONE}: fail: r" in report.failure


@pytest.mark.parametrize(
    ("code", "state", "why"),
    [
        ("", JobState.LOST, "it ended with 0, without an answer: it printed nothing"),
        ("import sys; print('no engine'); sys.exit(11)", JobState.REFUSED, "no engine"),
        ("import os; os.kill(os.getpid(), 9)", JobState.LOST, "it was killed (SIGKILL)"),
        (f"{JOB}\n(folder / 'answer.json').write_text('{{}}')", JobState.LOST, "its answer cannot be read"),
        (JOB.replace('"job": job', '"job": job | {"lane": "x"}'), JobState.LOST, "its answer is that of another job"),
    ],
)
def test_a_job_without_an_answer_leaves_the_channel_open(scene: Scene, code: str, state: JobState, why: str) -> None:
    scene.jobs_say(GREEN, code)
    report = scene.fork.night()
    found = stable(report)
    (reason,) = found.reasons
    assert (found.status, reason.startswith(f"it needs kvcm-manager, which did not run: {state.value}: {why}")) == (
        Status.INCOMPLETE,
        True,
    ), reason
    assert set(said(report).values()) == {GuardOutcome.MISSING}


def test_an_earlier_answer_that_is_in_the_way_is_not_taken_for_the_job_s_own(scene: Scene) -> None:
    scene.jobs_say(GREEN)
    report = scene.fork.night()
    scene.monkeypatch.setattr(lanes.shutil, "rmtree", lambda *_, **__: None)
    scene.jobs_say(GREEN, "")
    assert report.composition is not None
    asked = lanes.Request(("kvcm-manager",))
    found = lanes.run_lanes(scene.fork.work, scene.fork.run(report), report.composition, asked)
    assert [end.state for run in found.runs for end in run.jobs] == [JobState.LOST]


def test_without_an_image_nothing_is_begun_and_it_is_said_why(scene: Scene) -> None:
    scene.has_image("")
    scene.jobs_say(GREEN)
    report = scene.fork.night()
    assert stable(report).reasons == (f"it needs kvcm-manager, which did not run: refused: {NO_IMAGE}",)
    assert not (scene.fork.run(report).folder / "lanes").exists()


def test_a_red_night_asks_no_lane(scene: Scene) -> None:
    scene.fork.replace("deploy.yaml", "max_lost:", "blame: {max_probes: 0}\nmax_lost:")
    scene.fork.patch("second", "bad")
    scene.jobs_say(GREEN)
    report = scene.fork.night()
    assert (report.headline, report.lanes) == (Status.FAIL, None)


def test_a_night_in_which_nobody_gives_it_jobs_is_as_it_was(scene: Scene) -> None:
    scene.fork.replace("deploy.yaml", ", executor: local", "")
    report = scene.fork.night()
    assert report.lanes is None
    assert stable(report).reasons == ("it needs kvcm-manager, which did not run (2 scenarios: " + f"{ONE}, {TWO})",)


def test_other_tests_of_the_lane_make_another_night(scene: Scene) -> None:
    scene.jobs_say(GREEN)
    assert not scene.fork.night().nothing_to_do
    assert scene.fork.night().nothing_to_do
    scene.fork.write(FILE, SCENARIO.replace("test_two", "test_three"))
    again = scene.fork.night()
    assert (again.nothing_to_do, said(again)[f"{FILE}::test_three"]) == (False, GuardOutcome.MISSING)


# --- in parts ---


@dataclass
class Parts:
    scene: Scene
    composed: Path
    tested: Path

    def promote(self, forge: LaneRuns | None = None) -> NightReport:
        """The last part, with what the one before said of lanes, or with ``forge`` in its place."""
        if forge is not None:
            write_members(self.tested, {**members(self.tested), "lanes.json": encode(forge).encode()})
        return self.scene.fork.night(Part(unpack=self.composed, tests=self.tested))

    @property
    def lanes(self) -> LaneRuns:
        return decode(LaneRuns, members(self.tested)["lanes.json"].decode(), "lanes.json")


@pytest.fixture
def parts(scene: Scene, tmp_path: Path) -> Parts:
    scene.jobs_say({ONE: "pass", TWO: "fail"})
    composed, tested = tmp_path / "composed.tar", tmp_path / "tested.tar"
    scene.fork.night(Part(Until.MERGE, pack=composed))
    elsewhere: Fork = scene.fork.copied(tmp_path / "elsewhere", scene.monkeypatch)
    scene.fork.listen()
    said_there = elsewhere.night(Part(Until.TEST, unpack=composed, pack=tested))
    assert (said_there.failure, said_there.lanes is not None) == ("", True)
    return Parts(scene, composed, tested)


def test_what_lanes_said_goes_from_the_part_that_tests_to_the_one_that_promotes(parts: Parts) -> None:
    report = parts.promote()
    assert report.lanes == parts.lanes
    assert stable(report).reasons == (f"kvcm-manager: {TWO}: fail: r",)


def test_what_a_lane_is_said_to_come_to_follows_from_its_answers_alone(parts: Parts) -> None:
    (run,) = parts.lanes.runs
    green = tuple(replace(result, outcome=GuardOutcome.PASS) for result in run.results)
    report = parts.promote(replace(parts.lanes, runs=(replace(run, results=green),)))
    assert (stable(report).status, said(report)[TWO]) == (Status.FAIL, GuardOutcome.FAIL)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lanes, run: replace(lanes, composition="0" * 40), "they are of composition 000000000000"),
        (lambda lanes, run: replace(lanes, runs=(run, run)), "lane kvcm-manager is there twice"),
        (lambda lanes, run: replace(lanes, runs=(replace(run, lane="1-gpu"),)), "lane 1-gpu is none of this night's"),
        (lambda lanes, run: replace(lanes, runs=(replace(run, jobs=()),)), "lane kvcm-manager has other jobs"),
        (lambda lanes, run: replace(lanes, runs=(replace(run, answers=()),)), "has answers of other jobs"),
        (lambda lanes, run: replace(lanes, runs=(replace(run, executor="slurm"),)), "is run by local in the image"),
        (
            lambda lanes, run: replace(
                lanes, runs=(replace(run, jobs=(replace(run.jobs[0], job=replace(run.jobs[0].job, image="x")),)),)
            ),
            "lane kvcm-manager has other jobs",
        ),
    ],
)
def test_what_is_not_of_this_night_moves_nothing(parts: Parts, change: object, problem: str) -> None:
    before = parts.scene.fork.refs() if parts.scene.fork.remote.folder.is_dir() else {}
    forged = change(parts.lanes, parts.lanes.runs[0])  # type: ignore[operator]
    with pytest.raises(UsageError, match=problem):
        parts.promote(forged)
    after = parts.scene.fork.refs() if parts.scene.fork.remote.folder.is_dir() else {}
    assert after == before
