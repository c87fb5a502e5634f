"""What an image says of itself: its note, its bill of materials and its statement are made from this value."""

from __future__ import annotations

from dataclasses import dataclass

from patchstack.model import Kind, Outcome, Reason, Sha


@dataclass(frozen=True)
class Package:
    """What somebody else made and an image holds."""

    kind: str
    """``python`` or ``debian``."""
    name: str
    version: str


@dataclass(frozen=True)
class Item:
    """A patch or a pull request, as an image tells of it."""

    name: str
    kind: Kind
    title: str
    author: str
    head: Sha
    paths: tuple[str, ...]
    url: str = ""
    requires: tuple[str, ...] = ()
    kill_switch: str = ""
    """A patch's; a pull request has none that we know of."""
    upstream_status: str = ""


@dataclass(frozen=True)
class ItemLeftOut:
    name: str
    outcome: Outcome
    reason: Reason
    detail: str
    twins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """All that an image says of itself: equal inputs give an equal value, so neither run nor clock is in it."""

    fork: str
    """``owner/name`` on GitHub."""
    lane: str
    runtime: str
    """``cuda`` or ``cpu``."""
    base: str
    """``sglang==0.5.12.post1``."""
    release: str
    """The base's version (PEP 440)."""
    base_commit: Sha
    base_tree: Sha
    composition: Sha
    tree: Sha
    fingerprint: str
    created: str
    """The composition's date, ISO 8601 in UTC."""
    recipe: str
    """What the dependency image was made from, 64 hexadecimal digits: equal recipe, equal dependencies."""
    dependencies: str
    """The dependency image's digest."""
    items: tuple[Item, ...]
    left_out: tuple[ItemLeftOut, ...]
    packages: tuple[Package, ...]
