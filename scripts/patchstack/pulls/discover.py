"""The source GitHub: the open pull requests of the fork and of other repositories, admitted ones at exact SHAs.

GitHub says what each is meant for and what was admitted of it; git hands over exactly that. The fork's
remote is listed once, and so is each other repository that has somebody to take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchstack.config import GitHubSource
from patchstack.git import Repository
from patchstack.github import GitHub
from patchstack.model import Asked, Base, LeftOut, Pull, Sha
from patchstack.pulls.branches import publish
from patchstack.pulls.clerk import Answers, Clerk, Taken
from patchstack.pulls.desk import Blocked, Desk, head_ref
from patchstack.pulls.gone import no_longer_listed, split_name
from patchstack.pulls.listing import BRANCHES, TARGETS, branches_of, fetch_exactly, keep_only, read_branches
from patchstack.pulls.memo import Memory
from patchstack.pulls.mending import Mending
from patchstack.pulls.targets import Rules, same_name


@dataclass(frozen=True)
class Discovered:
    """What GitHub says of tonight's pull requests, each name once in ``pulls`` or in ``refused``."""

    pulls: tuple[Pull, ...]
    """Admitted, and in the store: the fork's by number, then other repositories' in the order of the sources."""
    blocked: tuple[Pull, ...]
    """Blocked ones as they are now, in the store; each is in ``refused`` too. Whoever carries their commits is
    barred with them."""
    refused: tuple[LeftOut, ...]
    """Everyone else with the way out, in the same order, and those that are gone since the last promoted night."""
    asked: tuple[Asked, ...]
    """What it cost, a repository; the fork first."""


