"""Answers of GitHub's runners: believed of the tests of their own job alone, and never in the way of the night."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.unit.frame.test_pack import report_of
from tests.unit.verbs.fork_bench import workplace
from tests.unit.verbs.test_handed import report_on
from tests.unit.verbs.test_night_parts import write_members
from tests.unit.verbs.test_selection import CONFIG, Stack, stack  # noqa: F401

from patchstack.errors import UsageError
from patchstack.model import (
    Form,
    GuardOutcome,
    GuardResult,
    Hardware,
    ImageCheck,
    ImageRef,
    ImageResult,
    ImageTests,
    JobState,
    LaneAnswer,
    LaneJob,
    LaneRun,
    Look,
    MergePlan,
    Verdict,
)
from patchstack.pack import write_pack
from patchstack.regress.executor import ANSWER, JOB
from patchstack.store import Run, decode, encode
from patchstack.verbs.handed_answers import Answers, with_answers
from patchstack.verbs.jobs import Entry, jobs_of, plans_of_github, unpack_job
from patchstack.verbs.lanes import NO_IMAGE
from patchstack.verbs.rounds import Handed
from patchstack.verbs.test import verdicts_on

GPU = "tests/regression/gpu"
IMAGE = "branch: deploy, image: {repository: registry.example.com/acme/sglang, runtime: cuda}"
LANES = """\
tests:
  lanes:
    cpu: {because: every machine}
    1-gpu: {gpus: 1, shards: 2, executor: github, labels: [self-hosted, gpu], limit_min: 60, because: kernels}
    2-gpu: {gpus: 2, because: ranks}
channels:
  nightly: {needs: [cpu]}
  stable: {needs: [cpu, image, 1-gpu]}
"""
METRICS = f"""\
tokens-per-s: {{unit: tokens/s, better: higher, test: "{GPU}/test_one.py::test_fast", floor_share: 0.1}}
"""
MARK = '@pytest.mark.lane("1-gpu", est_s=10, guards=["lock"], owner="@acme/pd")'
ONE = f"import pytest\n\n\n{MARK}\ndef test_fast() -> None: ...\n\n\n{MARK}\ndef test_right() -> None: ...\n"
TWO = f"import pytest\n\n\n{MARK}\ndef test_other() -> None: ...\n"
FAST, RIGHT, OTHER = f"{GPU}/test_one.py::test_fast", f"{GPU}/test_one.py::test_right", f"{GPU}/test_two.py::test_other"
MACHINE = Hardware("gpu-7", "16 x AMD EPYC 9554", 128, ("NVIDIA H200, 140 GiB",))
DIGEST = f"sha256:{'1' * 64}"


def said(test: str, outcome: GuardOutcome = GuardOutcome.PASS) -> GuardResult:
    return GuardResult(test, "lock", False, outcome, 1.0)


@dataclass
class Night:
    """A tested night with an image, two jobs for GitHub's runners, and a folder for their answers."""

    stack: Stack
    folder: Path

    def __post_init__(self) -> None:
        self.work, self.composition = self.stack.work, self.stack.compose()
        tests = report_on(self.stack, self.composition, self.stack.select(self.composition))
        name = "registry.example.com/acme/sglang"
        labels = (("org.patchstack.tree", self.composition.tree),)
        self.image = ImageResult(ImageRef(name, DIGEST, "nightly-1", "cuda", "r", DIGEST, labels, 1, False))
        looked = ImageTests(name, DIGEST, tuple(ImageCheck(look.value, GuardOutcome.PASS, "") for look in Look))
        self.handed = Handed(self.composition, tests, looked, None)
        report = replace(report_of(), composition=self.composition, tests=tests)
        plan = MergePlan(
            "production", self.composition.base, self.composition.included, (), self.composition.fingerprint
        )
        self.run = Run(self.work.state.runs / report.night)
        for value in (report, self.composition, plan, self.image, tests, looked):
            self.run.write(value)

    def jobs(self, form: Form = Form.DEVICE) -> tuple[LaneJob, LaneJob]:
        rehearse = form is Form.REHEARSAL
        (plan,) = plans_of_github(self.work, self.run, self.composition, ["1-gpu"], rehearse=rehearse)
        one, two = plan.jobs
        return one, two

    def answer(self, name: str, job: LaneJob, *results: GuardResult) -> LaneAnswer:
        answer = LaneAnswer(job, MACHINE, results)
        self.hand_in(name, answer)
        return answer

    def hand_in(self, name: str, answer: LaneAnswer) -> Path:
        file = self.folder / name / ANSWER
        file.parent.mkdir(exist_ok=True)
        file.write_text(encode(answer))
        return file

    def take(self, *folders: Path, rehearsed: bool = False) -> tuple[LaneRun, tuple[str, ...], dict[str, Verdict]]:
        answers = Answers(folders or (self.folder,), rehearsed)
        handed, notes = with_answers(self.work, self.run, self.composition, self.handed, answers)
        assert handed.lanes is not None
        (lane,) = handed.lanes.runs
        verdicts = verdicts_on(
            self.work, self.composition, handed.tests, self.image, handed.image_tests, None, handed.lanes
        ).verdicts
        return lane, notes, {verdict.channel: verdict for verdict in verdicts}


