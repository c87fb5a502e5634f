"""What a machine left for a person to write in an imported patch, and lint until it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from patchstack.patches.header import Patch

TODO = "TODO"
"""Stands in a `patch.md` wherever `patch import` could not know what to write."""

GUARD_TO_WRITE = f"{TODO}: write the guard"
"""Stands in a guard that `patch import` has made, which passes on no tree."""


def todo_problems(patch: Patch, root: Path) -> Iterator[str]:
    """Each line of the patch's `patch.md`, and each of its guards, that is still to be written."""
    lines = patch.header_path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if re.search(rf"\b{TODO}\b", line):
            key = line.partition(":")[0] if number < patch.prose_line else "(prose)"
            yield f"{patch.header_path}:{number}: {key}: it says {TODO}: write what only its owner knows"
    for guard in patch.guards:
        target = root / guard
        for file in sorted(target.rglob("test_*.py")) if target.is_dir() else [target]:
            if file.is_file() and GUARD_TO_WRITE.encode() in file.read_bytes():
                yield f"{root / guard}:1: guards: {file.name} passes on no tree: write it (docs/patch-authors.md)"
