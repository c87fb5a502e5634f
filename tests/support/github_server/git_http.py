"""Git over HTTP: GitHub's rules in front of ``git http-backend``.

https://git-scm.com/docs/git-http-backend
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO

from tests.support.github_server.answers import Refused
from tests.support.github_server.bare import ENVIRONMENT
from tests.support.github_server.hub import Hub
from tests.support.github_server.permissions import may_see
from tests.support.github_server.records import Token
from tests.support.github_server.repository import Repository

SERVICES = {"/info/refs", "/git-upload-pack", "/git-receive-pack"}
_PASSED_ON = {
    "Content-Type": "CONTENT_TYPE",
    "Content-Encoding": "HTTP_CONTENT_ENCODING",
    "Git-Protocol": "GIT_PROTOCOL",
}


@dataclass(frozen=True)
class GitAsked:
    method: str
    repository: str
    """``owner/name``."""
    rest: str
    """One of `SERVICES`."""
    query: str
    headers: Mapping[str, str]

    @property
    def writes(self) -> bool:
        return "git-receive-pack" in (self.rest.strip("/"), self.query.removeprefix("service="))


def parse_git(method: str, path: str, query: str, headers: Mapping[str, str]) -> GitAsked | None:
    """A request of git's, or None when it is something else."""
    for service in SERVICES:
        if path.endswith(service) and path.count("/") == 2 + service.count("/"):
            name = path.removesuffix(service).strip("/").removesuffix(".git")
            return GitAsked(method, name, service, query, headers)
    return None


class Children:
    """The git processes that run now; when it is closed they are ended and none begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    @contextlib.contextmanager
    def child(self, environment: Mapping[str, str], stdin: IO[bytes], stdout: IO[bytes]) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise ConnectionAbortedError("the server is closing")
            process = subprocess.Popen(
                ["git", "http-backend"],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.DEVNULL,
                env=dict(environment),
                start_new_session=True,
            )
            self._running.add(process)
        try:
            process.wait()
            yield
        finally:
            with self._lock:
                self._running.discard(process)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


@dataclass
class GitAnswer:
    status: int
    headers: list[tuple[str, str]]
    body: IO[bytes]
    """Read from where it stands to its end."""


class GitService:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.children = Children()

    def answer(self, asked: GitAsked, token: Token | None, body: IO[bytes]) -> GitAnswer:
        """What git's own server answers; `Refused` when GitHub would not let it come to that."""
        with self._hub.lock:
            repository = self._allowed(asked, token)
            self._hub.settle(repository)
        if asked.rest != "/git-receive-pack":
            return self._run(asked, repository, token, body)
        # Held over the push, so that what changed in the bare repository is what this push changed.
        with self._hub.lock:
            self._hub.settle(repository)
            try:
                return self._run(asked, repository, token, body)
            finally:
                repository.notice(token.login if token else None)

    def _allowed(self, asked: GitAsked, token: Token | None) -> Repository:
        repository = self._hub.repositories.get(asked.repository)
        user = self._hub.user(token.login) if token else None
        if repository is None or not may_see(token, user, repository):
            # GitHub asks who is there before it says that nothing is.
            raise Refused(401 if token is None else 404, "Repository not found.")
        if token is None or user is None:
            if asked.writes:
                raise Refused(401, "No anonymous write access.")
            return repository
        own = token.repo in (None, repository.name)
        level = "write" if asked.writes else "read"
        if level == "read" and not own:
            return repository
        pushes = token.is_bot or user.permission(repository.name) != "read"
        if not own or not token.has("contents", level) or (asked.writes and not pushes):
            what = "Permission" if asked.writes else "Read access"
            raise Refused(403, f"{what} to {repository.name}.git denied to {token.login}.")
        return repository

    def _run(self, asked: GitAsked, repository: Repository, token: Token | None, body: IO[bytes]) -> GitAnswer:
        environment = {
            **ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self._hub.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": f"/{repository.path.relative_to(self._hub.folder).as_posix()}{asked.rest}",
            "QUERY_STRING": asked.query,
            "REQUEST_METHOD": asked.method,
            "REMOTE_ADDR": "127.0.0.1",
            **({"REMOTE_USER": token.login} if token else {}),
            **{name: asked.headers[header] for header, name in _PASSED_ON.items() if asked.headers.get(header)},
        }
        said = TemporaryFile()  # noqa: SIM115 - the answer is read from it, and it is closed with the answer
        with self.children.child(environment, body, said):
            said.seek(0)
        return _parsed(said)


def _parsed(said: IO[bytes]) -> GitAnswer:
    """A CGI program's output: its headers, then the body."""
    headers: list[tuple[str, str]] = []
    status = 200
    while line := said.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers.append((name, value.strip()))
    if not headers:
        raise ConnectionAbortedError("git http-backend said nothing")
    return GitAnswer(status, headers, said)
