"""One request to a registry, and what can become of it.

Sessions and logins are those of oras. Its requests are not used: they are repeated with pauses of two minutes in
all, wait for ever, follow whatever answer, and hand on a failure as an absence
(https://github.com/oras-project/oras-py/blob/0.2.43/oras/provider.py). Here a request is made once, waits for so
long, shows the login to no host but the registry's own, and ends in the answer that was asked for or in an
`ImageError`.

No failure keeps the frames of the libraries below, whose variables hold the request's headers.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import IO, Any, NoReturn, TypeVar
from urllib.parse import urljoin, urlsplit

import oras.auth  # type: ignore[import-untyped]
import oras.provider  # type: ignore[import-untyped]
import requests
import urllib3
from oras.auth.utils import parse_auth_header  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from patchstack import __version__
from patchstack.credential import REGISTRY_PASSWORD, REGISTRY_USER
from patchstack.errors import ImageError
from patchstack.image.login import Login
from patchstack.image.names import Place, is_loopback

REDIRECTS = 5
CHUNK_BYTES = 1 << 20
SMALL_BYTES = 1 << 16
"""What is read of an answer that only says that something is done, or went wrong."""

_API_HOSTS = {"docker.io": "registry-1.docker.io"}
_MOVED = frozenset({301, 302, 303, 307, 308})
_SHOWN_CHARACTERS = 300
_LATE = (TimeoutError, requests.Timeout, urllib3.exceptions.ReadTimeoutError)

# oras tells on standard error what it could not do; here whoever asked is told.
_ORAS_LOG = logging.getLogger("oras.logger")
_ORAS_LOG.addHandler(logging.NullHandler())
_ORAS_LOG.propagate = False

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Limits:
    """How long a registry is waited for."""

    connect_s: float = 30.0
    """For a connection, and for each piece of what is sent to be taken."""
    silence_s: float = 120.0
    """For an answer to begin, and for each piece of it."""
    finish_s: float = 600.0
    """For the answer to something sent: some registries first copy a blob to its place."""
    slowest: float = 50_000.0
    """Bytes a second: an answer that comes slower than that is given up."""


class Stream:
    """The bytes of one attempt to send them; each is counted when the connection takes it."""

    def __init__(self, source: IO[bytes], size: int, count: Callable[[int], None]) -> None:
        self._source, self._size, self._count = source, size, count
        self._left = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(CHUNK_BYTES):
            yield block

    def read(self, size: int = -1) -> bytes:
        block = self._source.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(block)
        if not block and self._left and size:
            raise OSError("the file became shorter while it was sent")
        self._count(len(block))
        return block

    def close(self) -> None:
        self._source.close()


Body = Callable[[], Stream]
"""What goes with a request, from its beginning, as often as it has to be sent."""


@dataclass(frozen=True)
class Answer:
    """An answer, of which only the head was read; `body` or `close` must follow."""

    status: int
    headers: Mapping[str, str]
    url: str
    """Where it came from, after redirects."""
    _response: requests.Response
    _wire: Wire
    _what: str

    def body(self, most_bytes: int = SMALL_BYTES) -> bytes:
        """All of it; `ImageError` when it is longer than ``most_bytes``, ends early, or is too slow."""
        return b"".join(self.pieces(most_bytes))

    def pieces(self, most_bytes: int) -> Iterator[bytes]:
        """The same, piece by piece; the answer is closed when the last was taken, or none will be."""
        limits = self._wire.limits
        deadline = time.monotonic() + limits.silence_s + most_bytes / limits.slowest
        read = 0
        raw: urllib3.BaseHTTPResponse = self._response.raw
        try:
            # As it comes: read(), as requests does it, would wait for a whole chunk for as long as that takes.
            while piece := self._wire.attempt(self._what, lambda: raw.read1(CHUNK_BYTES)):
                read += len(piece)
                if read > most_bytes:
                    raise self._wire.error(self._what, f"the answer is longer than the {most_bytes:,} bytes expected")
                if time.monotonic() > deadline:
                    raise self._wire.error(self._what, "the answer came too slowly; run again")
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        self._response.close()

    def link_to_next(self) -> str | None:
        """Where a list goes on (RFC 8288)."""
        return self._response.links.get("next", {}).get("url")

    def problem(self) -> tuple[str, str]:
        """The registry's own code and words, each empty where it has none.

        https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
        """
        try:
            first = json.loads(self.body())["errors"][0]
            code, message = str(first.get("code") or ""), str(first.get("message") or "")
        except (ImageError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return "", ""
        return self._wire.without_secrets(code), self._wire.without_secrets(message)


class Wire:
    """The way to the registry of one place."""

    def __init__(self, place: Place, login: Login | None, limits: Limits) -> None:
        self.place = place
        self.limits = limits
        self.bytes_sent = 0
        """Of bodies, taken by a connection: those of attempts that failed, too."""
        self.origin = f"{'http' if place.insecure else 'https'}://{_API_HOSTS.get(place.host, place.host)}"
        self._login = login
        self._auth: Any = None
        """What oras shows to the registry; None until that has asked for something."""
        self._last_status = 0
        self._session: requests.Session = oras.provider.Registry(place.host, insecure=place.insecure).session
        session = self._session
        session.headers.update({"User-Agent": f"patchstack/{__version__}", "Accept-Encoding": "identity"})
        session.trust_env = not place.insecure  # no proxy is between us and this machine itself
        session.auth = _nothing  # or else requests looks for a login of its own in ~/.netrc
        session.hooks["response"].append(self._remember)
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter((limits.connect_s, limits.silence_s)))

    def ask(
        self,
        method: str,
        url: str,
        what: str,
        expected: frozenset[int],
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Answer:
        """The answer to one request; ``url`` is whole, or begins at the registry's root.

        A status that is not ``expected`` raises `ImageError`, which says ``what`` was being done. The registry's
        demand for a login is met once, by sending the request again.
        """
        url = urljoin(self.origin, url)
        answer = self._follow(method, url, what, headers, body)
        # Some say 403 to a token that is for less than this.
        if answer.status in {401, 403} and self._met(answer, what):
            answer = self._follow(method, url, what, headers, body)
        if answer.status not in expected:
            self.refuse(answer, what)
        return answer

    def count(self, size: int) -> None:
        self.bytes_sent += size

    def refuse(self, answer: Answer, what: str) -> NoReturn:
        """Raise what an answer that was not asked for says, and what to do about it."""
        code, message = answer.problem()
        said = f"{code}: {message}" if code and message else code or message
        raise self.error(what, f"it answered {answer.status} {said[:_SHOWN_CHARACTERS]}".rstrip(), answer)

    def error(self, what: str, why: str, answer: Answer | None = None) -> ImageError:
        remedy = f"; {self._remedy(answer)}" if answer is not None else ""
        return ImageError(self.without_secrets(f"{self.place.name}: {what}: {why}{remedy}"))

    def attempt(self, what: str, do: Callable[[], _Found]) -> _Found:
        """What ``do`` finds; whatever goes wrong on the way is one `ImageError`."""
        try:
            return do()
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            why = _cause(error)
        # Not where the error is at hand: as its context it would bring along frames that hold the login.
        raise self.error(what, why)

    def onward(self, answer: Answer, target: str, what: str) -> str:
        """The whole address that an answer sends us to; `ImageError` for one that is none, or not as private."""
        try:
            url = urljoin(answer.url, target)
            there, shown = urlsplit(url), _origin(url)
        except ValueError:
            raise self.error(what, "it sends us on to what is no address; its settings are wrong") from None
        is_local = there.scheme == "http" and self.place.insecure and is_loopback(there.hostname or "")
        if there.scheme != "https" and not is_local:
            raise self.error(what, f"it sends us on to {shown}, which is not encrypted; its settings are wrong")
        return url

    def authorization(self, url: str) -> Mapping[str, str]:
        """The header for a request to ``url``: for the registry itself, and for no other."""
        return self._auth.get_auth_header() if self._auth is not None and self.is_own(url) else {}

    def is_own(self, url: str) -> bool:
        """Whether ``url`` is of the registry itself, which may see the login."""
        return _origin(url) == _origin(self.origin)

    def close(self) -> None:
        self._session.close()

    # --- one request ---

    def _follow(self, method: str, url: str, what: str, headers: Mapping[str, str] | None, body: Body | None) -> Answer:
        for _ in range(1 + REDIRECTS):
            answer = self._once(method, url, what, headers, body)
            onward = answer.headers.get("Location", "")
            if answer.status not in _MOVED or method not in {"GET", "HEAD"} or not onward:
                return answer
            with closing(answer):
                url = self.onward(answer, onward, what)
        raise self.error(what, f"it sends us on more than {REDIRECTS} times; its settings are wrong")

    def _once(self, method: str, url: str, what: str, headers: Mapping[str, str] | None, body: Body | None) -> Answer:
        stream = body() if body is not None else None
        wait_s = self.limits.silence_s if stream is None else self.limits.finish_s

        def send() -> requests.Response:
            return self._session.request(
                method,
                url,
                data=stream,
                headers=dict(headers or {}),
                auth=_Shown(self),
                stream=True,
                allow_redirects=False,
                timeout=(self.limits.connect_s, wait_s),
            )

        try:
            response = self.attempt(what, send)
        finally:
            if stream is not None:
                stream.close()
        return Answer(response.status_code, response.headers, url, response, self, what)

    # --- logins ---

    def _met(self, demand: Answer, what: str) -> bool:
        """Whether the demand for a login is met, and the request can be sent again."""
        met = False
        try:
            met = self._authenticate(demand, what)
        except ImageError:
            demand.close()
            raise
        if met:
            demand.close()
        return met

    def _authenticate(self, answer: Answer, what: str) -> bool:
        """Do as the registry demands; False where that was done already, or there is nothing to show."""
        challenge = answer.headers.get("WWW-Authenticate", "")
        kind = challenge.partition(" ")[0].lower()
        if not self.is_own(answer.url):
            return False
        if kind == "basic" and self._login is not None and not isinstance(self._auth, oras.auth.BasicAuth):
            self._auth = self._backend("basic", self._login)
            return True
        if kind != "bearer":
            return False
        realm = parse_auth_header(challenge).realm or ""
        if not realm.startswith(("http://", "https://")):  # oras makes an address of anything
            raise self.error(what, "it demands a token, and does not say of whom; its settings are wrong")
        self.onward(answer, realm, f"{what}: a token")
        # Made anew: oras would show the token that was just refused, be it too old or for another purpose.
        auth = self._backend("token", self._login)
        what = f"{what}: a token from {_origin(realm)}"
        if not self.attempt(what, lambda: _is_granted(auth, answer)):
            raise self.error(what, f"it answered {self._last_status} and gave none; {self._login_remedy()}")
        self._auth = auth
        return True

    def _backend(self, kind: str, login: Login | None) -> Any:
        auth = oras.auth.get_auth_backend(kind, self._session, self.place.insecure)
        if login is not None:
            auth.set_basic_auth(login.user, login.reveal())
        return auth

    def _remember(self, response: requests.Response, **_: object) -> None:
        """What oras was answered, for it only tells whether it liked that."""
        self._last_status = response.status_code

    def without_secrets(self, text: str) -> str:
        text = self._login.out_of(text) if self._login is not None else text
        token = getattr(self._auth, "token", None)
        return text.replace(token, "***") if token else text

    def _remedy(self, answer: Answer) -> str:
        if answer.status in {401, 403}:
            return self._login_remedy()
        if answer.status == 429:
            after = answer.headers.get("Retry-After", "")
            return f"it was asked too often: run again in {after} s" if after.isdigit() else "run again later"
        if answer.status >= 500:
            return "it has a problem of its own: run again when that is over"
        if answer.status in _MOVED:
            return "the repository is elsewhere: write it by the name that it has now"
        if answer.status == 404:
            return "look whether this is the repository that is meant"
        if answer.status == 405:
            return "this registry does not allow that: look into its own settings"
        return "it does not take that: look into what it says"

    def _login_remedy(self) -> str:
        if self._login is None:
            return (
                f"we have no login for {self.place.host}: set {REGISTRY_USER} and {REGISTRY_PASSWORD}, "
                f"or run `podman login {self.place.host}`"
            )
        shown = f"the login shown was that of {self._login.user!r} from {self._login.source}"
        return f"{shown}: look whether its password is right, and whether it may do this"


class _Shown(AuthBase):
    """Puts the login's header on a request as it goes out: no variable on the way there holds it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._wire.authorization(request.url or ""))
        return request


