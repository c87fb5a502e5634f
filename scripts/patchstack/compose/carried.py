"""What of a pull request a base can carry.

A release's wheel holds the Python package alone. A pull request's tests, docs, gateway or kernels have no
place on it and are left off. A pull request that changes how the package is built cannot be judged by its
Python files: it belongs on a lane whose base is a git ref, and so holds the build files too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from patchstack.git import Change, Repository
from patchstack.model import Sha

PACKAGES = "python"
_BUILD_MANIFEST = f"{PACKAGES}/pyproject.toml"
BUILD_FILES = (
    "pyproject*.toml",
    "setup.py",
    "setup.cfg",
    "MANIFEST.in",
    "Cargo.toml",
    "Cargo.lock",
    "build.rs",
    "CMakeLists.txt",
    "*.cmake",
)
"""Names of files that say how a package is built, wherever they are."""


@dataclass(frozen=True)
class Carried:
    """A pull request's changed paths by what becomes of them."""

    on_base: tuple[str, ...]
    left_off: tuple[str, ...]
    build_files: tuple[str, ...]
    """Those of ``left_off`` that cannot be left off."""


def roots(store: Repository, tree: str) -> tuple[str, ...]:
    """The paths below which a base carries everything.

    For a release these are the packages (``python/sglang``); for a repository with its build files, or one of
    another shape, all that its root holds.
    """
    top = _names(store, tree)
    packages = _names(store, tree, f"{PACKAGES}/")
    if packages and _BUILD_MANIFEST not in packages:
        return packages
    return top


def _names(store: Repository, tree: str, *paths: str) -> tuple[str, ...]:
    out = store.run("ls-tree", "-z", "--name-only", "--full-tree", tree, "--", *paths)
    return tuple(filter(None, out.split("\0")))


def sort_out(changes: Sequence[Change], carried_below: Sequence[str]) -> Carried:
    """Which of ``changes`` the base carries (``carried_below`` are its roots)."""
    on_base: list[str] = []
    left_off: list[str] = []
    for change in changes:
        carries = any(change.path == root or change.path.startswith(f"{root}/") for root in carried_below)
        (on_base if carries else left_off).append(change.path)
    build = [path for path in left_off if _is_build_file(path)]
    return Carried(tuple(on_base), tuple(left_off), tuple(build))


def _is_build_file(path: str) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatchcase(name, pattern) for pattern in BUILD_FILES)


def restrict(store: Repository, revision: str, carried_below: Sequence[str]) -> Sha:
    """The tree of ``revision`` with nothing in it but ``carried_below``.

    Without this, a file that the base lacks would look like one that the base renamed to whatever is similar.
    """
    out = store.run("ls-tree", "-z", "--full-tree", f"{revision}^{{tree}}", "--", *carried_below)
    top: list[str] = []
    below: dict[str, list[str]] = {}
    for line in filter(None, out.split("\0")):
        entry, path = line.split("\t", 1)
        folder, _, name = path.rpartition("/")
        (below.setdefault(folder, []) if folder else top).append(f"{entry}\t{name}")
    top += [f"040000 tree {_make_tree(store, lines)}\t{folder}" for folder, lines in below.items()]
    return _make_tree(store, top)


def _make_tree(store: Repository, lines: Sequence[str]) -> Sha:
    payload = "".join(f"{line}\0" for line in lines).encode(errors="surrogateescape")
    return Sha(store.run("mktree", "-z", stdin=payload))
