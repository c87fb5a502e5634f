"""Makes a test bed's locks from what its folder asks for; run by `make relock-bed`, not by the night.

The folder holds ``shared.in`` (resolved with their needs), ``shared-no-deps.in`` (taken alone: their needs
pin other versions, or CUDA) and ``torch.in``. uv resolves them for every Python below; what comes out is
pip's own format with exact pins and the hashes of the wheels for those Pythons on Linux x86-64. No address
of an index is written: the lock holds wherever the same files are.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Environment, Marker, default_environment
from packaging.pylock import Package, Pylock
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from patchstack import process
from patchstack.errors import MachineError
from patchstack.regress.bed import SHARED, SIZES, TORCH_CPU, TORCH_PYPI
from patchstack.store import write_whole

UV = "uv==0.13.8"
PYTHONS = ((3, 11), (3, 12), (3, 13))
GLIBC_MINOR = 36
"""Debian 12's; a wheel that asks for a newer one is not locked."""

TORCH_FAMILIES = ("torch", "nvidia-", "cuda-")
"""Packages of torch's CUDA build: torch itself by its name, its libraries by the beginning of theirs."""


@dataclass(frozen=True)
class Pin:
    """One line of a lock."""

    name: str
    version: str
    marker: str
    """When it is needed, as pip reads it; empty for always."""
    sha256: tuple[str, ...]

    def text(self) -> str:
        condition = f" ; {self.marker}" if self.marker else ""
        return "".join(
            [f"{self.name}=={self.version}{condition}", *(f" \\\n    --hash=sha256:{one}" for one in self.sha256), "\n"]
        )

    @property
    def is_torch(self) -> bool:
        return self.name == TORCH_FAMILIES[0] or self.name.startswith(TORCH_FAMILIES[1:])


def relock(locks_dir: Path, progress: Callable[[str], None]) -> None:
    """Write every lock of ``locks_dir`` again, and the sizes of what this Python downloads for each.

    ``torch-cpu.txt`` is written where pip finds the CPU build, else left as it is. Downloads everything
    once, which also shows that the locks can be installed: about 4 GB.
    """
    torch_version = _version_in(locks_dir / "torch.in")
    with tempfile.TemporaryDirectory(prefix="patchstack-relock-") as scratch:
        uv = _install_uv(Path(scratch))
        progress("resolving")
        whole = _resolve(uv, Path(scratch) / "pylock.whole.toml", [locks_dir / "shared.in", locks_dir / "torch.in"])
        alone = _resolve(uv, Path(scratch) / "pylock.alone.toml", [locks_dir / "shared-no-deps.in"], "--no-deps")
        pins = [*pins_of(whole), *pins_of(alone)]
        write_whole(
            locks_dir / SHARED, render((pin for pin in pins if not pin.is_torch), "shared.in and shared-no-deps.in")
        )
        write_whole(locks_dir / TORCH_PYPI, render((pin for pin in pins if pin.is_torch), "torch.in"))
        cpu = _cpu_build(Path(scratch), torch_version)
        if cpu is not None:
            write_whole(locks_dir / TORCH_CPU, render([cpu], "torch.in, for the CPU"))
        else:
            progress(f"pip finds no CPU build of torch here: {TORCH_CPU} stays as it is")
        sizes = {}
        for name in (SHARED, TORCH_PYPI, *([TORCH_CPU] if cpu else [])):
            progress(f"downloading what {name} locks, to measure it")
            sizes[name] = _measure(locks_dir / name)
        known = json.loads((locks_dir / SIZES).read_text()) if (locks_dir / SIZES).is_file() else {}
        write_whole(locks_dir / SIZES, json.dumps({**known, **sizes}, indent=2, sort_keys=True) + "\n")


def pins_of(lock: Pylock) -> list[Pin]:
    """The packages that one of our Pythons needs on Linux x86-64, with the wheels that it can take."""
    pins = []
    for package in sorted(lock.packages, key=lambda package: (package.name, str(package.version))):
        needing = [python for python in PYTHONS if package.marker is None or _holds(package.marker, python)]
        if needing:
            marker = "" if len(needing) == len(PYTHONS) else _marker_for(needing)
            pins.append(Pin(package.name, str(package.version), marker, _hashes(package, needing)))
    return pins


