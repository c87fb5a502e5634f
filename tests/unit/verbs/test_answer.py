"""Nights answered on a GitHub: what several of them write one after the other, and what a failure leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.github_server import Fault, GitHubServer
from tests.unit.report import fixed_night
from tests.unit.report.fixed_night import left_out, sha, topic

from patchstack.errors import CompositionError, PatchstackError, UsageError
from patchstack.git import EMPTY_TREE, Repository
from patchstack.github import GitHub, Token
from patchstack.model import (
    Asked,
    LeftOut,
    NightReport,
    Outcome,
    Reason,
    Refusal,
    Topic,
)
from patchstack.nightly import night
from patchstack.pack import write_pack
from patchstack.report.answers import Answers
from patchstack.report.marker import PullMarker, SignalMarker, pull_of
from patchstack.store import Run
from patchstack.verbs.answer import answer_night, answer_no_night, answer_overdue, night_of_run
from patchstack.workplace import Workplace, open_workplace

FORK = "acme/sglang"
BOT = "github-actions[bot]"
MAY_ANSWER = {"contents": "read", "issues": "write", "pull-requests": "write"}
CONFIG = """\
schema: 1
fork: {repo: acme/sglang}
lanes:
  production:
    upstream: {pypi: sglang==0.5.12.post1}
    branch: deploy
  edge:
    upstream: {pypi: sglang==0.5.23}
    branch: deploy-edge
channels:
  nightly: {needs: [cpu]}
"""
COMMANDS = [sys.executable, "-c", "from patchstack.cli import main; main()"]


class Quiet:
    def __call__(self, message: str, /) -> None: ...

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        yield


def included(number: int, head: str = "3") -> Topic:
    return topic(f"#{number}", f"title of #{number}", author="ann", head=sha(head))


def conflict(number: int, *twins: str, head: str = "4", files: tuple[str, ...] = ("a.py",)) -> LeftOut:
    detail = f"it conflicts with {twins[0]}: merge it"
    made = left_out(f"#{number}", Outcome.EXCLUDED, Reason.CONFLICT, detail, twins=twins, files=files)
    return replace(made, head=sha(head))


def waiting(number: int, reason: Reason = Reason.NEEDS_ADMISSION) -> LeftOut:
    return left_out(f"#{number}", Outcome.WAITING, reason, "approve it")


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@dataclass
class Desk:
    """A fork on a GitHub with a few pull requests, and a workplace whose nights are written by hand."""

    hub: GitHubServer
    folder: Path
    nights: int = 0
    token: str = field(init=False)

    def __post_init__(self) -> None:
        self.fork = self.hub.repository(FORK)
        store = Repository(self.fork.path)
        commit = store.commit(EMPTY_TREE, (), "one\n")
        self.fork.push_many({"main": commit, "stack/production": commit, "fix": commit}, by="ann")
        self.token = self.hub.token(BOT, repo=FORK, permissions=MAY_ANSWER)
        (self.folder / "deploy.yaml").write_text(CONFIG)

    def pulls(self, *numbers: int) -> None:
        for number in numbers:
            self.fork.open_pull("fix", into="stack/production", author="ann", number=number)

    def work(self, lane: str = "production") -> Workplace:
        return open_workplace(
            config_path=self.folder / "deploy.yaml",
            state_folder=self.folder / ".patchstack",
            lane=lane,
            remote=None,
            local=False,
            offline=True,
            progress=Quiet(),
        )

    @property
    def memo(self) -> Path:
        return self.folder / ".patchstack" / "memo" / "answers.json"

    def github(self) -> GitHub:
        return GitHub(self.hub.api_url, Token(self.token))

    def write(self, *items: Topic | LeftOut, red: bool = False, **more: object) -> Run:
        """One more night, a day after the last: promoted, or red."""
        self.nights += 1
        night = f"202611{self.nights:02}T020000Z"
        composition = replace(
            fixed_night.COMPOSITION,
            included=tuple(item for item in items if isinstance(item, Topic)),
            left_out=tuple(item for item in items if isinstance(item, LeftOut)),
        )
        made = replace(
            fixed_night.RED if red else fixed_night.NIGHT,
            night=night,
            at=f"2026-11-{self.nights:02}T02:00:00+00:00",
            composition=composition,
            **{"asked": (Asked(FORK, 3, 0, 1),), **more},  # type: ignore[arg-type]
        )
        run = Run(self.work().state.runs / night)
        run.write(made)
        return run

    def pack(self, run: Run, name: str, *, keep: bool = False) -> Path:
        """The run as another machine gets it; here it is gone, unless it is kept."""
        work, file = self.work(), self.folder / name
        write_pack(run, work.state, work.store(), file)
        if not keep:
            shutil.rmtree(run.folder)
        return file

    def answer(self, *items: Topic | LeftOut, red: bool = False, dry_run: bool = False, **more: object) -> Answers:
        """One more night, answered."""
        self.write(*items, red=red, **more)
        return self.again(dry_run=dry_run)

    def again(self, *, dry_run: bool = False) -> Answers:
        """The newest night, answered."""
        work = self.work()
        return answer_night(work, self.github(), night_of_run(work, None), dry_run=dry_run)

    def night(self, *items: Topic | LeftOut, red: bool = False, **more: object) -> list[str]:
        """One more night, answered: what was written."""
        return told(self.answer(*items, red=red, **more))

    def comments(self, number: int) -> list[str]:
        """The first line below the marker of each of our comments."""
        return [one.body.splitlines()[2] for one in self.fork.comments(number) if pull_of(one.body)]

    def issues(self) -> list[str]:
        return [f"#{issue.number} {issue.state}: {issue.title}" for issue in self.fork.issues]

    def run(self, *argv: str, **environment: str) -> Done:
        """The command line, without the start of a process."""
        from patchstack.cli import main_group

        ended = CliRunner(env={**self.hub.environment(self.token), **environment}).invoke(
            main_group, ["--config", str(self.folder / "deploy.yaml"), *argv]
        )
        error = ended.exception
        if isinstance(error, PatchstackError):
            return Done(error.exit_code, ended.stdout, f"{ended.stderr}{error}")
        if error is not None and not isinstance(error, SystemExit):
            raise error
        return Done(ended.exit_code, ended.stdout, ended.stderr)

    def process(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMANDS, *argv],
            cwd=self.folder,
            env={**os.environ, **self.hub.environment(self.token)},
            capture_output=True,
            text=True,
            check=False,
        )


def told(answers: Answers) -> list[str]:
    """``open conflict:#1:#2``, ``comment #41``, ``not written: …``"""
    return [
        *(f"{step.act} {step.key}" for step in answers.issues),
        *(f"comment #{remark.number}" for remark in answers.comments),
        *(f"not written: {item.what}: {item.why}" for item in answers.not_written),
    ]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with GitHubServer(tmp_path / "hub") as hub:
        place = tmp_path / "place"
        place.mkdir()
        yield Desk(hub, place)


