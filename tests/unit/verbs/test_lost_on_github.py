"""What became of deployed pull requests, as a GitHub of this machine tells it: whose word excuses, and whose not."""

from __future__ import annotations

import pytest
from tests.unit.builders import TEN, A, B, C, edit
from tests.unit.verbs.test_plan_verb import OWN, UPSTREAM, Desk, desk  # noqa: F401

from patchstack.errors import Incomplete
from patchstack.losses import Losses
from patchstack.model import Fingerprint
from patchstack.release.loss import require_few
from patchstack.verbs.losses import write_losses
from patchstack.verbs.plan import merge
from patchstack.verbs.remote import open_remote


@pytest.fixture
def four(desk: Desk) -> Desk:  # noqa: F811
    """A night of #1, #2, #3 and upstream's #7000 is deployed."""
    for number, line in ((1, 1), (2, 4), (3, 7)):
        assert desk.propose(f"fix-{number}", {A: edit(TEN, line, f"by {number}")}) == number
        desk.fork.label(number, "deploy", by="ann")
    desk.propose_upstream({C: "new\n"}, 7000)
    desk.upstream.review(7000, by="ann")
    _, run = desk.plan()
    assert [topic.name for topic in desk.promote(run).included] == ["#1", "#2", "#3", f"{UPSTREAM}#7000"]
    return desk


def lost(desk: Desk, *, most: int = 2) -> list[str]:  # noqa: F811
    """What tonight lacks, those that count in capitals; and whether the night goes on."""
    work = desk.work()
    _, run = desk.plan(work)
    losses = write_losses(work, run, merge(work, run), open_remote(work).history)
    assert losses == run.read(Losses)
    assert losses.most == most
    told = [f"{item.name} {item.reason.upper() if item.counts else item.reason}" for item in losses.items]
    stopped = said_of(losses)
    assert not stopped or all(f"{item.name} at " in stopped for item in losses.items)
    return [*told, *(["stopped"] if stopped else [])]


def said_of(losses: Losses) -> str:
    """Why the night ends here; empty where it goes on."""
    try:
        require_few(losses)
    except Incomplete as stopped:
        return str(stopped)
    return ""


def test_everything_is_still_there(four: Desk) -> None:
    assert lost(four) == []


def test_who_merges_closes_blocks_or_withdraws_says_so(four: Desk) -> None:
    four.fork.merge(1, by="ann")
    four.fork.close(2, by="bob")
    four.fork.unlabel(3, "deploy", by="ann")
    four.upstream.set_draft(7000, True, by="bob")
    assert lost(four) == ["#1 merged", "#2 closed", "#3 needs admission", f"{UPSTREAM}#7000 draft"]


def test_a_label_that_blocks_is_a_word_too_but_not_for_those_who_carry_its_commits(four: Desk) -> None:
    carrier = four.propose("carrier", {B: edit(TEN, 1, "carrier")}, four.head(1))
    four.fork.label(carrier, "deploy", by="ann")
    _, run = four.plan()
    four.promote(run)
    for number in (1, 2):
        four.fork.label(number, "blocked", by="ann")
    # By name #1 was no topic of that night: it was carried.
    assert lost(four) == ["#2 blocked", f"#{carrier} CARRIES COMMITS OF A BLOCKED ONE"]


def test_a_fork_that_knows_nothing_of_them_any_more(four: Desk) -> None:
    """An empty page, and 404 for each: as of a repository that was made anew."""
    four.fork.all_issues.clear()
    assert lost(four) == [*(f"#{number} NO LONGER LISTED" for number in (1, 2, 3)), "stopped"]


def test_an_empty_page_alone_is_not_believed(four: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the deployed night are asked for one by one: they are open, and stay in."""
    monkeypatch.setattr(four.fork, "open_pulls", list)
    assert lost(four) == []


def test_three_that_are_retargeted_at_once(four: Desk) -> None:
    four.fork.push("elsewhere", four.base, by="ann")
    for number in (1, 2, 3):
        four.fork.retarget(number, "elsewhere", by="bob")
    assert lost(four) == [*(f"#{number} INTO A BRANCH THAT IS NOT COMPOSED" for number in (1, 2, 3)), "stopped"]


def test_a_source_that_deploy_yaml_lists_no_more(four: Desk) -> None:
    four.sources = OWN
    assert lost(four) == [f"{UPSTREAM}#7000 NO LONGER LISTED"]


def test_a_night_that_asks_no_github_lacks_what_only_github_knows(four: Desk) -> None:
    """`--local` by mistake, on the fork's own remote: its refs have #1 to #3, and nobody tells of upstream's."""
    work = four.work(local=True, remote=str(four.fork.path))
    _, run = four.plan(work)
    losses = write_losses(work, run, merge(work, run), open_remote(work).history)
    assert [(item.name, item.counts) for item in losses.items] == [(f"{UPSTREAM}#7000", True)]


def test_titles_and_what_waits_start_no_night(four: Desk) -> None:
    def planned() -> Fingerprint:
        return four.plan()[0].fingerprint

    before = planned()
    draft = four.propose("a-draft", {B: edit(TEN, 1, "draft")})
    left_out = four.propose("docs", {"docs/x.md": "x\n"})
    four.fork.set_draft(draft, True, by="bob")
    assert planned() == before  # nobody has admitted either
    four.fork.label(draft, "deploy", by="ann")
    assert planned() == before
    four.fork.label(left_out, "deploy", by="ann")
    with_left_out = planned()
    assert with_left_out != before
    for number in (1, left_out):
        four.fork.edit(number, by="bob", title="another title", body="another text")
    four.fork.push("a-draft", four.workshop.commit("more", {B: edit(TEN, 2, "more")}, four.head(draft)), by="bob")
    four.fork.comment(1, "looks good", by="ann")
    assert planned() == with_left_out
