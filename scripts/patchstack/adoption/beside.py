"""Tonight's composition beside what the fork's deploy branch holds: what is in both, and what would be lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from patchstack.adoption.survey import Survey
from patchstack.git import CANONICAL_DIFF, Repository, readable
from patchstack.model import Composition, Kind, Outcome, Sha, Topic


@dataclass(frozen=True)
class PullBeside:
    """An open pull request, and where its commits are."""

    name: str
    title: str
    own: int
    """Commits of its own."""
    deployed: int
    """How many of them deploy has, as they are or as the same diff."""
    tonight: str
    """What tonight does with it."""


@dataclass(frozen=True)
class LostCommit:
    """A commit of the deploy branch that tonight's composition has in no form."""

    commit: Sha
    title: str
    author: str
    held_by: tuple[str, ...]
    """Open pull requests that have it, and that tonight leaves out."""


@dataclass(frozen=True)
class ChangedPath:
    path: str
    how: str


@dataclass(frozen=True)
class Beside:
    deploy: Sha
    tonight: Sha
    pulls: tuple[PullBeside, ...]
    lost: tuple[LostCommit, ...]
    not_carried: int
    """Commits of deploy that change nothing that the base carries: there is nothing of them to lose."""
    of_default: int
    """Commits of deploy that the default branch has too: the fork's own or upstream's, later than the release."""
    paths: tuple[ChangedPath, ...]
    """What the base carries and tonight has otherwise than deploy."""


def set_beside(
    store: Repository,
    survey: Survey,
    composition: Composition,
    *,
    begin: Sha,
    deploy: Sha,
    trees: tuple[Sha, Sha],
    carried: Callable[[str], bool],
) -> Beside:
    """``trees`` are deploy's and tonight's with nothing in them but what the base carries, which ``carried`` knows."""
    default = survey.tip(survey.default_branch)
    upstream = [f"^{begin}", *([f"^{default}"] if default and default != deploy else [])]
    mine = store.commits("--no-merges", deploy, *upstream)
    ids = _patch_ids(store, deploy, *upstream)
    pulls = {pull.name: _own(store, pull.head, upstream) for pull in survey.pulls}
    pull_ids = {pull.name: _ids_of(store, pull.head, upstream) for pull in survey.pulls}
    left_out = {item.name: item for item in composition.left_out if item.kind is Kind.PULL}
    in_by_commit, in_by_diff = _brought(store, composition.included)
    for name, item in left_out.items():
        if item.outcome in (Outcome.CARRIED, Outcome.DROPPED) and name in pulls:
            in_by_commit |= pulls[name]
            in_by_diff |= pull_ids[name]
    lost: list[LostCommit] = []
    not_carried = 0
    for commit in reversed(mine):
        if commit in in_by_commit or ids.get(commit) in in_by_diff:
            continue
        parent = next(iter(store.parents(commit)), None)
        if parent and not any(carried(change.path) for change in store.changes(parent, commit)):
            not_carried += 1
            continue
        holders = [name for name in pulls if commit in pulls[name] or ids.get(commit, "-") in pull_ids[name]]
        title, author = readable(store.show(commit, "%s%x00%an")).split("\0")
        lost.append(LostCommit(commit, title, author, tuple(holders)))
    deployed = set(mine) | (set(store.commits(deploy, f"^{begin}")))
    deployed_ids = set(ids.values())
    return Beside(
        deploy=deploy,
        tonight=composition.commit,
        pulls=tuple(
            PullBeside(
                pull.name,
                pull.title,
                len(pulls[pull.name]),
                _deployed(store, pull.head, pulls[pull.name], upstream, deployed, deployed_ids),
                _tonight(pull.name, composition),
            )
            for pull in survey.pulls
        ),
        lost=tuple(lost),
        not_carried=not_carried,
        of_default=len(store.commits("--no-merges", deploy, f"^{begin}")) - len(mine),
        paths=tuple(ChangedPath(readable(c.path), _HOW[c.status]) for c in store.changes(*trees)),
    )


_HOW = {
    "A": "only tonight has it",
    "D": "only deploy has it",
    "M": "they have it otherwise",
    "T": "they have it otherwise",
}


def _own(store: Repository, head: Sha, upstream: Sequence[str]) -> set[Sha]:
    return set(store.commits("--no-merges", head, *upstream))


def _ids_of(store: Repository, head: Sha, upstream: Sequence[str]) -> set[str]:
    """Patch ids of its commits, and of the whole as a squash would have it."""
    found = set(_patch_ids(store, head, *upstream).values())
    begin = store.merge_base(upstream[0].removeprefix("^"), head)
    whole = store.patch_id(begin, head) if begin else ""
    return found | ({whole} if whole else set())


def _brought(store: Repository, topics: Sequence[Topic]) -> tuple[set[Sha], set[str]]:
    """Every commit and every diff that tonight brings in."""
    commits: set[Sha] = set()
    diffs: set[str] = set()
    for topic in topics:
        commits |= set(store.commits(topic.own_to, f"^{topic.own_from}"))
        diffs |= set(_patch_ids(store, topic.own_to, f"^{topic.own_from}").values()) | {topic.patch_id}
    return commits, diffs - {""}


def _patch_ids(store: Repository, *revisions: str) -> Mapping[Sha, str]:
    """The stable patch id of each commit that is no merge and changes something; two processes for all of them."""
    log = store.attempt_ok("log", "--no-merges", "--no-show-signature", "-p", *CANONICAL_DIFF, *revisions, "--")
    rows = (line.split() for line in store.run("patch-id", "--stable", stdin=log.stdout).splitlines())
    return {Sha(commit): patch for patch, commit in rows}


def _deployed(
    store: Repository, head: Sha, own: set[Sha], upstream: Sequence[str], deployed: set[Sha], deployed_ids: set[str]
) -> int:
    ids = _patch_ids(store, head, *upstream)
    begin = store.merge_base(upstream[0].removeprefix("^"), head)
    if begin and store.patch_id(begin, head) in deployed_ids:
        return len(own)  # squashed
    return sum(commit in deployed or ids.get(commit, "-") in deployed_ids for commit in own)


def _tonight(name: str, composition: Composition) -> str:
    if any(topic.name == name for topic in composition.included):
        return "in"
    item = next((item for item in composition.left_out if item.name == name), None)
    if item is None:
        return "not a candidate"
    with_whom = f" ({', '.join(item.twins)})" if item.twins else ""
    return f"{item.outcome}: {item.reason}{with_whom}"
