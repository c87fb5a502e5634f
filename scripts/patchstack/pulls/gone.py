"""What became of pull requests that the last promoted night had, and that nobody lists any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patchstack.github import GitHub, OpenPull, Refused
from patchstack.model import Kind, LeftOut, Outcome, Reason, Sha
from patchstack.pulls.targets import Rules, leave_out, same_name

UNLISTED = "no source in deploy.yaml lists it any more"


def find_gone(
    github: GitHub, rules: Rules, listed: Sequence[OpenPull], previous: Mapping[str, Sha]
) -> tuple[tuple[OpenPull, ...], tuple[LeftOut, ...]]:
    """Those of ``previous`` that slipped through the listing and are open, and those that are gone; one call each.

    A pull request slips through when it is opened again while the pages are read.
    """
    known = {pull.number for pull in listed}
    slipped: list[OpenPull] = []
    gone: list[LeftOut] = []
    for name, head in previous.items():
        repo, number = split_name(name)
        if not (same_name(repo, rules.repo) if repo else rules.is_fork) or number in known:
            continue
        try:
            now = github.pull(rules.repo, number)
        except Refused as error:
            if error.status != 404:
                raise
            gone.append(no_longer_listed(name, head, "GitHub knows nothing of it any more"))
            continue
        if now.state == "open":
            slipped.append(now)
        elif now.merged:
            gone.append(_left(now, name, head, Reason.MERGED, f"it was merged into {now.base_ref}"))
        else:
            gone.append(_left(now, name, head, Reason.CLOSED, "open it again to have it back"))
    return tuple(slipped), tuple(gone)


def no_longer_listed(name: str, head: Sha, detail: str = UNLISTED) -> LeftOut:
    return LeftOut(name, Kind.PULL, "", "", head, Outcome.GONE, Reason.NO_LONGER_LISTED, detail)


def unlisted(pull: OpenPull, name: str, head: Sha) -> LeftOut:
    """One that is still open, and no candidate any more."""
    detail = f"it is open, and {UNLISTED}: its branch is one of {pull.head_owner or 'an account that is gone'}"
    return _left(pull, name, head, Reason.NO_LONGER_LISTED, detail)


def split_name(name: str) -> tuple[str, int]:
    """``owner/name#41`` in its two parts; ``#41``, which is the fork's, has an empty first."""
    repo, _, number = name.rpartition("#")
    return repo, int(number)


def _left(pull: OpenPull, name: str, head: Sha, reason: Reason, detail: str) -> LeftOut:
    return leave_out(pull, name, Outcome.GONE, reason, detail, head=head)