@pytest.fixture
def night(stack: Stack, tmp_path: Path) -> Night:  # noqa: F811
    stack.work.config_path.write_text(CONFIG.partition("channels:")[0].replace("branch: deploy", IMAGE) + LANES)
    for name, text in {"test_one.py": ONE, "test_two.py": TWO}.items():
        file = stack.work.root / GPU / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    (stack.work.root / "tests" / "regression" / "metrics.yaml").write_text(METRICS)
    (tmp_path / "answered").mkdir()
    return Night(replace(stack, work=workplace(tmp_path, local=True)), tmp_path / "answered")


def outcomes(lane: LaneRun) -> dict[str, str]:
    return {result.test.partition("::")[2]: result.outcome.value for result in lane.results}


GREEN = {"test_fast": "pass", "test_right": "pass", "test_other": "pass"}


def test_a_lane_whose_jobs_all_answered_is_what_they_say(night: Night) -> None:
    one, two = night.jobs()
    assert (one.shard.files, two.shard.files) == ((f"{GPU}/test_one.py",), (f"{GPU}/test_two.py",))
    assert one.image == f"registry.example.com/acme/sglang@{DIGEST}"
    night.answer("1", one, said(FAST), said(RIGHT))
    night.answer("2", two, said(OTHER))
    lane, notes, verdicts = night.take()
    assert (lane.executor, lane.form, outcomes(lane), notes) == ("github", Form.DEVICE, GREEN, ())
    assert [(end.state, end.node) for end in lane.jobs] == [(JobState.ANSWERED, "gpu-7")] * 2
    assert {name: (said.status.value, said.reasons) for name, said in verdicts.items()} == {
        "nightly": ("PASS", ()),
        "stable": ("PASS", ()),
    }


def test_a_red_test_keeps_back_what_needs_the_lane_and_nothing_else(night: Night) -> None:
    one, two = night.jobs()
    night.answer("1", one, said(FAST), said(RIGHT, GuardOutcome.FAIL))
    night.answer("2", two, said(OTHER))
    lane, _, verdicts = night.take()
    assert outcomes(lane) == {**GREEN, "test_right": "fail"}
    assert {name: said.status.value for name, said in verdicts.items()} == {"nightly": "PASS", "stable": "FAIL"}


def test_an_answer_that_never_came_is_missing(night: Night) -> None:
    one, _ = night.jobs()
    night.answer("1", one, said(FAST), said(RIGHT))
    lane, notes, verdicts = night.take()
    assert outcomes(lane) == {**GREEN, "test_other": "missing"}
    assert [(end.state.value, end.detail) for end in lane.jobs] == [("answered", ""), ("lost", "its answer never came")]
    assert notes == ()
    assert (verdicts["nightly"].status.value, verdicts["stable"].status.value) == ("PASS", "INCOMPLETE")
    assert verdicts["stable"].reasons == (f"1-gpu: {OTHER}: missing: job 2/2 was lost: its answer never came",)


def test_where_nothing_was_handed_in_everything_is_missing(night: Night) -> None:
    handed, notes = with_answers(night.work, night.run, night.composition, night.handed, Answers(()))
    assert handed.lanes is not None
    assert outcomes(handed.lanes.runs[0]) == dict.fromkeys(GREEN, "missing")
    assert notes == ()


