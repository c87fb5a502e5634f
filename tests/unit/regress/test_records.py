"""`records/`: what is believed of a run on real GPUs, and what is named as none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from patchstack.errors import ConfigError
from patchstack.model import (
    Form,
    GuardOutcome,
    GuardResult,
    Hardware,
    JobEnd,
    JobState,
    LaneAnswer,
    LaneJob,
    LaneRun,
    Settings,
    Sha,
    Shard,
)
from patchstack.regress.records import Record, heard_of, read_records, record_name, record_problem
from patchstack.store import encode, write_whole

FAST, SLOW = "tests/regression/gpu/test_fast.py", "tests/regression/gpu/test_slow.py"
TREE = Sha("a" * 40)
PASS, FAIL, MISSING = GuardOutcome.PASS, GuardOutcome.FAIL, GuardOutcome.MISSING
H200 = Hardware("gpu-07", "16 x Any", 128, ("H200, 140 GiB",), driver="570", cuda="13.0", nccl="2.27")


def said(test: str, outcome: GuardOutcome = PASS) -> GuardResult:
    return GuardResult(test, "x", False, outcome, 30.5)


def lane_run(night: str = "20261122T020000Z", *results: GuardResult) -> LaneRun:
    """Two jobs, of which the second one's machine was lost."""
    results = results or (said(f"{FAST}::test_it[1]"), said(f"{FAST}::test_it[2]"), said(f"{SLOW}::test_it", MISSING))
    first, second = (
        LaneJob(night, "1-gpu", Shard(number, 2, (file,)), TREE, TREE, Form.DEVICE, "r@sha256:0", 1, 60.0)
        for number, file in ((1, FAST), (2, SLOW))
    )
    ends = (JobEnd(first, JobState.ANSWERED, node="gpu-07"), JobEnd(second, JobState.LOST, "node gone"))
    settings = (Settings(results[0].test, (("model", "Any-0.6B"), ("seed", "7"))),)
    answers = (LaneAnswer(first, H200, results[:2], settings),)
    return LaneRun("1-gpu", "slurm", Form.DEVICE, ends, answers, results)


def of_jobs(run: LaneRun, /, **change: object) -> LaneRun:
    """``run`` with every job changed, as it was asked and as it was answered."""
    return replace(
        run,
        jobs=tuple(replace(end, job=replace(end.job, **change)) for end in run.jobs),  # type: ignore[arg-type]
        answers=tuple(replace(one, job=replace(one.job, **change)) for one in run.answers),  # type: ignore[arg-type]
    )


def on(run: LaneRun, hardware: Hardware | None) -> LaneRun:
    return replace(run, answers=tuple(replace(answer, hardware=hardware) for answer in run.answers))


def keep(root: Path, run: LaneRun, name: str | None = None) -> Path:
    path = root / "records" / (name or record_name(run))
    write_whole(path, encode(run))
    return path


