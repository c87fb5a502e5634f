"""Releases on a package index: fetched by pip once, kept by their digest, verified at every use.

In the cache, ``wheels/<sha256>/<file name>`` is the wheel and ``wheels/records/<release, Python, platform>.json``
says which digest a release was found to have. Both appear whole or not at all.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from patchstack import process, store
from patchstack.errors import ConfigError, MachineError, PatchstackError, RemoteError
from patchstack.upstream.wheel import Wheel, damage, named, sha256_of

FETCH_LIMIT_S = 1800.0

_DAMAGED = (" is invalid", "DO NOT MATCH THE HASHES", "IncompleteRead", "Connection broken", "Read timed out")
"""pip's words for a download that was cut short or does not match the index's digest."""

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Progress that nobody watches."""


class _Damaged(PatchstackError):
    """What came over the network is not whole; worth one more try."""

    exit_code = RemoteError.exit_code


@dataclass(frozen=True)
class _Record:
    """Which wheel a release is on this Python and platform."""

    path: Path
    filename: str
    sha256: str

    def wheel_path(self, wheels: Path) -> Path:
        return wheels / self.sha256 / self.filename


def fetch_wheel(requirement: str, cache: Path, *, offline: bool = False, progress: Progress = silent) -> Wheel:
    """The wheel of a release such as ``sglang==0.5.12.post1`` for this Python and platform.

    It comes from ``cache`` without the network when it is there and its SHA-256 is the recorded one; a
    damaged one is removed and fetched again, once. Raises `RemoteError` when no index can be reached (or
    ``offline``, and it is not in the cache) or what it sends is damaged twice or differs from the record,
    `ConfigError` when no index has such a wheel, `MachineError` when pip or the disk fails.
    """
    release = _parsed(requirement)
    wheels = cache / "wheels"
    try:
        with _one_at_a_time(wheels):
            record = _read_record(wheels, release)
            if record is not None:
                found = record.wheel_path(wheels)
                if found.is_file() and sha256_of(found) == record.sha256:
                    return _wheel(found)
                if found.exists():
                    progress(f"{found.name} in the cache is damaged; it is removed and fetched again")
                    shutil.rmtree(found.parent)
            if offline:
                raise RemoteError(
                    f"{requirement} is not in the cache {wheels} and the network is not to be used; "
                    "run it once with the network"
                )
            return _fetched_twice_at_most(requirement, wheels, record, progress)
    except OSError as error:
        raise MachineError(
            f"the cache {wheels} cannot be used: {error}; free or repair it, or set PATCHSTACK_CACHE"
        ) from error


def releases_in_cache(cache: Path) -> tuple[str, ...]:
    """Versions of sglang that need no network, oldest first."""
    found = set()
    for record in (cache / "wheels" / "records").glob("sglang-*.json"):
        try:
            found.add(parse_wheel_filename(json.loads(record.read_bytes())["filename"])[1])
        except (ValueError, KeyError, TypeError):
            continue  # a record that cannot be read is none, as everywhere here
    return tuple(map(str, sorted(found)))


def _parsed(requirement: str) -> Requirement:
    try:
        release = Requirement(requirement)
    except InvalidRequirement as error:
        why = str(error).splitlines()[0]
        raise ConfigError([f"upstream.pypi: {requirement}: {why}; write it as sglang==0.5.12.post1"]) from error
    pins = list(release.specifier)
    if len(pins) != 1 or pins[0].operator != "==" or "*" in pins[0].version:
        raise ConfigError([f"upstream.pypi: {requirement} is not one exact release; write it as sglang==0.5.12.post1"])
    return release


