"""The fake GitHub of the tests, held against what others say GitHub is.

GitHub's own description of its REST API judges the form of every answer that the fake gives; `emulate`, a fake by
other people, is asked the same questions through the same client and has to be told the same.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.support.github_server import Fault, GitHubServer, Request
from tests.support.github_server.description import Description
from tests.support.github_server.routes import ROUTES

from patchstack import git
from patchstack.github import GitHub, Token

NODE = Path(__file__).parents[2] / ".venv" / "node" / "node_modules"
FORK = "acme/sglang"


@dataclass(frozen=True)
class Answered:
    request: Request
    body: Any


@pytest.fixture(scope="module")
def description() -> Description:
    assert NODE.is_dir(), "run `make node` first"
    return Description(NODE / "@octokit" / "openapi" / "generated" / "api.github.com.json")


def commit(hub: GitHubServer, subject: str, *parents: str) -> str:
    store = git.Repository(hub.repository(FORK).path)
    tree = store.edit_tree(git.EMPTY_TREE, [("100644", store.write_blob(subject.encode()), "file")])
    signature = git.Signature("Ann", "ann@example.com", "@1 +0000")
    return store.commit(tree, [git.Sha(parent) for parent in parents], subject, signature)


def fill(hub: GitHubServer) -> None:
    """A fork with a pull request of every shape, and issues."""
    fork = hub.repository(FORK, fork_of=hub.repository("sgl-project/sglang").name)
    fork.runners.append((1, "gpu-1", ("self-hosted", "h200")))
    hub.user("ann", write=[FORK])
    root = commit(hub, "root")
    fork.push_many({"main": root, "stack/production": root}, by="ann")
    fix = commit(hub, "fix", root)
    fork.push_many({"fix": fix, "more": commit(hub, "more", fix), "merged": commit(hub, "merged", root)}, by="ann")
    plain = fork.open_pull("fix", "stack/production", "ann", "Fix it", body="It was broken.")
    fork.open_pull("more", "fix", "ann", "A draft on top", draft=True)
    for owner in ("alice", "bob", "carol"):
        hub.repository(f"{owner}/sglang", fork_of=FORK).push("fix", fix, by=owner)
        fork.open_pull("fix", "main", owner, f"By {owner}", head_repo=f"{owner}/sglang")
    hub.delete_repository("bob/sglang")
    hub.delete_repository("carol/sglang")
    hub.delete_user("carol")
    fork.add_label("deploy", color="0e8a16", description="Merge it every night")
    fork.label(plain, "deploy", by="ann")
    fork.label(plain, "blocked", by="alice")
    fork.unlabel(plain, "blocked", by="alice")
    for who, state in (
        ("ann", "APPROVED"),
        ("alice", "COMMENTED"),
        ("dave", "CHANGES_REQUESTED"),
        ("carol", "APPROVED"),
    ):
        fork.review(plain, by=who, state=state)
    fork.review(plain, by="ann", state="DISMISSED")
    fork.set_draft(plain, True, by="ann")
    fork.set_draft(plain, False, by="ann")
    fork.comment(plain, "Thanks", by="carol")
    fork.push("fix", commit(hub, "rebased", root), by="ann")
    merged = fork.open_pull("merged", "main", "ann", "Merged")
    fork.merge(merged, by="ann")
    closed = fork.open_pull("merged", "stack/production", "ann", "Closed")
    fork.close(closed, by="ann")
    fork.open_pull("merged", "stack/production", "ann", "Its branch goes")
    fork.delete_branch("merged", by="ann")
    reopened = fork.open_issue("Red night", None, "github-actions[bot]")
    fork.close(reopened, by="ann")
    fork.reopen(reopened, by="ann")
    fork.edit(reopened, by="ann", title="A red night", body="Since Friday")
    hub.settle(fork)
    git.Repository(fork.path).set_refs({"refs/heads/unnoticed": root})


def drive(hub: GitHubServer) -> None:
    """Ask for everything that `patchstack` asks for, and be refused in every way."""
    owner = hub.token("acme")
    client = GitHub(hub.api_url, Token(owner))
    client.viewer()
    for number in [pull.number for pull in hub.repository(FORK).pulls]:
        client.pull(FORK, number)
        client.reviews(FORK, number)
        client.events(FORK, number)
        client.comments(FORK, number)
    client.open_pulls(FORK)
    client.open_pulls(FORK, into="main")
    client.pushes(FORK, "fix")
    client.can_write(FORK, "ann")
    client.can_write(FORK, "dave")
    made = client.open_issue(FORK, "Made by the client", "body")
    client.comment(FORK, made, "first")
    client.edit_issue(FORK, made, title="Changed", body="more", is_open=False)
    client.issues(FORK, creator="acme")
    client.issues(FORK, creator="github-actions[bot]")

    def ask(method: str, path: str, token: str = owner, **given: Any) -> None:
        requests.request(
            method, f"{hub.api_url}{path}", headers={"Authorization": f"token {token}"}, timeout=120, **given
        )

    for path in ("", "/pulls?state=all", "/issues?state=all", "/activity", "/branches", "/labels", "/actions/runners"):
        ask("GET", f"/repos/{FORK}{path}")
    for path in (f"/repos/{FORK}/issues/{made}", f"/repos/{FORK}/issues/comments", "/rate_limit", "/users/ann"):
        ask("GET", path)
    ask("POST", f"/repos/{FORK}/labels", json={"name": "blocked by us", "color": "ff0000"})
    ask("POST", f"/repos/{FORK}/issues/{made}/labels", json={"labels": ["deploy"]})
    ask("DELETE", f"/repos/{FORK}/issues/{made}/labels/deploy")
    comment = hub.repository(FORK).comments(made)[0].id
    ask("PATCH", f"/repos/{FORK}/issues/comments/{comment}", json={"body": "changed"})
    # refused
    ask("GET", f"/repos/{FORK}/pulls", "nobody's")
    ask("GET", "/user", hub.token(repo=FORK, permissions={}))
    ask("GET", f"/repos/{FORK}/pulls", hub.token(repo=FORK, permissions={}))
    ask("POST", f"/repos/{FORK}/issues/{made}/comments", hub.token(repo=FORK, permissions={}), json={"body": "x"})
    ask("GET", f"/repos/{FORK}/pulls/999")
    ask("GET", f"/repos/{FORK}/collaborators/nobody/permission")
    ask("GET", f"/repos/{FORK}/pulls?state=new")
    ask("POST", f"/repos/{FORK}/labels", json={"name": "deploy"})
    ask("POST", f"/repos/{FORK}/issues", json={"title": 1})
    ask("POST", f"/repos/{FORK}/issues", json={"title": " "})
    ask("POST", f"/repos/{FORK}/issues/{made}/comments", json={"body": "x" * 65_537})
    hub.fail(Fault.secondary_rate_limit())
    ask("GET", f"/repos/{FORK}/pulls")
    hub.fail(Fault.secondary_rate_limit(status=429))
    ask("GET", f"/repos/{FORK}/pulls")
    hub.fail(Fault(status=502))
    ask("GET", f"/repos/{FORK}/pulls")


@pytest.fixture(scope="module")
def answered(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Answered]:
    """Every answer of the fake to `drive`."""
    found: list[Answered] = []
    with GitHubServer(tmp_path_factory.mktemp("github")) as hub:
        fill(hub)
        hub.observe = lambda request, body: found.append(Answered(request, body))
        drive(hub)
    return found


def test_every_answer_is_as_github_describes_it(answered: list[Answered], description: Description) -> None:
    complaints = [
        line
        for one in answered
        for line in description.complaints(one.request.method, one.request.path, one.request.status, one.body)
    ]
    assert complaints == []


def test_every_endpoint_of_the_fake_was_asked_and_answered(answered: list[Answered]) -> None:
    done = [one.request for one in answered if one.request.status < 300]
    never = [
        f"{route.method} {route.pattern.pattern}"
        for route in ROUTES
        if not any(one.method == route.method and route.pattern.fullmatch(one.path) for one in done)
    ]
    assert never == ["POST /_runner/job"]
    assert {one.request.status for one in answered} == {200, 201, 401, 403, 404, 422, 429, 502}


# Each is a mistake that a fake could make in an answer: what is asked, where in the answer, and what is there instead.
MISSING = object()
MISTAKES = {
    "a key is missing": ("GET", f"/repos/{FORK}/pulls", (0, "merge_commit_sha"), MISSING),
    "a key is invented": ("GET", f"/repos/{FORK}/pulls", (0, "mergeable"), True),
    "null where there is none": ("GET", f"/repos/{FORK}/pulls", (0, "head", "sha"), None),
    "a word that is none of them": ("GET", f"/repos/{FORK}/activity", (0, "activity_type"), "pushed"),
    "a number as text": ("GET", f"/repos/{FORK}/issues", (0, "number"), "1"),
    "a time without its zone": ("GET", f"/repos/{FORK}/pulls/1/reviews", (0, "submitted_at"), "2026-11-01T00:00:00"),
    "half an address": ("GET", f"/repos/{FORK}/issues/1/comments", (0, "html_url"), "/acme/sglang"),
    "a label event with half a label": ("GET", f"/repos/{FORK}/issues/1/events", (0, "label", "color"), MISSING),
    "a permission by another name": ("GET", f"/repos/{FORK}/collaborators/ann/permission", ("permission",), 2),
    "no list": ("GET", f"/repos/{FORK}/issues", (), {"items": []}),
}


def changed(body: Any, place: tuple[str | int, ...], value: object) -> Any:
    if not place:
        return value
    first, *rest = place
    body = copy.copy(body)
    if value is MISSING and not rest:
        del body[first]
    else:
        body[first] = changed(body[first] if rest else None, tuple(rest), value)
    return body


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_an_answer_is_found(mistake: str, answered: list[Answered], description: Description) -> None:
    method, path, place, value = MISTAKES[mistake]
    body = next(
        one.body
        for one in answered
        if (one.request.method, one.request.path, one.request.status) == (method, path, 200) and one.body
    )
    assert description.complaints(method, path, 200, body) == []

    assert description.complaints(method, path, 200, changed(body, place, value)) != []


def test_an_answer_that_github_never_gives_is_found(description: Description) -> None:
    assert description.complaints("GET", f"/repos/{FORK}/pull", 200, []) == [f"GitHub has no GET /repos/{FORK}/pull"]
    assert description.complaints("GET", f"/repos/{FORK}/pulls", 201, []) != []
    assert description.complaints("GET", f"/repos/{FORK}/pulls", 422, {"message": "no"}) != []
