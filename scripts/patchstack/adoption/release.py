"""Which release of SGLang a fork is on: what it says itself, held against the releases' own files."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from patchstack.adoption.survey import Survey
from patchstack.errors import ConfigError, PatchstackError, RemoteError, UsageError
from patchstack.git import Repository
from patchstack.model import Base, Sha

VERSION_FILES = ("python/sglang/_version.py", "python/sglang/version.py")


@dataclass(frozen=True)
class Compared:
    """A release beside the fork."""

    base: Base
    differing: int
    """Files of what the release carries that the fork has otherwise, or not, or only it has."""
    files: int
    """Files that the release has."""


@dataclass(frozen=True)
class FoundRelease:
    base: Base
    begin: Sha
    """The commit of the fork at which its own work begins."""
    begin_name: str
    """That commit as a person names it: a tag, or its id."""
    evidence: tuple[str, ...]


def hints(store: Repository, survey: Survey, tip: Sha) -> dict[str, str]:
    """Versions that the fork itself names at ``tip``, each with where it says so; the likeliest first."""
    found: dict[str, str] = {}
    # `--contains` the other way round, in one process for all tags of upstream.
    tags = {sha: version for version, sha in survey.releases.items()}
    reachable = [tags[sha] for sha in store.commits(tip) if sha in tags]
    if reachable:
        newest = max(reachable, key=Version)
        found[newest] = f"tag v{newest} is in its history"
    for path in VERSION_FILES:
        version = written_version(store.read_blob(f"{tip}:{path}"))
        if version is not None:
            where = f"{path} says so"
            found[version] = f"{found[version]}, {where}" if version in found else where
    return found


def written_version(source: bytes | None) -> str | None:
    """The release that a module assigns to ``__version__`` as a plain text; None for a development version."""
    try:
        tree = ast.parse(source or b"")
    except (SyntaxError, ValueError):
        return None
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if "__version__" in names:
                try:
                    version = Version(str(node.value.value))
                except InvalidVersion:
                    return None
                return None if version.is_devrelease or version.local else str(version)
    return None


def find_release(
    store: Repository,
    survey: Survey,
    tip: Sha,
    *,
    asked: str | None,
    at_hand: Sequence[str],
    compare: Callable[[str], Compared],
) -> FoundRelease:
    """The release that the fork is on at ``tip``.

    ``asked`` is a version that a person named; ``at_hand`` are versions that can be compared without the network,
    for a fork that names none; ``compare`` sets one beside the fork. `UsageError` when it cannot be told.
    """
    named = {asked: "it was asked for"} if asked else hints(store, survey, tip)
    versions = list(named) or list(at_hand)
    compared: dict[str, Compared] = {}
    failures: list[PatchstackError] = []
    for version in versions:
        try:
            compared[version] = compare(version)
        except (ConfigError, RemoteError) as error:  # a tag of the fork's own, a release that was withdrawn
            failures.append(error)
    if not compared:
        if failures:
            raise failures[0]
        raise UsageError(
            f"it cannot be told which release {survey.repo} is on: no tag v<release> is in its history, and no "
            f"{' or '.join(VERSION_FILES)} names one; name it: --base sglang==X"
        )
    best = _closest(survey, compared, asked)
    beside = compared[best]
    begin, begin_name = _begin(store, survey, tip, best)
    evidence = [named.get(best, "of the releases in the cache its files are the nearest")]
    evidence += [
        f"{other.differing} of {other.files} files of {other.base.name} differ" for other in _nearest_first(compared)
    ]
    return FoundRelease(beside.base, begin, begin_name, tuple(evidence))


def _nearest_first(compared: Mapping[str, Compared]) -> list[Compared]:
    return sorted(compared.values(), key=lambda one: one.differing)[:3]


def _closest(survey: Survey, compared: Mapping[str, Compared], asked: str | None) -> str:
    best = min(compared, key=lambda version: compared[version].differing)
    nearest = compared[best]
    if asked:
        return best
    told = "; ".join(
        f"{one.differing} of {one.files} files of {one.base.name} differ" for one in _nearest_first(compared)
    )
    ties = [version for version in compared if compared[version].differing == nearest.differing]
    if len(ties) > 1 or nearest.differing * 2 > nearest.files:
        raise UsageError(f"it cannot be told which release {survey.repo} is on ({told}); name it: --base sglang==X")
    return best


def _begin(store: Repository, survey: Survey, tip: Sha, version: str) -> tuple[Sha, str]:
    """Where the fork's own work begins: the release's tag if it is in the history, else where it left the default."""
    tag = survey.releases.get(version)
    if tag is not None and store.is_ancestor(tag, tip):
        return tag, f"v{version}"
    default = survey.tip(survey.default_branch)
    base = store.merge_base(default, tip) if default else None
    if base is None or base == tip:
        # A fork without upstream's history: its first commit is the import of a release.
        base = Sha(store.run("rev-list", "--first-parent", "--max-parents=0", tip, "--").split()[-1])
    return base, base
