"""Who may ask the fake GitHub for what: people, workflows, and what a workflow gives its jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
from tests.support.github_server.permissions import SCOPES, permissions_of_job
from tests.support.github_server.routes import ROUTES
from tests.unit.github_server.place import FORK, Place

ALL = dict.fromkeys(SCOPES, "write")


def endpoint(method: str, pattern: str) -> str:
    values = {"owner": "acme", "repo": "sglang", "number": "1", "login": "ann", "name": "deploy"}
    path = pattern
    for name, value in values.items():
        path = path.replace(f"(?P<{name}>[^/]+)", value).replace(f"(?P<{name}>\\d+)", value)
    return path


GUARDED = [route for route in ROUTES if route.pattern.pattern.startswith("/repos/") and route.scopes != ("metadata",)]


@pytest.mark.parametrize(
    "route", GUARDED, ids=lambda route: f"{route.method} {endpoint(route.method, route.pattern.pattern)}"
)
def test_a_workflow_needs_the_permission_of_what_it_asks(place: Place, route: Any) -> None:
    place.branch("fix")
    number = place.fork.open_pull("fix", "main", "bob")
    place.fork.comment(number, "hello", by="ann")
    place.fork.label(number, "deploy", by="ann")
    path = endpoint(route.method, route.pattern.pattern)
    without = {scope: level for scope, level in ALL.items() if scope not in route.scopes}
    too_little = ALL if route.level == "read" else {**ALL, **dict.fromkeys(route.scopes, "read")}

    def status(permissions: dict[str, str], body: Any = None) -> tuple[int, str]:
        token = place.hub.token(repo=FORK, permissions=permissions)
        answer = place.ask(path, token, method=route.method, json=body)
        return answer.status_code, answer.json()["message"] if answer.status_code == 403 else ""

    refused = (403, "Resource not accessible by integration")
    assert status(without) == refused
    assert status({}) == refused
    if route.level == "write":
        assert status(too_little) == refused
    assert status(ALL)[0] != 403


def test_one_of_issues_and_pull_requests_does_not_stand_for_the_other(place: Place) -> None:
    place.branch("fix")
    number = place.fork.open_pull("fix", "main", "bob")
    issue = place.fork.open_issue("Red", "", "ann")
    tokens = {scope: place.hub.token(repo=FORK, permissions={scope: "write"}) for scope in ("issues", "pull-requests")}

    def comment(scope: str, on: int) -> int:
        path = f"/repos/{FORK}/issues/{on}/comments"
        return place.ask(path, tokens[scope], method="POST", json={"body": "x"}).status_code

    assert {(scope, on): comment(scope, on) for scope in tokens for on in (issue, number)} == {
        ("issues", issue): 201,
        ("issues", number): 403,
        ("pull-requests", issue): 403,
        ("pull-requests", number): 201,
    }
    assert [one.author for one in place.fork.comments(number)] == ["github-actions[bot]"]


def test_a_workflows_token_reads_other_repositories_and_writes_to_none(place: Place) -> None:
    upstream = place.hub.repository("sgl-project/sglang")
    upstream.open_issue("theirs", "", "zoe")
    place.hub.repository("secret/sglang", private=True)
    token = place.hub.token(repo=FORK, permissions=ALL)

    assert place.ask("/repos/sgl-project/sglang/pulls", token).status_code == 200
    answer = place.ask("/repos/sgl-project/sglang/issues/1/comments", token, method="POST", json={"body": "x"})
    assert (answer.status_code, answer.json()["message"]) == (403, "Resource not accessible by integration")
    assert place.ask("/repos/secret/sglang/pulls", token).status_code == 404


def test_a_person_without_write_access_opens_issues_and_changes_no_others(place: Place) -> None:
    token = place.hub.token("eve")
    theirs = place.fork.open_issue("Red", "", "ann")

    made = place.ask(f"/repos/{FORK}/issues", token, method="POST", json={"title": "mine", "labels": ["deploy"]})
    assert (made.status_code, made.json()["labels"]) == (201, [])
    assert place.ask(f"/repos/{FORK}/issues/{made.json()['number']}", token, method="PATCH", json={"title": "x"}).ok
    assert place.ask(f"/repos/{FORK}/issues/{theirs}", token, method="PATCH", json={"title": "x"}).status_code == 403
    path = f"/repos/{FORK}/issues/{theirs}/labels"
    assert place.ask(path, token, method="POST", json={"labels": ["deploy"]}).status_code == 403


def test_a_token_is_known_and_not_revoked(place: Place) -> None:
    token = place.hub.token("ann")
    assert place.ask("/user", token).json()["login"] == "ann"
    place.hub.revoke(token)

    answers = [place.ask("/user", token), place.ask("/user", "nobody's"), place.ask("/user")]

    assert [(answer.status_code, answer.json()["message"]) for answer in answers] == [
        (401, "Bad credentials"),
        (401, "Bad credentials"),
        (401, "Requires authentication"),
    ]
    assert [(one.login, one.status) for one in place.hub.requests] == [
        ("ann", 200),
        (None, 401),
        (None, 401),
        (None, 401),
    ]


def test_who_may_write_is_told(place: Place) -> None:
    place.hub.user("bob")
    place.hub.user("zoe", admin=[FORK])
    token = place.hub.token("ann")

    found = {
        login: place.ask(f"/repos/{FORK}/collaborators/{login}/permission", token).json().get("permission")
        for login in ("ann", "bob", "zoe", "acme", "nobody")
    }

    assert found == {"ann": "write", "bob": "read", "zoe": "admin", "acme": "admin", "nobody": None}
    refused = place.ask(f"/repos/{FORK}/collaborators/ann/permission", place.hub.token("bob"))
    assert (refused.status_code, refused.json()["message"][:21]) == (403, "Must have push access")


def test_an_unknown_endpoint_is_no_404(place: Place) -> None:
    assert place.ask("/repos/acme/sglang/hooks", place.hub.token("ann")).status_code == 501


WORKFLOW = """\
on: push
permissions: {contents: read, issues: write}
jobs:
  plain: {runs-on: x}
  own: {runs-on: x, permissions: {pull-requests: write}}
  none: {runs-on: x, permissions: {}}
  all: {runs-on: x, permissions: read-all}
  wrong: {runs-on: x, permissions: {pulls: write}}
