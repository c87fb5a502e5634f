"""How images are called: where a repository is, and which tags a lane's images have. Pure.

An immutable tag is made once, at the push; a moving tag is derived from the ledger. The runtime ``cpu`` has names
of its own, for nobody must get it who asks for ``nightly`` or ``stable``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from urllib.parse import urlsplit

from patchstack.errors import UsageError
from patchstack.model import LedgerImage

PRODUCTION = "production"
CUDA = "cuda"
NIGHTLY, STABLE = "nightly", "stable"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")


# --- places --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A repository in a registry."""

    host: str
    """With its port, where it names one."""
    path: str

    @property
    def name(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def insecure(self) -> bool:
        """Spoken to without encryption: only this machine itself."""
        return is_loopback(urlsplit(f"//{self.host}").hostname or "")


def is_loopback(name: str) -> bool:
    """Whether a host's name, without a port, is this machine's own."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def place_of(repository: str) -> Place:
    """``host[:port]/path``; `UsageError` when it is no such name."""
    host, slash, path = repository.partition("/")
    is_host = _HOST.fullmatch(host) is not None and bool({".", ":"} & set(host) or host == "localhost")
    if not slash or not is_host or not _REPOSITORY.fullmatch(path):
        raise UsageError(f"{repository!r} is no repository of a registry: write it as registry.example.com/name/name")
    return Place(host.lower(), path)


@dataclass(frozen=True)
class Reference:
    """An image as a person names it."""

    place: Place
    name: str
    """A tag or a digest."""

    @property
    def text(self) -> str:
        return f"{self.place.name}{'@' if is_digest(self.name) else ':'}{self.name}"


def is_digest(name: str) -> bool:
    return _DIGEST.fullmatch(name) is not None


def reference(text: str, default: Place | None) -> Reference:
    """``repository:tag``, ``repository@sha256:…``, or a bare tag or digest of ``default``."""
    repository, at, digest = text.partition("@")
    if at:
        # A tag before a digest says only where somebody found it.
        path, slash, last = repository.rpartition("/")
        repository, name = f"{path}{slash}{last.partition(':')[0]}", digest
    elif is_digest(text) or "/" not in text:
        repository, name = "", text
    else:
        # A colon before the last slash belongs to the host's port.
        path, slash, last = text.rpartition("/")
        last, colon, name = last.partition(":")
        repository = f"{path}{slash}{last}"
        if not colon:
            raise UsageError(f"{text!r} names no image: add a tag or a digest, such as {text}:{NIGHTLY}")
    if not (is_digest(name) or (not at and _TAG.fullmatch(name))):
        raise UsageError(f"{text!r} names no image: write repository:tag, repository@sha256:…, or a tag alone")
    if repository:
        return Reference(place_of(repository), name)
    if default is None:
        raise UsageError(f"{text!r} needs its repository: the lane has none in deploy.yaml; write repository:{text}")
    return Reference(default, name)


# --- tags ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PromotedImage:
    """The image of one promoted night, and the channels that moved with it."""

    channels: tuple[str, ...]
    image: LedgerImage


def lane_prefix(lane: str) -> str:
    return "" if lane == PRODUCTION else f"{lane}-"


def immutable_tag(lane: str, runtime: str, day: date, tree: str, digest: str, taken: Mapping[str, str]) -> str:
    """The tag that ``digest`` is pushed by; ``taken`` has the digests of those that are there.

    One tree can have two images on one day, when what was left out differs: the second gets a number behind it.
    """
    kind = NIGHTLY if runtime == CUDA else runtime
    first = f"{lane_prefix(lane)}{kind}-{day:%Y%m%d}-{tree[:7]}"
    number, name = 1, first
    while taken.get(name, digest) != digest:
        number += 1
        name = f"{first}-{number}"
    return name


def dependency_tag(runtime: str, recipe: str) -> str:
    return f"deps-{runtime}-{recipe[:16]}"


def statement_tag(digest: str) -> str:
    """Where the signed statement on ``digest`` is, as cosign names it."""
    return f"{digest.replace(':', '-')}.att"


def moving_tags(lane: str, nights: Sequence[PromotedImage]) -> dict[str, str]:
    """Each moving tag of a lane with the digest that it must have; ``nights`` are the promoted ones, newest first.

    Nights of both runtimes can be in one ledger; each moves its own tags.
    """
    wanted: dict[str, str] = {}
    prefix = lane_prefix(lane)
    for runtime in dict.fromkeys(night.image.runtime for night in nights):
        those = [night for night in nights if night.image.runtime == runtime]
        newest, previous = (
            (f"{prefix}{NIGHTLY}", f"{prefix}previous")
            if runtime == CUDA
            else (f"{prefix}{runtime}-latest", f"{prefix}{runtime}-previous")
        )
        moved = [night.image.digest for night in those if NIGHTLY in night.channels]
        if moved:
            wanted[newest] = moved[0]
        before = next((digest for digest in moved if digest != moved[0]), None)
        if before is not None:
            wanted[previous] = before
        stable = next((night.image.digest for night in those if STABLE in night.channels), None)
        if stable is not None and runtime == CUDA:
            wanted[f"{prefix}{STABLE}"] = stable
    return wanted