class _Adapter(HTTPAdapter):
    """Lets no request wait for ever, those of oras neither."""

    def __init__(self, timeout_s: tuple[float, float]) -> None:
        self._timeout_s = timeout_s
        super().__init__()

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        options["timeout"] = options.get("timeout") or self._timeout_s
        return super().send(request, *args, **options)


def _nothing(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _is_granted(auth: Any, demand: Answer) -> bool:
    """Whether oras got a token for what the registry demands."""
    try:
        _, granted = auth.authenticate_request(demand, {})
    except (AttributeError, TypeError):  # JSON of another shape than a token's
        return False
    return bool(granted) and isinstance(auth.token, str) and auth.token.isascii() and auth.token.isprintable()


def _origin(url: str) -> str:
    """A URL's scheme, host and port: who is meant by it."""
    there = urlsplit(url)
    host = f"[{there.hostname}]" if ":" in (there.hostname or "") else there.hostname
    usual = {"https": 443, "http": 80}.get(there.scheme)
    return f"{there.scheme}://{host}" + (f":{there.port}" if there.port not in {None, usual} else "")


def _cause(error: BaseException) -> str:
    """What lies below an error of the libraries: their own words quote addresses and headers."""
    kinds: list[BaseException] = []
    below: BaseException | None = error
    while below is not None and below not in kinds:
        kinds.append(below)
        below = below.__cause__ or below.__context__
    if any(isinstance(kind, _LATE) for kind in kinds):
        return "it did not answer in time; run again when it does"
    systems = [kind for kind in kinds if isinstance(kind, OSError) and not isinstance(kind, requests.RequestException)]
    said = (systems[-1].strerror or str(systems[-1])) if systems else type(kinds[-1]).__name__
    return f"the connection failed ({said}); run again when it is there"
