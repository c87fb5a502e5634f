"""Judges pull requests by their commits, once these are in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from patchstack.git import Repository
from patchstack.model import Base, LeftOut, Outcome, Pull, Reason, Sha
from patchstack.pulls.branches import Published, find_cut_from, newest_deployed
from patchstack.pulls.clerk import Taken
from patchstack.pulls.listing import HEADS
from patchstack.pulls.mending import Mending
from patchstack.pulls.targets import Fate, leave_out


@dataclass(frozen=True)
class Blocked:
    left_out: LeftOut
    pull: Pull | None
    """With where its own commits begin; None where they are not at hand, or stand on nothing that is known."""


@dataclass(frozen=True)
class Desk:
    """What the remotes handed over tonight."""

    store: Repository
    base: Base
    published: Published
    mending: Mending
    targets: Mapping[str, Mapping[str, Sha]]
    """The branches of each repository by name, as far as somebody is meant for them."""
    lost: Mapping[str, str]
    """The refs that a remote did not hand over, and why."""

    def judge(self, taken: Taken) -> Pull | LeftOut | Blocked:
        lost = self.lost.get(head_ref(taken))
        match taken.chosen.fate:
            case Fate.BLOCKED:
                return self._blocked(taken, lost)
            case Fate.INTO_DEPLOY:
                deployed = None if lost else newest_deployed(self.published, self._not_in_base(taken))
                why = self.mending.meant_for(taken.chosen.target, deployed[1] if deployed else None)
                return _refusal(taken, Reason.INTO_DEPLOY, why)
            case Fate.CANDIDATE:
                return self._candidate(taken) if lost is None else _missing(taken, lost)

    def _candidate(self, taken: Taken) -> Pull | LeftOut:
        target, repo = taken.chosen.target, taken.rules.repo
        not_in_base = self._not_in_base(taken)
        deployed = newest_deployed(self.published, not_in_base)
        if deployed is not None:
            return _refusal(taken, Reason.CONTAINS_DEPLOY, self.mending.contains(*deployed))
        tip = self._tip(taken)
        if tip is None:
            why = f"{repo} has no branch {target} any more: change its base"
            return _refusal(taken, Reason.INTO_OTHER, why, Outcome.SKIPPED)
        cut = find_cut_from(self.store, self.published, (target, tip), taken.head, len(not_in_base))
        if cut is None:
            why = (
                f"it shares no commit with {target} of {repo}; cut a branch from that, cherry-pick its commits there "
                "and open it again"
            )
            return _refusal(taken, Reason.NO_COMMON_HISTORY, why)
        return _pull(taken, cut.merge_base, shared=cut.shared)

    def _blocked(self, taken: Taken, lost: str | None) -> Blocked:
        why = f"take the label {taken.rules.blocked_label} off to have it back"
        found = None if lost else self._own_commits(taken)
        if found is None:
            unknown = lost or "they share nothing with its target"
            why = f"{why}; which commits are its own is not known ({unknown}), and so not who else carries them"
        return Blocked(_refusal(taken, Reason.BLOCKED, why), found)

    def _own_commits(self, taken: Taken) -> Pull | None:
        not_in_base = self._not_in_base(taken)
        deployed = newest_deployed(self.published, not_in_base)
        if deployed is not None:  # what is in that night is not its own, and must bar nobody
            return _pull(taken, deployed[1], shared=True)
        tip = self._tip(taken) or self.base.commit
        cut = find_cut_from(self.store, self.published, (taken.chosen.target, tip), taken.head, len(not_in_base))
        return None if cut is None else _pull(taken, cut.merge_base, shared=cut.shared)

    def _not_in_base(self, taken: Taken) -> tuple[Sha, ...]:
        return self.store.commits(taken.head, f"^{self.base.commit}")

    def _tip(self, taken: Taken) -> Sha | None:
        return self.targets[taken.rules.repo].get(taken.chosen.target)


def head_ref(taken: Taken) -> str:
    """Where the store keeps its head."""
    number = taken.chosen.pull.number
    return f"{HEADS}{number}" if taken.rules.is_fork else f"{HEADS}{taken.rules.repo}/{number}"


def _pull(taken: Taken, merge_base: Sha, *, shared: bool) -> Pull:
    pull = taken.chosen.pull
    return Pull(
        number=pull.number,
        name=taken.chosen.name,
        head=taken.head,
        title=pull.title,
        author=pull.author,
        target=taken.chosen.target,
        merge_base=merge_base,
        shared=shared,
        url=pull.url,
        newer_head=taken.newer_head,
    )


def _missing(taken: Taken, why: str) -> LeftOut:
    pull, fork = taken.chosen.pull, taken.rules.fork
    if taken.newer_head is None:
        detail = f"{taken.rules.repo} lists it and does not hand it over ({why}); push its branch again"
        return _refusal(taken, Reason.HEAD_MISSING, detail)
    detail = (
        f"{taken.admitted_by} admitted {taken.head[:12]}, which is not handed over any more ({why}); somebody with "
        f"write access to {fork} must admit {pull.head[:12]}"
    )
    return leave_out(pull, taken.chosen.name, Outcome.WAITING, Reason.NEEDS_ADMISSION, detail)


def _refusal(taken: Taken, reason: Reason, detail: str, outcome: Outcome = Outcome.EXCLUDED) -> LeftOut:
    return leave_out(taken.chosen.pull, taken.chosen.name, outcome, reason, detail, head=taken.head)
