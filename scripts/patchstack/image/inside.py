"""What lies in an image, read from its files as they come out of an engine; nothing of the image runs for it.

So no code in the image can forge it. All of it is read as a stream of tar entries, and nothing is written to disk:
names and links in it lead nowhere.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from packaging.utils import canonicalize_name

from patchstack.contents import Package
from patchstack.errors import ImageError
from patchstack.git import readable
from patchstack.image.inventory import DEBIAN, PYTHON

FILE, EXECUTABLE, LINK = "100644", "100755", "120000"
DPKG_STATUS = "var/lib/dpkg/status"

_METADATA = re.compile(r"[^/]+\.dist-info/(METADATA|RECORD)")
_MOST_FILES = 200_000
_MOST_TEXT_BYTES = 32 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Lying:
    """A file in an image, as git would know it."""

    mode: str
    blob: str
    """The id that git gives to its bytes; of a link, to where it leads."""
    sha256: str
    problem: str = ""
    """What it is, where git cannot hold such a thing."""


@dataclass
class Inside:
    """What was found; paths of ``files`` are from the folder that holds the release's packages."""

    files: dict[str, Lying] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    """``NAME.dist-info/METADATA`` and ``…/RECORD`` below that folder."""
    dpkg: bytes = b""


def read_inside(stream: IO[bytes], root: str, packages: Sequence[str]) -> Inside:
    """Read a whole image: all below the folders ``packages`` of ``root``, and who else is installed.

    Raises `ImageError` for a stream that is no tar archive, ends within a file, or holds more than any image of ours.
    One that ends between two files reads like a whole one: whoever gives it knows whether it is.
    """
    prefix = f"{root.strip('/')}/"
    found = Inside()
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would keep each of them
                path = _clean(member.name)
                if path == DPKG_STATUS and member.isreg():
                    found.dpkg = _text(archive, member)
                elif path.startswith(prefix):
                    _take(archive, member, path.removeprefix(prefix), prefix, packages, found)
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise ImageError(f"the image's files cannot be read: {error}") from error
    return found


def read_texts(stream: IO[bytes], most_bytes: int = _MOST_TEXT_BYTES) -> dict[str, bytes]:
    """Every plain file of a small archive, by its path there; `ImageError` for more than ``most_bytes`` in all."""
    found: dict[str, bytes] = {}
    left = most_bytes
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isreg():
                    left -= member.size
                    if left < 0:
                        raise ImageError(f"the image says more of itself than {most_bytes >> 20} MiB")
                    found[_clean(member.name)] = _text(archive, member)
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise ImageError(f"what the image says of itself cannot be read: {error}") from error
    return found


def _clean(name: str) -> str:
    return name.removeprefix("./").strip("/")


def _take(
    archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, prefix: str, packages: Sequence[str], found: Inside
) -> None:
    if path.split("/")[0] in packages:
        if member.isdir():
            return
        if len(found.files) >= _MOST_FILES:
            raise ImageError(f"the image holds more than {_MOST_FILES} files of the release")
        found.files[path] = _lying(archive, member, prefix, found)
    elif _METADATA.fullmatch(path) and member.isreg():
        found.texts[path] = _text(archive, member)


def _lying(archive: tarfile.TarFile, member: tarfile.TarInfo, prefix: str, found: Inside) -> Lying:
    if member.issym():
        target = member.linkname.encode(errors="surrogateescape")
        return Lying(LINK, _blob(target), "")
    if member.islnk():
        same = found.files.get(_clean(member.linkname).removeprefix(prefix))
        return same or Lying("", "", "", f"one file with {readable(member.linkname)}")
    if not member.isreg():
        return Lying("", "", "", "neither a file nor a link")
    stream = archive.extractfile(member)
    assert stream is not None
    git = hashlib.sha1(b"blob %d\0" % member.size, usedforsecurity=False)
    plain = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        git.update(chunk)
        plain.update(chunk)
    return Lying(EXECUTABLE if member.mode & 0o111 else FILE, git.hexdigest(), plain.hexdigest())


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _MOST_TEXT_BYTES:
        raise ImageError(f"{readable(member.name)} in the image has {member.size} bytes: that is no list of packages")
    stream = archive.extractfile(member)
    assert stream is not None
    return stream.read()


# --- who is installed ----------------------------------------------------------------------------------


def installed(inside: Inside) -> tuple[Package, ...]:
    """Python's distributions in the release's folder, and Debian's packages; sorted, each as often as it is there."""
    return tuple(
        sorted([*_distributions(inside), *_debian(inside.dpkg)], key=lambda one: (one.kind, one.name, one.version))
    )


def _distributions(inside: Inside) -> Iterator[Package]:
    for path, text in inside.texts.items():
        if path.endswith("/METADATA"):
            said = _headers(text.decode(errors="replace").partition("\n\n")[0])
            yield Package(PYTHON, canonicalize_name(said.get("Name", path)), said.get("Version", ""))


def _debian(status: bytes) -> Iterator[Package]:
    """https://manpages.debian.org/bookworm/dpkg/dpkg-query.1.en.html: what is installed, not what once was."""
    for stanza in status.decode(errors="replace").split("\n\n"):
        said = _headers(stanza)
        if said.get("Status", "").endswith(" installed"):
            yield Package(DEBIAN, said.get("Package", ""), said.get("Version", ""))


def _headers(text: str) -> dict[str, str]:
    """The first value of each header that is on one line."""
    said: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and not name.startswith((" ", "\t")):
            said.setdefault(name, value.strip())
    return said


def compiled_parts(inside: Inside, project: str) -> dict[str, str]:
    """Path and SHA-256 of each ``.so`` that the project's wheel brought, as its ``RECORD`` says.

    https://packaging.python.org/en/latest/specifications/recording-installed-packages/#the-record-file
    """
    found: dict[str, str] = {}
    for path, text in inside.texts.items():
        if not path.endswith("/RECORD") or canonicalize_name(path.split("-")[0]) != project:
            continue
        for row in csv.reader(io.StringIO(text.decode(errors="replace"))):
            if len(row) == 3 and row[0].endswith(".so") and row[1].startswith("sha256="):
                coded = row[1].removeprefix("sha256=")
                try:
                    found[row[0]] = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).hex()
                except (binascii.Error, ValueError):
                    found[row[0]] = "no digest"
    return found
