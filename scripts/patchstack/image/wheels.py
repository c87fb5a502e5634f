"""The wheels that a lock names, by the host's own pip and its configuration, kept by content.

In the cache, ``wheels/<sha256>/<file name>`` is a wheel. pip is asked for those that are not there, some at a
time: it hands over a download only when all of it has come, and what was handed over need not come again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from patchstack import process
from patchstack.errors import ImageError
from patchstack.pins import Pin, Python, platforms, tags

PYTHON: Python = (3, 11)
"""Debian 12's."""
AT_ONCE = 12
LIMIT_S = 3600.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class LockedWheel:
    """A wheel in the cache, and the line that asks for it."""

    pin: Pin
    path: Path
    sha256: str


def fetch(pins: Sequence[Pin], cache: Path, progress: Progress) -> tuple[LockedWheel, ...]:
    """The wheels of ``pins``, in their order, each with one of the digests that its line has.

    Raises `ImageError` with pip's last lines when one cannot be had, or has other bytes than are locked.
    """
    folder = cache / "wheels"
    try:
        with _one_at_a_time(folder, progress):
            kept = {pin: _kept(folder, pin) for pin in pins}
            missing = [pin for pin, wheel in kept.items() if wheel is None]
            for first in range(0, len(missing), AT_ONCE):
                some = missing[first : first + AT_ONCE]
                progress(f"image: wheels {first + 1} to {first + len(some)} of {len(missing)}, {some[0].name} and on")
                _download(some, folder)
                kept |= {pin: _kept(folder, pin) for pin in some}
    except OSError as error:
        raise ImageError(f"the wheels cannot be kept in {folder}: {error}; free or repair it") from error
    lost = [f"{pin.name}=={pin.version}" for pin, wheel in kept.items() if wheel is None]
    if lost:
        raise ImageError(f"what pip fetched has no tag of Debian 12's Python: {', '.join(lost)}; make the lock again")
    return tuple(wheel for wheel in kept.values() if wheel is not None)


def are_there(pins: Sequence[Pin], cache: Path) -> bool:
    """Whether nothing would be fetched, by the names of what is in the cache."""
    return all(any(any((cache / "wheels" / one).glob("*.whl")) for one in pin.sha256) for pin in pins)


def last_lines(said: str) -> str:
    """What a program said last: the rest of a build's output hides it."""
    return "\n".join(said.strip().splitlines()[-15:])


def can_be_had(pins: Sequence[Pin], cache: Path, progress: Progress) -> bool:
    """Whether pip knows ``pins`` on this machine; then they are in the cache."""
    try:
        fetch(pins, cache, progress)
    except ImageError:
        return False
    return True


@contextmanager
def _one_at_a_time(folder: Path, progress: Progress) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".image.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("image: another patchstack is fetching wheels; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left_by_a_killed_run in folder.glob(".image-*"):
            shutil.rmtree(left_by_a_killed_run)
        yield


def _kept(folder: Path, pin: Pin) -> LockedWheel | None:
    """The best of the wheels in the cache that ``pin`` allows, its bytes as locked; a damaged one is removed."""
    ranks = {tag: rank for rank, tag in enumerate(tags(PYTHON))}
    usable: list[tuple[int, LockedWheel]] = []
    for sha256 in pin.sha256:
        for path in (folder / sha256).glob("*.whl"):
            try:
                rank = min((ranks[tag] for tag in parse_wheel_filename(path.name)[3] if tag in ranks), default=None)
            except InvalidWheelFilename:
                continue
            if rank is None:
                continue
            if _sha256(path) == sha256:
                usable.append((rank, LockedWheel(pin, path, sha256)))
            else:
                path.unlink()
    return min(usable, key=lambda one: one[0], default=(0, None))[1]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(some: Sequence[Pin], folder: Path) -> None:
    """Have pip fetch ``some`` and put each wheel in its place."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".image-") as name:
        scratch = Path(name)
        lock = scratch / "lock.txt"
        lock.write_text("".join(pin.text() for pin in some))
        argv = [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check"]
        argv += ["--progress-bar=off", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        argv += ["--implementation=cp", f"--python-version={PYTHON[0]}.{PYTHON[1]}"]
        argv += [f"--platform={platform}" for platform in platforms()]
        # `-m` puts the current folder first on sys.path: a pip.py there would be run.
        done = process.run(
            [*argv, f"--dest={scratch / 'got'}", f"--requirement={lock}"], cwd=scratch, timeout_s=LIMIT_S, check=False
        )
        if done.returncode != 0:
            said = last_lines(done.stderr)
            raise ImageError(f"pip could not fetch what the image's lock names ({some[0].name} and on):\n{said}")
        for wheel in sorted((scratch / "got").iterdir()):
            sha256 = _sha256(wheel)
            place = folder / sha256 / wheel.name
            place.parent.mkdir(exist_ok=True)
            with wheel.open("rb") as stream:
                os.fsync(stream.fileno())
            wheel.replace(place)
