"""The published branches, and which of them a head was cut from.

Where nobody says what a pull request's target is, it is the branch with the nearest merge base. Two kinds
of branches are no target: the branch that the pull request itself was pushed from, and `deploy`. A pull
request that a night promoted is reachable from `deploy` as well, through the octopus: what counts there are
only the commits that promotions made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from patchstack.git import EMAIL, Repository
from patchstack.model import Sha
from patchstack.pulls.listing import BRANCHES


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
    store: Repository,
    branches: Mapping[str, Sha],
    *,
    heads: Collection[Sha],
    pushed_from: Collection[str] = (),
    base: Sha,
    lane: str,
    main: str,
    deploy_branches: Iterable[str],
) -> Published:
    """Sort the remote's branches; tonight's base counts as ``base/LANE`` also before the remote has it.

    ``heads`` are those of the open pull requests, ``pushed_from`` names their branches where that is known.
    """
    own_base, own_stack = f"base/{lane}", f"stack/{lane}"
    deploys = [name for name in deploy_branches if name in branches]
    lanes = sorted(
        (name for name in branches if name.startswith(("base/", "stack/"))),
        key=lambda name: ((own_base, own_stack).index(name) if name in (own_base, own_stack) else 2, name),
    )
    lines = [(own_base, base), *((name, branches[name]) for name in lanes)]
    known = [sha for _, sha in lines]
    if main in branches and main not in deploys:
        lines.append((main, branches[main]))
    named = {*(name for name, _ in lines), *deploys, *pushed_from}
    others = [(name, sha) for name, sha in sorted(branches.items()) if name not in named]
    return Published(
        base=base,
        lines=tuple(lines),
        others=tuple((name, sha) for name, sha in others if sha not in heads),
        deployed=_deployed(store, {name: branches[name] for name in deploys}, known),
    )


def _deployed(store: Repository, tips: Mapping[str, Sha], known: Iterable[Sha]) -> dict[Sha, tuple[int, str]]:
    """Each first-parent commit down to the oldest night, and each night's octopus (same tree, second parent).

    What is below the oldest night was there before patchstack: in a fork that was adopted, all of upstream's history.
    """
    without = [f"^{sha}" for sha in known]
    found: dict[Sha, tuple[int, str]] = {}
    for branch, tip in tips.items():
        reachable = set(store.commits(tip, *without))
        line = _rows(store, "--first-parent", tip, *without)
        # Where a night has no more than the stack, its octopus is that of stack/LANE: published, and still a night's.
        seconds = [row.parents[1] for row in line if row.ours and len(row.parents) > 1]
        tree_of = {row.commit: row.tree for row in _rows(store, "--no-walk", *seconds)} if seconds else {}
        nights = [row.ours and len(row.parents) > 1 and tree_of.get(row.parents[1]) == row.tree for row in line]
        oldest = max((rank for rank, night in enumerate(nights) if night), default=-1)
        for rank, row in enumerate(line[: oldest + 1]):
            found[row.commit] = rank, branch
            if nights[rank] and row.parents[1] in reachable:
                found.setdefault(row.parents[1], (len(line) + rank, branch))
    return found


@dataclass(frozen=True)
class _Row:
    commit: Sha
    tree: Sha
    parents: tuple[Sha, ...]
    ours: bool
    """Committed by patchstack, as promotions are."""


def _rows(store: Repository, *revisions: str) -> list[_Row]:
    """Each commit of a `git log`, newest first."""
    out = store.run("log", "--no-show-signature", "--format=%H%x00%T%x00%P%x00%ce", *revisions, "--")
    fields = (line.split("\0") for line in out.split("\n") if line)
    return [_Row(Sha(f[0]), Sha(f[1]), tuple(map(Sha, f[2].split())), f[3] == EMAIL) for f in fields]


def newest_deployed(published: Published, commits: Iterable[Sha]) -> tuple[str, Sha] | None:
    """The deploy branch, and the newest commit that a promotion made, among ``commits``."""
    ranked = [(*published.deployed[sha], sha) for sha in commits if sha in published.deployed]
    return min(ranked)[1:] if ranked else None


def find_cut(store: Repository, published: Published, head: Sha, not_in_base: int) -> Cut | None:
    """Where ``head`` was cut from; None when it has no history in common with the base or any branch.

    ``not_in_base`` is the number of its commits that the base lacks. Branches that contain ``head`` are built
    on it: only a line can be the target of a head that it contains already.
    """
    tips = _tips(store, published, head)
    own, boundary = _own(store, tips, head)
    cuts = []
    for sha in boundary:
        rank, target = next((rank, name) for rank, (name, tip) in enumerate(tips) if store.is_ancestor(sha, tip))
        distance = int(store.run("rev-list", "--count", head, f"^{sha}", "--")) if len(boundary) > 1 else 0
        cuts.append((distance, rank, sha, target))
    if not cuts:
        return None
    _, _, merge_base, target = min(cuts)
    return Cut(target, merge_base, shared=own != not_in_base)


def find_cut_from(
    store: Repository, published: Published, target: tuple[str, Sha], head: Sha, not_in_base: int
) -> Cut | None:
    """Where ``head`` left ``target``, a branch and its tip; None when they have no history in common.

    The branch may be one of another repository, which shares its commits as those of the remote do.
    """
    _, boundary = _own(store, [target], head)
    if not boundary:
        return None
    own, _ = _own(store, [*_tips(store, published, head), target], head)
    nearest = min(boundary, key=lambda sha: int(store.run("rev-list", "--count", head, f"^{sha}", "--")))
    return Cut(target[0], nearest, shared=own != not_in_base)


def _tips(store: Repository, published: Published, head: Sha) -> list[tuple[str, Sha]]:
    """The branches that ``head`` may have been cut from: not those that are built on it."""
    built_on_it: set[str] = set()
    if published.others:
        listed = store.run("for-each-ref", f"--contains={head}", "--format=%(refname)", BRANCHES)
        built_on_it = {name.removeprefix(BRANCHES) for name in listed.split("\n")}
    return [*published.lines, *((name, sha) for name, sha in published.others if name not in built_on_it)]


def _own(store: Repository, tips: Sequence[tuple[str, Sha]], head: Sha) -> tuple[int, list[Sha]]:
    """How many commits of ``head`` none of ``tips`` has, and the merge bases with them.

    The nearest merge base is among these: any other is an ancestor of one that is, and so further away.
    """
    walk = "\n".join([head, *(f"^{sha}" for _, sha in tips)]) + "\n"
    listed = store.run("rev-list", "--boundary", "--stdin", stdin=walk.encode()).splitlines()
    own = sum(not line.startswith("-") for line in listed)
    return own, [Sha(line[1:]) for line in listed if line.startswith("-")] or ([] if own else [head])