"""


def test_a_jobs_permissions_replace_the_workflows() -> None:
    assert permissions_of_job(WORKFLOW, "plain") == {"contents": "read", "issues": "write"}
    assert permissions_of_job(WORKFLOW, "plain", from_fork=True) == {"contents": "read", "issues": "read"}
    assert permissions_of_job(WORKFLOW, "own") == {"pull-requests": "write"}
    assert permissions_of_job(WORKFLOW, "none") == {}
    assert permissions_of_job(WORKFLOW, "all")["statuses"] == "read"
    assert permissions_of_job("jobs: {one: {runs-on: x}}", "one") == {"contents": "read", "packages": "read"}
    with pytest.raises(ValueError, match="pulls: write"):
        permissions_of_job(WORKFLOW, "wrong")


def test_the_runner_gives_the_token_of_a_job_its_permissions(place: Place, tmp_path: Path) -> None:
    (tmp_path / "nightly.yml").write_text(WORKFLOW)
    issue = place.fork.open_issue("Red", "", "ann")
    token = place.hub.token(repo=FORK, permissions={})

    def begin(job: str) -> requests.Response:
        where = {"workflow": str(tmp_path / "nightly.yml"), "job": job}
        return place.ask("/_runner/job", token, method="POST", json=where)

    def comment() -> int:
        return place.ask(f"/repos/{FORK}/issues/{issue}/comments", token, method="POST", json={"body": "x"}).status_code

    found = []
    for job in ("plain", "none"):
        assert begin(job).status_code == 200
        found.append(comment())
    assert found == [201, 403]
    assert begin("nope").json()["message"] == "the workflow has no job nope; it has plain, own, none, all, wrong"
