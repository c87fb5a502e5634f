"""What each open pull request of a repository is meant for, from the listing and `deploy.yaml` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from patchstack.config import GitHubSource
from patchstack.github import OpenPull
from patchstack.model import Kind, LeftOut, Outcome, Reason, Sha


class Fate(StrEnum):
    """What is to be done about a pull request whose commits are needed for an answer."""

    CANDIDATE = "candidate"
    BLOCKED = "blocked"
    INTO_DEPLOY = "into a deploy branch"


@dataclass(frozen=True)
class Chosen:
    """A pull request that must be read, with the branch that it is meant for in the end.

    That is its own target, or the one of the pull request that it is stacked on.
    """

    pull: OpenPull
    name: str
    target: str
    fate: Fate


@dataclass(frozen=True)
class Rules:
    """What decides over the pull requests of one repository."""

    repo: str
    fork: str
    sources: tuple[GitHubSource, ...]
    """Those of ``repo``; a pull request needs one that takes it."""
    lane: str
    main: str
    deploy_branches: Mapping[str, str]
    """Every lane's deploy branch, with its lane."""
    blocked_label: str

    @property
    def is_fork(self) -> bool:
        return same_name(self.repo, self.fork)

    def name(self, number: int) -> str:
        return f"#{number}" if self.is_fork else f"{self.repo}#{number}"

    @property
    def into(self) -> tuple[str, ...]:
        """The branches that the sources take, of this lane."""
        named = dict.fromkeys(branch for source in self.sources for branch in source.into)
        return tuple(branch for branch in named if not self.is_other_lanes(branch))

    def is_other_lanes(self, branch: str) -> bool:
        kind, _, lane = branch.partition("/")
        return self.is_fork and kind in {"base", "stack"} and bool(lane) and lane != self.lane

    def is_end(self, branch: str) -> bool:
        """Nothing is stacked below it: it is a branch that has a meaning of its own."""
        ours = self.is_fork and (
            branch == self.main or branch in self.deploy_branches or branch.startswith(("base/", "stack/", "history/"))
        )
        return ours or branch in self.into


def choose(pulls: Sequence[OpenPull], rules: Rules) -> tuple[tuple[Chosen | LeftOut, ...], int]:
    """Those that must be read and those that are told why not, by number; and how many others there are.

    Of another repository only the pull requests of the owners that its sources list are named.
    """
    ordered = sorted(pulls, key=lambda pull: pull.number)
    named = [pull for pull in ordered if rules.is_fork or any(_is_owned(source, pull) for source in rules.sources)]
    below = _by_branch(ordered, rules)
    return tuple(_choose(pull, below, rules) for pull in named), len(ordered) - len(named)


def _choose(pull: OpenPull, below: Mapping[str, OpenPull], rules: Rules) -> Chosen | LeftOut:
    target = _end_of(pull, below, rules)
    name = rules.name(pull.number)
    if rules.is_fork and target == rules.main:
        detail = f"{rules.main} holds the patches and the code: it is checked there, and never composed"
        return leave_out(pull, name, Outcome.SKIPPED, Reason.INTO_MAIN, detail)
    if has_label(pull, rules.blocked_label):
        return Chosen(pull, name, target or pull.base_ref, Fate.BLOCKED)
    if rules.is_fork and target is not None and target in rules.deploy_branches:
        return Chosen(pull, name, target, Fate.INTO_DEPLOY)
    if target is not None and rules.is_other_lanes(target):
        kind = target.partition("/")[0]
        detail = f"it is meant for {target}; nights of {rules.lane} take what is meant for {kind}/{rules.lane}"
        return leave_out(pull, name, Outcome.SKIPPED, Reason.OTHER_LANE, detail)
    sources = [source for source in rules.sources if target in source.into]
    if target is None or not sources:
        detail = (
            f"it is meant for {pull.base_ref}, and the night takes what is meant for {' or '.join(rules.into)}: "
            "change its base, or add the branch to `into` in deploy.yaml"
        )
        return leave_out(pull, name, Outcome.SKIPPED, Reason.INTO_OTHER, detail)
    return _choose_source(pull, name, target, sources, rules)


def _choose_source(
    pull: OpenPull, name: str, target: str, sources: Sequence[GitHubSource], rules: Rules
) -> Chosen | LeftOut:
    if not pull.head_repo:
        detail = f"the repository of its branch {pull.head_ref} is gone: push its commits elsewhere and open it again"
        return leave_out(pull, name, Outcome.EXCLUDED, Reason.FORK_GONE, detail)
    owned = [source for source in sources if _is_owned(source, pull)]
    if not owned:
        detail = (
            f"its branch is in {pull.head_repo}: push it to {rules.repo}, or add {pull.head_owner} to `heads` in "
            "deploy.yaml"
        )
        return leave_out(pull, name, Outcome.SKIPPED, Reason.OTHER_OWNER, detail)
    if not any(_is_wanted(source, pull.head_ref) for source in owned):
        detail = f"its branch is {pull.head_ref}: look at `include` and `exclude` in deploy.yaml"
        return leave_out(pull, name, Outcome.SKIPPED, Reason.NOT_WANTED, detail)
    if pull.draft:
        detail = "mark it as ready for review when it is"
        return leave_out(pull, name, Outcome.WAITING, Reason.DRAFT, detail)
    return Chosen(pull, name, target, Fate.CANDIDATE)


def _by_branch(ordered: Sequence[OpenPull], rules: Rules) -> dict[str, OpenPull]:
    """Which pull request a branch of the repository belongs to.

    A branch can be that of several: the one that comes to an end at once is meant, else the first.
    """
    found: dict[str, OpenPull] = {}
    for pull in ordered:
        if same_name(pull.head_repo, rules.repo):
            first = found.setdefault(pull.head_ref, pull)
            if not rules.is_end(first.base_ref) and rules.is_end(pull.base_ref):
                found[pull.head_ref] = pull
    return found


def _end_of(pull: OpenPull, below: Mapping[str, OpenPull], rules: Rules) -> str | None:
    """The branch at the foot of the stack that ``pull`` is on top of; None where it stands on nothing, or on itself."""
    branch, seen = pull.base_ref, set[str]()
    while not rules.is_end(branch):
        if branch in seen or branch not in below:
            return None
        seen.add(branch)
        branch = below[branch].base_ref
    return branch


def _is_owned(source: GitHubSource, pull: OpenPull) -> bool:
    if source.heads:
        return pull.head_owner.casefold() in {owner.casefold() for owner in source.heads}
    return same_name(pull.head_repo, source.repo)


def _is_wanted(source: GitHubSource, branch: str) -> bool:
    included = not source.include or any(fnmatchcase(branch, pattern) for pattern in source.include)
    return included and not any(fnmatchcase(branch, pattern) for pattern in source.exclude)


def same_name(one: str, other: str) -> bool:
    """GitHub does not tell names of accounts and repositories, nor labels, apart by letter case."""
    return one.casefold() == other.casefold()


def has_label(pull: OpenPull, label: str) -> bool:
    return any(same_name(label, one) for one in pull.labels)


def leave_out(
    pull: OpenPull, name: str, outcome: Outcome, reason: Reason, detail: str, *, head: Sha | None = None
) -> LeftOut:
    """``head``: the one that is meant, where it is not the newest."""
    return LeftOut(
        name=name,
        kind=Kind.PULL,
        title=pull.title,
        author=pull.author,
        head=head or pull.head,
        outcome=outcome,
        reason=reason,
        detail=detail,
        url=pull.url,
        newer_head=pull.head if head not in {None, pull.head} else None,
    )
