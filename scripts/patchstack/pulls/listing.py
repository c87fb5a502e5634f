"""What the remote holds tonight: its branches and its pull requests' heads, fetched at exactly those commits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from patchstack.errors import RemoteError
from patchstack.git import Repository
from patchstack.model import Sha

_REMOTE_BRANCHES = "refs/heads/"
_REMOTE_PULLS = "refs/pull/"
BRANCHES = "refs/patchstack/pulls/branches/"
"""Where the store keeps the remote's branches as they were listed."""
HEADS = "refs/patchstack/pulls/heads/"
"""Where the store keeps the heads of pull requests, by number."""


@dataclass(frozen=True)
class Missing:
    """A head that the remote lists and does not hand over."""

    sha: Sha
    why: str


@dataclass(frozen=True)
class Listing:
    branches: Mapping[str, Sha]
    """By name, without ``refs/heads/``."""
    heads: Mapping[int, Sha]
    """By the pull request's number; each is in the store."""
    missing: Mapping[int, Missing]


def read_listing(
    store: Repository,
    url: str,
    *,
    listed: Mapping[str, Sha] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Listing:
    """Ask the remote once, then fetch each branch and each head at the commit that it named.

    ``listed`` is what an `ls-remote` of it said already. Raises `RemoteError` when the remote cannot be asked or
    does not hand over its branches. A single head that it does not hand over is `Missing`, and only when the
    remote still answers after that.
    """
    branches, heads = _ask(store, url) if listed is None else _sort_out(listed)
    wanted = {
        **{f"{BRANCHES}{name}": sha for name, sha in branches.items()},
        **{f"{HEADS}{number}": sha for number, sha in heads.items()},
    }
    kept = store.refs(BRANCHES, HEADS)
    # Before the fetch: a branch `a` that is gone would be in the way of the file of a branch `a/b`.
    store.set_refs({name: None for name in kept if name not in wanted})
    progress(f"fetching {len(heads)} pull requests and {len(branches)} branches")
    missing = _fetch(store, url, branches, heads)
    store.set_refs({f"{HEADS}{number}": None for number in missing if f"{HEADS}{number}" in store.refs(HEADS)})
    return Listing(branches, {number: sha for number, sha in heads.items() if number not in missing}, missing)


def _ask(store: Repository, url: str) -> tuple[dict[str, Sha], dict[int, Sha]]:
    return _sort_out(store.ls_remote(url, f"{_REMOTE_BRANCHES}*", f"{_REMOTE_PULLS}*/head"))


def _sort_out(listed: Mapping[str, Sha]) -> tuple[dict[str, Sha], dict[int, Sha]]:
    branches: dict[str, Sha] = {}
    heads: dict[int, Sha] = {}
    for name, sha in sorted(listed.items()):
        if name.startswith(_REMOTE_BRANCHES):
            branches[name.removeprefix(_REMOTE_BRANCHES)] = sha
        elif name.startswith(_REMOTE_PULLS) and name.endswith("/head"):
            number = name.removeprefix(_REMOTE_PULLS).removesuffix("/head")
            if number.isascii() and number.isdigit() and not number.startswith("0"):
                heads[int(number)] = sha
    return branches, dict(sorted(heads.items()))


def _fetch(store: Repository, url: str, branches: Mapping[str, Sha], heads: Mapping[int, Sha]) -> dict[int, Missing]:
    ours = [f"+{sha}:{BRANCHES}{name}" for name, sha in branches.items()]
    theirs = {number: f"+{sha}:{HEADS}{number}" for number, sha in heads.items()}
    missing: dict[int, Missing] = {}
    try:
        if ours or theirs:
            store.fetch(url, [*ours, *theirs.values()])
    except RemoteError:
        # One head that is not there fails the whole fetch: find out which, and keep the others.
        if ours:
            store.fetch(url, ours)
        for number, refspec in theirs.items():
            try:
                store.fetch(url, [refspec])
            except RemoteError as error:
                missing[number] = Missing(heads[number], str(error))
        _, still = _ask(store, url)
        for number, lost in missing.items():
            if still.get(number) != lost.sha:
                now = f"is at {still[number]} now" if number in still else "is gone"
                missing[number] = Missing(lost.sha, f"it {now}: it moved while it was read")
    for number, sha in heads.items():
        if number not in missing and store.resolve(f"{sha}^{{commit}}") != sha:
            missing[number] = Missing(sha, f"{sha} is not a commit")
    return missing
