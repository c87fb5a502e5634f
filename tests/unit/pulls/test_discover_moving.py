"""What changes between an admission and the night, or while the night asks, brings nothing in and lets nobody out."""

from __future__ import annotations

import pytest
from tests.unit.pulls.scene import FORK, WAITS, Scene, Told

from patchstack.config import GitHubSource

# --- another target ---


def detail(scene: Scene, number: int) -> str:
    return scene.detail(f"#{number}")


@pytest.mark.parametrize("automatic", [False, True])
def test_an_admission_into_another_branch_does_not_come_along(scene: Scene, automatic: bool) -> None:
    scene.push("base/edge", scene.base.commit)
    scene.propose(5, "labelled", into="base/edge")
    scene.propose(6, "approved", into="base/edge")
    scene.label(5)
    scene.approve(6)
    assert scene.discover().pulls == []
    for number in (5, 6):
        scene.fork.retarget(number, "base/production", by="bob", automatic=automatic)

    assert scene.discover() == Told(refused=[f"#5 {WAITS}", f"#6 {WAITS}"])
    for number in (5, 6):
        assert "retargeted: an admission is for the branch that it was into then; somebody" in detail(scene, number)
        assert detail(scene, number).endswith("must approve it, or put the label deploy on it again")

    scene.fork.unlabel(5, "deploy", by="ann")
    scene.label(5)
    scene.approve(6)
    assert [line.split(" ")[0] for line in scene.discover().pulls] == ["#5", "#6"]


def test_there_and_back_again_ends_an_admission_too(scene: Scene) -> None:
    scene.push("base/edge", scene.base.commit)
    scene.propose(5, "fix")
    scene.approve(5)
    assert len(scene.discover().pulls) == 1
    scene.fork.retarget(5, "base/edge", by="bob")
    scene.fork.retarget(5, "base/production", by="bob")
    assert scene.discover() == Told(refused=[f"#5 {WAITS}"])


def test_a_target_that_was_changed_before_the_admission_is_no_matter(scene: Scene) -> None:
    scene.push("base/edge", scene.base.commit)
    scene.propose(5, "fix", into="base/edge")
    scene.fork.retarget(5, "base/production", by="bob")
    scene.approve(5)
    assert len(scene.discover().pulls) == 1


def test_what_happened_to_one_that_is_approved_is_asked_once(scene: Scene) -> None:
    scene.propose(5, "fix")
    scene.propose(6, "nobody's")
    scene.approve(5)
    scene.asked()
    scene.discover()
    events = {path: times for path, times in scene.asked().items() if path.endswith("/events")}
    assert events == {f"/repos/{FORK}/issues/5/events": 1}
    scene.discover()
    assert not [path for path in scene.asked() if path.endswith("/events")]


# --- while it asks ---


def test_one_that_closes_meanwhile_hides_no_block(scene: Scene) -> None:
    scene.fork.push_many({f"b{number}": scene.commit(f"c{number}") for number in range(1, 4)}, "bob")
    for number in range(1, 101):
        scene.fork.open_pull(f"b{1 + number % 3}", "base/production", "bob", number=number)
    evil = scene.propose(101, "evil")
    scene.label(101, label="blocked")
    scene.propose(102, "carrier", scene.commit("carrier", None, evil))
    scene.approve(102)
    chosen = GitHubSource(repo=FORK, into=("base/production",), include=("evil", "carrier"))

    def close_one(_request: object, _body: object) -> None:
        scene.hub.observe = None
        scene.fork.close(7, "bob")

    scene.hub.observe = close_one
    raced = scene.discover(chosen)
    assert raced.blocked == ["#101"]
    assert raced == scene.discover(chosen)
