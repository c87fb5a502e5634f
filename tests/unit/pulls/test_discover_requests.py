"""What a night's questions to GitHub and to the remotes cost, and that one which fails stops it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.support.github_server import Fault
from tests.unit.builders import B
from tests.unit.pulls.scene import FORK, OWN, TEAM, UPSTREAM, WAITS, Scene, Told

from patchstack.config import GitHubSource
from patchstack.errors import RemoteError
from patchstack.git import Repository
from patchstack.model import Asked

# --- failures ---


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path=f"/repos/{FORK}/pulls", page=2, times=99),
        Fault(path="*/reviews", times=99),
        Fault(path="*/events", status=403, message="Resource not accessible by integration"),
        Fault(path="*/activity", cut=True),
        Fault(path="*/permission", reset=True, times=99),
        Fault(path=f"/repos/{FORK}/pulls/999", status=500, times=99),
        Fault(path=f"/repos/{UPSTREAM}/pulls", status=404, message="Not Found"),
    ],
    ids=lambda fault: fault.path,
)
def test_a_question_that_fails_stops_the_night(scene: Scene, fault: Fault) -> None:
    scene.upstream()
    branches = {f"b{number}": scene.commit(f"c{number}") for number in range(2)}
    scene.fork.push_many(branches, "bob")
    for number in range(1, 102):
        scene.fork.open_pull("b1", "base/production", "bob", number=number, draft=number > 1)
    scene.label(1)
    scene.hub.fail(fault)
    with pytest.raises(RemoteError):
        scene.discover(OWN, TEAM, previous={"#999": scene.base.commit})
    assert scene.found is None
    assert scene.store.refs("refs/patchstack/") == {}


def test_a_token_that_is_revoked_half_way_stops_the_night(scene: Scene) -> None:
    scene.propose(1, "fix")
    scene.approve(1)
    scene.hub.observe = lambda _request, _body: scene.hub.revoke(scene.token)
    with pytest.raises(RemoteError, match="answered 401 about the reviews of acme/sglang#1: Bad credentials"):
        scene.discover()
    assert scene.store.refs("refs/patchstack/") == {}


def test_a_remote_that_cannot_be_read_stops_the_night(scene: Scene, tmp_path: Path) -> None:
    scene.propose(1, "fix")
    scene.approve(1)
    scene.remote = tmp_path / "nowhere.git"
    with pytest.raises(RemoteError, match=r"nowhere\.git cannot be read"):
        scene.discover()


def test_a_remote_that_goes_away_after_it_was_listed_stops_the_night(scene: Scene, tmp_path: Path) -> None:
    scene.propose(1, "fix")
    scene.approve(1)
    scene.listed = scene.store.ls_remote(str(scene.fork.path))
    scene.remote = tmp_path / "nowhere.git"
    with pytest.raises(RemoteError, match=r"nowhere\.git cannot be read"):
        scene.discover()


def test_a_target_that_is_not_handed_over_stops_the_night(scene: Scene, tmp_path: Path) -> None:
    head = scene.propose(1, "fix")
    scene.approve(1)
    scene.listed = {**scene.store.ls_remote(str(scene.fork.path)), "refs/heads/other": scene.commit("lost")}
    scene.remote = tmp_path / "remote.git"
    Repository.init(scene.remote).fetch(str(scene.fork.path), [f"+{head}:refs/heads/fix"])
    with pytest.raises(RemoteError, match="fetching from"):
        scene.discover()


def test_another_repository_that_cannot_be_read_stops_the_night(scene: Scene, tmp_path: Path) -> None:
    scene.upstream()
    scene.hub.repository("acme/up", fork_of=UPSTREAM)
    head = scene.upstream_commit("up", {B: "up\n"})
    scene.propose(7, "up", head, into="main", repo=UPSTREAM, head_repo="acme/up")
    scene.elsewhere[UPSTREAM] = tmp_path / "nowhere.git"
    assert scene.discover(OWN, TEAM) == Told(refused=[f"{UPSTREAM}#7 {WAITS}"])  # nobody to take: it is not asked
    scene.approve(7, repo=UPSTREAM)
    with pytest.raises(RemoteError, match=r"nowhere\.git cannot be read"):
        scene.discover(OWN, TEAM)


def test_a_target_that_is_gone_meanwhile_is_told(scene: Scene) -> None:
    scene.push("feature", scene.commit("feature"))
    scene.propose(1, "fix", into="feature")
    scene.approve(1)
    listed = scene.store.ls_remote(str(scene.fork.path))
    scene.listed = {name: sha for name, sha in listed.items() if name != "refs/heads/feature"}
    assert scene.discover(GitHubSource(repo=FORK, into=("feature",))) == Told(
        refused=["#1 skipped: into a branch that is not composed"]
    )
    assert scene.detail("#1") == "acme/sglang has no branch feature any more: change its base"


# --- what an unchanged night costs ---


def crowd(scene: Scene, count: int) -> None:
    """``count`` open pull requests: nine strangers', for each that is admitted by a label and each that waits."""
    alice = scene.hub.repository(scene.fork_of("alice"))
    ours = {f"b{number}": scene.commit(f"ours {number}") for number in range(1, 6)}
    scene.fork.push_many(ours, "bob")
    alice.push_many({"theirs": scene.fork.branches["base/production"]}, "alice")
    for number in range(1, count + 1):
        if number <= 10:
            scene.fork.open_pull(f"b{(number + 1) // 2}", "base/production", "bob", number=number)
        else:
            scene.fork.open_pull("theirs", "base/production", "alice", head_repo=alice.name, number=number)
    for number in range(1, 11, 2):
        scene.label(number, by="ann" if number < 5 else "max")