def problems(root: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read_records(root)
    return raised.value.problems


def test_no_folder_is_no_record(tmp_path: Path) -> None:
    assert read_records(tmp_path) == ()
    write_whole(tmp_path / "records" / "README.md", "what is here\n")
    assert read_records(tmp_path) == ()


def test_records_come_back_as_they_were_written_the_newest_first(tmp_path: Path) -> None:
    older, newer = lane_run("20261121T020000Z"), lane_run("20261122T020000Z")
    for run in (older, newer):
        keep(tmp_path, run)
    found = read_records(tmp_path)
    assert found == (Record("20261122T020000Z-1-gpu.json", newer), Record("20261121T020000Z-1-gpu.json", older))
    assert (found[0].night, found[0].tree) == ("20261122T020000Z", TREE)


CPU = replace(H200, gpus=())
NO_RECORD: list[tuple[str, Callable[[LaneRun], LaneRun], str]] = [
    ("a rehearsal", lambda run: replace(run, form=Form.REHEARSAL), "it was rehearsed on a CPU"),
    ("a rehearsal's jobs", lambda run: of_jobs(run, form=Form.REHEARSAL), "it was rehearsed on a CPU"),
    ("without hardware", lambda run: on(run, None), "job 1/2 does not say what hardware it ran on"),
    ("without a GPU", lambda run: on(run, CPU), "job 1/2 was to have 1 GPUs, and saw 0"),
    ("too few GPUs", lambda run: of_jobs(run, gpus=2), "job 1/2 was to have 2 GPUs, and saw 1"),
    ("no job", lambda run: replace(run, jobs=(), answers=()), "not those of one lane of one night"),
    ("another lane's jobs", lambda run: of_jobs(run, lane="2-gpu"), "not those of one lane of one night"),
    ("jobs of two nights", lambda run: replace(run, jobs=(*run.jobs, *lane_run("20261101T020000Z").jobs)), "one night"),
    ("no night", lambda run: of_jobs(run, run="../x"), "has a name that none has"),
    ("no lane", lambda run: of_jobs(replace(run, lane="../x"), lane="../x"), "has a name that none has"),
    ("no answer", lambda run: replace(run, jobs=run.jobs[1:], answers=()), "no machine answered"),
    ("an answer too many", lambda run: replace(run, answers=run.answers * 2), "its answers are not those of its jobs"),
    (
        "a lost one's",
        lambda run: replace(run, results=(said(f"{SLOW}::test_it"),)),
        "test_slow.py::test_it has a result",
    ),
]


@pytest.mark.parametrize(("change", "why"), [pytest.param(change, why, id=name) for name, change, why in NO_RECORD])
def test_what_shows_nothing_of_a_gpu_is_no_record(
    change: Callable[[LaneRun], LaneRun], why: str, tmp_path: Path
) -> None:
    assert record_problem(lane_run()) == ""
    wrong = change(lane_run())
    assert why in record_problem(wrong)
    keep(tmp_path, wrong, "20261122T020000Z-1-gpu.json")
    (problem,) = problems(tmp_path)
    assert problem.startswith("records/20261122T020000Z-1-gpu.json:1: : ")
    assert why in problem


def test_a_lane_that_needs_no_gpu_has_records_without_one() -> None:
    """A real manager, for instance."""
    assert record_problem(on(of_jobs(lane_run(), gpus=0), CPU)) == ""


def edited(run: LaneRun, edit: Callable[[dict[str, object]], object]) -> bytes:
    body = json.loads(encode(run))
    edit(body)
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff", "can't decode byte"),
        (b"{}", "not a LaneRun of this version"),
        (b"[" * 10_000, "not a LaneRun of this version"),
        (encode(lane_run("20261101T020000Z")).encode(), "its name is 20261101T020000Z-1-gpu.json"),
        (edited(lane_run(), lambda body: body.update(note="by hand")), "no version of a record knows"),
        (edited(lane_run(), lambda body: body.update(lane=["1-gpu"])), "not a LaneRun of this version"),
        (edited(lane_run(), lambda body: body["results"][0].update(duration_s="30.5")), "or writes otherwise"),  # type: ignore[index]
        (edited(lane_run(), lambda body: body["results"][0].update(duration_s=float("nan"))), "or writes otherwise"),  # type: ignore[index]
        (edited(lane_run(), lambda body: body.update(schema_version=2)), "not a LaneRun of this version"),
    ],
    ids=["bytes", "empty", "deep", "name", "a key", "a type", "a text", "no number", "version"],
)
def test_a_file_that_is_no_record_is_named(data: bytes, why: str, tmp_path: Path) -> None:
    keep(tmp_path, lane_run("20261121T020000Z"))
    write_whole(tmp_path / "records" / "20261122T020000Z-1-gpu.json", data)
    (problem,) = problems(tmp_path)
    assert problem.startswith("records/20261122T020000Z-1-gpu.json:1: : ")
    assert why in problem
    assert problem.endswith("take it out; `patchstack record` writes what belongs here")


def test_whatever_else_is_there_is_named_all_at_once(tmp_path: Path) -> None:
    kept = keep(tmp_path, lane_run())
    (tmp_path / "records" / "a-link.json").symlink_to(kept)
    (tmp_path / "records" / "folder").mkdir()
    write_whole(tmp_path / "records" / "notes.txt", "fast\n")
    assert [problem.partition(":")[0] for problem in problems(tmp_path)] == [
        "records/a-link.json",
        "records/folder",
        "records/notes.txt",
    ]


def test_a_record_of_before_a_field_was_there_is_read(tmp_path: Path) -> None:
    data = edited(lane_run(), lambda body: body.pop("measures"))
    write_whole(tmp_path / "records" / "20261122T020000Z-1-gpu.json", data)
    assert [record.run for record in read_records(tmp_path)] == [lane_run()]


def test_the_newest_answer_of_a_test_is_told() -> None:
    """What was missing in the newest run was last heard of in an older one."""
    gone = lane_run("20261122T020000Z", said(f"{FAST}::test_it[1]", MISSING), said(f"{FAST}::test_red", FAIL))
    records = (Record("new", gone), Record("old", lane_run("20261121T020000Z")))
    older = heard_of(records, f"{FAST}::test_it")
    assert older is not None
    assert (older.record, older.night, older.tree, older.hardware, older.in_image) == (
        "old",
        "20261121T020000Z",
        TREE,
        H200,
        True,
    )
    assert [one.test for one in older.results] == [f"{FAST}::test_it[1]", f"{FAST}::test_it[2]"]
    red = heard_of(records, f"{FAST}::test_red")
    assert red is not None
    assert (red.record, [one.outcome for one in red.results]) == ("new", [FAIL])
    assert heard_of(records, f"{SLOW}::test_it") is None
    assert heard_of((), f"{FAST}::test_it") is None


def test_what_ran_in_no_image_says_so() -> None:
    heard = heard_of((Record("r", of_jobs(lane_run(), image="")),), f"{FAST}::test_it")
    assert heard is not None
    assert not heard.in_image
