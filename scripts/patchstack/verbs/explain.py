"""`patchstack explain`: what is inside an image, and how two of them differ."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack.errors import MachineError, UsageError
from patchstack.image.embedded import PROGRAM, REPOSITORY
from patchstack.image.explain import Difference, Explained, compare, read_image
from patchstack.image.login import login_for
from patchstack.image.names import Reference, reference
from patchstack.image.registry import Registry
from patchstack.image.signing import PublicKey, read_public_key
from patchstack.verbs.image import open_registry
from patchstack.verbs.signing import public_key_of
from patchstack.workplace import Workplace

BETWEEN = ".."


@dataclass(frozen=True)
class _Key:
    """What statements are verified with, and whether there must be one."""

    public: PublicKey | None
    is_required: bool


def explain(work: Workplace, name: str, key_file: Path | None = None) -> Explained:
    """What is inside the image ``name``, as its registry has it.

    Its statement is verified with the key in ``key_file``, else with that of the lane. Raises `ImageError` for an
    image that is not what it says.
    """
    key = _key(work, key_file)
    with _registry(work) as lane:
        return _read(work, lane, name, key)


def difference(work: Workplace, a: str, b: str, key_file: Path | None = None) -> Difference:
    """How image ``b`` differs from image ``a``, each verified as by `explain`."""
    key = _key(work, key_file)
    with _registry(work) as lane:
        return compare(_read(work, lane, a, key), _read(work, lane, b, key))


def two_names(text: str) -> tuple[str, str] | None:
    """Both names of ``A..B``; None for one name."""
    if BETWEEN not in text:
        return None
    parts = text.split(BETWEEN)
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"{text!r} are not two images: write A{BETWEEN}B, each as repository:tag, or a tag alone")
    return parts[0], parts[1]


def _key(work: Workplace, key_file: Path | None) -> _Key:
    if key_file is not None:
        return _Key(read_public_key(key_file), True)
    return _Key(public_key_of(work), not work.embedded)


@contextmanager
def _registry(work: Workplace) -> Iterator[Registry | None]:
    """The lane's own registry, or that of this machine; None where the lane has none."""
    with open_registry(work) as registry:
        yield registry


def _read(work: Workplace, lane: Registry | None, name: str, key: _Key) -> Explained:
    wanted = _reference(work, lane, name)
    ours = lane is not None and wanted.place == lane.place
    registry = lane if lane is not None and ours else _elsewhere(wanted)
    found = read_image(registry, wanted, key.public, must_be_signed=key.is_required)
    # The embedded registry has another port each time.
    return replace(found, repository=REPOSITORY) if ours and work.embedded else found


def _reference(work: Workplace, lane: Registry | None, name: str) -> Reference:
    if work.embedded:  # the ledger has no host for it
        name = name.removeprefix(f"{REPOSITORY}@").removeprefix(f"{REPOSITORY}:")
        if lane is None and "/" not in name:
            raise MachineError(
                f"{name} is in the registry of this machine, and {PROGRAM} is not installed: apt-get install {PROGRAM}"
            )
    return reference(name, lane.place if lane is not None else None)


def _elsewhere(wanted: Reference) -> Registry:
    """A registry that is not the lane's: the login in the environment is not shown to it."""
    host = wanted.place.host
    return Registry.at(wanted.place, login_for(host, os.environ, Path.home(), ours=False))
