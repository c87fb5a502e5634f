"""How we show ourselves to a registry: from the environment, or from where the tools for containers keep it.

The order is that of containers-auth.json(5), then Docker's own
(https://docs.docker.com/reference/cli/docker/login/#credential-stores). A password is on no command line, and in no
text: `Login` cannot be printed, and whatever goes wrong is raised where nobody holds one.
"""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from patchstack import process
from patchstack.credential import REGISTRY_PASSWORD, REGISTRY_USER
from patchstack.errors import ImageError, MachineError

HELPER_LIMIT_S = 60.0
NO_RUNTIME_DIR = Path("/run/containers")
"""Where podman keeps logins for a user that has no ``XDG_RUNTIME_DIR``, in a folder of the user's number."""

_HELPER = re.compile(r"[A-Za-z0-9_.-]+")
_NOT_FOUND = "credentials not found in native keychain"
"""What a helper says, with a status of 1, where it has none (https://github.com/docker/docker-credential-helpers)."""
_TOKEN_USER = "<token>"  # noqa: S105 - a name, not a secret
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"


class Login:
    """A user and a password, which shows itself to nobody but to the callers of `reveal` and `basic`."""

    def __init__(self, user: str, password: str, source: str) -> None:
        self.user = user
        self.source = source
        """Where it was found, for a message."""
        self._password = password

    def reveal(self) -> str:
        return self._password

    @property
    def basic(self) -> str:
        """Both, as HTTP sends them (RFC 7617)."""
        return base64.b64encode(f"{self.user}:{self._password}".encode()).decode()

    def out_of(self, text: str) -> str:
        """``text`` without the password, also as HTTP sends it."""
        for secret in (self.basic, self._password):
            text = text.replace(secret, "***") if secret else text
        return text

    def __repr__(self) -> str:
        return f"Login(user={self.user!r}, password=***, source={self.source!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a login is not written down")


@dataclass(frozen=True)
class _Wrong:
    """Why what is there cannot be used; no secret is in it."""

    text: str


_Found = Login | _Wrong | None


def login_for(host: str, environ: Mapping[str, str], home: Path, *, ours: bool = True) -> Login | None:
    """The login for the registry at ``host`` (with its port); None where there is none.

    ``ours``: it is the lane's own registry. The login in the environment is for that one, and shown to no other.
    Raises `ImageError` for one that is there and cannot be used.
    """
    found = _of_environment(environ) if ours else None
    for file in files(environ, home):
        if found is None:
            found = _of_file(file, host)
    if isinstance(found, _Wrong):
        raise ImageError(f"the login for {host} cannot be used: {found.text}")
    return found