def test_1200_open_pull_requests_and_an_unchanged_night(scene: Scene) -> None:
    crowd(scene, 1200)
    scene.asked()

    first = scene.discover()
    cost = scene.asked()
    again = scene.discover()

    assert first.pulls == [f"#{number} ours {(number + 1) // 2} -> base/production" for number in range(1, 11, 2)]
    assert len(first.refused) == 1195
    assert again == first
    # Overlapping pages (paging.py): their sizes differ, so two can have one number.
    numbers = Counter([2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 11, 12, 13])
    pages = {f"/repos/{FORK}/pulls": 1, **{f"/repos/{FORK}/pulls {page}": times for page, times in numbers.items()}}
    writers = {f"/repos/{FORK}/collaborators/{who}/permission": 1 for who in ("ann", "max")}
    assert scene.asked() == pages | writers
    assert cost == (
        pages
        | writers
        | {f"/repos/{FORK}/pulls/{number}/reviews": 1 for number in range(1, 11)}
        | {f"/repos/{FORK}/issues/{number}/events": 1 for number in range(1, 11, 2)}
        | {f"/repos/{FORK}/activity": 5}
    )
    assert scene.found is not None
    assert scene.found.asked == (Asked(FORK, 1200, 0, 14 + 2),)


@pytest.mark.parametrize("damage", ["gone", "empty", "text", "cut", "one letter", "a folder", "another's"])
def test_without_its_memo_a_night_decides_the_same_and_asks_more(scene: Scene, damage: str) -> None:
    crowd(scene, 12)
    first = scene.discover()
    found = scene.found
    cost = scene.asked()
    whole = scene.memo.read_bytes()
    scene.memo.unlink()
    match damage:
        case "empty":
            scene.memo.write_bytes(b"")
        case "text":
            scene.memo.write_bytes(b"\xff no memo")
        case "cut":
            scene.memo.write_bytes(whole[: len(whole) // 2])
        case "one letter":
            scene.memo.write_bytes(whole.replace(b"2026-11-01T00", b"2026-11-01T23", 1))
        case "a folder":
            scene.memo.mkdir()
        case "another's":
            scene.memo.write_bytes(b'{"schema_version": 1, "type": "AdmissionMemo", "entries": []}')

    assert scene.discover() == first
    assert found is not None
    assert scene.found is not None
    assert (scene.found.pulls, scene.found.refused) == (found.pulls, found.refused)
    assert scene.asked() == cost


def test_what_changed_is_asked_about_again_and_nothing_else(scene: Scene) -> None:
    crowd(scene, 12)
    scene.discover()
    scene.asked()
    scene.approve(2)
    scene.fork.unlabel(3, "deploy", "ann")
    told = scene.discover()
    assert [line.split(" ")[0] for line in told.pulls] == ["#1", "#2", "#5", "#7", "#9"]
    asked = {path for path in scene.asked() if path.split("/")[-1].isalpha() and not path.endswith("permission")}
    of_2 = {f"/repos/{FORK}/pulls/2/reviews", f"/repos/{FORK}/issues/2/events"}
    assert asked == {f"/repos/{FORK}/pulls", f"/repos/{FORK}/pulls/3/reviews"} | of_2


def test_what_was_read_before_a_failure_is_not_asked_again(scene: Scene) -> None:
    crowd(scene, 12)
    scene.hub.fail(Fault(path=f"/repos/{FORK}/pulls/9/reviews", times=99))
    with pytest.raises(RemoteError):
        scene.discover()
    scene.hub.mend()
    scene.asked()
    assert len(scene.discover().pulls) == 5
    reviews = [path for path in scene.asked() if path.endswith("reviews")]
    assert reviews == [f"/repos/{FORK}/pulls/{number}/reviews" for number in (9, 10)]


def test_a_night_that_fails_forgets_nothing_of_the_one_before(scene: Scene) -> None:
    scene.propose(1, "fix")
    scene.label(1)
    first = scene.discover()
    scene.hub.fail(Fault(path=f"/repos/{FORK}/pulls", times=99))
    with pytest.raises(RemoteError):
        scene.discover()
    scene.hub.mend()
    scene.asked()
    assert scene.discover() == first
    assert scene.asked() == {f"/repos/{FORK}/pulls": 1, f"/repos/{FORK}/collaborators/ann/permission": 1}


def test_what_is_not_listed_any_more_is_forgotten(scene: Scene) -> None:
    crowd(scene, 12)
    scene.discover()
    assert '"acme/sglang#2"' in scene.memo.read_text()
    scene.fork.close(2, "bob")
    scene.discover()
    assert '"acme/sglang#2"' not in scene.memo.read_text()


def test_nothing_of_a_night_holds_the_token(scene: Scene) -> None:
    crowd(scene, 12)
    scene.discover()
    assert scene.token not in repr(scene.found)
    for path in scene.folder.rglob("*"):
        if path.is_file() and "github" not in path.parts:
            assert scene.token.encode() not in path.read_bytes(), path