def discover(
    store: Repository,
    github: GitHub,
    *,
    fork: str,
    remote_url: str,
    sources: Sequence[GitHubSource],
    base: Base,
    lane: str,
    deploy_branches: Mapping[str, str],
    main: str,
    admit_label: str,
    blocked_label: str,
    previous: Mapping[str, Sha],
    memo_path: Path,
    url_of: Callable[[str], str],
    listed: Mapping[str, Sha] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Discovered:
    """The lane's pull requests as GitHub knows them.

    ``fork`` is ``owner/name``, ``remote_url`` where git reads it, ``url_of`` says that of other repositories.
    ``deploy_branches`` is every lane's deploy branch with its lane's name. ``previous`` holds the pull requests
    of the last promoted night, by name. ``memo_path`` keeps what was read of unchanged pull requests: without
    it the outcome is the same, and the calls are more. ``listed`` is what an `ls-remote` of the fork said already;
    without it the fork is listed here. Raises `RemoteError` when GitHub or a remote cannot be
    read whole: that is never an empty answer.
    """
    night = _Night(fork, base, lane, main, deploy_branches, blocked_label)
    clerk = Clerk(github, fork, admit_label, Memory(memo_path), previous, {})
    answers = _ask(clerk, night.rules(sources), progress)
    branches = read_branches(store, remote_url) if listed is None else branches_of(listed)
    desk = _read_remotes(store, night, answers, branches, remote_url, url_of, progress)
    pulls: list[Pull] = []
    blocked: list[Pull] = []
    refused: list[LeftOut] = []
    for answer in answers:
        left_out = list(answer.left_out)
        for taken in answer.taken:
            match desk.judge(taken):
                case Pull() as pull:
                    pulls.append(pull)
                case Blocked(left, pull):
                    left_out.append(left)
                    blocked += [pull] if pull else []
                case LeftOut() as left:
                    left_out.append(left)
        refused += sorted(left_out, key=lambda one: split_name(one.name)[1])
    repos = [answer.rules.repo for answer in answers]
    away = [name for name in previous if not any(same_name(split_name(name)[0] or fork, repo) for repo in repos)]
    refused += [no_longer_listed(name, previous[name]) for name in away]
    return Discovered(tuple(pulls), tuple(blocked), tuple(refused), tuple(answer.asked for answer in answers))


@dataclass(frozen=True)
class _Night:
    fork: str
    base: Base
    lane: str
    main: str
    deploy_branches: Mapping[str, str]
    blocked_label: str

    def rules(self, sources: Sequence[GitHubSource]) -> tuple[Rules, ...]:
        """Those of each repository that a source names; the fork's first."""
        of: dict[str, list[GitHubSource]] = {}
        for source in sorted(sources, key=lambda source: not same_name(source.repo, self.fork)):
            of.setdefault(source.repo.casefold(), []).append(source)
        return tuple(
            Rules(
                repo=self.fork if same_name(name, self.fork) else found[0].repo,
                fork=self.fork,
                sources=tuple(found),
                lane=self.lane,
                main=self.main,
                deploy_branches=self.deploy_branches,
                blocked_label=self.blocked_label,
            )
            for name, found in of.items()
        )


def _ask(clerk: Clerk, rules: Sequence[Rules], progress: Callable[[str], None]) -> tuple[Answers, ...]:
    """What GitHub says; what it said until it failed is remembered."""
    answers: list[Answers] = []
    try:
        for one in rules:
            progress(f"asking GitHub for the open pull requests of {one.repo}")
            answers.append(clerk.read(one))
    finally:
        clerk.memory.write(finished=len(answers) == len(rules))
    return tuple(answers)


def _read_remotes(
    store: Repository,
    night: _Night,
    answers: Sequence[Answers],
    branches: Mapping[str, Sha],
    remote_url: str,
    url_of: Callable[[str], str],
    progress: Callable[[str], None],
) -> Desk:
    """List each other repository that has somebody to take, and fetch what is meant."""
    of_fork = [taken for answer in answers for taken in answer.taken if taken.rules.is_fork]
    elsewhere = {answer.rules.repo: answer.taken for answer in answers if answer.taken and not answer.rules.is_fork}
    tips = {
        repo: read_branches(store, url_of(repo), sorted({one.chosen.target for one in taken}))
        for repo, taken in elsewhere.items()
    }
    needed = {f"{BRANCHES}{name}": sha for name, sha in branches.items()}
    needed_of = {repo: {f"{TARGETS}{repo}/{name}": sha for name, sha in tips[repo].items()} for repo in elsewhere}
    refs = [head_ref(taken) for answer in answers for taken in answer.taken]
    keep_only(store, [*needed, *(ref for refs_of in needed_of.values() for ref in refs_of), *refs])
    progress(f"fetching {len(refs)} pull requests and {len(branches)} branches")
    lost = _fetch(store, remote_url, needed, of_fork)
    for repo, taken in elsewhere.items():
        lost |= _fetch(store, url_of(repo), needed_of[repo], taken)
    own = {pull for answer in answers if answer.rules.is_fork for pull in answer.open_pulls}
    published = publish(
        store,
        branches,
        heads={pull.head for pull in own},
        pushed_from={pull.head_ref for pull in own if same_name(pull.head_repo, night.fork)},
        base=night.base.commit,
        lane=night.lane,
        main=night.main,
        deploy_branches=night.deploy_branches,
    )
    mending = Mending(remote_url, night.base.commit, branches, night.deploy_branches)
    return Desk(store, night.base, published, mending, {night.fork: branches, **tips}, lost)


def _fetch(store: Repository, url: str, needed: Mapping[str, Sha], taken: Sequence[Taken]) -> dict[str, str]:
    """Fetch the heads that are meant, each by its SHA, wherever the pull request is by now.

    A server that gives only what its branches hold gives an admitted head that is a part of the newest one.
    """
    lost = fetch_exactly(store, url, needed, {head_ref(one): one.head for one in taken})
    behind = {head_ref(one): one for one in taken if head_ref(one) in lost and one.newer_head is not None}
    if not behind:
        return lost
    newer = {ref: one.chosen.pull.head for ref, one in behind.items()}
    not_there = fetch_exactly(store, url, {}, newer)
    for ref in newer.keys() - not_there.keys():
        admitted = behind[ref].head
        found = store.has(f"{admitted}^{{commit}}") and store.is_ancestor(admitted, newer[ref])
        store.set_refs({ref: admitted if found else None})
        if found:
            del lost[ref]
    return lost
