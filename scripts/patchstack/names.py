"""Names of files: where one would lead to, which of them every file system can hold, which of them are one to some.

The one list of such rules, for a release's wheel, for what a pull request brings in, and for what is laid on a
disk. A wheel and a disk need `path_problem` alone: no path may lead out of its folder, or into git's own. A pull
request needs `name_problem` as well: its names go to everybody who checks `deploy` out, on whatever machine.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

LONGEST_NAME_BYTES = 255
"""What ext4, XFS, APFS and NTFS hold in one name."""
LONGEST_PATH_BYTES = 900
"""macOS takes 1024 bytes for a whole path (Linux 4096), and the folder that a tree is laid into counts. The longest
in a release has 196."""
WHITEOUT = ".wh."
"""https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts: how a layer says that a file is gone."""

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_NOT_ON_WINDOWS = frozenset('<>:"|?*\\')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])")
# NTFS gives each long name a short one: `git~1` for `.git`, `gitmod~1` or `gi7eba~1` for `.gitmodules`.
# https://github.com/git/git/blob/v2.39.5/path.c#L1451
_SHORT_NAME = re.compile(r"gi[0-9a-z]{1,4}~[0-9]+")
_GIT = re.compile(r"(\.git|git~[0-9]+)[. ]*(:.*)?", re.DOTALL)
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Unicode's categories of control and format characters, and of what ends a line or a paragraph."""


def path_problem(path: str) -> str | None:
    """Why ``path`` must not be written below a folder, or None when it is an ordinary relative path."""
    if path.startswith("/"):
        return "is an absolute path"
    parts = path.split("/")
    if ".." in parts:
        return "leads out of its folder"
    if any(part in {"", "."} for part in parts):
        return "has an empty part"
    if any(is_git_folder(part) for part in parts):
        return "leads into a .git folder"
    return "has a zero byte in its name" if "\0" in path else None


def name_problem(path: str) -> str | None:
    """Why ``path`` cannot be had on every machine, or None when it can; text as git's output decodes."""
    problem = path_problem(path)
    if problem is not None:
        return problem
    if _bytes(path) > LONGEST_PATH_BYTES:
        return f"is longer than {LONGEST_PATH_BYTES} bytes"
    return next(filter(None, map(_part_problem, path.split("/"))), None)


def is_git_folder(name: str) -> bool:
    """Whether some file system takes ``name`` for ``.git``.

    HFS+ passes over characters that are not seen, NTFS over dots and spaces at the end and all from a colon on.
    """
    plain = name if name.isascii() else "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return _GIT.fullmatch(plain.casefold()) is not None


@lru_cache(maxsize=10_000)  # most paths are in folders that others are in too
def _part_problem(part: str) -> str | None:
    if part.isascii() and part.isprintable():
        odd = ""
    else:
        odd = next((letter for letter in part if unicodedata.category(letter) in {*_UNSEEN, "Cs"}), "")
    if odd:
        return "is not UTF-8" if unicodedata.category(odd) == "Cs" else f"has the character U+{ord(odd):04X} in it"
    forbidden = next((letter for letter in part if letter in _NOT_ON_WINDOWS), None)
    if forbidden is not None:
        return f"has a {forbidden} in it, which Windows forbids"
    if part[-1] in ". ":
        return "has a part that ends with a dot or a space, which Windows takes away"
    folded = part.casefold()
    if _DEVICE.fullmatch(folded.partition(".")[0].rstrip(" ")):
        return "is the name of a device on Windows"
    if _SHORT_NAME.fullmatch(folded.partition(".")[0]):
        return "is what NTFS may call one of git's own files"
    if part.startswith(WHITEOUT):
        return f"begins with {WHITEOUT}, which means a deletion in an image"
    if _bytes(part) > LONGEST_NAME_BYTES:
        return f"has a part that is longer than {LONGEST_NAME_BYTES} bytes"
    return None


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogateescape"))


def folded(path: str) -> str:
    """What a file system that tells neither letter case nor forms of a letter apart takes ``path`` for.

    Canonical decomposition and full case folding, as ext4 does it in a folder with `casefold`; macOS and Windows
    tell some of these apart. https://docs.kernel.org/filesystems/ext4/overview.html#case-insensitive-file-name-lookups
    """
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def with_folders(path: str) -> Iterator[str]:
    """``path`` and each folder that it is in, the outermost first."""
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)
    yield path


def clashes(paths: Sequence[str]) -> list[str]:
    """Sentences on the paths that are there twice, or are a file and a folder at once."""
    seen = set(paths)
    twice = sorted({path for path, after in zip(sorted(paths), sorted(paths)[1:], strict=False) if path == after})
    found = [f"{path!r} is there twice" for path in twice]
    for path in sorted(seen):
        *above, _ = with_folders(path)
        found.extend(f"{parent!r} is both a file and the folder of {path!r}" for parent in above if parent in seen)
    return found
