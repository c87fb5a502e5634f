"""What lies in an image against what was meant to. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from patchstack.contents import Package
from patchstack.git import Entry, readable
from patchstack.image.inside import Inside, Lying

PYTHON = "python/"
"""What lies below it in a tree lies in the image's folder of packages."""


def release_packages(tree: Sequence[Entry]) -> tuple[str, ...]:
    """The folders below ``python/`` of a tree, such as ``sglang``: all that is in them in an image is compared."""
    inside = [entry.path.removeprefix(PYTHON) for entry in tree if entry.path.startswith(PYTHON)]
    return tuple(sorted({path.split("/")[0] for path in inside if "/" in path}))


def tree_differences(
    tree: Sequence[Entry], natives: Mapping[str, str], found: Inside, *, foreign: bool = False
) -> list[str]:
    """A sentence for each file of the release's packages that differs from ``tree``, is missing, or is too much.

    ``natives`` has path and SHA-256 of the release's compiled parts, which are in no tree. ``foreign``: the image
    stands on somebody else's, where there may be other compiled files beside the sources.
    """
    packages = release_packages(tree)
    wanted = {
        path: entry
        for entry in tree
        if entry.path.startswith(PYTHON) and (path := entry.path.removeprefix(PYTHON)).split("/")[0] in packages
    }
    parts = {path: digest for path, digest in natives.items() if path.split("/")[0] in packages and path not in wanted}
    said = [f"{readable(path)} is missing" for path in sorted(wanted.keys() - found.files.keys())]
    said += [f"{readable(path)}, a compiled part, is missing" for path in sorted(parts.keys() - found.files.keys())]
    for path, lying in sorted(found.files.items()):
        if path in wanted:
            said += _changed(path, wanted[path], lying)
        elif path in parts:
            if lying.sha256 != parts[path]:
                said.append(f"{readable(path)} is not the release's compiled part")
        elif not (foreign and path.endswith((".pyc", ".so"))):
            said.append(f"{readable(path)} is in no tree")
    return said


def _changed(path: str, entry: Entry, lying: Lying) -> list[str]:
    if lying.problem:
        return [f"{readable(path)} is {lying.problem}"]
    if (lying.mode, lying.blob) == (entry.mode, entry.sha):
        return []
    if lying.blob == entry.sha:
        return [f"{readable(path)} has mode {lying.mode} and not {entry.mode}"]
    return [f"{readable(path)} has other bytes"]


def package_differences(meant: Iterable[Package], found: Iterable[Package]) -> list[str]:
    """A sentence for each package that is missing, too much, or there in another version."""
    wanted, there = Counter(meant), Counter(found)
    versions: dict[tuple[str, str], list[str]] = {}
    for package in (there - wanted).elements():
        versions.setdefault((package.kind, package.name), []).append(package.version)
    said = []
    for package in sorted((wanted - there).elements(), key=lambda one: (one.kind, one.name, one.version)):
        others = versions.pop((package.kind, package.name), [])
        what = f"{package.kind} package {package.name}"
        said.append(
            f"{what} is {', '.join(others)} and not {package.version}"
            if others
            else f"{what} {package.version} is missing"
        )
    return said + [
        f"{kind} package {name} {version} is there and was not said"
        for (kind, name), these in sorted(versions.items())
        for version in these
    ]