def test_what_no_answer_says_is_not_believed_and_holds_up_no_other(night: Night) -> None:
    one, two = night.jobs()
    night.answer("1", one, said(FAST), said(OTHER))
    night.answer("2", two, said(OTHER))
    lane, notes, verdicts = night.take()
    assert outcomes(lane) == {"test_fast": "missing", "test_right": "missing", "test_other": "pass"}
    assert [(end.state.value, end.detail) for end in lane.jobs] == [
        ("lost", f"what came is not believed: {OTHER} is none of its job"),
        ("answered", ""),
    ]
    assert (notes, verdicts["nightly"].status.value, verdicts["stable"].status.value) == ((), "PASS", "INCOMPLETE")


def test_a_green_test_that_no_file_has_is_a_crash(night: Night) -> None:
    one, two = night.jobs()
    night.answer("1", one, said(FAST), said(RIGHT), said(f"{GPU}/test_one.py::test_made_up"))
    night.answer("2", two, said(OTHER))
    lane, _, verdicts = night.take()
    assert outcomes(lane)["test_made_up"] == "crash"
    assert verdicts["stable"].status.value == "FAIL"


def test_an_answer_of_another_job_is_told_and_answers_nothing(night: Night) -> None:
    one, two = night.jobs()
    night.answer("2", two, said(OTHER))
    for other in (
        replace(one, run="20200101T000000Z"),
        replace(one, composition="1" * 40),
        replace(one, image=f"registry.example.com/evil@{DIGEST}"),
        replace(one, form=Form.REHEARSAL, image="", gpus=0),
        replace(one, shard=replace(one.shard, files=(*one.shard.files, *two.shard.files))),
        replace(one, limit_s=math.inf),
    ):
        night.answer("1", other, said(FAST), said(RIGHT))
        lane, (note,), verdicts = night.take()
        assert outcomes(lane) == {"test_fast": "missing", "test_right": "missing", "test_other": "pass"}
        assert note.startswith("an answer that was handed in is not believed: this night has no such job: shard 1/2")
        assert verdicts["stable"].status.value == "INCOMPLETE"


def test_two_answers_of_one_job_are_none(night: Night) -> None:
    one, two = night.jobs()
    for name in ("1", "again"):
        night.answer(name, one, said(FAST), said(RIGHT))
    night.answer("2", two, said(OTHER))
    lane, _, _ = night.take()
    assert lane.jobs[0].detail == "2 answers came, and it has one"
    assert outcomes(lane)["test_fast"] == "missing"


def damaged(file: Path) -> None:
    file.write_text(file.read_text()[:-20])


def long(file: Path) -> None:
    file.write_text(file.read_text() + " " * (9 << 20))


def link(file: Path) -> None:
    elsewhere = file.rename(file.parent.parent / "elsewhere.json")
    file.symlink_to(elsewhere)


def test_a_file_that_is_no_answer_is_told(night: Night) -> None:
    one, two = night.jobs()
    night.answer("2", two, said(OTHER))
    for spoil, why in ((damaged, "not a LaneAnswer"), (long, "more than"), (link, "is no file of its own")):
        night.answer("1", one, said(FAST), said(RIGHT))
        spoil(night.folder / "1" / ANSWER)
        lane, (note,), _ = night.take()
        assert why in note
        assert outcomes(lane) == {"test_fast": "missing", "test_right": "missing", "test_other": "pass"}


def test_a_rehearsal_is_taken_as_one_where_that_is_said_and_moves_nothing(night: Night) -> None:
    for job, tests in zip(night.jobs(Form.REHEARSAL), ((FAST, RIGHT), (OTHER,)), strict=True):
        night.answer(str(job.shard.number), job, *map(said, tests))
    assert len(night.take()[1]) == 2
    lane, notes, verdicts = night.take(rehearsed=True)
    assert (lane.form, outcomes(lane), notes) == (Form.REHEARSAL, GREEN, ())
    assert verdicts["stable"].reasons == ("it needs 1-gpu, which was rehearsed on a CPU, never run on a GPU",)


def test_one_folder_may_be_named_for_each_answer(night: Night) -> None:
    one, two = night.jobs()
    night.answer("1", one, said(FAST), said(RIGHT))
    night.answer("2", two, said(OTHER))
    assert outcomes(night.take(night.folder / "1", night.folder / "2")[0]) == GREEN


def test_a_folder_without_an_answer_is_refused(night: Night) -> None:
    for folder in (night.folder, night.folder / "nowhere"):
        with pytest.raises(UsageError, match=r"--lanes .*: there is no answer.json in it"):
            night.take(folder)


