"""One layer of an image as bytes: a gzipped tar archive that is the same for the same files. Pure.

https://github.com/opencontainers/image-spec/blob/main/layer.md

Every folder on the way to a file is an entry of its own, root's and of mode 755. Without one, a store that keeps
layers apart (overlay) makes the folder up, with whatever mode it likes, and lays that over the one below it: so a
layer decides in any case, and ours decides for what a folder of an image has. Uncompressed, a layer is the same on
every machine (its ``diff_id``); compressed, where zlib is the same.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from patchstack.errors import ImageError
from patchstack.image.oci import digest_of

EPOCH = 315532800
"""The time of every entry, 1980-01-01: the first that a zip archive can hold as well."""
WHITEOUT = ".wh."
"""Before the name of what a layer takes away."""

_LEVEL = 9
# https://www.rfc-editor.org/rfc/rfc1952: no name, no time, compressed as small as can be, and no system, for
# Pythons differ in what they write there.
_GZIP_HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x02\xff"
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class FileEntry:
    """A file, or a symbolic link where ``link`` says to what."""

    data: bytes
    mode: int = 0o644
    link: str | None = None


@dataclass(frozen=True)
class Layer:
    data: bytes
    """Gzipped."""
    digest: str
    """Of ``data``: as the manifest names it."""
    diff_id: str
    """Of the archive in it: as the configuration names it."""

    @property
    def size(self) -> int:
        return len(self.data)


def make_layer(files: Mapping[str, FileEntry], deleted: Collection[str] = (), epoch: int = EPOCH) -> Layer:
    """The layer that puts ``files`` (path from the image's root -> what) over an image and takes ``deleted`` away.

    A deleted path can be a folder: all of it goes. Raises `ImageError` for a path that leads elsewhere, has a name
    that means a deletion, or is asked to be two things at once.
    """
    folders = {folder for path in (*files, *deleted) for folder in _folders(path)}
    _refuse_clashes(files, deleted, {folder for path in files for folder in _folders(path)})
    archive = _archive(files, deleted, folders, epoch)
    data = _gzip(archive)
    return Layer(data, digest_of(data), digest_of(archive))


def _refuse_clashes(files: Mapping[str, FileEntry], deleted: Collection[str], folders: set[str]) -> None:
    for path in (*files, *deleted):
        problem = path_problem(path)
        if problem:
            raise ImageError(f"{path!r} cannot be put into an image: {problem}; leave out what brings it in")
    both = sorted(folders & files.keys())
    if both:
        raise ImageError(f"{both[0]!r} would be a file and a folder of one image; leave out what brings it in")
    gone = set(deleted)
    kept = sorted(gone & {*files, *folders})
    if kept:
        raise ImageError(f"{kept[0]!r} would be both deleted from an image and put into it")
    below = sorted(path for path in gone for folder in _folders(path) if folder in gone or folder in files)
    if below:
        raise ImageError(f"{below[0]!r} would be deleted from an image together with what holds it")


def path_problem(path: str) -> str:
    """What keeps ``path`` from being a place in an image; empty where nothing does."""
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts) or "\0" in path:
        return "it is no plain path from the image's root"
    if any(part.startswith(WHITEOUT) for part in parts):
        return f"a name that begins with {WHITEOUT} means a deletion there"
    return ""


def _folders(path: str) -> Iterator[str]:
    """Every folder on the way to ``path``."""
    parts = path.split("/")[:-1]
    yield from ("/".join(parts[:end]) for end in range(1, len(parts) + 1))


def _archive(files: Mapping[str, FileEntry], deleted: Collection[str], folders: Iterable[str], epoch: int) -> bytes:
    entries = {path: (_entry(path, file), file.data) for path, file in files.items()}
    entries |= {folder: (_folder(folder), b"") for folder in folders}
    for path in deleted:
        folder, slash, name = path.rpartition("/")
        whiteout = f"{folder}{slash}{WHITEOUT}{name}"
        entries[whiteout] = (tarfile.TarInfo(whiteout), b"")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        for _, (entry, data) in sorted(entries.items()):
            entry.mtime = epoch
            if entry.isreg():
                entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _entry(path: str, file: FileEntry) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    if file.link is not None:
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, file.link, 0o777
    else:
        entry.mode = file.mode
    return entry


def _folder(path: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


def _gzip(data: bytes) -> bytes:
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(data) + deflate.flush()
    return _GZIP_HEADER + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


# --- reading -------------------------------------------------------------------------------------------


def read_layer(data: bytes, most_bytes: int) -> dict[str, bytes]:
    """The regular files of a small layer, by path from the image's root; deletions are files named `.wh.NAME`.

    Whoever can write to the registry can have written it: `ImageError` for one that unpacks to more than
    ``most_bytes``, is cut short or has something behind its end, leads out of the image, names a path twice, or
    holds anything but files, folders and symbolic links.
    """
    archive = _gunzip(data, most_bytes)
    found: dict[str, bytes] = {}
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", encoding="utf-8") as tar:
            for member in tar:
                path = _path_of(member)
                if path in seen:
                    raise _damaged(f"{path!r} is in it twice")
                seen.add(path)
                if member.isreg():
                    found[path] = _content(tar, member)
            end = tar.offset
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        raise _damaged(str(error)) from error
    # Python's reader takes any block that is no header for the end of the archive.
    if len(archive) - end < 2 * tarfile.BLOCKSIZE or archive[end:].strip(b"\0"):
        raise _damaged("it has no proper end")
    return found


def _damaged(problem: str) -> ImageError:
    return ImageError(f"a layer cannot be read: {problem}; nothing in it is trusted")


def _gunzip(data: bytes, most_bytes: int) -> bytes:
    inflate = zlib.decompressobj(_GZIP)
    try:
        archive = inflate.decompress(data, most_bytes + 1)
    except zlib.error as error:
        raise _damaged(f"it is no gzipped archive ({error})") from error
    if len(archive) > most_bytes:
        raise _damaged(f"it unpacks to more than {most_bytes} bytes")
    if not inflate.eof or inflate.unused_data:
        raise _damaged("it is cut short" if not inflate.eof else "something is behind its end")
    return archive


def _path_of(member: tarfile.TarInfo) -> str:
    """Where ``member`` is; of the root folder itself it is the empty string."""
    path = member.name.removeprefix("./") if member.name != "." else ""
    if not (member.isreg() or member.isdir() or member.issym()) or member.issparse():
        raise _damaged(f"{member.name!r} is neither file nor folder nor symbolic link")
    if any(part in {"", ".", ".."} for part in path.split("/")) and not (path == "" and member.isdir()):
        raise _damaged(f"{member.name!r} leads out of the image")
    return path


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    content = stream.read() if stream else b""
    if len(content) != member.size:
        raise _damaged(f"{member.name!r} is cut short")
    return content
