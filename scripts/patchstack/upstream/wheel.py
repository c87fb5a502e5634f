"""A release's wheel: what it is called, which entries it holds, and which of them are never taken.

A wheel comes over the network, so its names are checked before one of them becomes a path.
"""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from patchstack.errors import MachineError, RemoteError
from patchstack.model import Native, Sha
from patchstack.names import clashes, path_problem

MAX_UNPACKED_BYTES = 4 << 30
"""A release unpacks to some 120 MB; a zip that claims more than this is an attack."""


@dataclass(frozen=True)
class Wheel:
    """A wheel on this disk whose bytes have the digest that was recorded when it was fetched."""

    path: Path
    sha256: str
    native: Native
    name: str
    """The project's normalised name: ``sglang``."""
    version: str


class Part(StrEnum):
    """What an entry is to us."""

    SOURCE = "source"
    NATIVE = "native"
    METADATA = "metadata"
    LEFT_OUT = "left out"


@dataclass(frozen=True)
class WheelEntry:
    """One file of a wheel; ``path`` is where it lies below ``python/``."""

    path: str
    executable: bool
    size_bytes: int
    part: Part


def part_of(path: str) -> Part:
    """What a file below ``python/`` (or of upstream's repository) is, by its path alone."""
    folders = path.split("/")
    if any(folder.endswith(".dist-info") for folder in folders[:-1]):
        return Part.METADATA
    if folders[-1].endswith(".so"):
        return Part.NATIVE
    return Part.LEFT_OUT if ".github" in folders[:-1] else Part.SOURCE


def blob_id(data: bytes) -> Sha:
    """The id that git gives to a file of these bytes."""
    return Sha(hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest())


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def named(path: Path) -> tuple[str, str, Native]:
    """Project, version and native part as the wheel's file name says (the digest is read from its bytes)."""
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise RemoteError(
            f"{path.name} is no name of a wheel ({error}); the package index is not to be trusted"
        ) from error
    python, _, platform = path.name.removesuffix(".whl").split("-")[-3:]
    return canonicalize_name(name), str(version), Native(python, platform, path.name, sha256_of(path))


def damage(path: Path) -> str | None:
    """What is wrong with the archive itself (cut short, a checksum that does not match), or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        return f"it is no sound zip archive ({error})"
    return None if bad is None else f"the checksum of {bad} does not match"


def read_files(wheel: Wheel, *parts: Part) -> Iterator[tuple[WheelEntry, bytes]]:
    """Every file of the wheel that is one of ``parts``, with its bytes, one at a time and by path.

    Every entry is checked before the first is read. Raises `RemoteError` for a wheel with entries that no honest
    release has, `MachineError` for one that was damaged since it was fetched.
    """
    try:
        with zipfile.ZipFile(wheel.path) as archive:
            for entry in _entries(archive, wheel.path.name):
                if entry.part in parts:
                    yield entry, archive.read(entry.path)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise MachineError(f"{wheel.path} cannot be read ({error}); remove it and run again") from error


def _entries(archive: zipfile.ZipFile, name: str) -> tuple[WheelEntry, ...]:
    """Every file of the wheel called ``name``, by path; `RemoteError` names the entries that are refused.

    Refused are links and other special files, absolute names, names that lead out or into `.git`, control
    characters, encrypted entries, duplicates, and the `.data` folders whose files an installer puts elsewhere.
    """
    problems: list[str] = []
    entries: list[WheelEntry] = []
    for info in archive.infolist():
        problem = _entry_problem(info)
        if problem is not None:
            problems.append(f"{info.filename!r} {problem}")
        elif not info.is_dir():
            mode = info.external_attr >> 16
            entries.append(WheelEntry(info.filename, bool(mode & 0o111), info.file_size, part_of(info.filename)))
    problems.extend(clashes([entry.path for entry in entries]))
    if sum(entry.size_bytes for entry in entries) > MAX_UNPACKED_BYTES:
        problems.append(f"it unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB")
    if not any(entry.part is Part.SOURCE for entry in entries):
        problems.append("it holds no source file")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise RemoteError(
            f"{name} is refused: {'; '.join(problems[:5])}{more}. Nothing was imported; the wheel is not upstream's"
        )
    return tuple(sorted(entries, key=lambda entry: entry.path))


def _entry_problem(info: zipfile.ZipInfo) -> str | None:
    name = info.filename.removesuffix("/") if info.is_dir() else info.filename
    # zipfile itself turns a backslash, and cuts the name at NUL, before anyone sees it.
    raw = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if any(ord(letter) < 0x20 or letter in "\x7f\\" for letter in raw):
        return "has a control character or a backslash in its name"
    problem = path_problem(name)
    if problem is not None:
        return problem
    if kind not in {0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG}:
        return "is a symbolic link" if kind == stat.S_IFLNK else "is a special file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    return "is in a .data folder" if name.split("/")[0].endswith(".data") else None