def render(pins: Iterable[Pin], source: str) -> str:
    """A lock as pip reads it."""
    body = sorted(pins, key=lambda pin: (pin.name, pin.version))
    return "".join([f"# Made from {source} by `make relock-bed`; do not edit.\n", *(pin.text() for pin in body)])


def _holds(marker: Marker, python: tuple[int, int]) -> bool:
    return marker.evaluate(_environment(python))


def _environment(python: tuple[int, int]) -> dict[str, str]:
    version = f"{python[0]}.{python[1]}"
    here: Environment = default_environment()
    return {
        **{name: str(value) for name, value in here.items()},
        "python_version": version,
        "python_full_version": f"{version}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def _marker_for(pythons: list[tuple[int, int]]) -> str:
    """A marker that holds for a run of our Pythons that begins or ends with the first or last of them."""
    if pythons[0] == PYTHONS[0]:
        return f'python_version <= "{pythons[-1][0]}.{pythons[-1][1]}"'
    return f'python_version >= "{pythons[0][0]}.{pythons[0][1]}"'


def _hashes(package: Package, pythons: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    usable = {tag for python in pythons for tag in _tags(python)}
    hashes = {
        wheel.hashes["sha256"]
        for wheel in package.wheels or ()
        if not usable.isdisjoint(parse_wheel_filename(wheel.filename)[3])
    }
    if not hashes:
        raise MachineError(f"{package.name} {package.version} has no wheel for Linux x86-64; pin another version")
    return tuple(sorted(hashes))


def _tags(python: tuple[int, int]) -> set[Tag]:
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINOR, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    interpreter = f"cp{python[0]}{python[1]}"
    return {*cpython_tags(python, platforms=platforms), *compatible_tags(python, interpreter, platforms)}


def _install_uv(folder: Path) -> Path:
    """uv's program, in an environment of its own: it makes locks and is no part of the tool."""
    process.run([sys.executable, "-m", "venv", str(folder / "uv")])
    process.run([str(folder / "uv" / "bin" / "python"), "-m", "pip", "install", "--quiet", UV])
    return folder / "uv" / "bin" / "uv"


def _resolve(uv: Path, output: Path, inputs: list[Path], *options: str) -> Pylock:
    argv = [str(uv), "pip", "compile", "--quiet", "--no-config", "--universal", "--no-header", *options]
    argv += ["--python-version", f"{PYTHONS[0][0]}.{PYTHONS[0][1]}", "--format", "pylock.toml"]
    process.run([*argv, "--output-file", str(output), *map(str, inputs)])
    return Pylock.from_dict(tomllib.loads(output.read_text()))


def _version_in(path: Path) -> str:
    return path.read_text().strip().partition("==")[2]


def _cpu_build(scratch: Path, version: str) -> Pin | None:
    """The CPU build of torch that this machine's pip finds; None if it finds none."""
    folder = scratch / "torch-cpu"
    requirement = f"torch=={version}+cpu"
    done = process.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement],
        check=False,
    )
    if done.returncode != 0:
        return None
    (wheel,) = folder.iterdir()
    with wheel.open("rb") as stream:
        return Pin("torch", f"{version}+cpu", "", (hashlib.file_digest(stream, "sha256").hexdigest(),))


def _measure(lock: Path) -> dict[str, int]:
    """The bytes that this Python downloads for a lock, and those that they fill when they are unpacked."""
    with tempfile.TemporaryDirectory(prefix="patchstack-relock-") as folder:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--dest", folder]
        process.run([*argv, "--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", str(lock)])
        wheels = list(Path(folder).iterdir())
        unpacked = sum(info.file_size for wheel in wheels for info in zipfile.ZipFile(wheel).infolist())
        return {"download_bytes": sum(wheel.stat().st_size for wheel in wheels), "disk_bytes": unpacked}