# --- issues over several nights ---


def test_a_conflict_appears_stays_changes_goes_and_comes_back(desk: Desk) -> None:
    desk.pulls(1, 2)
    comments = ["comment #1", "comment #2"]

    assert desk.night(included(1), conflict(2, "#1")) == ["open conflict:#1:#2", *comments]
    assert desk.night(included(1), conflict(2, "#1")) == []
    assert desk.night(included(1), conflict(2, "#1", files=("b.py",))) == ["edit conflict:#1:#2", "comment #2"]
    assert desk.night(included(1), included(2)) == ["close conflict:#1:#2", "comment #2"]
    assert desk.fork.issues[0].body.endswith(
        "Gone: night `20261104T020000Z` (`2026-11-04T02:00:00+00:00`) merged what there is without this conflict.\n"
    )
    assert desk.night(included(1), included(2)) == []
    assert desk.night(included(1), conflict(2, "#1", files=("b.py",))) == ["reopen conflict:#1:#2", "comment #2"]
    assert desk.issues() == ["#3 open: Lane `production`: `#2` conflicts with `#1`"]
    assert "Gone" not in desk.fork.issues[0].body


def test_each_pair_has_an_issue_of_its_own(desk: Desk) -> None:
    desk.pulls(1, 2, 3)

    desk.night(included(1), included(2), conflict(3, "#1", "#2"))
    desk.night(included(2), conflict(3, "#2"))

    assert desk.issues() == [
        "#4 closed: Lane `production`: `#3` conflicts with `#1`",
        "#5 open: Lane `production`: `#3` conflicts with `#2`",
    ]


