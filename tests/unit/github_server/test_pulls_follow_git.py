"""The fake GitHub's pull requests: what pushes, merges and deletions make of them."""

from __future__ import annotations

from typing import Any

from tests.unit.github_server.place import ACTIVITY, ALICE, FORK, PULLS, Place

from patchstack import git


def pull(place: Place, number: int) -> dict[str, Any]:
    answer = place.ask(f"{PULLS}/{number}", place.hub.token("ann"))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_push_moves_the_head_also_one_past_the_server(place: Place) -> None:
    first = place.branch("fix")
    number = place.fork.open_pull("fix", "main", "ann")
    second = place.commit("second", first)
    before = pull(place, number)

    place.git("--git-dir", str(place.fork.path), "update-ref", "refs/heads/fix", second)

    after = pull(place, number)
    assert (before["head"]["sha"], after["head"]["sha"]) == (first, second)
    assert after["updated_at"] > before["updated_at"]
    assert (after["commits"], after["changed_files"], after["additions"], after["deletions"]) == (2, 2, 2, 0)
    assert place.git("ls-remote", str(place.fork.path), f"refs/pull/{number}/head").stdout.split()[0] == second


def test_what_its_base_contains_is_merged_and_what_loses_its_branch_is_closed(place: Place) -> None:
    fix = place.branch("fix")
    place.branch("other")
    merged = place.fork.open_pull("fix", "main", "ann")
    gone = place.fork.open_pull("other", "main", "ann")
    baseless = place.fork.open_pull("fix", "other", "ann")

    place.fork.push("main", fix, by="ann")
    place.fork.delete_branch("other", by="ann")

    shown = [pull(place, number) for number in (merged, gone, baseless)]
    assert [(one["state"], one["merged"]) for one in shown] == [("closed", True), ("closed", False), ("closed", False)]
    assert shown[0]["merged_by"]["login"] == "ann"


def test_the_button_makes_a_merge_commit(place: Place) -> None:
    place.fork.push("main", place.commit("beside", place.root), by="ann")
    fix = place.branch("fix")
    number = place.fork.open_pull("fix", "main", "ann")

    commit = place.fork.merge(number, by="ann")

    assert place.fork.branches["main"] == commit
    assert git.Repository(place.fork.path).parents(commit)[1] == fix
    assert pull(place, number)["merged"]
    assert place.ask(ACTIVITY, place.hub.token("ann"), ref="main").json()[0]["activity_type"] == "pr_merge"


def test_a_deleted_fork_leaves_the_pull_request_its_head(place: Place) -> None:
    fix = place.branch("fix")
    place.hub.repository(ALICE, fork_of=FORK)
    number = place.fork.open_pull("fix", "main", "alice", head_repo=ALICE)
    place.hub.delete_repository(ALICE)

    shown = pull(place, number)

    assert (shown["state"], shown["head"]["repo"], shown["head"]["sha"]) == ("open", None, fix)
    assert place.git("ls-remote", place.url(), f"refs/pull/{number}/head").stdout.split()[0] == fix
    assert place.ask(f"/repos/{ALICE}", place.hub.token("ann")).status_code == 404


def test_who_took_back_an_approval_has_one_review_that_is_dismissed(place: Place) -> None:
    fix = place.branch("fix")
    number = place.fork.open_pull("fix", "main", "bob")
    place.fork.review(number, by="ann")
    place.fork.review(number, by="ann", state="COMMENTED")
    place.fork.review(number, by="ann", state="DISMISSED")

    rows = place.ask(f"{PULLS}/{number}/reviews", place.hub.token("ann")).json()

    assert [(row["state"], row["commit_id"], row["user"]["login"]) for row in rows] == [
        ("DISMISSED", fix, "ann"),
        ("COMMENTED", fix, "ann"),
    ]
