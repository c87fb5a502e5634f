"""The fake GitHub's own behaviour: pages, permissions, faults, pull requests as git makes them, and git over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.support.github_server import Fault, GitHubServer, Repository
from tests.support.github_server.permissions import SCOPES, permissions_of_job
from tests.support.github_server.routes import ROUTES

from patchstack import git

FORK = "acme/sglang"
ALICE = "alice/sglang"
PULLS = f"/repos/{FORK}/pulls"
ACTIVITY = f"/repos/{FORK}/activity"


@dataclass
class Place:
    """A hub with a fork that has one branch, ``main``, and ann, who may write to it."""

    hub: GitHubServer
    fork: Repository
    folder: Path
    root: str

    def commit(self, subject: str, *parents: str, text: str | None = None) -> str:
        store = git.Repository(self.fork.path)
        blob = store.write_blob((text or subject).encode())
        tree = store.edit_tree(store.tree_of(parents[0]) if parents else git.EMPTY_TREE, [("100644", blob, subject)])
        return store.commit(
            tree, [git.Sha(parent) for parent in parents], f"{subject}\n", git.Signature("A", "a@b", "@1 +0000")
        )

    def branch(self, name: str) -> str:
        """A new branch with one commit of its own."""
        sha = self.commit(name, self.root)
        self.fork.push(name, sha, by="ann")
        return sha

    def ask(
        self, path: str, token: str | None = None, *, method: str = "GET", json: Any = None, **query: object
    ) -> requests.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = f"{self.hub.api_url}{path}"
        return requests.request(method, url, headers=headers, params=dict(query), json=json, timeout=20)  # type: ignore[arg-type]

    def url(self, token: str | None = None, repo: str = FORK) -> str:
        who = f"x-access-token:{token}@" if token else ""
        return f"{self.hub.server_url.replace('://', f'://{who}')}/{repo}.git"

    def git(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *argv], cwd=self.folder, capture_output=True, text=True, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with GitHubServer(tmp_path / "github") as hub:
        fork = hub.repository(FORK)
        hub.user("ann", write=[FORK])
        found = Place(hub, fork, tmp_path, "")
        found.root = found.commit("root")
        fork.push("main", found.root, by="ann")
        yield found


def names(answer: requests.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [row["number"] for row in answer.json()]


# --- listings ---


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
    following = requests.get(pages[0].links["next"]["url"], headers={"Authorization": f"token {token}"}, timeout=20)
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


# --- pull requests follow git ---


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


# --- who may what ---

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


def test_an_unknown_endpoint_is_no_404(place: Place) -> None:
    assert place.ask("/repos/acme/sglang/hooks", place.hub.token("ann")).status_code == 501


# --- what a workflow gives its jobs ---

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


# --- faults ---


def test_a_fault_takes_its_requests_and_no_others(place: Place) -> None:
    token = place.hub.token("ann")
    place.hub.fail(Fault(path=PULLS, page=2, status=502, times=2))

    found = [place.ask(PULLS, token, page=page).status_code for page in (1, 2, 2, 2)]

    assert found == [200, 502, 502, 200]
    place.hub.fail(Fault(path="/repos/*/pulls", method="*", times=9))
    assert place.ask(PULLS, token).status_code == 502
    place.hub.mend()
    assert place.ask(PULLS, token).status_code == 200


def test_a_secondary_rate_limit_has_githubs_words_and_header(place: Place) -> None:
    place.hub.fail(Fault.secondary_rate_limit(PULLS))

    answer = place.ask(PULLS, place.hub.token("ann"))

    assert (answer.status_code, answer.headers["Retry-After"]) == (403, "0")
    assert "secondary rate limit" in answer.json()["message"]


def test_an_answer_is_cut_a_connection_reset_and_the_next_answer_whole(place: Place) -> None:
    token = place.hub.token("ann")
    place.hub.fail(Fault(path=PULLS, cut=True))
    place.hub.fail(Fault(path=PULLS, reset=True))

    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
        place.ask(PULLS, token)
    with pytest.raises(requests.ConnectionError):
        place.ask(PULLS, token)
    assert place.ask(PULLS, token).json() == []
    assert [one.status for one in place.hub.requests] == [200, 0, 200]


def test_what_hangs_ends_with_the_server(tmp_path: Path) -> None:
    before = threading.active_count()
    with GitHubServer(tmp_path) as hub:
        hub.repository(FORK)
        hub.fail(Fault(hang=True))
        token = hub.token("ann")
        port = int(hub.server_url.rpartition(":")[2])
        hanging, idle = (socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(2))
        asked = f"GET /api/v3/rate_limit HTTP/1.1\r\nHost: x\r\nAuthorization: token {token}\r\n\r\n".encode()
        hanging.sendall(asked)
        hub.wait_for_requests(1)
        idle.sendall(asked)
        hub.wait_for_requests(2)
    with hanging, idle:
        assert hanging.recv(1) == b""
        answer = b"".join(iter(lambda: idle.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK")
    assert [one.status for one in hub.requests] == [0, 200]
    assert threading.active_count() == before
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=20)


# --- git over HTTP ---


def work_tree(place: Place, token: str) -> Path:
    done = place.git("clone", "--quiet", place.url(token), "work")
    assert done.returncode == 0, done.stderr
    return place.folder / "work"


def test_git_clones_pushes_and_fetches_pull_requests(place: Place) -> None:
    ann = place.hub.token("ann")
    work = work_tree(place, ann)
    # More than git sends at once (http.postBuffer), so that it comes in chunks.
    (work / "large").write_bytes(os.urandom(2_000_000))
    for argv in (["add", "large"], ["commit", "--quiet", "-m", "large"], ["push", "--quiet", "origin", "HEAD:large"]):
        done = place.git("-C", "work", *argv)
        assert done.returncode == 0, done.stderr
    head = place.fork.branches["large"]
    number = place.fork.open_pull("large", "main", "ann")

    fetched = place.git("-C", "work", "fetch", "--quiet", "origin", f"refs/pull/{number}/head:refs/pulls/it")

    assert (fetched.returncode, place.git("-C", "work", "rev-parse", "refs/pulls/it").stdout.strip()) == (0, head)
    assert [(row.after, row.by, row.kind) for row in place.fork.activity[-1:]] == [(head, "ann", "branch_creation")]
    assert ("POST", f"/{FORK}.git/git-receive-pack", "ann", 200) in {
        (one.method, one.path, one.login, one.status) for one in place.hub.requests
    }


def test_a_commit_that_no_branch_names_is_handed_over_by_its_sha_across_forks(place: Place) -> None:
    alice = place.hub.repository(ALICE, fork_of=FORK)
    left = place.commit("left", place.root)
    alice.push("fix", left, by="alice")
    alice.push("fix", place.commit("instead", place.root), by="alice")
    work_tree(place, place.hub.token("ann"))

    assert place.git("-C", "work", "fetch", "--quiet", "origin", left).returncode == 0


def pushed(place: Place, token: str, refspec: str = "HEAD:pushed") -> tuple[bool, str]:
    done = place.git("-C", "work", "push", place.url(token), refspec)
    return done.returncode == 0, done.stderr


def test_a_push_needs_write_access_and_its_permission(place: Place) -> None:
    work_tree(place, place.hub.token("ann"))
    writes = {"contents": "write"}
    reads = place.hub.token(repo=FORK, permissions={"contents": "read", "pull-requests": "write"})
    revoked = place.hub.token("ann")
    place.hub.revoke(revoked)

    for token in (reads, place.hub.token("eve"), place.hub.token(repo=ALICE, permissions=writes), revoked):
        done, said = pushed(place, token)
        assert not done
        assert "denied" in said or "Authentication failed" in said or "could not read" in said, said
    assert "pushed" not in place.fork.branches
    assert pushed(place, place.hub.token(repo=FORK, permissions=writes))[0]
    assert place.fork.activity[-1].by == "github-actions[bot]"


def test_nobody_pushes_to_refs_of_pull_requests(place: Place) -> None:
    place.branch("fix")
    number = place.fork.open_pull("fix", "main", "ann")
    work_tree(place, place.hub.token("ann"))

    done, said = pushed(place, place.hub.token("ann"), f"+HEAD:refs/pull/{number}/head")

    assert not done
    assert "hidden ref" in said


def test_a_private_repository_is_fetched_with_a_permission_only(tmp_path: Path) -> None:
    with GitHubServer(tmp_path / "github") as hub:
        hub.repository(FORK, private=True)
        hub.user("ann", write=[FORK])
        place = Place(hub, hub.repository(FORK), tmp_path, "")
        place.fork.push("main", place.commit("root"), by="ann")
        reads, blind = (
            hub.token(repo=FORK, permissions=given) for given in ({"contents": "read"}, {"issues": "write"})
        )

        found = [
            place.git("ls-remote", place.url(token)).returncode == 0
            for token in (reads, hub.token("ann"), blind, hub.token("eve"), None)
        ]

    assert found == [True, True, False, False, False]
