"""The published branches, and which of them a head was cut from.

A pull request's target is the branch with the nearest merge base. Two kinds of branches are no target:
the branch that the pull request itself was pushed from, and `deploy`. A pull request that a night
promoted is reachable from `deploy` as well, through the octopus: what counts there are only the commits
that promotions made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from patchstack.git import Repository
from patchstack.model import Sha
from patchstack.pulls.listing import BRANCHES, Listing


@dataclass(frozen=True)
class Published:
    """The remote's branches by what they mean to one lane."""

    base: Sha
    """Tonight's base commit."""
    lines: tuple[tuple[str, Sha], ...]
    """``base/LANE``, ``stack/LANE`` and ``main``, in the order in which they are preferred."""
    others: tuple[tuple[str, Sha], ...]
    """Every other branch, by name, less those that a pull request was pushed from."""
    deployed: Mapping[Sha, tuple[int, str]]
    """Each commit that a promotion made: its rank, and its deploy branch.

    The higher the rank, the less it contains: the nights from the newest on, and behind them the octopuses.
    """


@dataclass(frozen=True)
class Cut:
    """Where a head was cut from."""

    target: str
    merge_base: Sha
    shared: bool
    """Some of the head's commits are on a published branch but not in the base."""


def publish(
    store: Repository, listing: Listing, *, base: Sha, lane: str, main: str, deploy_branches: Iterable[str]
) -> Published:
    """Sort the remote's branches; tonight's base counts as ``base/LANE`` also before the remote has it."""
    own_base, own_stack = f"base/{lane}", f"stack/{lane}"
    deploys = [name for name in deploy_branches if name in listing.branches]
    lanes = sorted(
        (name for name in listing.branches if name.startswith(("base/", "stack/"))),
        key=lambda name: ((own_base, own_stack).index(name) if name in (own_base, own_stack) else 2, name),
    )
    lines = [(own_base, base), *((name, listing.branches[name]) for name in lanes)]
    known = [sha for _, sha in lines]
    if main in listing.branches and main not in deploys:
        lines.append((main, listing.branches[main]))
    pushed_from = set(listing.heads.values())
    named = {name for name, _ in lines} | set(deploys)
    others = [(name, sha) for name, sha in sorted(listing.branches.items()) if name not in named]
    return Published(
        base=base,
        lines=tuple(lines),
        others=tuple((name, sha) for name, sha in others if sha not in pushed_from),
        deployed=_deployed(store, {name: listing.branches[name] for name in deploys}, known),
    )


def _deployed(store: Repository, tips: Mapping[str, Sha], known: Iterable[Sha]) -> dict[Sha, tuple[int, str]]:
    """The commits that promotions made: each on the first-parent line, and its octopus (same tree, second parent)."""
    without = [f"^{sha}" for sha in known]
    found: dict[Sha, tuple[int, str]] = {}
    for branch, tip in tips.items():
        reachable = set(store.commits(tip, *without))
        nights = _trees(store, "--first-parent", tip, *without)
        seconds = [parents[1] for _, _, parents in nights if len(parents) > 1 and parents[1] in reachable]
        tree_of = {commit: tree for commit, tree, _ in _trees(store, "--no-walk", *seconds)} if seconds else {}
        for rank, (commit, tree, parents) in enumerate(nights):
            found[commit] = rank, branch
            if len(parents) > 1 and tree_of.get(parents[1]) == tree:
                found.setdefault(parents[1], (len(nights) + rank, branch))
    return found


def _trees(store: Repository, *revisions: str) -> list[tuple[Sha, Sha, list[Sha]]]:
    """Each commit of a `git log`, newest first, with its tree and parents."""
    out = store.run("log", "--no-show-signature", "--format=%H %T %P", *revisions, "--")
    rows = [[Sha(part) for part in line.split()] for line in out.splitlines()]
    return [(row[0], row[1], row[2:]) for row in rows]


def newest_deployed(published: Published, commits: Iterable[Sha]) -> tuple[str, Sha] | None:
    """The deploy branch, and the newest commit that a promotion made, among ``commits``."""
    ranked = [(*published.deployed[sha], sha) for sha in commits if sha in published.deployed]
    return min(ranked)[1:] if ranked else None


def find_cut(store: Repository, published: Published, head: Sha, not_in_base: int) -> Cut | None:
    """Where ``head`` was cut from; None when it has no history in common with the base or any branch.

    ``not_in_base`` is the number of its commits that the base lacks. Branches that contain ``head`` are built
    on it: only a line can be the target of a head that it contains already.
    """
    if published.others:
        prefix = f"--contains={head}"
        built_on_it = {
            name.removeprefix(BRANCHES)
            for name in store.run("for-each-ref", prefix, "--format=%(refname)", BRANCHES).split("\n")
        }
    else:
        built_on_it = set()
    tips = [*published.lines, *((name, sha) for name, sha in published.others if name not in built_on_it)]
    walk = "\n".join([head, *(f"^{sha}" for _, sha in tips)]) + "\n"
    listed = store.run("rev-list", "--boundary", "--stdin", stdin=walk.encode()).splitlines()
    own = sum(not line.startswith("-") for line in listed)
    # The nearest merge base is on the boundary: any other is an ancestor of one that is, and so further away.
    boundary = [Sha(line[1:]) for line in listed if line.startswith("-")] or ([] if own else [head])
    cuts = []
    for sha in boundary:
        rank, target = next((rank, name) for rank, (name, tip) in enumerate(tips) if store.is_ancestor(sha, tip))
        distance = int(store.run("rev-list", "--count", head, f"^{sha}", "--")) if len(boundary) > 1 else 0
        cuts.append((distance, rank, sha, target))
    if not cuts:
        return None
    _, _, merge_base, target = min(cuts)
    return Cut(target, merge_base, shared=own != not_in_base)
