"""What an existing fork holds: its branches, its release tags and its open pull requests, at exact commits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from patchstack.errors import UsageError
from patchstack.git import Repository, readable
from patchstack.github import OpenPull
from patchstack.model import Sha

_KEPT = "refs/patchstack/adopt/"


@dataclass(frozen=True)
class SeenPull:
    """An open pull request, or without GitHub any `refs/pull/N/head`."""

    number: int
    title: str
    head: Sha
    into: str
    """The branch that it is meant for; empty where only GitHub knows."""
    branch: str
    """The branch of the fork that it was opened from; empty for another repository's, or where only GitHub knows."""

    @property
    def name(self) -> str:
        return f"#{self.number}"


@dataclass(frozen=True)
class Survey:
    """One fork as it was read; every commit that is named is in the store, with its history."""

    repo: str
    """``owner/name``."""
    url: str
    """Where git reads it."""
    default_branch: str
    branches: Mapping[str, Sha]
    releases: Mapping[str, Sha]
    """The commit of each tag ``v<release>``, by the release's version."""
    pulls: tuple[SeenPull, ...]
    """By number."""

    def tip(self, branch: str) -> Sha | None:
        return self.branches.get(branch)


def read_survey(
    store: Repository,
    url: str,
    *,
    repo: str,
    default_branch: str | None,
    pulls: tuple[OpenPull, ...] | None,
    progress: Callable[[str], None] = lambda _: None,
) -> Survey:
    """Read the fork by git; ``pulls`` are what GitHub lists, None where the refs of pull requests stand for it.

    Raises `RemoteError` when it cannot be read whole and `UsageError` when it has no branch.
    """
    listed = store.ls_remote(url, "refs/heads/*", "refs/tags/v*", "refs/pull/*/head")
    branches = _below(listed, "refs/heads/")
    if not branches:
        raise UsageError(f"{repo} has no branch: there is nothing to adopt")
    tags = {version: sha for name, sha in _below(listed, "refs/tags/v").items() if (version := _version(name))}
    wanted = {f"{_KEPT}heads/{name}": sha for name, sha in branches.items()}
    wanted |= {f"{_KEPT}tags/{version}": sha for version, sha in tags.items()}
    if pulls is None:
        heads = {int(number): sha for number, sha in _pull_heads(listed).items()}
    else:
        heads = {pull.number: pull.head for pull in pulls}
    wanted |= {f"{_KEPT}pulls/{number}": sha for number, sha in heads.items()}
    store.set_refs({name: None for name in store.refs(_KEPT) if name not in wanted})
    progress(f"fetching {len(branches)} branches, {len(tags)} release tags and {len(heads)} pull requests of {repo}")
    store.fetch(url, [f"+{sha}:{name}" for name, sha in wanted.items()])
    if pulls is None:
        seen = tuple(SeenPull(number, _title(store, sha), sha, "", "") for number, sha in sorted(heads.items()))
    else:
        seen = tuple(
            SeenPull(pull.number, pull.title, pull.head, pull.base_ref, pull.head_ref if pull.head_repo == repo else "")
            for pull in sorted(pulls, key=lambda pull: pull.number)
        )
    peeled = {version: store.resolve(f"{_KEPT}tags/{version}^{{commit}}") for version in tags}
    return Survey(
        repo=repo,
        url=url,
        default_branch=default_branch if default_branch in branches else _likely_default(branches),
        branches=branches,
        releases={version: sha for version, sha in peeled.items() if sha},
        pulls=seen,
    )


def _below(listed: Mapping[str, Sha], prefix: str) -> dict[str, Sha]:
    return {name.removeprefix(prefix): sha for name, sha in sorted(listed.items()) if name.startswith(prefix)}


def _pull_heads(listed: Mapping[str, Sha]) -> dict[str, Sha]:
    found = {
        name.removesuffix("/head"): sha for name, sha in _below(listed, "refs/pull/").items() if name.endswith("/head")
    }
    return {number: sha for number, sha in found.items() if number.isascii() and number.isdigit()}


def _version(name: str) -> str | None:
    try:
        return str(Version(name))
    except InvalidVersion:
        return None


def _title(store: Repository, commit: Sha) -> str:
    return readable(store.show(commit, "%s"))


def _likely_default(branches: Mapping[str, Sha]) -> str:
    return next((name for name in ("main", "master") if name in branches), next(iter(branches)))