@contextmanager
def _one_at_a_time(wheels: Path) -> Iterator[None]:
    """Hold the cache of wheels; a second process waits for the first one's download instead of repeating it."""
    wheels.mkdir(parents=True, exist_ok=True)
    with (wheels / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_by_a_killed_run in wheels.glob(".partial-*"):
            shutil.rmtree(left_by_a_killed_run)
        yield


def _record_path(wheels: Path, release: Requirement) -> Path:
    version = next(iter(release.specifier)).version
    here = f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    return wheels / "records" / f"{canonicalize_name(release.name)}-{version}-{here}.json"


def _read_record(wheels: Path, release: Requirement) -> _Record | None:
    """What was recorded of this release; None when nothing was, or nothing that can be read."""
    path = _record_path(wheels, release)
    try:
        body = json.loads(path.read_bytes())
        record = _Record(path, str(body["filename"]), str(body["sha256"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    sound = re.fullmatch(r"[0-9a-f]{64}", record.sha256) and re.fullmatch(r"[^/\s]+\.whl", record.filename)
    return record if sound else None


def _wheel(path: Path) -> Wheel:
    name, version, native = named(path)
    return Wheel(path, native.sha256, native, name, version)


def _fetched_twice_at_most(requirement: str, wheels: Path, record: _Record | None, progress: Progress) -> Wheel:
    progress(f"fetching {requirement} from the package index")
    try:
        return _fetch(requirement, wheels, record, progress)
    except _Damaged as first:
        progress(f"{first}; it is fetched again")
        try:
            return _fetch(requirement, wheels, record, progress)
        except _Damaged as second:
            raise RemoteError(
                f"{requirement} arrived damaged twice: {second}. Nothing was kept; look at the package index "
                "or the proxy in between (`pip config list`), and at pip's own cache (`pip cache purge`)"
            ) from second


def _fetch(requirement: str, wheels: Path, record: _Record | None, progress: Progress) -> Wheel:
    with tempfile.TemporaryDirectory(dir=wheels, prefix=".partial-") as name:
        folder = Path(name)
        _pip_download(requirement, folder)
        found = sorted((folder / "wheel").glob("*.whl"))
        if len(found) != 1:
            raise RemoteError(f"pip put {len(found)} wheels in place of one for {requirement}; run it again")
        wrong = damage(found[0])
        if wrong is not None:
            raise _Damaged(f"{found[0].name}: {wrong}")
        wheel = _wheel(found[0])
        release = _parsed(requirement)
        if wheel.name != canonicalize_name(release.name) or not release.specifier.contains(wheel.version, True):
            raise RemoteError(f"the package index answered {requirement} with {found[0].name}; it is not to be trusted")
        if record is not None and record.sha256 != wheel.sha256:
            raise RemoteError(
                f"the package index has other bytes for {wheel.native.filename} than before: sha256 {wheel.sha256}, "
                f"recorded {record.sha256}. A release never changes: find out why; to accept it remove {record.path}"
            )
        place = wheels / wheel.sha256 / found[0].name
        place.parent.mkdir(exist_ok=True)
        with found[0].open("rb") as stream:
            os.fsync(stream.fileno())
        found[0].chmod(0o644)
        found[0].replace(place)
        body = {"release": requirement, "filename": place.name, "sha256": wheel.sha256}
        store.write_whole(_record_path(wheels, release), json.dumps(body, indent=2) + "\n")
    progress(f"fetched {place.name}, {place.stat().st_size / 1e6:.1f} MB")
    return _wheel(place)


def _pip_download(requirement: str, folder: Path) -> None:
    """Have pip put the wheel into ``folder/wheel``, by the user's own pip configuration."""
    log = folder / "pip.log"
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    argv += ["--disable-pip-version-check", "--progress-bar=off", "--log", str(log)]
    argv += ["--dest", str(folder / "wheel"), requirement]
    try:
        # `-m` puts the current folder first on sys.path: a pip.py there would be run.
        said = process.run(argv, cwd=folder, timeout_s=FETCH_LIMIT_S, check=False)
    except process.ProcessTimeout as error:
        raise RemoteError(f"{requirement} did not arrive within {FETCH_LIMIT_S:.0f} s; run it again") from error
    if said.returncode != 0:
        written = log.read_text(errors="replace") if log.is_file() else ""
        raise _failure(requirement, said.stderr, written)


def _failure(requirement: str, stderr: str, log: str) -> PatchstackError:
    """The failure class that pip's words stand for."""
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    lines = stderr.strip().splitlines() or ["pip said nothing"]
    last = " ".join(errors[-3:]) if errors and "Traceback" not in stderr else lines[-1]
    if "No module named pip" in stderr:
        return MachineError(f"{sys.executable} has no pip; install it (`python -m ensurepip`) and run again")
    if "No space left on device" in stderr:
        return MachineError(f"the disk is full: {requirement} cannot be fetched; free some space and run again")
    if any(sign in stderr for sign in _DAMAGED):
        return _Damaged(last)
    # One line a page that pip asked for and did not get, in its log only: with `--retries 0` it prints nothing.
    missed = re.findall(r"Could not fetch URL (\S+): (.+?) - skipping", log)
    unreachable = {f"{url} ({_reason(why)})" for url, why in missed if not why.startswith("404 ")}
    if unreachable:
        return RemoteError(
            f"{requirement} is not in the cache, and the package index cannot be reached: "
            f"{', '.join(sorted(unreachable))}; check the network and `pip config list`, and run again"
        )
    if "No matching distribution found" in stderr:
        listed = re.search(r"\(from versions: (.+?)\)", stderr)
        newest = ", ".join(listed.group(1).split(", ")[-3:]) if listed else "none"
        here = (
            f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}, {sysconfig.get_platform()}"
        )
        problem = f"upstream.pypi: no package index has a wheel of {requirement} for {here} (newest there: {newest})"
        return ConfigError([f"{problem}; correct the release, or run with a Python that it has a wheel for"])
    return RemoteError(f"{requirement} cannot be fetched: {last}")


def _reason(why: str) -> str:
    """The innermost cause in a message of urllib3."""
    return why.rsplit(">: ", 1)[-1].rsplit("Caused by ", 1)[-1].rstrip(")'\"")
