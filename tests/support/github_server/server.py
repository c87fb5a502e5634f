"""The fake GitHub as a server: HTTP on loopback, on a port of its own, over real bare repositories."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import threading
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.github_server.answers import Answer, Asked, Refused
from tests.support.github_server.faults import Fault, Faults
from tests.support.github_server.git_http import GitService, parse_git
from tests.support.github_server.hub import Hub
from tests.support.github_server.records import Token
from tests.support.github_server.routes import answer
from tests.support.github_server.shapes import Shapes, token_limit
from tests.support.loopback_server import LoopbackServer

API = "/api/v3"


@dataclass(frozen=True)
class Request:
    """One request that was answered, or not."""

    method: str
    path: str
    """Below the API's root; of git: the whole path."""
    query: Mapping[str, str]
    login: str | None
    """Whose token came with it; None: none, or one that is not accepted."""
    status: int
    """0: there was no answer."""


class GitHubServer(Hub):
    """A GitHub for tests, a context manager; see the package's own words."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "repositories")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.requests: list[Request] = []
        self._recorded = threading.Condition()
        self.broken: list[Exception] = []
        """What went wrong within the fake itself: the block ends with the first."""
        self.observe: Callable[[Request, Any], None] | None = None
        """Is told each answer of the API with its JSON, before it goes out."""
        self.faults = Faults()
        self.closing = threading.Event()
        self.git = GitService(self)
        self._http = _Http(self)
        self.server_url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.api_url = f"{self.server_url}{API}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.closing.set()
        self.git.children.close()
        self._http.shutdown()
        self._thread.join()
        self._http.close_connections()
        self._http.server_close()  # waits for the threads of all connections
        if self.broken and exception[0] is None:
            raise self.broken[0]

    def record(self, request: Request) -> None:
        with self._recorded:
            self.requests.append(request)
            self._recorded.notify_all()

    def wait_for_requests(self, count: int, timeout_s: float = 60) -> None:
        """Until so many requests have come, since the beginning."""
        with self._recorded:
            if not self._recorded.wait_for(lambda: len(self.requests) >= count, timeout_s):
                raise TimeoutError(f"{len(self.requests)} requests came, not {count}")

    def fail(self, fault: Fault) -> None:
        """The next requests that it matches go wrong."""
        self.faults.add(fault)

    def mend(self) -> None:
        """Nothing goes wrong any more."""
        self.faults.clear()

    def environment(self, secret: str) -> dict[str, str]:
        """The variables under which `patchstack` asks this server with that token."""
        return {"GITHUB_API_URL": self.api_url, "GITHUB_SERVER_URL": self.server_url, "PATCHSTACK_TOKEN": secret}

    def count(self, method: str = "GET", path: str | None = None) -> int:
        """Requests of that method, and to that path."""
        return sum(one.method == method and path in (None, one.path) for one in list(self.requests))


class _Http(LoopbackServer):
    def __init__(self, github: GitHubServer) -> None:
        self.github = github
        super().__init__(_Handler, github.closing)


@dataclass(frozen=True)
class _Outgoing:
    """An answer as it goes out."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | IO[bytes]
    """A file is read from where it stands."""

    @property
    def length(self) -> int:
        if isinstance(self.body, bytes):
            return len(self.body)
        return os.fstat(self.body.fileno()).st_size - self.body.tell()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Http

    def _any(self) -> None:
        github = self.server.github
        split = urlsplit(self.path)
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        is_api = split.path.startswith(f"{API}/")
        path = unquote(split.path.removeprefix(API)) if is_api else split.path
        page = query.get("page", "1")
        fault = github.faults.take(self.command, path, int(page) if page.isdigit() else 1)
        with self._body() as body:
            try:
                token = self._token()
            except Refused as refused:
                token, found = None, _refusal(refused, is_api)
            else:
                if fault is not None and not fault.cut:
                    found = _fault(fault)
                elif is_api:
                    found = self._api(split.path.removeprefix(API), query, token, body)
                else:
                    found = self._git(split.path, split.query, token, body)
        # Before a byte goes out: who has the answer finds the request recorded.
        silent = fault is not None and (fault.hang or fault.reset)
        login = token.login if token else None
        request = Request(self.command, path, query, login, 0 if silent else found.status)
        if is_api and not silent and isinstance(found.body, bytes) and github.observe is not None:
            github.observe(request, json.loads(found.body))
        github.record(request)
        if silent:
            self._end_without_answer(reset=fault is not None and fault.reset)
        else:
            self._send(found, cut=fault is not None and fault.cut)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do_HEAD = _any  # noqa: N815

    # --- the two kinds of requests ---

    def _api(self, path: str, query: Mapping[str, str], token: Token | None, body: IO[bytes]) -> _Outgoing:
        github = self.server.github
        given = body.read()
        try:
            if token is None:
                raise Refused(401, "Requires authentication")
            try:
                asked = Asked(self.command, path, query, json.loads(given) if given else None)
            except ValueError as error:
                raise Refused(400, "Problems parsing JSON") from error
            with github.lock:
                token.used += 1
                shapes = Shapes(github, github.server_url, github.api_url)
                rate = shapes.rate(token_limit(token), token.used)["rate"]
                found = _outgoing(answer(asked, token, github, shapes))
            found.headers.extend((f"X-RateLimit-{name.capitalize()}", str(value)) for name, value in rate.items())
            return found
        except Refused as refused:
            return _refusal(refused, True)
        except Exception as error:
            github.broken.append(error)
            return _refusal(Refused(500, f"the fake GitHub broke: {error!r}"), True)

    def _git(self, path: str, query: str, token: Token | None, body: IO[bytes]) -> _Outgoing:
        asked = parse_git(self.command, path, query, dict(self.headers))
        try:
            if asked is None:
                raise Refused(404, "Not Found")
            found = self.server.github.git.answer(asked, token, body)
        except Refused as refused:
            return _refusal(refused, False)
        return _Outgoing(found.status, found.headers, found.body)

    # --- what comes in ---

    def _body(self) -> IO[bytes]:
        """The request's body, whole, in a file: git's own server reads it from there."""
        body = TemporaryFile()  # noqa: SIM115 - closed by the caller
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body.write(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        else:
            body.write(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        body.seek(0)
        return body

    def _token(self) -> Token | None:
        """Whose token came with the request; None without one; 401 for one that is not accepted."""
        kind, _, secret = self.headers.get("Authorization", "").partition(" ")
        if not kind:
            return None
        if kind.lower() == "basic":
            try:
                secret = b64decode(secret).decode().partition(":")[2]
            except (NotBase64, UnicodeDecodeError) as error:
                raise Refused(401, "Bad credentials") from error
        token = self.server.github.tokens.get(secret.strip())
        if token is None or token.revoked:
            raise Refused(401, "Bad credentials")
        return token

    # --- what goes out ---

    def _send(self, found: _Outgoing, *, cut: bool) -> None:
        length = found.length
        self.send_response(found.status)
        for name, value in [*found.headers, ("Content-Length", str(length))]:
            self.send_header(name, value)
        self.end_headers()
        if isinstance(found.body, bytes):
            self.wfile.write(found.body[: length // 2] if cut else found.body)
        else:
            with found.body as body:
                self.wfile.write(body.read(length // 2)) if cut else shutil.copyfileobj(body, self.wfile)
        self.wfile.flush()
        self.close_connection = self.close_connection or cut

    def _end_without_answer(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            # A close with no time to linger is a reset: socket(7), SO_LINGER.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        else:
            self.server.github.closing.wait()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nothing: `GitHubServer.requests` holds them all."""


def _outgoing(found: Answer) -> _Outgoing:
    headers = [("Content-Type", "application/json; charset=utf-8"), *found.headers.items()]
    return _Outgoing(found.status, headers, found.data)


def _refusal(refused: Refused, is_api: bool) -> _Outgoing:
    if is_api:
        return _outgoing(refused.answer())
    asks = [("WWW-Authenticate", 'Basic realm="GitHub"')] if refused.status == 401 else []
    return _Outgoing(refused.status, [("Content-Type", "text/plain"), *asks], f"{refused.message}\n".encode())


def _fault(fault: Fault) -> _Outgoing:
    if fault.no_json:
        return _Outgoing(
            fault.status, [("Content-Type", "text/html")], b"<html><body><h1>Bad Gateway</h1></body></html>"
        )
    return _outgoing(fault.answer())
