"""The token: shown by git to GitHub's server alone, and to nobody on this machine."""

from __future__ import annotations

import base64
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.support.github_server import GitHubServer

from patchstack import credential, process
from patchstack.credential import credential_for
from patchstack.errors import MachineError, RemoteError
from patchstack.git import EMPTY_TREE, Repository, without_secret
from patchstack.model import Sha

CANARY = "ghs_canary0123456789"
BASIC = base64.b64encode(f"x-access-token:{CANARY}".encode()).decode()
SECRET = (CANARY, BASIC, BASIC.rstrip("="))


def tells(text: str) -> bool:
    return any(form in text for form in SECRET)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSTACK_TOKEN", CANARY)


# --- whom it is shown to ---


@pytest.mark.parametrize(
    ("server", "url", "shown"),
    [
        ("", "https://github.com/acme/sglang.git", True),
        ("", "https://GitHub.com:443/acme/sglang.git", True),
        ("https://ghe.example.com/", "https://ghe.example.com/acme/sglang.git", True),
        ("https://example.com/git", "https://example.com/git/acme/sglang.git", True),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/acme/sglang.git", True),
        ("http://localhost:8080", "http://localhost:8080/acme/sglang.git", True),
        ("https://example.com/git", "https://example.com/gitlab/acme/sglang.git", False),
        ("https://example.com/git", "https://example.com/acme/sglang.git", False),
        ("http://ghe.example.com", "http://ghe.example.com/acme/sglang.git", False),
        ("", "http://github.com/acme/sglang.git", False),
        ("", "https://github.com:8443/acme/sglang.git", False),
        ("", "https://github.com.example.com/acme/sglang.git", False),
        ("", "https://github.com@example.com/acme/sglang.git", False),
        ("", "https://me:pw@github.com/acme/sglang.git", False),
        ("", "https://gitlab.example.com/github.com/acme/sglang.git", False),
        ("", "git@github.com:acme/sglang.git", False),
        ("", "ssh://git@github.com/acme/sglang.git", False),
        ("", "https://github.com:port/acme/sglang.git", False),
        ("", "/srv/acme/sglang.git", False),
    ],
)
def test_only_the_server_that_github_is_asked_at_is_shown_it(
    token: None, monkeypatch: pytest.MonkeyPatch, server: str, url: str, shown: bool
) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", server)
    assert (credential_for(url) is not None) == shown


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://me:pw@example.com/a@b.git", "https://example.com/a@b.git"),
        ("https://me:p@w@example.com/a.git", "https://example.com/a.git"),
        ("HTTPS://me:pw@example.com/a.git", "HTTPS://example.com/a.git"),
        ("ssh://git@example.com/a.git", "ssh://example.com/a.git"),
        ("https://example.com/@/a.git", "https://example.com/@/a.git"),
        ("/a/folder@home", "/a/folder@home"),
    ],
)
def test_a_url_is_told_without_user_and_password(url: str, told: str) -> None:
    assert without_secret(url) == told


def test_without_a_token_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATCHSTACK_TOKEN", "GITHUB_TOKEN", "GH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert credential_for("https://github.com/acme/sglang.git") is None


def test_it_stands_behind_the_user_s_own_settings(token: None) -> None:
    found = credential_for("https://github.com/acme/sglang.git")
    assert found is not None
    assert not tells(repr(found))
    theirs = {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "a.b", "GIT_CONFIG_VALUE_0": "c"}
    added = found.environment(theirs)
    assert added == {
        "GIT_CONFIG_COUNT": "5",
        "GIT_CONFIG_KEY_2": "http.https://github.com/.extraheader",
        "GIT_CONFIG_VALUE_2": "",
        "GIT_CONFIG_KEY_3": "http.https://github.com/.extraheader",
        "GIT_CONFIG_VALUE_3": f"AUTHORIZATION: basic {BASIC}",
        "GIT_CONFIG_KEY_4": "http.https://github.com/.followRedirects",
        "GIT_CONFIG_VALUE_4": "false",
        "GIT_TRACE2": "0",
        "GIT_TRACE2_EVENT": "0",
        "GIT_TRACE2_PERF": "0",
    }
    with pytest.raises(MachineError, match="GIT_CONFIG_COUNT='many' in the environment is no number"):
        found.environment({"GIT_CONFIG_COUNT": "many"})


# --- against a server ---


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[GitHubServer]:
    with GitHubServer(tmp_path / "hub") as hub:
        hub.repository("acme/sglang")
        hub.user("ann", write=["acme/sglang"])
        yield hub


