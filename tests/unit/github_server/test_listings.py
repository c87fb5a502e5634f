"""The fake GitHub's listings: their pages, their filters and their order."""

from __future__ import annotations

import requests
from tests.unit.github_server.place import ACTIVITY, ALICE, FORK, PULLS, Place

from patchstack import git


def names(answer: requests.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [row["number"] for row in answer.json()]


def test_a_listing_has_pages_and_links_to_the_others(place: Place) -> None:
    token = place.hub.token("ann")
    place.branch("fix")
    for _ in range(5):
        place.fork.open_pull("fix", "main", "ann")

    pages = [place.ask(PULLS, token, per_page=2, page=page, direction="asc") for page in (1, 2, 3, 4)]

    assert [names(page) for page in pages] == [[1, 2], [3, 4], [5], []]
    assert [sorted(page.links) for page in pages] == [
        ["last", "next"],
        ["first", "last", "next", "prev"],
        ["first", "prev"],
        ["first", "prev"],
    ]
    following = requests.get(pages[0].links["next"]["url"], headers={"Authorization": f"token {token}"}, timeout=120)
    assert names(following) == [3, 4]


def test_a_page_holds_a_hundred_at_most_and_thirty_unasked(place: Place) -> None:
    token = place.hub.token("ann")
    place.branch("fix")
    for _ in range(101):
        place.fork.open_pull("fix", "main", "ann")

    assert len(names(place.ask(PULLS, token, per_page=1000))) == 100
    assert len(names(place.ask(PULLS, token))) == 30


def test_pull_requests_are_filtered_and_sorted(place: Place) -> None:
    token = place.hub.token("ann")
    place.hub.repository(ALICE, fork_of=FORK).push("fix", place.branch("fix"), by="alice")
    place.branch("other")
    one = place.fork.open_pull("fix", "main", "ann")
    two = place.fork.open_pull("fix", "other", "alice", head_repo=ALICE)
    three = place.fork.open_pull("other", "main", "ann")
    place.fork.close(three)
    place.fork.comment(one, "again", by="ann")

    assert names(place.ask(PULLS, token)) == [two, one]
    assert names(place.ask(PULLS, token, direction="asc")) == [one, two]
    assert names(place.ask(PULLS, token, sort="updated")) == [one, two]
    assert names(place.ask(PULLS, token, base="other")) == [two]
    assert names(place.ask(PULLS, token, head="alice:fix")) == [two]
    assert names(place.ask(PULLS, token, state="closed")) == [three]
    assert names(place.ask(PULLS, token, state="all")) == [three, two, one]
    assert place.ask(PULLS, token, state="new").status_code == 422


def test_pull_requests_are_among_the_issues(place: Place) -> None:
    token = place.hub.token("ann")
    place.branch("fix")
    pull = place.fork.open_pull("fix", "main", "bob")
    issue = place.fork.open_issue("Red", "since last night", "ann")
    closed = place.fork.open_issue("Old", None, "ann")
    place.fork.close(closed, "ann")
    place.fork.label(issue, "night", by="ann")

    rows = place.ask(f"/repos/{FORK}/issues", token).json()
    assert [(row["number"], "pull_request" in row) for row in rows] == [(issue, False), (pull, True)]

    def listed(**query: str) -> list[int]:
        return names(place.ask(f"/repos/{FORK}/issues", token, **query))

    assert listed(state="all", creator="ann") == [closed, issue]
    assert listed(labels="night") == [issue]
    assert listed(labels="night,other") == []
    assert listed(state="all", sort="updated", direction="asc") == [pull, closed, issue]


def test_the_activity_of_a_branch_names_its_pushes_newest_first(place: Place) -> None:
    token = place.hub.token("ann")
    first = place.branch("fix")
    second = place.commit("second", first)
    place.fork.push("fix", second, by="bob")
    rebased = place.commit("rebased", place.root)
    place.fork.push("fix", rebased, by="bob")
    place.fork.delete_branch("fix", by="ann")

    rows = place.ask(ACTIVITY, token, ref="refs/heads/fix").json()

    assert [(row["before"], row["after"], row["activity_type"], row["actor"]["login"]) for row in rows] == [
        (rebased, git.ZERO, "branch_deletion", "ann"),
        (second, rebased, "force_push", "bob"),
        (first, second, "push", "bob"),
        (git.ZERO, first, "branch_creation", "ann"),
    ]
    assert [row["timestamp"] for row in rows] == sorted((row["timestamp"] for row in rows), reverse=True)
    assert len(place.ask(ACTIVITY, token, ref="fix", per_page=1).json()) == 1
    assert {row["ref"] for row in place.ask(ACTIVITY, token).json()} == {"refs/heads/fix", "refs/heads/main"}
