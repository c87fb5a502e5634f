"""Tonight's composition beside what the fork's deploy branch holds: what is in both, and what would be lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from patchstack.adoption.survey import Survey
from patchstack.git import CANONICAL_DIFF, Repository, readable
from patchstack.model import Composition, Kind, Outcome, Sha

IN = "in"
"""What tonight does with a pull request that it composes."""


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
    deploy: Sha | None
    """Its tip; None where there is none yet, and so nothing to lose."""
    tonight: Sha
    patches: tuple[str, ...]
    """Those that tonight composes, by slug."""
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
    deploy: Sha | None,
    trees: tuple[Sha, Sha],
    carried: Callable[[str], bool],
) -> Beside:
    """``trees`` are deploy's and tonight's with nothing in them but what the base carries, which ``carried`` knows."""
    default = survey.tip(survey.default_branch)
    upstream = [f"^{begin}", *([f"^{default}"] if default and default != deploy else [])]
    own = {pull.name: frozenset(store.commits("--no-merges", pull.head, *upstream)) for pull in survey.pulls}
    diffs = {pull.name: _diffs(store, pull.head, upstream) for pull in survey.pulls}
    held = _Held.of(store, deploy, upstream) if deploy else _Held(frozenset(), {})
    lost: list[LostCommit] = []
    not_carried = 0
    brought = _brought(store, composition, own, diffs)
    for commit in held.unless(*brought):
        parent = next(iter(store.parents(commit)), None)
        if parent and not any(carried(change.path) for change in store.changes(parent, commit)):
            not_carried += 1
            continue
        holders = [name for name in own if commit in own[name] or held.diffs.get(commit, "") in diffs[name].values()]
        title, author = readable(store.show(commit, "%s%x00%an")).split("\0")
        lost.append(LostCommit(commit, title, author, tuple(holders)))
    everything = len(store.commits("--no-merges", deploy, f"^{begin}")) if deploy else 0
    return Beside(
        deploy=deploy,
        tonight=composition.commit,
        patches=tuple(topic.name for topic in composition.included if topic.kind is Kind.PATCH),
        pulls=tuple(
            PullBeside(
                pull.name,
                pull.title,
                len(own[pull.name]),
                held.count(own[pull.name], diffs[pull.name]),
                _tonight(pull.name, composition),
            )
            for pull in survey.pulls
        ),
        lost=tuple(lost),
        not_carried=not_carried,
        of_default=everything - len(held.commits),
        paths=tuple(ChangedPath(readable(c.path), _HOW[c.status]) for c in store.changes(*trees)) if deploy else (),
    )


@dataclass(frozen=True)
class _Held:
    """What the deploy branch has of its own."""

    commits: frozenset[Sha]
    diffs: Mapping[Sha, str]
    """The patch id of each, oldest first; a commit that changes nothing has none."""

    @classmethod
    def of(cls, store: Repository, deploy: Sha, upstream: Sequence[str]) -> _Held:
        commits = store.commits("--no-merges", deploy, *upstream)
        return cls(frozenset(commits), dict(reversed(_patch_ids(store, deploy, *upstream).items())))

    def unless(self, commits: Collection[Sha], diffs: Collection[str]) -> Iterator[Sha]:
        """Those that are in no such form, oldest first."""
        return (commit for commit, diff in self.diffs.items() if commit not in commits and diff not in diffs)

    def count(self, own: Collection[Sha], diffs: Mapping[Sha | None, str]) -> int:
        """How many of a pull request's own commits it has: by themselves, by their diff, or all of them squashed."""
        known = set(self.diffs.values())
        if diffs.get(None) in known:
            return len(own)
        return sum(commit in self.commits or diffs.get(commit) in known for commit in own)


_HOW = {
    "A": "only tonight has it",
    "D": "only deploy has it",
    "M": "they have it otherwise",
    "T": "they have it otherwise",
}


def _diffs(store: Repository, head: Sha, upstream: Sequence[str]) -> dict[Sha | None, str]:
    """The patch id of each of its commits, and under None that of the whole, as a squash would have it."""
    found: dict[Sha | None, str] = dict(_patch_ids(store, head, *upstream).items())
    begin = store.merge_base(upstream[0].removeprefix("^"), head)
    whole = store.patch_id(begin, head) if begin else ""
    return {**found, None: whole} if whole else found


def _brought(
    store: Repository,
    composition: Composition,
    own: Mapping[str, frozenset[Sha]],
    diffs: Mapping[str, Mapping[Sha | None, str]],
) -> tuple[set[Sha], set[str]]:
    """Every commit and every diff that tonight brings in, also by what carries it or is the same."""
    commits: set[Sha] = set()
    found: set[str] = set()
    for topic in composition.included:
        commits |= set(store.commits(topic.own_to, f"^{topic.own_from}"))
        found |= set(_patch_ids(store, topic.own_to, f"^{topic.own_from}").values()) | {topic.patch_id}
    for item in composition.left_out:
        if item.outcome in (Outcome.CARRIED, Outcome.DROPPED) and item.name in own:
            commits |= own[item.name]
            found |= set(diffs[item.name].values())
    return commits, found - {""}


def _patch_ids(store: Repository, *revisions: str) -> dict[Sha, str]:
    """The stable patch id of each commit that is no merge and changes something, newest first; in two processes."""
    log = store.attempt_ok("log", "--no-merges", "--no-show-signature", "-p", *CANONICAL_DIFF, *revisions, "--")
    rows = (line.split() for line in store.run("patch-id", "--stable", stdin=log.stdout).splitlines())
    return {Sha(commit): patch for patch, commit in rows}


def _tonight(name: str, composition: Composition) -> str:
    if any(topic.name == name for topic in composition.included):
        return IN
    item = next((item for item in composition.left_out if item.name == name), None)
    if item is None:
        return "not a candidate"
    with_whom = f" ({', '.join(item.twins)})" if item.twins else ""
    return f"{item.outcome}: {item.reason}{with_whom}"