def test_a_red_night_opens_and_a_green_one_closes(desk: Desk) -> None:
    assert desk.night(red=True) == ["open red-night"]
    assert desk.night(red=True) == ["edit red-night"]
    assert "Night `20261102T020000Z` ended with **FAIL**" in (desk.fork.issues[0].body or "")
    assert desk.night() == ["close red-night"]
    assert desk.night() == []
    assert desk.issues() == ["#1 closed: Lane `production`: the night is FAIL"]


def test_a_night_that_saw_no_conflicts_closes_none(desk: Desk) -> None:
    desk.pulls(1, 2)
    desk.night(included(1), conflict(2, "#1"))
    stopped = {"promotion": None, "tests": None, "verdicts": ()}

    def blind(**more: object) -> list[str]:
        run = desk.write(**more)
        run.write(replace(run.read(NightReport), composition=None))
        return told(desk.again())

    assert blind(**stopped, exit_code=8, failure="GitHub did not answer") == ["open red-night"]
    assert blind(**stopped, exit_code=4, failure="x does not apply", refused=Refusal("x")) == ["open patch:x"]
    assert blind(**stopped, nothing_to_do=True, planned=(included(1),)) == ["close red-night", "close patch:x"]
    assert desk.issues()[0] == "#3 open: Lane `production`: `#2` conflicts with `#1`"


def test_the_issues_of_another_lane_are_not_touched(desk: Desk) -> None:
    desk.night(red=True)
    work = desk.work("edge")
    run = desk.write(lane="edge")

    assert told(answer_night(work, desk.github(), night_of_run(work, run.id))) == []
    assert desk.issues() == ["#1 open: Lane `production`: the night is FAIL"]


def test_forged_markers_are_nothing(desk: Desk) -> None:
    body = f"{SignalMarker('production', 'red-night')}\n\nmine\n"
    for author in ("mallory", "ann"):
        desk.fork.open_issue("the night is FAIL", body, author)
    desk.fork.open_issue("another workflow quotes it", f"look:\n{body}", BOT)

    assert desk.night(red=True) == ["open red-night"]
    assert desk.night() == ["close red-night"]
    assert [issue.body for issue in desk.fork.issues[:2]] == [body, body]
    assert [line.split(":")[0] for line in desk.issues()] == ["#1 open", "#2 open", "#3 open", "#4 closed"]


def test_of_two_that_a_race_made_the_older_stays(desk: Desk) -> None:
    desk.night(red=True)
    desk.fork.open_issue(desk.fork.issues[0].title, desk.fork.issues[0].body, BOT)

    assert desk.night(red=True) == ["edit red-night", "close red-night"]
    assert (desk.fork.issues[1].body or "").endswith("\nClosed: #1 tells of the same, and is older.\n")
    assert [line.split(":")[0] for line in desk.issues()] == ["#1 open", "#2 closed"]


def test_what_people_do_to_an_issue_is_set_right(desk: Desk) -> None:
    desk.night(red=True)
    desk.fork.close(1, "ann")

    assert desk.night(red=True) == ["reopen red-night"]
    desk.fork.edit(1, "ann", title="renamed", body=(desk.fork.issues[0].body or "").replace("\n", "\r\n"))
    assert told(desk.again()) == ["edit red-night"]
    assert told(desk.again()) == []


# --- comments over several nights ---


def test_a_comment_on_a_transition_and_only_then(desk: Desk) -> None:
    desk.pulls(1, 2)

    assert desk.night(waiting(1), waiting(2, Reason.DRAFT)) == ["comment #1", "comment #2"]
    assert desk.night(waiting(1), waiting(2)) == ["comment #2"]
    assert desk.night(included(1), waiting(2), red=True) == ["open red-night", "comment #1"]
    assert desk.night(included(1), waiting(2), red=True) == ["edit red-night"]
    assert desk.night(included(1), waiting(2)) == ["close red-night", "comment #1"]
    assert desk.night(included(1), waiting(2)) == []
    assert desk.night(replace(included(1), newer_head=sha("9")), waiting(2)) == ["comment #1"]
    assert desk.comments(1) == [
        "**Not in the night yet**: needs admission.",
        "**Composed, and not deployed**.",
        "**In tonight's deploy**.",
        "**In tonight's deploy**.",
    ]
    assert desk.comments(2) == ["**Not in the night yet**: draft.", "**Not in the night yet**: needs admission."]


