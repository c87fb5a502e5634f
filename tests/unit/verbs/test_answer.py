"""Which night the verb `answer` takes, from the store or from packs, what it says of it, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.report import fixed_night
from tests.unit.verbs.answer_bench import FORK, Desk, conflict, included, opened, told, waiting

from patchstack.errors import UsageError
from patchstack.model import NightReport
from patchstack.verbs.answer import answer_no_night, answer_overdue


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened(tmp_path) as desk:
        yield desk


def test_a_dry_run_prints_every_text_and_writes_nothing(desk: Desk) -> None:
    desk.pulls(1, 2)
    desk.night(red=True)
    memo = desk.memo.read_text()
    desk.write(included(1), conflict(2, "#1"))
    before = len(desk.hub.requests)

    done = desk.run("answer", "--dry-run")

    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line.startswith("== ")] == [
        "== opens issue: Lane `production`: `#2` conflicts with `#1`",
        "== closes issue #3: Lane `production`: the night is FAIL",
        "== comments on #1",
        "== comments on #2",
    ]
    assert "**In tonight's deploy**." in done.stdout
    assert "Gone: night `20261102T020000Z`" in done.stdout
    assert {one.method for one in desk.hub.requests[before:]} == {"GET"}
    assert desk.memo.read_text() == memo
    assert not (desk.work().state.runs / "20261102T020000Z" / "answers.md").exists()


def test_the_texts_are_in_the_runs_folder_and_link_to_the_workflows_run(desk: Desk) -> None:
    desk.pulls(1)
    desk.write(waiting(1), red=True)

    done = desk.run("answer", "--json", GITHUB_REPOSITORY=FORK, GITHUB_RUN_ID="77")

    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    body = json.loads(done.stdout)
    assert [step["act"] for step in body["issues"]] == ["open"]
    text = (desk.work().state.runs / "20261101T020000Z" / "answers.md").read_text()
    assert "== opened issue: Lane `production`: the night is FAIL" in text
    link = f"[`the workflow's run`](<{desk.hub.server_url}/{FORK}/actions/runs/77>)"
    assert link in (desk.fork.issues[0].body or "")
    assert link in desk.fork.comments(1)[0].body
    assert link in text


def test_a_night_of_another_remotes_numbers_is_not_answered(desk: Desk) -> None:
    desk.pulls(1)
    desk.write(waiting(1), asked=())

    with pytest.raises(UsageError, match=r"did not ask acme/sglang for its pull requests"):
        desk.again()
    assert desk.hub.requests == []


def test_the_night_of_a_pack(desk: Desk) -> None:
    desk.pulls(1)
    red = desk.pack(desk.write(waiting(1), red=True), "red.tar")

    done = desk.run("answer", "--unpack", str(red), GITHUB_REPOSITORY=FORK, GITHUB_RUN_ID="77")

    assert (done.returncode, desk.issues()) == (0, ["#2 open: Lane `production`: the night is FAIL"])
    assert (desk.work().state.runs / "20261101T020000Z" / "answers.md").is_file()
    assert desk.run("answer", "--unpack", str(red), "--dry-run").stdout.count("\n== ") == 1  # no link to a run


def test_of_the_packs_of_a_night_the_newest_report_counts(desk: Desk) -> None:
    desk.pulls(1)
    run = desk.write(included(1), promotion=None, tests=None, verdicts=())
    composed = desk.pack(run, "night.tar", keep=True)
    run.write(replace(run.read(NightReport), promotion=fixed_night.PROMOTION))
    promoted = desk.pack(run, "promoted.tar")

    assert desk.run("answer", "--unpack", str(promoted), str(composed)).returncode == 0
    assert desk.comments(1) == ["**In tonight's deploy**."]
    assert desk.issues() == []


def test_a_night_that_was_lost_after_its_merge_is_told(desk: Desk) -> None:
    desk.pulls(1, 2)
    composed = desk.pack(desk.write(included(1), conflict(2, "#1"), promotion=None, tests=None, verdicts=()), "x.tar")

    assert desk.run("answer", "--unpack", str(composed)).returncode == 0
    assert [issue.title for issue in desk.fork.issues] == [
        "Lane `production`: `#2` conflicts with `#1`",
        "Lane `production`: a night ended without a report",
    ]
    assert (desk.comments(1), len(desk.comments(2))) == ([], 1)


def test_packs_of_two_nights_or_of_another_lane_are_refused(desk: Desk) -> None:
    packs = [desk.pack(desk.write(lane=lane), f"{lane}.tar") for lane in ("production", "edge")]

    both = desk.run("answer", "--unpack", str(packs[0]), "--unpack", str(packs[1]))
    other = desk.run("answer", "--unpack", str(packs[1]))

    assert (both.returncode, other.returncode, desk.fork.issues) == (2, 2, ())
    assert "the packs are of several nights: 20261101T020000Z, 20261102T020000Z" in both.stderr
    assert "is of lane edge, not of production: use --lane edge" in other.stderr
    assert desk.work().state.all_runs() == ()


def test_no_night(desk: Desk) -> None:
    work, url = desk.work(), "https://github.com/acme/sglang/actions/runs/7"

    assert told(answer_no_night(work, desk.github(), url)) == ["open no-night"]
    assert told(answer_no_night(work, desk.github(), url)) == []
    assert told(answer_no_night(work, desk.github(), f"{url}7")) == ["edit no-night"]
    assert desk.night(red=True) == ["open red-night", "close no-night"]
    with pytest.raises(UsageError, match="is not the address of a run"):
        answer_no_night(work, desk.github(), "--force")


def test_no_night_for_too_long(desk: Desk) -> None:
    work = desk.work()

    assert told(answer_overdue(work, desk.github(), max_age=timedelta(hours=1))) == ["open overdue"]
    assert told(answer_overdue(work, desk.github(), max_age=timedelta(hours=1))) == []
    assert "`deploy` never had a night." in (desk.fork.issues[0].body or "")
    assert desk.night() == ["close overdue"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["answer", "--run", "x", "--no-night", "https://x/1"], "use one of them"),
        (["answer", "--no-night", ""], "is not the address of a run"),
        (["answer", "pack.tar"], "a pack is named with --unpack"),
        (["--local", "answer"], "leave that out"),
        (["answer"], "no night of lane production has run"),
        (["answer", "--run", "x"], "no run 'x'"),
        (["answer", "--overdue", "soon"], "is no age"),
        (["answer", "--unpack", "none.tar"], "there is no pack none.tar"),
    ],
)
def test_what_is_not_understood_asks_nothing(desk: Desk, argv: list[str], says: str) -> None:
    done = desk.run(*argv)

    assert (done.returncode, desk.hub.requests) == (2, [])
    assert says in done.stderr


def test_without_a_token_it_says_so(desk: Desk) -> None:
    done = desk.run("answer", PATCHSTACK_TOKEN="", GITHUB_TOKEN="", GH_TOKEN="")

    assert done.returncode == 2
    assert "PATCHSTACK_TOKEN" in done.stderr
