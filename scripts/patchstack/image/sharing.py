"""Images that several processes run at once: the jobs of a machine with many GPUs have one image each, or the same.

Whoever pulls has the engine's store alone (`Engine.opened`); whoever runs shares it with others who run, writes nothing
there, and keeps its containers in a store of its own on top.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import MachineError
from patchstack.image.engine import Engine, OpenEngine, docker_in, podman_in, remove_runner
from patchstack.image.login import Login
from patchstack.image.names import Place
from patchstack.image.storage import containers_folder

_TRIES = 3
"""How often images are pulled that another process takes away again, for it wants others by these names."""


@dataclass(frozen=True)
class Wanted:
    """An image, and as the newest of what it stays for the next night."""

    place: Place
    digest: str
    login: Login | None
    kept_as: str


@contextmanager
def shared(
    engine: Engine, wanted: Sequence[Wanted], cache: Path, progress: Callable[[str], None]
) -> Iterator[tuple[OpenEngine, tuple[str, ...]]]:
    """An engine for this process to run images with, and the ids of those ``wanted``, which are here then.

    Raises `MachineError` where they cannot be had, `DigestDiffers` where something else came.
    """
    folder = containers_folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        for _ in range(_TRIES):
            _wait(descriptor, progress)
            opened = podman_in(engine, folder) if engine.name == "podman" else docker_in(engine, folder)
            ids = tuple(found for one in wanted if (found := opened.held(one.digest)) is not None)
            if len(ids) == len(wanted):
                break
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            _pull(engine, wanted, cache, progress)
        else:
            raise MachineError("other processes on this machine take away the images that tests are to run in")
        with _runner(engine, folder, opened) as running:
            yield running, ids
    finally:
        os.close(descriptor)


def _wait(descriptor: int, progress: Callable[[str], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        progress("another patchstack pulls an image, or looks inside one; waiting")
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def _pull(engine: Engine, wanted: Sequence[Wanted], cache: Path, progress: Callable[[str], None]) -> None:
    with engine.opened(cache, progress) as opened:
        for one in wanted:
            progress(f"pulling {one.place.name}@{one.digest}")
            opened.keep(opened.pull(one.place, one.digest, one.login), one.kept_as)


@contextmanager
def _runner(engine: Engine, folder: Path, opened: OpenEngine) -> Iterator[OpenEngine]:
    """Docker's daemon keeps its processes apart by itself."""
    if engine.name != "podman":
        yield opened
        return
    name = secrets.token_hex(4)
    try:
        yield podman_in(engine, folder, name)
    finally:
        remove_runner(engine, folder, name)
