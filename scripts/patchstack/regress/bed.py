"""The test bed of a release: a virtual environment with all that SGLang needs on a CPU, from hashed locks.

In the cache, ``beds/<key>/<attempt>/`` is an environment and ``beds/<key>/READY`` names the attempt that
was finished. An environment cannot be moved, so it is made where it stays, under a name that no other
attempt uses: one that was killed, with a pip that may still be writing, leaves a folder that nobody trusts
and that the next one removes.

There are two locks for torch. ``torch-cpu.txt`` holds for a machine whose pip knows the CPU build (1 GB
less to download); elsewhere ``torch-pypi.txt`` brings the CUDA build with its libraries, for without them
it does not import. Which one it is, is found out once, by trying the first.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from patchstack import process
from patchstack.errors import MachineError, RemoteError
from patchstack.store import write_whole

SHARED, TORCH_CPU, TORCH_PYPI = "shared.txt", "torch-cpu.txt", "torch-pypi.txt"
SIZES, DEBIAN = "sizes.json", "debian.txt"
READY = "READY"
INSTALL_LIMIT_S = 3600.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Bed:
    """A finished test bed."""

    python: Path
    key: str
    """Equal for beds with equal packages: locks, the flavour of torch, Python and platform."""
    torch: str
    """The version of torch that imports there, such as ``2.13.0+cpu``."""


def bed_key(locks_dir: Path, python: str = platform.python_version(), machine: str = "") -> str:
    """The bed that ``locks_dir`` means for a Python version and platform (this one's if left out), 20 hex digits."""
    machine = machine or f"{sys.platform}-{platform.machine()}"
    digest = hashlib.sha256(f"{sys.implementation.name} {python} {machine}\n".encode())
    for name in (SHARED, TORCH_CPU, TORCH_PYPI):
        digest.update(f"{name}\n".encode())
        digest.update(_lock(locks_dir, name).read_bytes())
    return digest.hexdigest()[:20]


def prepare_bed(locks_dir: Path, cache_dir: Path, *, progress: Progress) -> Bed:
    """The bed of ``locks_dir``, made below ``cache_dir`` if it is not there.

    Raises `MachineError` for missing Debian packages, too little disk or an environment that does not work,
    `RemoteError` when a package cannot be had as it is locked. Two callers at once: one makes it, the other
    waits.
    """
    key = bed_key(locks_dir)
    folder = cache_dir / "beds" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder, progress):
            bed = _finished(folder, key)
            if bed is None:
                _require_debian_packages(locks_dir)
                _sweep(folder)
                bed = _make(locks_dir, folder, key, progress)
            return bed
    except OSError as error:
        raise MachineError(f"the test bed below {folder} cannot be made: {error.strerror or error}") from error


def _lock(locks_dir: Path, name: str) -> Path:
    path = locks_dir / name
    if not path.is_file():
        raise MachineError(f"{locks_dir} has no {name}: the locks of this release are not complete")
    return path


