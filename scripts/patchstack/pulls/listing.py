"""What a remote holds tonight: branches and pull requests' heads, fetched at exactly the commits that are meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from patchstack.errors import RemoteError
from patchstack.git import Repository, without_secret
from patchstack.model import Sha
from patchstack.soundness import UnsoundError

_REMOTE_BRANCHES = "refs/heads/"
_REMOTE_PULLS = "refs/pull/"
BRANCHES = "refs/patchstack/pulls/branches/"
"""Where the store keeps the remote's branches as they were listed."""
HEADS = "refs/patchstack/pulls/heads/"
"""Where the store keeps the heads of pull requests: by number, those of other repositories by their name and number."""
TARGETS = "refs/patchstack/pulls/targets/"
"""Where the store keeps the branches of other repositories that pull requests there are meant for."""


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
    branches, heads = _ask(store, url) if listed is None else (branches_of(listed), _heads_of(listed))
    needed = {f"{BRANCHES}{name}": sha for name, sha in branches.items()}
    wanted = {f"{HEADS}{number}": sha for number, sha in heads.items()}
    keep_only(store, [*needed, *wanted])
    progress(f"fetching {len(heads)} pull requests and {len(branches)} branches")
    lost = fetch_exactly(store, url, needed, wanted)
    missing = {number: Missing(sha, lost[ref]) for number, sha in heads.items() if (ref := f"{HEADS}{number}") in lost}
    if missing:
        _, still = _ask(store, url)
        for number, one in missing.items():
            if still.get(number) != one.sha:
                now = f"is at {still[number]} now" if number in still else "is gone"
                missing[number] = Missing(one.sha, f"it {now}: it moved while it was read")
    return Listing(branches, {number: sha for number, sha in heads.items() if number not in missing}, missing)


def read_branches(store: Repository, url: str, names: Iterable[str] = ("*",)) -> dict[str, Sha]:
    """The remote's branches by name, asked once; ``names``: only these, as far as they are there."""
    return branches_of(store.ls_remote(url, *(f"{_REMOTE_BRANCHES}{name}" for name in names)))


def branches_of(listed: Mapping[str, Sha]) -> dict[str, Sha]:
    """Those among the refs that an `ls-remote` said, by name."""
    # Not all are: git matches from the end of a name, and `refs/x/refs/heads/main` answers to `refs/heads/main`.
    found = ((name, sha) for name, sha in sorted(listed.items()) if name.startswith(_REMOTE_BRANCHES))
    return {name.removeprefix(_REMOTE_BRANCHES): sha for name, sha in found}


def keep_only(store: Repository, wanted: Iterable[str]) -> None:
    """Drop what is kept of earlier nights, except the refs ``wanted``.

    It comes before a fetch: a branch `a` that is gone would be in the way of the file of a branch `a/b`.
    """
    staying = set(wanted)
    store.set_refs({name: None for name in store.refs(BRANCHES, HEADS, TARGETS) if name not in staying})


def fetch_exactly(store: Repository, url: str, needed: Mapping[str, Sha], wanted: Mapping[str, Sha]) -> dict[str, str]:
    """Fetch commits, each into its ref; which of those that are only ``wanted`` are not handed over, and why.

    Raises `RemoteError` when the remote fails, or keeps back one that is ``needed``.
    """
    lost: dict[str, str] = {}
    if needed or wanted:
        try:
            store.fetch(url, _refspecs({**needed, **wanted}), strict=True)
        except RemoteError:
            # One commit that is not there, or that git refuses, fails the whole fetch: find out which, if the remote
            # is there at all. What is published already is not a pull request's fault.
            store.ls_remote(url, f"{_REMOTE_BRANCHES}*")
            if needed:
                store.fetch(url, _refspecs(needed))
            lost = _fetch_halves(store, url, list(wanted.items()))
            if lost:
                store.ls_remote(url, f"{_REMOTE_BRANCHES}*")
    there = _kept(store, (BRANCHES, HEADS, TARGETS))
    short = next((ref for ref, sha in needed.items() if there.get(ref, ("", ""))[0] != sha), None)
    if short is not None:
        raise RemoteError(
            f"{without_secret(url)} does not hand over {short.removeprefix(BRANCHES)} with its history: is it a "
            "shallow clone? fetch the rest there (`git fetch --unshallow`)"
        )
    for ref, sha in wanted.items():
        found, kind = there.get(ref, ("", ""))
        if ref not in lost and (found, kind) != (sha, "commit"):
            lost[ref] = f"{sha} is not a commit" if found == sha else f"{sha} has no history there"
    store.set_refs({ref: None for ref in there if ref.startswith(HEADS) and ref in lost})
    return lost


def _kept(store: Repository, prefixes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Id and kind of what each ref below ``prefixes`` names: a fetch passes over some without an error."""
    out = store.run("for-each-ref", "--format=%(objectname) %(objecttype) %(refname)", *prefixes)
    rows = (line.split(" ", 2) for line in out.split("\n") if line)
    return {name: (sha, kind) for sha, kind, name in rows}


def _fetch_halves(store: Repository, url: str, wanted: Sequence[tuple[str, Sha]]) -> dict[str, str]:
    if not wanted:
        return {}
    try:
        store.fetch(url, _refspecs(dict(wanted)), strict=True)
    except RemoteError as error:
        if len(wanted) == 1:
            refused = isinstance(error, UnsoundError)
            return {wanted[0][0]: f"git refuses it, make its commits anew: {error}" if refused else str(error)}
        half = len(wanted) // 2
        return {**_fetch_halves(store, url, wanted[:half]), **_fetch_halves(store, url, wanted[half:])}
    return {}


def _refspecs(commits: Mapping[str, Sha]) -> list[str]:
    return [f"+{sha}:{ref}" for ref, sha in commits.items()]


def _ask(store: Repository, url: str) -> tuple[dict[str, Sha], dict[int, Sha]]:
    listed = store.ls_remote(url, f"{_REMOTE_BRANCHES}*", f"{_REMOTE_PULLS}*/head")
    return branches_of(listed), _heads_of(listed)


def _heads_of(listed: Mapping[str, Sha]) -> dict[int, Sha]:
    heads: dict[int, Sha] = {}
    for name, sha in listed.items():
        if name.startswith(_REMOTE_PULLS) and name.endswith("/head"):
            number = name.removeprefix(_REMOTE_PULLS).removesuffix("/head")
            if number.isascii() and number.isdigit() and not number.startswith("0"):
                heads[int(number)] = sha
    return dict(sorted(heads.items()))
