"""GitHub's client: what each question costs, how each failure ends, and that the token is nowhere to be seen."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.support.github_server import Fault, GitHubServer, Repository
from tests.unit.builders import Workshop
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError

from patchstack import patience
from patchstack.errors import RemoteError, UsageError
from patchstack.github import ACTIONS_LOGIN, Events, GitHub, LabelEvent, OpenPull, Push, Refused, Review, Token, connect
from patchstack.patience import PATIENCE_S, Patience, Purse

REPO = "acme/sglang"
REPEATS = 2
"""Fewer than a night has, to be quick."""
PULLS = f"/repos/{REPO}/pulls"
ALWAYS = 10**6
CANARY = "ghs_canaryCANARYcanaryCANARYcanaryCANARY12"


@dataclass
class Scene:
    hub: GitHubServer
    fork: Repository
    workshop: Workshop

    def client(self, login: str = "github-actions[bot]", **permissions: str) -> GitHub:
        given = {name.replace("_", "-"): level for name, level in permissions.items()}
        bot = login == ACTIONS_LOGIN
        token = self.hub.token(login, repo=REPO if bot else None, permissions=given if bot else None)
        return GitHub(self.hub.api_url, Token(token))

    def open_pulls(self, count: int) -> None:
        root = self.workshop.commit("base", {"a": "1\n"})
        heads = {f"topic/{number}": self.workshop.commit(f"{number}", {"a": f"{number}\n"}, root) for number in (1, 2)}
        self.fork.push_many({"main": root, **heads}, by="bob")
        for number in range(1, count + 1):
            self.fork.open_pull(f"topic/{1 + number % 2}", "main", "bob", f"title of {number}", number=number)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with GitHubServer(tmp_path) as hub:
        fork = hub.repository(REPO)
        hub.user("ann", write=[REPO])
        yield Scene(hub, fork, Workshop(fork.path))


def spent(scene: Scene, client: GitHub, ask: Callable[[], object]) -> tuple[object, int]:
    """The answer, and its requests; the client must have counted as the server did."""
    calls, seen = client.calls, len(scene.hub.requests)
    found = ask()
    assert client.calls - calls == len(scene.hub.requests) - seen
    return found, client.calls - calls


# --- what it costs ---


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (100, 1), (101, 2), (198, 2), (199, 3), (250, 3)])
def test_a_listing_costs_as_many_requests_as_it_has_pages(scene: Scene, count: int, pages: int) -> None:
    """The first page is read whole, and GitHub says with it whether there is another: 100 are one page."""
    scene.open_pulls(count)
    client = scene.client(pull_requests="read")

    found, calls = spent(scene, client, lambda: [pull.number for pull in client.open_pulls(REPO)])

    assert (found, calls) == (list(range(1, count + 1)), pages)


def test_each_question_costs_one_request(scene: Scene) -> None:
    scene.open_pulls(2)
    scene.fork.label(1, "deploy", "ann")
    scene.fork.unlabel(1, "deploy", "ann")
    scene.fork.review(1, "ann")
    scene.fork.comment(1, "hello", "bob")
    scene.fork.retarget(1, "main", "bob")
    issue = scene.fork.open_issue("red night", "since today", ACTIONS_LOGIN)
    client = scene.client(pull_requests="read", issues="write", contents="read")
    head = scene.fork.branches["topic/2"]

    questions: Mapping[str, Callable[[], object]] = {
        "pull": lambda: client.pull(REPO, 1),
        "reviews": lambda: client.reviews(REPO, 1),
        "events": lambda: client.events(REPO, 1),
        "pushes": lambda: client.pushes(REPO, "topic/2"),
        "can_write": lambda: [client.can_write(REPO, "ann")],
        "cannot_write": lambda: [client.can_write(REPO, "bob")],
        "nobody": lambda: [client.can_write(REPO, "no/body?x=1#[bot]")],
        "viewer": client.viewer,
        "issues": lambda: [one.title for one in client.issues(REPO, creator=ACTIONS_LOGIN)],
        "comments": lambda: [(one.author, one.body) for one in client.comments(REPO, 1)],
        "comment": lambda: client.comment(REPO, issue, "still red"),
        "edit": lambda: client.edit_issue(REPO, issue, title="red", body="b", is_open=False),
        "open": lambda: client.open_issue(REPO, "another", "body"),
    }
    answers = {name: spent(scene, client, ask) for name, ask in questions.items()}

    assert {name: calls for name, (_, calls) in answers.items()} == dict.fromkeys(questions, 1)
    url = f"{scene.hub.server_url}/{REPO}/pull/1"
    at = "2026-11-01T00:{:02d}:00+00:00".format
    assert {name: found for name, (found, _) in answers.items()} == {
        "pull": OpenPull(
            1, "title of 1", "bob", False, (), head, "topic/2", REPO, "acme", "main", at(9), url, "open", False
        ),
        "reviews": (Review("ann", "APPROVED", head, at(7)),),
        "events": Events(
            (LabelEvent("deploy", True, "ann", at(5)), LabelEvent("deploy", False, "ann", at(6))), (at(9),)
        ),
        "pushes": (Push("0" * 40, head, at(2)),),
        "can_write": [True],
        "cannot_write": [False],
        "nobody": [False],
        "viewer": ACTIONS_LOGIN,
        "issues": ["red night"],
        "comments": [("bob", "hello")],
        "comment": None,
        "edit": None,
        "open": issue + 1,
    }
    assert [(one.title, one.state) for one in scene.fork.issues] == [("red", "closed"), ("another", "open")]


def test_only_pull_requests_into_one_branch(scene: Scene) -> None:
    scene.open_pulls(3)
    scene.fork.push("stack/production", scene.fork.branches["main"], "ann")
    scene.fork.open_pull("topic/1", "stack/production", "bob", number=9)
    client = scene.client(pull_requests="read")
    assert [pull.number for pull in client.open_pulls(REPO, into="stack/production")] == [9]


def test_a_pull_request_of_a_deleted_fork_says_whose_it_was(scene: Scene) -> None:
    scene.open_pulls(0)
    fork = scene.hub.repository("alice/sglang", fork_of=REPO)
    fork.push("fix", scene.fork.branches["topic/1"], "alice")
    scene.fork.open_pull("fix", "main", "alice", head_repo="alice/sglang", number=7)
    scene.hub.delete_repository("alice/sglang")
    (pull,) = scene.client(pull_requests="read").open_pulls(REPO)
    assert (pull.head_repo, pull.head_owner, pull.head_ref) == ("", "alice", "fix")


def test_pushes_of_a_repository_that_the_token_may_not_see_are_unknown(scene: Scene) -> None:
    scene.hub.repository("alice/secret", private=True)
    client = scene.client(contents="read")
    assert client.pushes("alice/secret", "main") is None
    assert client.pushes("alice/nowhere", "main") is None
    assert client.pushes(REPO, "nowhere") == ()


def test_any_branch_name_is_only_a_name(scene: Scene) -> None:
    name = "$(touch${IFS}pwned)&ref=refs/heads/main#x+y%2e'\"`;|"
    scene.open_pulls(0)
    scene.fork.push(name, scene.fork.branches["topic/1"], "bob")
    pushes = scene.client(contents="read").pushes(REPO, name)
    assert pushes is not None
    assert [push.after for push in pushes] == [scene.fork.branches["topic/1"]]


# --- how it fails ---


@dataclass
class Failure:
    fault: Fault
    said: str
    requests: int = 1
    """Of the page that failed."""


FAILURES = {
    "500": Failure(Fault(status=500, times=ALWAYS), "answered 500 about {what}: Server Error", 1 + REPEATS),
    "502": Failure(
        Fault(times=ALWAYS),
        "answered 502 about {what}: Server Error; it has a problem of its own: run again",
        1 + REPEATS,
    ),
    "503": Failure(Fault(status=503, times=ALWAYS), "answered 503 about {what}: Server Error", 1 + REPEATS),
    "html 502": Failure(Fault(no_json=True, times=ALWAYS), "answered 502 about {what}: nothing said", 1 + REPEATS),
    "time-out": Failure(Fault(hang=True, times=ALWAYS), "did not answer about {what}: ConnectionError", 1 + REPEATS),
    "reset": Failure(Fault(reset=True, times=ALWAYS), "did not answer about {what}: ConnectionError", 1 + REPEATS),
    "half a body": Failure(Fault(cut=True), "did not answer about {what}: ChunkedEncodingError"),
    "html": Failure(Fault(no_json=True, status=200), "answered something else than GitHub does about {what}"),
    "401": Failure(
        Fault(status=401, message="Bad credentials"), "answered 401 about {what}: Bad credentials; the token"
    ),
    "403": Failure(
        Fault(status=403, message="Resource not accessible by integration"),
        "answered 403 about {what}: Resource not accessible by integration; the token lacks a permission",
    ),
    "404": Failure(Fault(status=404, message="Not Found"), "answered 404 about {what}: Not Found; it is not there"),
    "410": Failure(Fault(status=410, message="Gone"), "answered 410 about {what}: Gone; it does not take that"),
    "422": Failure(Fault(status=422, message="Unprocessable"), "answered 422 about {what}: Unprocessable"),
    "429": Failure(
        Fault(status=429, message="Slow", times=ALWAYS), "answered 429 about {what}: Slow; its rate", 1 + REPEATS
    ),
    "rate limit": Failure(
        Fault.secondary_rate_limit(times=ALWAYS),
        "answered 403 about {what}: You have exceeded a secondary rate limit. Please wait",
        1 + REPEATS,
    ),
    "a long rate limit": Failure(
        Fault(status=403, message="Slow down", retry_after=3600),
        "answered 403 about {what}: Slow down (for 3600 s); its rate is used up",
    ),
}


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize("name", FAILURES)
def test_a_page_that_fails_is_one_error_that_says_what_to_do(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str, page: int
) -> None:
    monkeypatch.setattr(patience, "TIMEOUT_S", 1)
    monkeypatch.setattr(patience, "REPEATS", REPEATS)
    scene.open_pulls(101)
    failure = FAILURES[name]
    scene.hub.fail(replace(failure.fault, path=PULLS, page=page))
    client = scene.client(pull_requests="read")

    with pytest.raises(RemoteError) as caught:
        client.open_pulls(REPO)

    assert failure.said.format(what=f"the open pull requests of {REPO}") in str(caught.value)
    assert str(caught.value).startswith(scene.hub.api_url)
    assert len(scene.hub.requests) == page - 1 + failure.requests


@pytest.mark.parametrize(
    "fault",
    [Fault(times=REPEATS), Fault(reset=True, times=REPEATS), Fault.secondary_rate_limit(times=REPEATS)],
    ids=["502", "reset", "rate limit"],
)
def test_what_passes_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    monkeypatch.setattr(patience, "REPEATS", REPEATS)
    scene.open_pulls(3)
    scene.hub.fail(fault)
    client = scene.client(pull_requests="read")
    assert [pull.number for pull in client.open_pulls(REPO)] == [1, 2, 3]
    assert (client.calls, len(scene.hub.requests)) == (1, 1 + REPEATS)


def test_a_token_that_is_revoked_half_way_is_an_error(scene: Scene) -> None:
    scene.open_pulls(101)
    secret = scene.hub.token(repo=REPO, permissions={"pull-requests": "read"})
    client = GitHub(scene.hub.api_url, Token(secret))
    scene.hub.observe = lambda _request, _body: scene.hub.revoke(secret)
    with pytest.raises(Refused, match=r"answered 401 about the open pull requests .* look whether it was revoked"):
        client.open_pulls(REPO)


def test_a_server_that_is_not_there_is_an_error(scene: Scene) -> None:
    client = scene.client(pull_requests="read")
    scene.hub.__exit__(None, None, None)
    client.url = "http://127.0.0.1:1"
    with pytest.raises(RemoteError, match="did not answer about the open pull requests of acme/sglang"):
        client.open_pulls(REPO)


@pytest.mark.parametrize("fault", [Fault("POST"), Fault("POST", reset=True), Fault("POST", hang=True)])
def test_a_write_that_may_have_been_done_is_not_sent_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(patience, "TIMEOUT_S", 1)
    scene.hub.fail(fault)
    client = scene.client(issues="write")
    with pytest.raises(RemoteError, match="a new issue in acme/sglang"):
        client.open_issue(REPO, "title", "body")
    assert (len(scene.hub.requests), scene.fork.issues) == (1, ())


def test_a_write_that_was_turned_away_for_its_rate_is_sent_again(scene: Scene) -> None:
    scene.hub.fail(Fault.secondary_rate_limit(method="POST", times=2))
    scene.client(issues="write").open_issue(REPO, "title", "body")
    assert [issue.title for issue in scene.fork.issues] == ["title"]


# --- a server that GitHub is not ---


@dataclass
class Scripted:
    """Answers each request with what a test says, and remembers what came."""

    answer: Callable[[str], tuple[int, dict[str, str], bytes]] = lambda _: (200, {}, b"[]")
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Path, and whether a token came with it."""
    url: str = ""


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(answer: Callable[[str], tuple[int, dict[str, str], bytes]] | None = None) -> Scripted:
        script = Scripted(answer) if answer else Scripted()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                script.seen.append((self.path, "with a token" if self.headers["Authorization"] else "without"))
                status, headers, body = script.answer(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        return script

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_and_no_token_goes_elsewhere(scripted: Callable[..., Scripted], status: int) -> None:
    elsewhere = scripted()
    here = scripted(lambda path: (status, {"Location": f"{elsewhere.url}{path}"}, b""))
    with pytest.raises(Refused, match=f"answered {status} .* it points to {elsewhere.url}.*renamed"):
        GitHub(here.url, Token(CANARY)).open_pulls(REPO)
    assert (len(here.seen), elsewhere.seen) == (1, [])


@pytest.mark.parametrize("host", ["127.0.0.1:1", "below.127.0.0.1:1", "example.com"])
def test_a_next_page_on_another_server_is_an_error(scripted: Callable[..., Scripted], host: str) -> None:
    issue = {"number": 1, "title": "t", "body": "b", "state": "open", "user": {"login": "ann"}, "html_url": "x"}
    page = json.dumps([issue]).encode()
    here = scripted(lambda path: (200, {"Link": f'<http://{host}{path}&page=2>; rel="next"'}, page))
    client = GitHub(here.url, Token(CANARY))
    with pytest.raises(RemoteError, match=f"about the issues of ann in acme/sglang: .* another server .http://{host}/"):
        client.issues(REPO, creator="ann")
    assert len(here.seen) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"{}"),
        (200, b"null"),
        (200, b"[1]"),
        (200, b'["pull"]'),
        (200, b'[{"number": 1}]'),
        (200, b'[{"number": '),
        (200, b"<html>"),
        (200, b'{"message": "moved"}'),
        (202, b""),
        (202, b"[]"),
        (204, b""),
        (500, b'{"message": '),
        (403, b"[]"),
        (403, b"\xff"),
    ],
)
def test_what_is_no_listing_is_never_taken_for_an_empty_one(
    scripted: Callable[..., Scripted], status: int, body: bytes
) -> None:
    github = GitHub(scripted(lambda _: (status, {}, body)).url, Token(CANARY))
    with pytest.raises(RemoteError, match="about the open pull requests of acme/sglang"):
        github.open_pulls(REPO)


