"""What git says of many commits at once: a process for all of them, where a night of 1,000 would start thousands.

An answer must have the shape that was asked for, commit by commit. Where it has not (a diff can hold lines that
look like a commit's id), the same is asked again one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from patchstack.git import CANONICAL_DIFF, EMPTY_TREE, RAW_DIFF, Change, Repository, parse_changes
from patchstack.model import Sha

Pair = tuple[Sha, Sha]
"""Two commits: from the first to the second."""

_ID = re.compile(r"[0-9a-f]{40}")
_DIFFS_AT_ONCE = 200
"""Their text is in memory, so not those of a whole night."""


@dataclass(frozen=True)
class Walk:
    """The way from one commit (not included) to another."""

    parents: Mapping[Sha, tuple[Sha, ...]]
    """Of each commit that the second reaches and the first does not."""
    stands_on_it: bool
    """The second descends from the first, or is it."""

    @property
    def commits(self) -> frozenset[Sha]:
        return frozenset(self.parents)


def changes(store: Repository, pairs: Iterable[Pair]) -> dict[Pair, tuple[Change, ...]]:
    """`Repository.changes` of each pair."""
    wanted = tuple(dict.fromkeys(pairs))
    if not wanted:
        return {}
    argv = ("diff-tree", *RAW_DIFF, "--stdin", "--always")
    answer = store.attempt(*argv, stdin=_lines(f"{new} {old}" for old, new in wanted))
    found = _by_commit(answer.text) if answer.returncode == 0 else []
    if [commit for commit, _ in found] != [new for _, new in wanted]:
        return {(old, new): store.changes(old, new) for old, new in wanted}
    return dict(zip(wanted, (parse_changes(fields) for _, fields in found), strict=True))


def _by_commit(raw: str) -> list[tuple[str, list[str]]]:
    """The fields of a raw diff (``:modes ids status``, path, ...) below each commit's id."""
    found: list[tuple[str, list[str]]] = []
    fields = iter(raw.split("\0"))
    for field in fields:
        if field.startswith(":") and found:
            found[-1][1].extend((field, next(fields, "")))
        elif field:
            found.append((field, []))
    return found


def patch_ids(store: Repository, pairs: Iterable[Pair]) -> dict[Pair, str]:
    """`Repository.patch_id` of each pair."""
    wanted = iter(dict.fromkeys(pairs))
    found: dict[Pair, str] = {}
    while some := tuple(islice(wanted, _DIFFS_AT_ONCE)):
        found |= _patch_ids(store, some)
    return found


def _patch_ids(store: Repository, pairs: Sequence[Pair]) -> dict[Pair, str]:
    argv = ("diff-tree", "-r", "-p", *CANONICAL_DIFF, "--stdin")
    diffs = store.attempt(*argv, stdin=_lines(f"{new} {old}" for old, new in pairs))
    # `patch-id` takes a line that begins with an id for the begin of that commit's diff, and says whose each one was.
    said = store.run("patch-id", "--stable", stdin=diffs.stdout).split() if diffs.returncode == 0 else []
    if said[1::2] != [new for _, new in pairs]:
        return {(old, new): store.patch_id(old, new) for old, new in pairs}
    return dict(zip(pairs, said[0::2], strict=True))


def walks(store: Repository, pairs: Iterable[Pair]) -> dict[Pair, Walk]:
    """The `Walk` of each pair; those that begin at one commit are one walk of git's."""
    by_begin: dict[Sha, list[Sha]] = {}
    for begin, end in dict.fromkeys(pairs):
        by_begin.setdefault(begin, []).append(end)
    found: dict[Pair, Walk] = {}
    for begin, ends in by_begin.items():
        out = store.run("rev-list", "--parents", "--stdin", stdin=_lines([*ends, f"^{begin}"]))
        rows = (line.split() for line in out.splitlines())
        graph = {Sha(commit): tuple(map(Sha, parents)) for commit, *parents in rows}
        found |= {(begin, end): _walk(graph, begin, end) for end in ends}
    return found