def test_an_unchanged_night_asks_three_times_whatever_the_pull_requests(desk: Desk) -> None:
    numbers = range(1, 41)
    desk.pulls(*numbers)
    desk.night(*(waiting(number) for number in numbers))
    before = len(desk.hub.requests)

    answers = desk.answer(*(waiting(number) for number in numbers))

    assert [(one.method, one.path) for one in desk.hub.requests[before:]] == [
        ("GET", "/user"),
        ("GET", f"/repos/{FORK}/issues"),
        ("GET", f"/repos/{FORK}/issues/comments"),
    ]
    assert (answers.calls, answers.comments_unchanged) == (3, 40)


@pytest.mark.parametrize("what", ["deleted", "no JSON", "another shape", "another version"])
def test_without_the_memo_the_outcome_is_the_same(desk: Desk, what: str) -> None:
    desk.pulls(1, 2)
    desk.night(included(1), waiting(2))
    texts = {"no JSON": "{", "another shape": '{"version": 1, "kept": []}', "another version": '{"version": 2}'}
    if what == "deleted":
        desk.memo.unlink()
    else:
        desk.memo.write_text(texts[what])

    assert desk.night(included(1), waiting(2)) == []
    assert [len(desk.fork.comments(number)) for number in (1, 2)] == [1, 1]


def test_a_memo_older_than_the_last_answer_hides_no_transition(desk: Desk) -> None:
    """As a workflow's cache may bring one back."""
    desk.pulls(1)
    desk.hub.clock.set("2026-11-21T02:00:00Z")
    desk.night(waiting(1))
    old = desk.memo.read_text()
    desk.night(included(1))
    desk.memo.write_text(old)

    assert desk.night(waiting(1)) == ["comment #1"]
    desk.memo.write_text(old)
    assert desk.night(waiting(1)) == []


def test_a_memo_is_not_another_accounts(desk: Desk) -> None:
    desk.pulls(1)
    desk.night(waiting(1))
    desk.hub.user("ann", write=[FORK])
    desk.token = desk.hub.token("ann")

    assert desk.night(waiting(1)) == ["comment #1"]
    assert [one.author for one in desk.fork.comments(1)] == [BOT, "ann"]


def test_forged_comments_are_nothing(desk: Desk) -> None:
    desk.pulls(1)
    desk.night(waiting(1))
    state = pull_of(desk.fork.comments(1)[0].body)
    assert state
    desk.memo.unlink()
    desk.fork.comment(1, f"{PullMarker('production', 'x')}\n", "mallory")
    desk.fork.comment(1, f"{PullMarker('edge', 'x')}\n", BOT)

    assert desk.night(waiting(1)) == []
    desk.night(included(1))
    desk.fork.comment(1, f"{state}\n", "mallory")
    desk.memo.unlink()
    assert desk.night(waiting(1)) == ["comment #1"]


def test_three_hundred_pull_requests_in_one_night(desk: Desk) -> None:
    numbers = range(1, 301)
    desk.pulls(*numbers)
    first = desk.answer(*(waiting(number) for number in numbers))

    assert (len(first.comments), first.not_written, first.calls) == (300, (), 602)
    again = desk.answer(*(included(7) if number == 7 else waiting(number) for number in numbers))
    assert told(again) == ["comment #7"]
    assert [len(desk.fork.comments(number)) for number in numbers] == [2 if number == 7 else 1 for number in numbers]


def test_strangers_and_other_repositories_get_nothing(desk: Desk) -> None:
    desk.pulls(1)
    upstream = desk.hub.repository("sgl-project/sglang")
    stranger = left_out("#1", Outcome.SKIPPED, Reason.OTHER_OWNER, "x")
    theirs = replace(conflict(2, "#9"), name="sgl-project/sglang#2")

    first, second = desk.night(stranger, theirs, included(9))

    assert first == "open conflict:#9:sgl-project/sglang#2"
    assert second.startswith(f"not written: the comment on #9: {desk.hub.api_url} answered 404 about")
    assert (desk.fork.comments(1), upstream.issues) == ((), ())
    assert {one.path.split("/")[2] for one in desk.hub.requests if one.path.startswith("/repos/")} == {"acme"}