def log_in(hub: GitHubServer, monkeypatch: pytest.MonkeyPatch, login: str = "ann") -> str:
    secret: str = hub.token(login)
    for name, value in hub.environment(secret).items():
        monkeypatch.setenv(name, value)
    return secret


def first_commit(store: Repository) -> Sha:
    tree = store.edit_tree(EMPTY_TREE, [("100644", store.write_blob(b"one\n"), "one")])
    return store.commit(tree, (), "one\n")


def seen_on_this_machine() -> list[str]:
    """Every argument of every process that can be seen."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:  # it has just ended
                continue
    return lines


def test_fetch_and_push_show_it_to_the_server_and_to_no_process_list(
    hub: GitHubServer, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = log_in(hub, monkeypatch)
    forms = (secret, base64.b64encode(f"x-access-token:{secret}".encode()).decode())
    lines: list[str] = []
    answer = hub.git.answer

    def watched(*argv: Any) -> Any:
        lines.extend(seen_on_this_machine())  # whoever asks waits for the answer meanwhile
        return answer(*argv)

    monkeypatch.setattr(hub.git, "answer", watched)
    url = f"{hub.server_url}/acme/sglang.git"
    commit = first_commit(repository)
    repository.push(url, {"refs/heads/fix": commit})
    assert repository.ls_remote(url, "refs/heads/*") == {"refs/heads/fix": commit}
    other = Repository.init(repository.folder.parent / "other.git")
    other.fetch(url, ["refs/heads/fix:refs/heads/here"])
    assert other.refs("refs/heads/") == {"refs/heads/here": commit}
    assert {request.login for request in hub.requests} == {"ann"}
    for verb in (" push --quiet ", "gc.auto=0 ", " fetch --quiet ", "git ls-remote ", "git remote-http "):
        assert any(verb in line for line in lines), verb
    assert [line for line in lines if any(form in line for form in forms)] == []


@pytest.mark.parametrize("verb", ["ls_remote", "fetch", "push"])
def test_a_refusal_says_nothing_of_it(
    hub: GitHubServer, repository: Repository, monkeypatch: pytest.MonkeyPatch, token: None, verb: str
) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", hub.server_url)  # the token is none of this server's
    url = f"{hub.server_url}/acme/sglang.git"
    commit = first_commit(repository)
    argv: dict[str, tuple[Any, ...]] = {
        "ls_remote": (url,),
        "fetch": (url, ["refs/heads/main:refs/heads/main"]),
        "push": (url, {"refs/heads/fix": commit}),
    }
    with pytest.raises(RemoteError) as refused:
        getattr(repository, verb)(*argv[verb])
    assert "/acme/sglang.git" in str(refused.value)
    assert not tells(str(refused.value))


@pytest.mark.parametrize("verbose", [False, True])
def test_what_the_user_traces_does_not_write_it_down(
    hub: GitHubServer, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verbose: bool
) -> None:
    secret = log_in(hub, monkeypatch)
    places = [tmp_path / name for name in ("trace", "curl", "packet", "two", "event", "perf", "mine")]
    for name, place in zip(
        ("TRACE", "TRACE_CURL", "TRACE_PACKET", "TRACE2", "TRACE2_EVENT", "TRACE2_PERF"), places, strict=False
    ):
        monkeypatch.setenv(f"GIT_{name}", str(place))
    monkeypatch.setenv("GIT_TRACE_REDACT", "0")
    if verbose:  # then the trace of curl goes to standard error, and into a message perhaps
        monkeypatch.setenv("GIT_CURL_VERBOSE", "1")
    monkeypatch.setenv("GIT_TRACE2_CONFIG_PARAMS", "http.*")
    monkeypatch.setenv("GIT_TRACE2_ENV_VARS", "GIT_CONFIG_VALUE_1,PATCHSTACK_TOKEN")
    settings = Path(os.environ["HOME"]) / ".gitconfig"
    settings.write_text(
        f"{settings.read_text()}[trace2]\n\tnormalTarget = {places[-1]}\n\tconfigParams = http.*\n"
        "\tenvVars = GIT_CONFIG_VALUE_1\n"
    )
    url = f"{hub.server_url}/acme/sglang.git"
    repository.push(url, {"refs/heads/fix": first_commit(repository)})
    with pytest.raises(RemoteError) as refused:
        repository.ls_remote(f"{hub.server_url}/acme/nothing.git")
    written = "".join(place.read_text(errors="replace") for place in places if place.is_file()) + str(refused.value)
    basic = base64.b64encode(f"x-access-token:{secret}".encode()).decode()
    assert secret not in written
    assert basic not in written


class Listener(BaseHTTPRequestHandler):
    """Another host: it takes down what it was shown."""

    heard: ClassVar[list[str]] = []
    answer: ClassVar[tuple[int, dict[str, str], bytes]]

    def do_GET(self) -> None:
        Listener.heard.append(f"{self.path}\n{self.headers}")
        status, headers, body = Listener.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value.replace("BACK", self.headers.get("Authorization") or "nothing"))
        self.end_headers()
        self.wfile.write(body.replace(b"BACK", (self.headers.get("Authorization") or "nothing").encode()))

    def log_message(self, *_: object) -> None: ...


@contextmanager
def listening(status: int, headers: dict[str, str], body: bytes = b"") -> Iterator[str]:
    Listener.heard.clear()
    Listener.answer = (status, headers, body)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_no_other_host_is_shown_it_whatever_is_answered(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, token: None, tmp_path: Path
) -> None:
    with listening(404, {}) as url:
        monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
        with pytest.raises(RemoteError):
            repository.ls_remote(f"{url}/acme/sglang.git")
        assert len(Listener.heard) == 1
        assert not tells("".join(Listener.heard))


def test_it_does_not_follow_to_where_an_answer_sends_git(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, token: None
) -> None:
    with GitHubAt(302) as (near, far):
        monkeypatch.setenv("GITHUB_SERVER_URL", near)
        with pytest.raises(RemoteError, match="302"):
            repository.ls_remote(f"{near}/acme/sglang.git")
        assert [tells(said) for said in Listener.heard] == [True]
        assert far not in "".join(Listener.heard)


class GitHubAt:
    """A server that sends whoever asks on to another host of this machine, which is the same listener."""

    def __init__(self, status: int) -> None:
        self._status = status

    def __enter__(self) -> tuple[str, str]:
        self._block = listening(self._status, {})
        near = self._block.__enter__()
        far = near.replace("127.0.0.1", "localhost")
        Listener.answer = (self._status, {"Location": f"{far}/acme/sglang.git/info/refs?service=git-upload-pack"}, b"")
        return near, "Host: localhost"

    def __exit__(self, *exception: Any) -> None:
        self._block.__exit__(*exception)


def test_a_server_that_says_it_back_is_not_repeated(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, token: None
) -> None:
    with listening(403, {"Content-Type": "text/plain"}, b"no entry for BACK\n") as url:
        monkeypatch.setenv("GITHUB_SERVER_URL", url)
        with pytest.raises(RemoteError) as refused:
            repository.ls_remote(f"{url}/acme/sglang.git")
    assert tells("".join(Listener.heard))
    assert "no entry for basic ***" in str(refused.value)
    assert not tells(str(refused.value))


# --- what else is started ---


ALL = {
    "PATCHSTACK_TOKEN": CANARY,
    "GITHUB_TOKEN": CANARY,
    "GH_TOKEN": CANARY,
    "ACTIONS_RUNTIME_TOKEN": CANARY,
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": CANARY,
}


def test_no_program_that_we_start_has_it_in_its_environment(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in ALL.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KEPT", "this")
    seen = process.run([sys.executable, "-c", "import os; print(dict(os.environ))"]).stdout
    assert "'KEPT': 'this'" in seen
    assert not tells(seen)
    # git runs a hook of a remote on this disk with its own environment
    remote = Repository.init(tmp_path / "remote.git")
    hook = remote.folder / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nenv > '{tmp_path}/hook'\n")
    hook.chmod(0o755)
    repository.push(str(remote.folder), {"refs/heads/x": first_commit(repository)})
    heard = (tmp_path / "hook").read_text()
    assert "KEPT=this" in heard
    assert not tells(heard)


def test_a_local_command_has_none_of_it_in_its_environment(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ALL.items():
        monkeypatch.setenv(name, value)
    repository.run("config", "alias.environment", "!env")
    heard = repository.run("environment")
    assert "GIT_CONFIG_GLOBAL=/dev/null" in heard
    assert not tells(heard)
    assert not any(name in heard for name in ALL)


def test_which_variables_are_secret() -> None:
    assert all(credential.is_secret(name) for name in ALL)
    assert not any(
        credential.is_secret(name) for name in ("PATH", "GITHUB_OUTPUT", "PATCHSTACK_CACHE", "PIP_INDEX_URL")
    )