def files(environ: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """Where logins are kept; the first that has one for a host counts."""
    named, runtime = environ.get("REGISTRY_AUTH_FILE", ""), environ.get("XDG_RUNTIME_DIR", "")
    config, docker = environ.get("XDG_CONFIG_HOME", ""), environ.get("DOCKER_CONFIG", "")
    return (
        *((Path(named),) if named else ()),
        (Path(runtime) / "containers" if runtime else NO_RUNTIME_DIR / str(os.getuid())) / "auth.json",
        (Path(config) if config else home / ".config") / "containers" / "auth.json",
        *((Path(docker) / "config.json",) if docker else ()),
        home / ".docker" / "config.json",
    )


@contextmanager
def authfile(login: Login | None, host: str) -> Iterator[Path]:
    """A file that podman, buildah and skopeo take as ``--authfile``, readable to us alone; gone after the block.

    Without a login it is one that holds none, so that no other is looked for.
    """
    with tempfile.TemporaryDirectory(prefix="patchstack-login-") as folder:
        path = Path(folder) / "auth.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"auths": {host: {"auth": login.basic}} if login else {}}))
        yield path


# --- the environment ---


def _of_environment(environ: Mapping[str, str]) -> _Found:
    user, password = environ.get(REGISTRY_USER, "").strip(), environ.get(REGISTRY_PASSWORD, "").strip()
    if not user and not password:
        return None
    if not user or not password:
        there, missing = (REGISTRY_USER, REGISTRY_PASSWORD) if user else (REGISTRY_PASSWORD, REGISTRY_USER)
        return _Wrong(f"{there} is set without {missing}; set both, or neither")
    return _login(user, password, REGISTRY_USER)


def _login(user: str, password: str, source: str) -> Login | _Wrong:
    if ":" in user or not (user + password).isprintable():
        return _Wrong(f"{source} has a colon in the user's name, or a control character; log in once more")
    return Login(user, password, source)


# --- a file ---


def _of_file(file: Path, host: str) -> _Found:
    try:
        text = file.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        return _Wrong(f"{file} cannot be read ({type(error).__name__}); mend it, or log in once more")
    config = _parse(text)
    if config is None:
        return _Wrong(f"{file} is no file of logins as `podman login` and `docker login` write it; log in once more")
    helper = _of_host(config.helpers, host)
    if helper is not None:
        return _of_helper(helper, host, file)
    entry = _of_host(config.auths, host)
    if entry:
        return _of_entry(entry, f"{file} for {host}")
    return _of_helper(config.store, host, file) if config.store else None


@dataclass(frozen=True, repr=False)
class _Config:
    auths: dict[str, Any]
    helpers: dict[str, Any]
    store: Any


def _parse(text: str) -> _Config | None:
    try:
        said = json.loads(text)
        found = _Config(said.get("auths") or {}, said.get("credHelpers") or {}, said.get("credsStore"))
    except (ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found.auths, dict) and isinstance(found.helpers, dict) else None


def _of_host(named: Mapping[str, Any], host: str) -> Any:
    """The entry for ``host``, which Docker also writes as ``https://host/v1/``."""
    same = _DOCKER_HUB if host in _DOCKER_HUB else (host,)
    for name, entry in named.items():
        if _host_of(name) in same:
            return entry
    return None


def _host_of(name: str) -> str:
    bare = name.removeprefix("https://").removeprefix("http://").rstrip("/")
    return bare.removesuffix("/v1").removesuffix("/v2")


def _of_entry(entry: Any, source: str) -> _Found:
    if not isinstance(entry, dict):
        return _Wrong(f"the entry in {source} is no login; log in once more")
    if entry.get("identitytoken") or entry.get("registrytoken"):
        return _Wrong(
            f"{source} has an identity token, which only Docker itself can use; log in with a user name and an access "
            f"token as its password, or set {REGISTRY_USER} and {REGISTRY_PASSWORD}"
        )
    user, password = entry.get("username"), entry.get("password")
    if not entry.get("auth") and isinstance(user, str) and isinstance(password, str):
        return _login(user, password, source)
    try:
        both = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
    except ValueError:
        both = ""
    if ":" not in both:
        return _Wrong(f"`auth` in {source} is not the base64 of user:password; log in once more")
    user, _, password = both.partition(":")
    return _login(user, password, source)


# --- a credential helper ---


def _of_helper(name: Any, host: str, file: Path) -> _Found:
    """What a program of Docker's or of a registry's answers; it is asked through its input."""
    if not isinstance(name, str) or not _HELPER.fullmatch(name):
        return _Wrong(f"{file} names a credential helper {name!r}, which is no program's name; mend the file")
    program = f"docker-credential-{name}"
    told = f"{program}, which {file} names for {host},"
    try:
        asked = _DOCKER_HUB_KEY if host in _DOCKER_HUB else host
        done = process.run([program, "get"], stdin=asked, timeout_s=HELPER_LIMIT_S, check=False)
    except MachineError as error:
        return _Wrong(f"{told} did not answer: {error}")
    if done.returncode != 0:
        said = (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]
        if said == _NOT_FOUND:
            return None
        return _Wrong(f"{told} ended with {done.returncode}: {said}")
    try:
        answer = json.loads(done.stdout)
        user, password = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        user = password = None
    if not isinstance(user, str) or not isinstance(password, str):
        return _Wrong(f"{told} answered something other than a user and a secret")
    if user == _TOKEN_USER:
        return _Wrong(f"{told} has an identity token; log in with a user name and an access token as its password")
    return _login(user, password, f"{program} ({file})")
