"""Lines of a hashed lock: exact versions and the digests of the wheels that one of some Pythons takes on Linux x86-64.

uv resolves; what is written is pip's own format. No address of an index is in it: a lock holds wherever the same
files are. The test bed and the image have locks of this kind.
"""

from __future__ import annotations

import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Environment, Marker, default_environment
from packaging.pylock import Package, Pylock
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from patchstack import process
from patchstack.errors import MachineError

UV = "uv==0.13.8"
GLIBC_MINOR = 36
"""Debian 12's; a wheel that asks for a newer one is not locked."""

Python = tuple[int, int]


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


def render(pins: Iterable[Pin], source: str, target: str) -> str:
    """A lock as pip reads it, made from ``source`` by ``make target``."""
    body = sorted(pins, key=lambda pin: (pin.name, pin.version))
    return "".join([f"# Made from {source} by `make {target}`; do not edit.\n", *(pin.text() for pin in body)])


def read_pins(text: str, python: Python, what: str) -> tuple[Pin, ...]:
    """The lines of a lock that hold for one Python, without their markers; `MachineError` names ``what``."""
    pins = []
    for line in text.replace("\\\n", " ").splitlines():
        asked, *hashes = line.partition("#")[0].split("--hash=sha256:")
        if not asked.strip():
            continue
        try:
            requirement = Requirement(asked.strip())
        except InvalidRequirement as error:
            raise MachineError(f"{what} is no lock: {error}") from error
        versions = [pin.version for pin in requirement.specifier if pin.operator == "=="]
        if len(versions) != 1 or not hashes:
            raise MachineError(f"{what} is no lock: {asked.strip()!r} has no exact version with a hash")
        if requirement.marker is None or requirement.marker.evaluate(environment(python)):
            sha256 = tuple(one.strip() for one in hashes)
            pins.append(Pin(canonicalize_name(requirement.name), versions[0], "", sha256))
    return tuple(pins)


def pins_of(lock: Pylock, pythons: Sequence[Python], *, best_only: bool = False) -> list[Pin]:
    """The packages that one of ``pythons`` needs on Linux x86-64, with the wheels that it can take.

    ``best_only``: of each package the one wheel that pip prefers, so that every machine takes the same.
    """
    pins = []
    for package in sorted(lock.packages, key=lambda package: (package.name, str(package.version))):
        needing = [python for python in pythons if package.marker is None or _holds(package.marker, python)]
        if needing:
            marker = "" if len(needing) == len(pythons) else _marker_for(needing, pythons)
            pins.append(Pin(package.name, str(package.version), marker, _hashes(package, needing, best_only)))
    return pins


def environment(python: Python) -> dict[str, str]:
    """What markers are judged by: that CPython on Linux x86-64, whatever runs here."""
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


def platforms() -> list[str]:
    """The platforms whose wheels run on Debian 12, x86-64, the best first."""
    numbered = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINOR, 4, -1)]
    return [*numbered, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]


def tags(python: Python) -> list[Tag]:
    """The tags of the wheels that a CPython takes there, the best first."""
    interpreter = f"cp{python[0]}{python[1]}"
    return [*cpython_tags(python, platforms=platforms()), *compatible_tags(python, interpreter, platforms())]


def _holds(marker: Marker, python: Python) -> bool:
    return marker.evaluate(environment(python))


def _marker_for(needing: Sequence[Python], pythons: Sequence[Python]) -> str:
    """A marker that holds for a run of ``pythons`` that begins or ends with the first or last of them."""
    if needing[0] == pythons[0]:
        return f'python_version <= "{needing[-1][0]}.{needing[-1][1]}"'
    return f'python_version >= "{needing[0][0]}.{needing[0][1]}"'


def _hashes(package: Package, needing: Sequence[Python], best_only: bool) -> tuple[str, ...]:
    ranks = {tag: rank for python in reversed(needing) for rank, tag in enumerate(tags(python))}
    usable = {}
    for wheel in package.wheels or ():
        rank = min((ranks[tag] for tag in parse_wheel_filename(wheel.filename)[3] if tag in ranks), default=None)
        if rank is not None:
            usable[wheel.hashes["sha256"]] = rank
    if not usable:
        raise MachineError(f"{package.name} {package.version} has no wheel for Linux x86-64; pin another version")
    if best_only:
        return (min(usable, key=lambda sha256: (usable[sha256], sha256)),)
    return tuple(sorted(usable))


# --- resolving -----------------------------------------------------------------------------------------


def install_uv(folder: Path) -> Path:
    """uv's program, in an environment of its own: it makes locks and is no part of the tool."""
    process.run([sys.executable, "-m", "venv", str(folder / "uv")])
    process.run([str(folder / "uv" / "bin" / "python"), "-m", "pip", "install", "--quiet", UV])
    return folder / "uv" / "bin" / "uv"


def resolve(uv: Path, output: Path, inputs: Sequence[Path], oldest: Python, *options: str) -> Pylock:
    argv = [str(uv), "pip", "compile", "--quiet", "--universal", "--no-header", *options]
    argv += ["--python-version", f"{oldest[0]}.{oldest[1]}", "--format", "pylock.toml"]
    process.run([*argv, "--output-file", str(output), *map(str, inputs)])
    return Pylock.from_dict(tomllib.loads(output.read_text()))


def measure(lock: Path) -> dict[str, int]:
    """The bytes that this Python downloads for a lock, and those that they fill when they are unpacked."""
    with tempfile.TemporaryDirectory(prefix="patchstack-relock-") as folder:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--dest", folder]
        process.run([*argv, "--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", str(lock)])
        return sizes_of(Path(folder).iterdir())


def sizes_of(wheels: Iterable[Path]) -> dict[str, int]:
    """What wheels weigh as files and unpacked."""
    paths = list(wheels)
    unpacked = sum(info.file_size for wheel in paths for info in zipfile.ZipFile(wheel).infolist())
    return {"download_bytes": sum(wheel.stat().st_size for wheel in paths), "disk_bytes": unpacked}