@contextmanager
def _one_at_a_time(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the bed's lock; the kernel gives it back when its holder dies."""
    descriptor = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("test bed: another patchstack is making it; waiting")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _finished(folder: Path, key: str) -> Bed | None:
    """The bed that READY names, or None if there is none or its interpreter has gone."""
    try:
        said = json.loads((folder / READY).read_text())
        bed = Bed(folder / str(said["attempt"]) / "bin" / "python", f"{key}-{said['flavour']}", str(said["torch"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if not bed.python.exists():
        return None
    _show(bed.python.parents[1])
    return bed


def _show(attempt: Path) -> None:
    """Guards run as somebody else, who must be able to read it; `tempfile` makes a folder for its owner alone."""
    if attempt.stat().st_mode & 0o777 == 0o700:
        attempt.chmod(0o755)


def _sweep(folder: Path) -> None:
    """Remove what earlier attempts left; we hold the lock, so none of them is at work any more.

    A pip whose patchstack was killed may still be: what it writes meanwhile goes at the next sweep.
    """
    (folder / READY).unlink(missing_ok=True)
    for left in folder.iterdir():
        shutil.rmtree(left, ignore_errors=True)


def _make(locks_dir: Path, folder: Path, key: str, progress: Progress) -> Bed:
    began_s = time.monotonic()
    sizes = json.loads(_lock(locks_dir, SIZES).read_text())
    _require_disk(folder, sizes, (SHARED, TORCH_CPU))
    attempt = Path(tempfile.mkdtemp(prefix="attempt-", dir=folder))
    _show(attempt)
    python = attempt / "bin" / "python"
    process.run([sys.executable, "-m", "venv", "--without-pip", str(attempt)], cwd=attempt)
    progress(f"test bed: torch for the CPU ({_megabytes(sizes, TORCH_CPU)} to download)")
    flavour, lock = "cpu", TORCH_CPU
    if not _install(python, _lock(locks_dir, TORCH_CPU)).ok:
        flavour, lock = "pypi", TORCH_PYPI
        _require_disk(folder, sizes, (SHARED, TORCH_PYPI))
        progress(
            "test bed: pip knows no CPU build of torch on this machine; "
            f"taking the CUDA build with its libraries ({_megabytes(sizes, TORCH_PYPI)} to download)"
        )
        _install(python, _lock(locks_dir, TORCH_PYPI)).require()
    progress(f"test bed: what SGLang needs ({_megabytes(sizes, SHARED)} to download)")
    _install(python, _lock(locks_dir, SHARED)).require()
    torch = _torch_that_imports(python, expected=_pinned(_lock(locks_dir, lock), "torch"))
    write_whole(folder / READY, json.dumps({"attempt": attempt.name, "flavour": flavour, "torch": torch}) + "\n")
    progress(f"test bed: ready in {time.monotonic() - began_s:.0f} s, torch {torch}")
    return Bed(python, f"{key}-{flavour}", torch)


@dataclass(frozen=True)
class _Installed:
    lock: Path
    completed: process.Completed

    @property
    def ok(self) -> bool:
        return self.completed.returncode == 0

    def require(self) -> None:
        if not self.ok:
            said = "\n".join(self.completed.stderr.strip().splitlines()[-15:])
            if "No space left on device" in self.completed.stderr:
                raise MachineError(f"the disk is full: what {self.lock} locks cannot be installed; make room")
            raise RemoteError(f"pip could not install what {self.lock} locks:\n{said}")


def _install(python: Path, lock: Path) -> _Installed:
    """Install a lock as it is: these files or none, nothing that they say they need, nothing built here."""
    argv = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-input", "--quiet"]
    argv += ["--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "off"]
    argv += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", str(lock.resolve())]
    # `-m` puts the current folder first on sys.path: a pip.py there would be run.
    return _Installed(lock, process.run(argv, cwd=python.parent, timeout_s=INSTALL_LIMIT_S, check=False))


def _torch_that_imports(python: Path, *, expected: str) -> str:
    """The version of torch that really imports there; raises `MachineError` if it is not the locked one."""
    said = process.run([str(python), "-I", "-c", "import torch; print(torch.__version__)"], check=False)
    found = said.stdout.strip()
    if said.returncode != 0:
        tail = "\n".join(said.stderr.strip().splitlines()[-5:])
        raise MachineError(f"torch {expected} was installed and does not import:\n{tail}")
    # The CUDA build names its CUDA version behind a plus sign, which the index's version leaves out.
    if found != expected and found.partition("+")[0] != expected:
        raise MachineError(f"torch {expected} is locked and {found} imports")
    return found


def _pinned(lock: Path, name: str) -> str:
    """The version that a lock pins a package to."""
    for line in lock.read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            requirement = Requirement(line.removesuffix("\\").strip())
            if canonicalize_name(requirement.name) == name:
                return next(iter(requirement.specifier)).version
    raise MachineError(f"{lock} does not lock {name}")


def _require_debian_packages(locks_dir: Path) -> None:
    """One error for all Debian packages that are missing. Elsewhere than on Debian, nothing can be said."""
    if shutil.which("dpkg-query") is None:
        return
    wanted = _packages(_lock(locks_dir, DEBIAN))
    missing = [name for name in wanted if not _is_installed(name)]
    if missing:
        sudo = "" if os.geteuid() == 0 else "sudo "
        raise MachineError(
            f"the test bed needs Debian packages that are not installed: {', '.join(missing)}; run "
            f"`{sudo}apt-get install --yes --no-install-recommends {' '.join(missing)}`"
        )


def _packages(path: Path) -> Sequence[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def _is_installed(package: str) -> bool:
    asked = process.run(["dpkg-query", "--show", "--showformat=${db:Status-Status}", package], check=False)
    return asked.returncode == 0 and asked.stdout == "installed"


def _require_disk(folder: Path, sizes: dict[str, dict[str, int]], locks: Sequence[str]) -> None:
    """Raise `MachineError` if what is installed and its downloads do not fit."""
    needed = sum(sizes[lock]["download_bytes"] + sizes[lock]["disk_bytes"] for lock in locks)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MachineError(
            f"the test bed takes {needed / 1e9:.1f} GB while it is made and {folder} has {free / 1e9:.1f} GB free; "
            "make room, or set PATCHSTACK_CACHE to a folder on another disk"
        )


def _megabytes(sizes: dict[str, dict[str, int]], lock: str) -> str:
    return f"{sizes[lock]['download_bytes'] / 1e6:,.0f} MB"