def pushed(scripted: Callable[..., Scripted], **changes: object) -> Scripted:
    """A server that tells of one push."""
    row = {"ref": "refs/heads/main", "before": "0" * 40, "after": "a" * 40, "timestamp": "2026-11-01T00:00:00Z"}
    return scripted(lambda _: (200, {}, json.dumps([row | changes]).encode()))


def test_pushes_to_another_branch_than_was_asked_for_are_an_error(scripted: Callable[..., Scripted]) -> None:
    assert GitHub(pushed(scripted).url, Token(CANARY)).pushes(REPO, "main")
    with pytest.raises(RemoteError, match="pushes to another branch"):
        GitHub(pushed(scripted, ref="refs/heads/other").url, Token(CANARY)).pushes(REPO, "main")


@pytest.mark.parametrize("sha", ["", "abc", "A" * 40, "0" * 39 + "\n", None, 7, "x" * 40])
def test_a_commit_id_that_is_none_is_an_error(scripted: Callable[..., Scripted], sha: object) -> None:
    github = GitHub(pushed(scripted, after=sha).url, Token(CANARY))
    with pytest.raises(RemoteError, match=r"answered something else .* is no commit id"):
        github.pushes(REPO, "main")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a client would have slept, in seconds."""
    waits: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
    return waits


def limited(
    wait: Mapping[str, str], message: str = "slow down", status: int = 403
) -> tuple[int, dict[str, str], bytes]:
    return status, dict(wait), json.dumps({"message": message}).encode()


def test_rate_limits_are_waited_for_until_patience_ends(scripted: Callable[..., Scripted], slept: list[float]) -> None:
    here = scripted(lambda _: limited({"Retry-After": "90"}))
    client = GitHub(here.url, Token(CANARY))
    with pytest.raises(Refused, match=r"slow down \(for 90 s\); its rate is used up: run again later"):
        client.open_pulls(REPO)
    with pytest.raises(Refused, match="its rate is used up"):
        client.open_pulls(REPO)
    assert slept == [90.0] * (PATIENCE_S // 90)
    assert len(here.seen) == PATIENCE_S // 90 + 2


def test_a_used_up_rate_is_waited_for_until_it_is_reset(
    scripted: Callable[..., Scripted], slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchstack.patience.time.time", lambda: 1000.0)
    used_up = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1019"}
    answers = [limited(used_up, "API rate limit exceeded"), limited(used_up, "", 429), (200, {}, b"[]")]
    here = scripted(lambda _: answers.pop(0))
    assert GitHub(here.url, Token(CANARY)).open_pulls(REPO) == ()
    assert slept == [20.0, 20.0]


def test_a_permission_that_is_missing_is_not_waited_for(scripted: Callable[..., Scripted], slept: list[float]) -> None:
    left = {"X-RateLimit-Remaining": "4999", "X-RateLimit-Reset": "9999999999"}
    here = scripted(lambda _: limited(left, "Resource not accessible by integration"))
    with pytest.raises(Refused, match="lacks a permission"):
        GitHub(here.url, Token(CANARY)).open_pulls(REPO)
    assert (len(here.seen), slept) == (1, [])


def test_a_server_that_asks_for_an_hour_is_not_waited_for(
    scripted: Callable[..., Scripted], slept: list[float]
) -> None:
    here = scripted(lambda _: (503, {"Retry-After": "3600"}, b""))
    with pytest.raises(Refused, match="asks to wait for 3600 s"):
        GitHub(here.url, Token(CANARY)).open_pulls(REPO)
    assert (len(here.seen), slept) == (1, [])


def test_how_long_the_pauses_between_attempts_are() -> None:
    retry, pauses = Patience(purse=Purse()), []
    for _ in range(patience.REPEATS):
        retry = retry.increment("GET", "/", error=ConnectTimeoutError())
        pauses.append(retry.get_backoff_time())
    assert pauses == [0, 2, 4, 8]
    with pytest.raises(MaxRetryError):
        retry.increment("GET", "/", error=ConnectTimeoutError())


def test_many_failures_end_the_patience_too(scripted: Callable[..., Scripted], slept: list[float]) -> None:
    here = scripted(lambda _: (502, {}, b""))
    client = GitHub(here.url, Token(CANARY))
    rules = client._github.requester.kwargs["retry"]
    rules.backoff_factor, rules.backoff_max = 40, 400
    with pytest.raises(
        Refused, match=r"answered 502 .* one more of many failures, and the patience of 300 s has ended"
    ):
        client.open_pulls(REPO)
    assert slept == [80, 160]


def test_a_token_whose_rate_is_used_up_is_not_taken_for_a_workflow_s(scene: Scene) -> None:
    scene.hub.fail(Fault(path="/user", status=403, message="Slow down", retry_after=3600))
    with pytest.raises(Refused, match="its rate is used up"):
        scene.client().viewer()


# --- the token ---


def echo(scripted: Callable[..., Scripted], status: int, headers: Mapping[str, str] | None = None) -> Scripted:
    """A server that says the token back."""
    body = json.dumps({"message": f"what is {CANARY}?"}).encode()
    return scripted(lambda _: (status, dict(headers or {}), body))


@pytest.mark.parametrize(
    "status", ["200", "202", "301", "401", "403", "404", "422", "429", "500", "reset", "cut", "link", "nowhere"]
)
def test_the_token_is_in_no_text(
    scripted: Callable[..., Scripted], slept: list[float], caplog: pytest.LogCaptureFixture, status: str
) -> None:
    caplog.set_level(logging.DEBUG)
    if status.isdigit():
        server = echo(scripted, int(status), {"Location": f"http://127.0.0.1:1/{CANARY}"} if status == "301" else None)
    elif status == "cut":
        server = echo(scripted, 200, {"Content-Length": "9999"})
    elif status == "link":
        server = scripted(lambda _: (200, {"Link": f'<http://other/{CANARY}?page=2>; rel="next"'}, b'[{"url": "x"}]'))
    else:
        server = scripted(lambda _: (200, {}, b""))
    client = GitHub(f"http://127.0.0.1:1/{status}" if status == "nowhere" else server.url, Token(CANARY))
    questions = (
        lambda: client.open_pulls(REPO),
        lambda: client.pull(REPO, 1),
        lambda: client.can_write(REPO, "ann"),
        lambda: client.pushes(REPO, "main"),
        client.viewer,
    )
    texts: list[str] = []
    for ask in questions:
        try:
            ask()
        except RemoteError as error:
            texts += [str(error), repr(error), repr(vars(error)), shown(error)]
    texts += [repr(vars(record)) for record in caplog.records] + [caplog.text]
    texts += [str(client.token), f"{client.token!r}", repr(client), repr(vars(client))]

    assert len(texts) > 4 * 4
    assert CANARY not in "\n".join(texts)
    assert all(error_frames_are_ours(text) for text in texts)


def shown(error: BaseException) -> str:
    """A traceback as a debugger shows it: with the variables of every frame, also of what came before."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def error_frames_are_ours(text: str) -> bool:
    return "site-packages" not in "".join(line for line in text.splitlines() if line.strip().startswith("File "))


def test_a_token_is_not_written_down() -> None:
    token = Token(CANARY)
    for write in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not written down"):
            write(token)
    assert token.out_of(f"x {CANARY} y") == "x *** y"
    assert token.out_of("eC1hY2Nlc3MtdG9rZW46Z2hzX2NhbmFyeUNBTkFSWWNhbmFyeUNBTkFSWWNhbmFyeUNBTkFSWTEy") == "***"


@pytest.mark.parametrize(
    "url",
    [
        "http://github.example.com/api/v3",
        "https://ann:secret@github.example.com",
        "ftp://x",
        "api.github.com",
        "https://",
    ],
)
def test_a_token_goes_nowhere_in_the_clear(url: str) -> None:
    with pytest.raises(UsageError, match="must begin with https://") as caught:
        GitHub(url, Token(CANARY))
    assert "secret" not in str(caught.value)


def test_without_a_token_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATCHSTACK_TOKEN", "GITHUB_TOKEN", "GH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="PATCHSTACK_TOKEN, GITHUB_TOKEN, GH_TOKEN"):
        connect()