# --- failures ---


def test_killed_between_two_comments_and_run_again(desk: Desk) -> None:
    desk.pulls(1, 2, 3)
    desk.write(*(waiting(number) for number in (1, 2, 3)))
    work, hub = desk.work(), desk.github()
    comment = hub.comment

    def killed(repo: str, number: int, body: str) -> None:
        if number == 2:
            raise KeyboardInterrupt
        comment(repo, number, body)

    hub.comment = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        answer_night(work, hub, night_of_run(work, None))
    desk.memo.unlink()  # a kill by the system leaves none

    assert told(desk.again()) == ["comment #2", "comment #3"]
    assert [len(desk.fork.comments(number)) for number in (1, 2, 3)] == [1, 1, 1]


def test_one_pull_request_that_fails_stops_no_other(desk: Desk) -> None:
    desk.pulls(1, 2, 3)
    desk.hub.fail(Fault("POST", f"/repos/{FORK}/issues/2/comments", status=403, message="locked", times=1))

    first = desk.night(*(waiting(number) for number in (1, 2, 3)))

    assert first[:2] == ["comment #1", "comment #3"]
    assert first[2].startswith("not written: the comment on #2: ")
    assert desk.night(*(waiting(number) for number in (1, 2, 3))) == ["comment #2"]


def test_a_token_that_is_revoked_half_way(desk: Desk) -> None:
    numbers = range(1, 21)
    desk.pulls(*numbers)
    desk.write(*(waiting(number) for number in numbers), red=True)
    work, hub = desk.work(), desk.github()
    comment = hub.comment

    def revoked_at_the_third(repo: str, number: int, body: str) -> None:
        if number == 3:
            desk.hub.revoke(desk.token)
        comment(repo, number, body)

    hub.comment = revoked_at_the_third  # type: ignore[method-assign]
    answers = answer_night(work, hub, night_of_run(work, None))

    assert [remark.number for remark in answers.comments] == [1, 2]
    assert [item.what for item in answers.not_written] == [f"the comment on #{number}" for number in range(3, 21)]
    assert ["Bad credentials" in item.why for item in answers.not_written] == [True] * 5 + [False] * 13
    assert answers.not_written[-1].why == "not tried: the ones before it failed, one after the other"
    desk.token = desk.hub.token(BOT, repo=FORK, permissions=MAY_ANSWER)
    assert told(desk.again()) == [f"comment #{number}" for number in range(3, 21)]


def test_a_token_without_the_permission_is_told_which_one(desk: Desk) -> None:
    desk.pulls(1)
    desk.write(waiting(1), red=True)
    desk.token = desk.hub.token(BOT, repo=FORK, permissions={"issues": "read", "pull-requests": "read"})

    done = desk.process("answer")

    assert done.returncode == 8
    first, second = [line for line in done.stderr.splitlines() if "403" in line]
    assert "a new issue, Lane `production`: the night is FAIL: " in first
    assert "Resource not accessible by integration" in first
    assert first.endswith("; in a workflow the job needs `issues: write`")
    assert "the comment on #1: " in second
    assert second.endswith("; in a workflow the job needs `pull-requests: write`")
    assert desk.token not in done.stderr + done.stdout
    assert (desk.fork.issues, desk.fork.comments(1)) == ((), ())


def test_issues_that_cannot_be_read_leave_the_comments(desk: Desk) -> None:
    desk.pulls(1)
    desk.hub.fail(Fault("GET", f"/repos/{FORK}/issues", status=404, message="Not Found"))

    first = desk.night(waiting(1), red=True)

    assert first[0] == "comment #1"
    assert first[1].startswith("not written: the issues: ")
    assert desk.issues() == []


def test_a_night_that_a_patch_stops_names_it_as_a_value(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise CompositionError("it does not apply", patch="zmq-locked-sends", files=("a.py",))

    (desk.folder / "patches").mkdir()
    (desk.folder / "patches" / "series").write_text("")
    monkeypatch.setattr("patchstack.nightly.plan", refuse)
    report = night(replace(desk.work(), local=True))

    assert (report.exit_code, report.refused) == (4, Refusal("zmq-locked-sends", ("a.py",)))
    assert told(desk.again()) == ["open patch:zmq-locked-sends"]


# --- what is answered ---


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
