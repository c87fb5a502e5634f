"""An operator's word on a fork on GitHub, and what it keeps out of the plans after it: also of other repositories."""

from __future__ import annotations

import pytest
from tests.unit.builders import TEN, A, edit
from tests.unit.verbs.test_plan_verb import Desk, desk

from patchstack.errors import RemoteError
from patchstack.model import MergePlan, Reason
from patchstack.release.ledger import History
from patchstack.verbs.remote import open_remote
from patchstack.verbs.rollback import hold, release_hold, rollback

__all__ = ["desk"]

ONE, TWO = {A: edit(TEN, 1, "one")}, {A: edit(TEN, 9, "nine")}


def night(desk: Desk, minute: int, monkeypatch: pytest.MonkeyPatch) -> MergePlan:
    monkeypatch.setenv("PATCHSTACK_NOW", f"2026-11-21T02:{minute:02}:00+00:00")
    made, run = desk.plan()
    desk.promote(run)
    return made


def reasons(made: MergePlan) -> dict[str, Reason]:
    return {item.name: item.reason for item in made.left_out}


def history(desk: Desk) -> History:
    return open_remote(desk.work()).history


def test_a_rollback_and_a_hold_move_deploy_on_github_and_bar_a_pull_request(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = desk.propose("one", ONE)
    desk.fork.label(one, "deploy", by="ann")
    night(desk, 1, monkeypatch)
    two = desk.propose("two", TWO)
    desk.fork.label(two, "deploy", by="ann")
    night(desk, 2, monkeypatch)

    monkeypatch.setenv("PATCHSTACK_NOW", "2026-11-21T02:03:00+00:00")
    back = rollback(desk.work(), because=[f"acme/sglang#{two}"]).promotion
    assert desk.fork.branches["deploy"] == back.commit
    assert [bar.name for _, bar in history(desk).bars][1:] == [f"#{two}"]
    made = night(desk, 4, monkeypatch)
    assert [topic.name for topic in made.steps] == [f"#{one}"]
    assert reasons(made) == {f"#{two}": Reason.BARRED}

    # Its author pushes again: what was admitted is barred, and what is there now waits for an admission.
    desk.fork.push("two", desk.workshop.commit("more", {A: edit(TEN, 8, "eight")}, desk.head(two)), by="bob")
    (item,) = [item for item in desk.plan()[0].left_out if item.name == f"#{two}"]
    assert (item.reason, item.newer_head) == (Reason.BARRED, desk.head(two))

    assert hold(desk.work()).promotion.commit == desk.fork.branches["deploy"]
    assert release_hold(desk.work(), [str(two)]).promotion.commit == desk.fork.branches["deploy"]
    assert [bar.name for _, bar in history(desk).bars] == [back.line.bars[0].name]
    assert history(desk).hold is not None


def test_a_barred_pull_request_of_upstream_bars_no_other_of_upstream(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their histories are one, and only what is its own may keep others out."""
    desk.propose_upstream(ONE, 41)
    desk.upstream.review(41, by="ann")
    night(desk, 1, monkeypatch)
    desk.propose_upstream(TWO, 42)
    desk.upstream.review(42, by="ann")
    made = night(desk, 2, monkeypatch)
    assert [topic.name for topic in made.steps] == ["sgl-project/sglang#41", "sgl-project/sglang#42"], reasons(made)
    monkeypatch.setenv("PATCHSTACK_NOW", "2026-11-21T02:03:00+00:00")
    rollback(desk.work(), because=["sgl-project/sglang#42"])
    made, _ = desk.plan()
    assert [topic.name for topic in made.steps] == ["sgl-project/sglang#41"]
    assert reasons(made) == {"sgl-project/sglang#42": Reason.BARRED}
    assert f"barred {made.left_out[0].name} {made.left_out[0].head}" in dict(made.fingerprint.inputs)


def test_without_the_right_to_push_nothing_moves(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    one = desk.propose("one", ONE)
    desk.fork.label(one, "deploy", by="ann")
    night(desk, 1, monkeypatch)
    before = dict(desk.fork.branches)
    monkeypatch.setenv("PATCHSTACK_TOKEN", "of-nobody")
    with pytest.raises(RemoteError):
        hold(desk.work())
    assert dict(desk.fork.branches) == before