def _walk(graph: Mapping[Sha, tuple[Sha, ...]], begin: Sha, end: Sha) -> Walk:
    own: dict[Sha, tuple[Sha, ...]] = {}
    pending = [end]
    while pending:
        commit = pending.pop()
        if commit in graph and commit not in own:
            own[commit] = graph[commit]
            pending += graph[commit]
    # What lies between the two and is on a way to the first has it for a parent in the end.
    return Walk(own, end == begin or any(begin in parents for parents in own.values()))


def reached(store: Repository, begin: Sha, ends: Iterable[Sha], wanted: Iterable[Sha]) -> dict[Sha, frozenset[Sha]]:
    """Which of ``wanted`` each of ``ends`` reaches and ``begin`` does not.

    Of a release's commit no pull request of upstream's has anything, so the way to each is all of upstream's history:
    it is walked once, and held once.
    """
    heads, sought = tuple(dict.fromkeys(ends)), frozenset(wanted)
    if not heads or not sought:
        return dict.fromkeys(heads, frozenset())
    argv = ("rev-list", "--parents", "--topo-order", "--reverse", "--stdin")
    out = store.run(*argv, stdin=_lines([*heads, f"^{begin}"]))
    found: dict[str, frozenset[Sha]] = {}
    for commit, *parents in map(str.split, out.splitlines()):
        below = {found[parent] for parent in parents if found.get(parent)}
        one = frozenset().union(*below) if len(below) != 1 else next(iter(below))
        found[commit] = one | {Sha(commit)} if commit in sought else one
    return {head: found.get(head, frozenset()) for head in heads}


def changes_on_the_way(store: Repository, ways: Mapping[Pair, Walk]) -> dict[Pair, tuple[Change, ...]]:
    """What each commit on the way changes against its first parent, one after the other."""
    roots = dict.fromkeys(commit for way in ways.values() for commit, parents in way.parents.items() if not parents)
    made = {root: store.changes(EMPTY_TREE, root) for root in roots}
    steps = [(parents[0], commit) for way in ways.values() for commit, parents in way.parents.items() if parents]
    made |= {commit: found for (_, commit), found in changes(store, steps).items()}
    return {pair: tuple(change for commit in way.parents for change in made[commit]) for pair, way in ways.items()}


@dataclass(frozen=True)
class Commit:
    tree: Sha
    parents: tuple[Sha, ...]
    seconds: str
    """The committer's date since 1970, as git reads it; a head can claim any."""


def commits(store: Repository, shas: Iterable[Sha]) -> dict[Sha, Commit]:
    wanted = tuple(dict.fromkeys(shas))
    if not wanted:
        return {}
    layout = "--format=%H%x00%T%x00%P%x00%ct"
    out = store.run("log", "--no-walk=unsorted", "--no-show-signature", layout, "--stdin", stdin=_lines(wanted))
    rows = (line.split("\0") for line in out.split("\n") if line)
    return {Sha(row[0]): Commit(Sha(row[1]), tuple(map(Sha, row[2].split())), row[3]) for row in rows}


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def lacking(store: Repository, shas: Iterable[Sha]) -> tuple[Sha, ...]:
    """Those of ``shas`` that ``store`` does not hold as commits."""
    wanted = tuple(shas)
    # One that is no id at all, from a file that somebody wrote, must not be taken for two questions.
    ids = tuple(sha for sha in wanted if _ID.fullmatch(sha))
    asked = _lines(f"{sha}^{{commit}}" for sha in ids)
    said = store.run("cat-file", "--batch-check=%(objectname)", stdin=asked).split("\n") if ids else []
    held = {sha for sha, answer in zip(ids, said, strict=True) if sha == answer}
    return tuple(sha for sha in wanted if sha not in held)
