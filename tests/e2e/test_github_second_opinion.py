"""`emulate`, a GitHub by other people, and the fake of the tests answer the same to the same calls.

Only about what `emulate` does well: see its module. Both are filled in the same order, then asked by the client of
`patchstack` itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.support.github_server import GitHubServer
from tests.support.github_server.emulate import emulate

from patchstack import git
from patchstack.errors import RemoteError
from patchstack.github import GitHub, OpenPull, Token

NODE = Path(__file__).parents[2] / ".venv" / "node" / "node_modules"
FORK = "acme/sglang"
MANY = 104
"""Pull requests: more than a page holds."""


class Side(ABC):
    """One GitHub, filled by ann and bob; ann may write."""

    url: str

    @abstractmethod
    def token(self, login: str) -> str: ...

    @abstractmethod
    def propose(self, head: str, into: str, by: str, title: str, *, draft: bool = False) -> None: ...

    @abstractmethod
    def review(self, number: int, by: str, state: str) -> None: ...

    @abstractmethod
    def close(self, number: int) -> None: ...

    def ask(self, method: str, path: str, by: str, body: Any = None) -> Any:
        headers = {"Authorization": f"token {self.token(by)}"}
        answer = requests.request(method, f"{self.url}{path}", headers=headers, json=body, timeout=120)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def client(self, login: str) -> GitHub:
        return GitHub(self.url, Token(self.token(login)))

    def label(self, number: int, name: str) -> None:
        self.ask("POST", f"/repos/{FORK}/issues/{number}/labels", "ann", {"labels": [name]})

    def unlabel(self, number: int, name: str) -> None:
        self.ask("DELETE", f"/repos/{FORK}/issues/{number}/labels/{name}", "ann")


class Fake(Side):
    def __init__(self, hub: GitHubServer) -> None:
        self.hub = hub
        self.url = hub.api_url
        self.fork = hub.repository(FORK)
        hub.user("ann", write=[FORK])
        store = git.Repository(self.fork.path)
        self.root = store.commit(git.EMPTY_TREE, (), "root", git.Signature("Ann", "ann@example.com", "@1 +0000"))
        self._tokens = {login: hub.token(login) for login in ("ann", "bob")}

    def token(self, login: str) -> str:
        return self._tokens[login]

    def propose(self, head: str, into: str, by: str, title: str, *, draft: bool = False) -> None:
        self.fork.push_many({head: self.root, into: self.root}, by="ann")
        self.fork.open_pull(head, into, by, title, draft=draft)

    def review(self, number: int, by: str, state: str) -> None:
        self.fork.review(number, by=by, state=state)

    def close(self, number: int) -> None:
        self.fork.close(number, by="ann")


class Emulated(Side):
    def __init__(self, url: str) -> None:
        self.url = url
        self.ask("PUT", f"/repos/{FORK}/collaborators/ann", "acme", {"permission": "push"})

    def token(self, login: str) -> str:
        return f"{login}-token"

    def propose(self, head: str, into: str, by: str, title: str, *, draft: bool = False) -> None:
        self.ask("POST", f"/repos/{FORK}/pulls", by, {"title": title, "head": head, "base": into, "draft": draft})

    def review(self, number: int, by: str, state: str) -> None:
        event = {"APPROVED": "APPROVE", "CHANGES_REQUESTED": "REQUEST_CHANGES", "COMMENTED": "COMMENT"}[state]
        self.ask("POST", f"/repos/{FORK}/pulls/{number}/reviews", by, {"event": event, "body": "I looked"})

    def close(self, number: int) -> None:
        self.ask("PATCH", f"/repos/{FORK}/pulls/{number}", "ann", {"state": "closed"})


def fill(side: Side) -> None:
    for number in range(1, MANY + 1):
        into = "stack/production" if number % 10 == 0 else "main"
        by = "bob" if number % 3 == 0 else "ann"
        side.propose(f"topic-{number}", into, by, f"Topic {number}", draft=number % 7 == 0)
    for number in (1, 2, 3):
        side.label(number, "deploy")
    side.label(3, "blocked")
    side.unlabel(2, "deploy")
    side.review(3, "ann", "APPROVED")
    side.review(3, "acme", "COMMENTED")
    side.review(3, "ann", "CHANGES_REQUESTED")
    side.close(4)
    ann, bob = side.client("ann"), side.client("bob")
    red = ann.open_issue(FORK, "Red night", "since Friday")
    old = ann.open_issue(FORK, "Old", "")
    bob.open_issue(FORK, "Not ours", "at all")
    ann.edit_issue(FORK, old, title="Old and done", body="done", is_open=False)
    ann.comment(FORK, red, "first")
    bob.comment(FORK, red, "second\n\n<!-- marker -->")
    ann.comment(FORK, 3, "on a pull request")
    side.label(red, "night")
    side.unlabel(red, "night")


@pytest.fixture(scope="module")
def sides(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    """The fake and `emulate`, filled alike."""
    assert NODE.is_dir(), "run `make node` first"
    folder = tmp_path_factory.mktemp("both")
    with GitHubServer(folder / "fake") as hub, emulate(folder, NODE, FORK, ("ann", "bob")) as url:
        found = Fake(hub), Emulated(url)
        for side in found:
            fill(side)
        yield found


def comparable(pull: OpenPull) -> OpenPull:
    """Without what only git or the clock knows."""
    return replace(pull, head=git.ZERO, updated_at="", url="")


def asked(client: GitHub) -> dict[str, Any]:
    """What each call of the client finds, less ids, times and commits."""
    return {
        "pulls": [comparable(pull) for pull in client.open_pulls(FORK)],
        "pulls into a branch": [comparable(pull) for pull in client.open_pulls(FORK, into="stack/production")],
        "pulls into no branch": client.open_pulls(FORK, into="nowhere"),
        "one": [comparable(client.pull(FORK, number)) for number in (1, 3, 4, 7, MANY)],
        "reviews": [(one.author, one.state) for one in client.reviews(FORK, 3)],
        "no reviews": client.reviews(FORK, 1),
        "label events": [(e.label, e.added, e.by) for e in client.events(FORK, MANY + 1).labels],
        "issues of ann": sorted(client.issues(FORK, creator="ann"), key=lambda issue: issue.number),
        "issues of bob": client.issues(FORK, creator="bob"),
        "comments": [(one.body, one.author) for one in client.comments(FORK, MANY + 1)],
        "comments on a pull": [(one.body, one.author) for one in client.comments(FORK, 3)],
        "who": client.viewer(),
        # Not ann: `emulate` calls what she may "push", where GitHub's word is "write".
        "who writes": [client.can_write(FORK, login) for login in ("acme", "bob")],
    }


def test_both_answer_the_same(sides: tuple[Side, Side]) -> None:
    ours, theirs = (asked(side.client("ann")) for side in sides)

    assert {
        question: (ours[question], theirs[question]) for question in ours if ours[question] != theirs[question]
    } == {}
    assert len(ours["pulls"]) == MANY - 1


def test_both_refuse_the_same(sides: tuple[Side, Side]) -> None:
    """What is not there; an unknown token is somebody to `emulate`."""
    for side in sides:
        with pytest.raises(RemoteError, match="404"):
            side.client("ann").pull(FORK, 999)
        with pytest.raises(RemoteError, match="404"):
            side.client("ann").open_pulls("acme/other")
