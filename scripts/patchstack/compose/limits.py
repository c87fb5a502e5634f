"""How large a pull request may be, found out before anything reads it whole.

Some processes for a night, however many pull requests it has: one for the commits of those that were cut from one
place, and two for each level of folders that differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from patchstack.compose.extent import Extents, Pair, Side, sizes, trees_of
from patchstack.compose.protected import Refusal
from patchstack.git import Repository, readable
from patchstack.model import Pull, Reason, Sha

MOST_BYTES = 100 << 20
"""All that it changes together; a release's sources have some 60 MB. GitHub takes no larger file:
https://docs.github.com/repositories/working-with-files/managing-large-files/about-large-files-on-github"""
MOST_PATHS = 10_000
"""Files that are not as they were; one that is renamed counts twice. GitHub lists no more than 3,000 of a pull
request, so nobody has read more there: https://docs.github.com/rest/pulls/pulls#list-pull-requests-files"""
MOST_COMMITS = 10_000
"""Of its own. GitHub lists no more than 250 of a pull request."""
MOST_PATHS_ON_THE_WAY = 200_000
"""Over its commits one by one; one that merges its target has all that came in there."""
DEEPEST = 64
"""Folders in folders; a release has 13."""
MOST_COMMIT_BYTES = 1 << 20
"""What a commit says of itself, without a file."""
_COMMITS_AT_ONCE = 100_000

Step = tuple[Sha | None, Sha]
"""A commit with its first parent, if it has one."""


def too_large(store: Repository, pulls: Sequence[Pull]) -> dict[str, Refusal]:
    """Those of ``pulls`` that are larger than a pull request may be, by name, each with what is too large."""
    ways = _ways(store, pulls)
    found = {name: f"it has more than {MOST_COMMITS} commits" for name, steps in ways.items() if steps is None}
    steps = {name: steps for name, steps in ways.items() if steps is not None}
    found |= _large_commits(store, steps)
    measured = [pull for pull in pulls if pull.name not in found]
    ends = {sha for pull in measured for step in steps[pull.name] for sha in step if sha is not None}
    trees = trees_of(store, ends | {sha for pull in measured for sha in (pull.merge_base, pull.head)})
    wholes = {pull.name: _whole(pull, trees) for pull in measured}
    on_the_way = {pull.name: _way(steps[pull.name], trees, wholes[pull.name]) for pull in measured}
    extents = Extents(store, [*wholes.values(), *on_the_way.values()], deepest=DEEPEST)
    for name, whole in wholes.items():
        why = _why(extents, whole, "") or _why(extents, on_the_way[name], " in its commits one by one")
        if not why and (together := extents.total_bytes(whole.roots[0])) > MOST_BYTES:
            why = f"its files have {_mb(together)}, and {_mb(MOST_BYTES)} are the most"
        if why:
            found[name] = why
    return {name: Refusal(Reason.TOO_LARGE, f"{why}: leave that out of it", ()) for name, why in found.items()}


def _whole(pull: Pull, trees: Mapping[Sha, Sha]) -> Side:
    return Side(MOST_PATHS, [(trees[pull.merge_base], trees[pull.head])])


def _way(steps: Sequence[Step], trees: Mapping[Sha, Sha], whole: Side) -> Side:
    pairs: list[Pair] = [(trees[parent] if parent else None, trees[commit]) for parent, commit in steps]
    # The one commit of most pull requests is all that they change.
    return Side(MOST_PATHS_ON_THE_WAY, [] if pairs == whole.roots else pairs)


def _why(extents: Extents, side: Side, where: str) -> str:
    if side.why_not:
        return f"{side.why_not}{where}"
    paths = sum(map(extents.count, side.roots))
    if paths > side.most_paths:
        return f"it changes {paths} paths{where}, and {side.most_paths} are the most"
    large = extents.larger_than(side, MOST_BYTES)
    return f"{readable(large[0])!r} has {_mb(large[1])}{where}, and {_mb(MOST_BYTES)} are the most" if large else ""


def _large_commits(store: Repository, ways: Mapping[str, Sequence[Step]]) -> dict[str, str]:
    size_of = sizes(store, {commit for steps in ways.values() for _, commit in steps})
    return {
        name: f"its commit {commit[:12]} itself has {_mb(size_of[commit])}, without a file"
        for name, steps in ways.items()
        for _, commit in steps
        if size_of[commit] > MOST_COMMIT_BYTES
    }


def _mb(size_bytes: int) -> str:
    return f"{-(-size_bytes >> 20)} MB"


# --- its commits --------------------------------------------------------------------------------------


def _ways(store: Repository, pulls: Sequence[Pull]) -> dict[str, list[Step] | None]:
    """Each commit of each pull request's own, with its first parent; None for one that has too many."""
    by_begin: dict[Sha, list[Pull]] = {}
    for pull in pulls:
        by_begin.setdefault(pull.merge_base, []).append(pull)
    ways: dict[str, list[Step] | None] = {}
    for begin, some in by_begin.items():
        together = _parents(store, begin, [pull.head for pull in some], _COMMITS_AT_ONCE)
        for pull in some:
            parents = together if together is not None else _parents(store, begin, [pull.head], MOST_COMMITS)
            own = None if parents is None else _reached(parents, pull.head)
            ways[pull.name] = None if own is None or len(own) > MOST_COMMITS else own
    return ways


def _parents(store: Repository, begin: Sha, ends: Iterable[Sha], most: int) -> dict[Sha, list[Sha]] | None:
    """The parents of each commit that ``ends`` reach and ``begin`` does not; None when these are more than ``most``."""
    asked = "".join(f"{line}\n" for line in [*ends, f"^{begin}"]).encode()
    rows = store.run("rev-list", "--parents", f"--max-count={most + 1}", "--stdin", stdin=asked).splitlines()
    if len(rows) > most:
        return None
    return {Sha(commit): [Sha(parent) for parent in parents] for commit, *parents in map(str.split, rows)}


def _reached(parents: Mapping[Sha, Sequence[Sha]], head: Sha) -> list[Step]:
    own: dict[Sha, Step] = {}
    ahead = [head]
    while ahead:
        commit = ahead.pop()
        if commit in parents and commit not in own:
            own[commit] = (parents[commit][0] if parents[commit] else None, commit)
            ahead += parents[commit]
    return list(own.values())
