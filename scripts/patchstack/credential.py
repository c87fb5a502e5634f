"""What git shows to GitHub's server, and to no other: the token, through the child's environment alone.

A process list shows every argument to everybody on the machine, an environment only to its owner. So the token
goes to git as a setting that is in no file and in no argument (``GIT_CONFIG_COUNT``,
https://git-scm.com/docs/git-config#ENVIRONMENT), behind what the user has set in the same way.
"""

from __future__ import annotations

import base64
import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from patchstack.errors import MachineError
from patchstack.github import TOKEN_VARIABLES, Token, server_url, token_of_environment

COUNT = "GIT_CONFIG_COUNT"

REGISTRY_USER, REGISTRY_PASSWORD = "PATCHSTACK_REGISTRY_USER", "PATCHSTACK_REGISTRY_PASSWORD"
"""Instead of the usual config file of container tools, as a workflow has it."""
SIGNING_KEY = "PATCHSTACK_SIGNING_KEY"
"""The private key, as the text of a PEM file."""

# A workflow's own credentials: for its artifacts and caches, and to make an identity for other services.
_ACTIONS = "ACTIONS_"

# They write what git says and sends to where the user looks. Git leaves the credential out unless it is told
# not to, and trace2 writes down whatever setting or variable is named (https://git-scm.com/docs/api-trace2).
_TRACES = ("GIT_TRACE", "GIT_CURL_VERBOSE")
_TRACE_OFF = {"GIT_TRACE2": "0", "GIT_TRACE2_EVENT": "0", "GIT_TRACE2_PERF": "0"}


def is_secret(name: str) -> bool:
    """Whether an environment variable is a credential that no program which we start has a use for."""
    return name in (*TOKEN_VARIABLES, REGISTRY_USER, REGISTRY_PASSWORD, SIGNING_KEY) or name.startswith(_ACTIONS)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not is_secret(name)}


@dataclass(frozen=True)
class Credential:
    """A token for the repositories of one server."""

    token: Token
    server: str
    """Such as ``https://github.com``, without a slash at its end."""

    @property
    def _basic(self) -> str:
        # As actions/checkout does: GitHub takes a token as the password of this name.
        return base64.b64encode(f"x-access-token:{self.token.reveal()}".encode()).decode()

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """What git's environment needs besides ``inherited``; `MachineError` when that is not in order."""
        said = inherited.get(COUNT, "").strip() or "0"
        if not said.isascii() or not said.isdigit():
            raise MachineError(f"{COUNT}={said!r} in the environment is no number: git takes no setting so; unset it")
        header = f"http.{self.server}/.extraheader"
        settings = (
            (header, ""),  # it takes back an earlier one: a server that is shown two credentials answers 400
            (header, f"AUTHORIZATION: basic {self._basic}"),
            # Git would show the header to whatever host an answer sends it to.
            (f"http.{self.server}/.followRedirects", "false"),
        )
        first = int(said)
        named = {
            name: value
            for number, (key, text) in enumerate(settings, start=first)
            for name, value in ((f"GIT_CONFIG_KEY_{number}", key), (f"GIT_CONFIG_VALUE_{number}", text))
        }
        return {COUNT: str(first + len(settings)), **named, **_TRACE_OFF}

    def dropped(self, inherited: Iterable[str]) -> list[str]:
        """The variables of ``inherited`` that could make git write the credential down."""
        return [name for name in inherited if name.startswith(_TRACES)]

    def out_of(self, text: str) -> str:
        return self.token.out_of(text)


def credential_for(url: str) -> Credential | None:
    """The environment's token for ``url``, if that is a repository of the server that GitHub is asked at.

    None for every other host, port or path, for a URL that names a user of its own, and where the way is not
    encrypted, other than to this machine itself.
    """
    token = token_of_environment()
    server = server_url()
    if token is None:
        return None
    try:
        here, there = urlsplit(server), urlsplit(url)
        same = _place(here) == _place(there)
    except ValueError:
        return None
    below = there.path.startswith(f"{here.path}/")
    if not same or not below or "@" in there.netloc or not _is_private(there):
        return None
    return Credential(token, server)


def _place(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or {"https": 443, "http": 80}.get(url.scheme)


def _is_private(url: SplitResult) -> bool:
    """Whether nobody on the way can read along."""
    if url.scheme != "http":
        return url.scheme == "https"
    try:
        return ipaddress.ip_address(url.hostname or "").is_loopback
    except ValueError:
        return url.hostname == "localhost"


def inherited() -> dict[str, str]:
    """This process's environment, as the programs that it starts may have it."""
    return without_secrets(os.environ)
