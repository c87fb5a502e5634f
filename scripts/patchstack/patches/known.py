"""`patches/releases`: the releases of upstream on which lint tries every diff whose range has them.

One release a line, oldest first, ``#`` begins a comment. A list that is kept, and not asked of the package index:
what lint finds is then the same today and tomorrow, and without the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from packaging.version import InvalidVersion, Version

from patchstack.errors import ConfigError
from patchstack.patches.header import Patch

RELEASES_NAME = "releases"


def read_known_releases(patches_folder: Path, patches: Sequence[Patch]) -> tuple[str, ...]:
    """The releases, oldest first; none if there is no such file and no diff is for more than one release.

    `ConfigError` names every line that is no release or not in order, and every diff whose range begins or ends
    with a release that is not listed.
    """
    path = patches_folder / RELEASES_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    listed: list[tuple[int, str]] = []
    problems = []
    for number, line in enumerate(lines, 1):
        if not (version := line.partition("#")[0].strip()):
            continue
        try:
            Version(version)
        except InvalidVersion:
            problems.append(f"{path}:{number}: {version}: it is no release: write one a line, as 0.5.12.post1")
            continue
        listed.append((number, version))
    for (_, before), (number, after) in pairwise(listed):
        if Version(after) <= Version(before):
            problems.append(f"{path}:{number}: {after}: it stands below {before}: list each once, the oldest first")
    known = tuple(version for _, version in listed)
    problems += [
        f"{path}:1: {end}: {variant.path.parent.name}/{variant.path.name} is for it, and it is not listed: add its"
        " line, and those of the releases in between"
        for patch in patches
        for variant in patch.variants
        if variant.low != variant.high
        for end in (variant.low, variant.high)
        if end not in known
    ]
    if problems:
        raise ConfigError(problems)
    return known


def releases_to_try(patches: Sequence[Patch], known: Sequence[str]) -> tuple[str, ...]:
    """Those of the known releases that a patch is for and has a diff for."""
    return tuple(
        version
        for version in known
        if any(patch.need_on(version) is not None and patch.variant_for(version) is not None for patch in patches)
    )
