"""What a git bundle says of itself, read before git is shown it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import UsageError
from patchstack.model import Sha


@dataclass(frozen=True)
class BundleHeader:
    """What a bundle says of itself (https://git-scm.com/docs/gitformat-bundle)."""

    refs: dict[str, Sha]
    prerequisites: tuple[Sha, ...]


_BUNDLE_LINES, _BUNDLE_LINE_BYTES = 10_000, 4096


def read_bundle_header(file: Path) -> BundleHeader:
    """The header of a bundle of version 2, the one for SHA-1 and whole histories; `UsageError` for anything else."""
    refs: dict[str, Sha] = {}
    prerequisites: list[Sha] = []
    with file.open("rb") as stream:
        signature = stream.readline(_BUNDLE_LINE_BYTES)
        for _ in range(_BUNDLE_LINES if signature == b"# v2 git bundle\n" else 0):
            line = stream.readline(_BUNDLE_LINE_BYTES)
            if line == b"\n":
                return BundleHeader(refs, tuple(prerequisites))
            found = re.fullmatch(rb"(-?)([0-9a-f]{40})(?: (.*))?\n", line)
            if found is None:
                break
            sha = Sha(found[2].decode())
            if found[1]:
                prerequisites.append(sha)
            else:
                refs[(found[3] or b"").decode(errors="surrogateescape")] = sha
    raise UsageError(f"{file.name} is no git bundle of version 2")
