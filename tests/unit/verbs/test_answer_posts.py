"""Issues and comments on a GitHub: what several nights write one after the other, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.github_server import Fault
from tests.unit.report.fixed_night import left_out, sha
from tests.unit.verbs.answer_bench import BOT, FORK, MAY_ANSWER, Desk, conflict, included, opened, told, waiting

from patchstack.errors import CompositionError
from patchstack.model import NightReport, Outcome, Reason, Refusal
from patchstack.nightly import night
from patchstack.report.marker import PullMarker, SignalMarker, pull_of
from patchstack.verbs.answer import answer_night, night_of_run


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened(tmp_path) as desk:
        yield desk


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
