"""The source `refs`: every `refs/pull/N/head` of the remote is a candidate, at its exact commit.

No GitHub is asked, so a pull request is known by its commits alone: its title and author are those of its
head, and its target is the published branch from which it was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from patchstack.git import Repository, readable
from patchstack.model import Base, Kind, LeftOut, Outcome, Pull, Reason, Sha
from patchstack.pulls.branches import Published, find_cut, newest_deployed, publish
from patchstack.pulls.listing import Listing, read_listing
from patchstack.pulls.mending import Mending


def read_pulls(
    store: Repository,
    remote_url: str,
    *,
    base: Base,
    lane: str,
    deploy_branches: Mapping[str, str],
    main: str = "main",
    listed: Mapping[str, Sha] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[tuple[Pull, ...], tuple[LeftOut, ...]]:
    """The lane's pull requests by number, and those that are refused as they stand, each with the way out.

    ``deploy_branches`` is every lane's deploy branch with its lane's name, ``listed`` what an `ls-remote` of the
    remote said already. Raises `RemoteError` when the remote cannot be read: that is never an empty answer.
    """
    listing = read_listing(store, remote_url, listed=listed, progress=progress)
    published = publish(
        store,
        listing.branches,
        heads=set(listing.heads.values()),
        base=base.commit,
        lane=lane,
        main=main,
        deploy_branches=deploy_branches,
    )
    mending = Mending(remote_url, base.commit, listing.branches, deploy_branches)
    desk = _Desk(store, base, lane, main, listing, published, mending)
    judged = [desk.judge(number) for number in sorted([*listing.heads, *listing.missing])]
    return (
        tuple(pull for pull in judged if isinstance(pull, Pull)),
        tuple(refused for refused in judged if isinstance(refused, LeftOut)),
    )


@dataclass(frozen=True)
class _Desk:
    """What it takes to judge one pull request."""

    store: Repository
    base: Base
    lane: str
    main: str
    listing: Listing
    published: Published
    mending: Mending

    def judge(self, number: int) -> Pull | LeftOut:
        if number in self.listing.missing:
            lost = self.listing.missing[number]
            why = f"the remote lists it and does not hand it over ({lost.why}); push its branch again"
            return _refusal(number, "", "", lost.sha, Reason.HEAD_MISSING, why)
        head = self.listing.heads[number]
        title, author = readable(self.store.show(head, "%s%x00%an")).split("\0")
        not_in_base = self.store.commits(head, f"^{self.base.commit}")
        deployed = newest_deployed(self.published, not_in_base)
        if deployed is not None:
            return _refusal(number, title, author, head, Reason.CONTAINS_DEPLOY, self.mending.contains(*deployed))
        cut = find_cut(self.store, self.published, head, len(not_in_base))
        if cut is None:
            why = (
                f"it shares no commit with {self.base.name} or a branch of the remote; cut a branch from "
                f"base/{self.lane}, cherry-pick its commits there and open it again"
            )
            return _refusal(number, title, author, head, Reason.NO_COMMON_HISTORY, why)
        if cut.target == self.main:
            why = f"{self.main} holds the patches and the code: it is checked there, and never composed"
            return _refusal(number, title, author, head, Reason.INTO_MAIN, why, Outcome.SKIPPED)
        kind, _, other = cut.target.partition("/")
        if kind == "history":
            why = f"{cut.target} holds what nights have measured: cut a branch from base/{self.lane} and open it again"
            return _refusal(number, title, author, head, Reason.INTO_OTHER, why)
        if kind in {"base", "stack"} and other != self.lane:
            why = f"it was cut from {cut.target}; nights of {self.lane} take what was cut from {kind}/{self.lane}"
            return _refusal(number, title, author, head, Reason.OTHER_LANE, why, Outcome.SKIPPED)
        return Pull(number, f"#{number}", head, title, author, cut.target, cut.merge_base, cut.shared)


def _refusal(
    number: int, title: str, author: str, head: Sha, reason: Reason, detail: str, outcome: Outcome = Outcome.EXCLUDED
) -> LeftOut:
    return LeftOut(f"#{number}", Kind.PULL, title, author, head, outcome, reason, detail)
