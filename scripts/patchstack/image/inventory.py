"""What is installed in a dependency image, as the image itself says: `opt/patchstack/dependencies.json`. Pure.

It is alone in the image's last layer, so that a night learns the packages from a few kilobytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from patchstack.contents import Package
from patchstack.errors import ImageError

PATH = "opt/patchstack/dependencies.json"
SCHEMA_VERSION = 1
PYTHON, DEBIAN = "python", "debian"


@dataclass(frozen=True)
class Inventory:
    packages: tuple[Package, ...]
    """By kind and name."""
    root: str
    """The folder that ``sglang/`` is in, such as ``/opt/sglang/lib/python3.11/site-packages``."""

    def encode(self) -> bytes:
        packages = [{"kind": one.kind, "name": one.name, "version": one.version} for one in self.packages]
        body = {"schema_version": SCHEMA_VERSION, "root": self.root, "packages": packages}
        return (json.dumps(body, indent=1) + "\n").encode()

    def versions(self, kind: str) -> dict[str, str]:
        return {one.name: one.version for one in self.packages if one.kind == kind}


def decode_inventory(data: bytes, what: str = PATH) -> Inventory:
    """What `encode`, or the image's own script, wrote; `ImageError` names ``what`` when it is something else.

    Names of Python distributions are normalised: a wheel's metadata and a lock spell them as they like.
    """
    try:
        body = json.loads(data)
        if body["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"it has schema {body['schema_version']!r}, not {SCHEMA_VERSION}")
        packages = tuple(sorted(map(_package, body["packages"]), key=lambda one: (one.kind, one.name, one.version)))
        root = body["root"]
        if not isinstance(root, str) or not root.startswith("/") or ".." in root.split("/"):
            raise ValueError(f"{root!r} is no folder of an image")
        return Inventory(packages, root)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImageError(f"{what} cannot be read as an inventory: {error}; build the image again") from error


def _package(body: dict[str, Any]) -> Package:
    kind, name, version = body["kind"], body["name"], body["version"]
    if kind not in (PYTHON, DEBIAN) or not isinstance(name, str) or not isinstance(version, str):
        raise ValueError(f"{body!r} is no package")
    return Package(kind, canonicalize_name(name) if kind == PYTHON else name, version)


def problems(found: Inventory, locked: Iterable[tuple[str, str]], debian: Iterable[str]) -> list[str]:
    """How an image differs from its recipe: ``locked`` has name and version of each Python distribution.

    Of Debian's packages the asked ones must be there: which others they need, and all versions, are Debian's to say.
    """
    wanted, there = dict(locked), found.versions(PYTHON)
    twice = len([one for one in found.packages if one.kind == PYTHON]) - len(there)
    said = [f"{name} {version} is locked and not installed" for name, version in wanted.items() if name not in there]
    said += [f"{name} {version} is installed and not locked" for name, version in there.items() if name not in wanted]
    said += [
        f"{name} {there[name]} is installed and {version} is locked"
        for name, version in wanted.items()
        if name in there and not _same(there[name], version)
    ]
    if twice:
        said.append(f"{twice} Python distributions are there in two versions")
    have = found.versions(DEBIAN)
    said += [f"Debian's {name} is asked for and not installed" for name in debian if name not in have]
    return sorted(said)


def _same(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other