def test_answers_that_nobody_was_asked_for_are_refused(stack: Stack, tmp_path: Path) -> None:  # noqa: F811
    composition = stack.compose()
    tests = report_on(stack, composition, stack.select(composition))
    run, handed = Run(stack.work.state.runs / "r"), Handed(composition, tests, None, None)
    with pytest.raises(UsageError, match=r"no lane of deploy.yaml has `executor: github`"):
        with_answers(stack.work, run, composition, handed, Answers((tmp_path,)))
    assert with_answers(stack.work, run, composition, handed, Answers(())) == (handed, ())


# --- which jobs there are ---


def packed(night: Night, name: str = "tests.tar") -> Path:
    file = night.folder.parent / name
    write_pack(night.run, night.work.state, night.work.store(), file)
    return file


def labels(entries: Sequence[Entry]) -> list[tuple[str, str, str, tuple[str, ...], int]]:
    return [(entry.lane, entry.shard, entry.name, entry.labels, entry.timeout_min) for entry in entries]


def test_each_shard_of_a_lane_of_github_is_a_job(night: Night) -> None:
    found = jobs_of(night.work, packed(night))
    assert (labels(found.jobs), found.not_run) == (
        [
            ("1-gpu", "1/2", "1-gpu-1", ("self-hosted", "gpu"), 90),
            ("1-gpu", "2/2", "1-gpu-2", ("self-hosted", "gpu"), 90),
        ],
        (),
    )


def test_a_night_without_an_image_asks_nobody_but_for_a_rehearsal(night: Night) -> None:
    night.run.write(ImageResult(None, "no registry"))
    pack = packed(night)
    assert (jobs_of(night.work, pack).jobs, jobs_of(night.work, pack).not_run) == ((), (("1-gpu", NO_IMAGE),))
    assert len(jobs_of(night.work, pack, rehearse=True).jobs) == 2


def test_a_red_night_asks_nobody(night: Night) -> None:
    night.run.write(replace(report_of(), composition=night.composition, exit_code=1, failure="channel nightly is FAIL"))
    found = jobs_of(night.work, packed(night))
    assert (found.jobs, found.not_run) == (
        (),
        (("1-gpu", "the night has ended without them: channel nightly is FAIL"),),
    )


def test_jobs_are_those_of_a_night_that_was_tested(night: Night) -> None:
    file = night.folder.parent / "none.tar"
    write_members(file, {"report.json": encode(report_of()).encode()})
    with pytest.raises(UsageError, match=r"none.tar has no tests.json: name what `patchstack nightly --until test"):
        jobs_of(night.work, file)


def test_a_runner_makes_its_job_from_the_pack_alone(night: Night, tmp_path: Path) -> None:
    pack, expected = packed(night), night.jobs()[1]
    elsewhere = replace(night.work, state=replace(night.work.state, root=tmp_path / "runner"))
    unpack_job(elsewhere, pack, tmp_path / "asked", lane="1-gpu", shard="2/2", rehearse=False)
    assert decode(LaneJob, (tmp_path / "asked" / JOB).read_text(), JOB) == expected
    (run,) = elsewhere.state.all_runs()
    assert (run.id, json.loads(run.path(ImageResult).read_text())) == (
        night.run.id,
        json.loads(night.run.path(ImageResult).read_text()),
    )


def test_a_job_that_the_night_does_not_have_is_refused(night: Night, tmp_path: Path) -> None:
    pack = packed(night)
    for lane, shard, why in (
        ("2-gpu", "1/1", "lane 2-gpu: deploy.yaml gives it to nobody on GitHub"),
        ("nowhere", "1/1", "lane nowhere: deploy.yaml gives it to nobody on GitHub"),
        ("1-gpu", "3/3", "lane 1-gpu of this night has no shard 3/3: it has 1/2, 2/2"),
        ("1-gpu", "one", "'one' is no shard"),
    ):
        with pytest.raises(UsageError, match=why):
            unpack_job(night.work, pack, tmp_path / "asked", lane=lane, shard=shard, rehearse=False)
        assert not (tmp_path / "asked").exists()


def test_a_folder_that_has_answered_is_not_asked_again(night: Night, tmp_path: Path) -> None:
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked" / ANSWER).write_text("{}")
    with pytest.raises(UsageError, match="has an answer already"):
        unpack_job(night.work, packed(night), tmp_path / "asked", lane="1-gpu", shard="1/2", rehearse=False)
