"""Whose word admits a pull request, and for which commit.

An admission is for the commit that its giver could see: a review names it; a label does not, so it counts
for what had been pushed before the second in which it was put on. What was pushed later waits for an
admission of its own. And it is for the branch that the pull request was into then: another target ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from patchstack.github import Events, OpenPull, Push, Review
from patchstack.model import Sha
from patchstack.paging import PAGE
from patchstack.pulls.targets import has_label, same_name


@dataclass(frozen=True)
class Facts:
    """What GitHub tells about the admissions of one pull request. Times are ISO 8601 in UTC."""

    reviews: tuple[Review, ...]
    """Oldest first."""
    events: Events | None = None
    """None: not asked. Then nothing is admitted."""
    pushes: tuple[Push, ...] | None = None
    """To its branch, newest first; None: not asked, or nobody tells."""


@dataclass(frozen=True)
class Admitted:
    head: Sha
    by: str
    at: str


@dataclass(frozen=True)
class NotAdmitted:
    why: str
    """One sentence, with what to do."""


def approval_of_head(pull: OpenPull, facts: Facts, can_write: Callable[[str], bool]) -> Admitted | None:
    """An approval of the newest head: with one, nothing else need be asked."""
    of_head = [claim for claim in approvals(facts.reviews) if claim.head == pull.head and is_standing(claim, facts)]
    return next((claim for claim in of_head if can_write(claim.by)), None)


def decide(
    pull: OpenPull, facts: Facts, *, label: str, fork: str, can_write: Callable[[str], bool]
) -> Admitted | NotAdmitted:
    """The admission of the newest head, or else the newest admission of an older one.

    ``can_write`` says whether an account may push to ``fork``, also for a pull request of another repository.
    """
    claims = list(approvals(facts.reviews))
    why = ""
    if has_label(pull, label):
        labelled = labelled_head(pull, facts, label)
        if isinstance(labelled, Admitted):
            claims.append(labelled)
        else:
            why = labelled.why
    has_ended = any(not is_standing(claim, facts) for claim in claims)
    claims = [claim for claim in claims if is_standing(claim, facts)]
    claims.sort(key=lambda claim: (claim.head == pull.head, datetime.fromisoformat(claim.at)), reverse=True)
    for claim in claims:
        if can_write(claim.by):
            return claim
    if not why and claims:
        why = f"{claims[0].by or 'an account that is gone'} admitted it, and has no write access to {fork}"
    way = f"somebody with write access to {fork} must approve it, or put the label {label} on it"
    if not why and has_ended and facts.events is not None:
        since = max(facts.events.retargeted, key=datetime.fromisoformat)
        why = f"it was admitted, and at {since} retargeted: an admission is for the branch that it was into then"
        way += " again"
    return NotAdmitted(f"{why}; {way}" if why else way)


def approvals(reviews: Sequence[Review]) -> tuple[Admitted, ...]:
    """Each person's approval that nothing later of the same person withdrew, whoever it is.

    A comment withdraws nothing. https://docs.github.com/en/rest/pulls/reviews
    """
    last: dict[str, Review] = {}
    for review in reviews:
        if review.state in {"APPROVED", "CHANGES_REQUESTED", "DISMISSED"} and review.author:
            last[review.author] = review
    standing = (review for review in last.values() if review.state == "APPROVED" and review.commit and review.at)
    return tuple(Admitted(review.commit, review.author, review.at) for review in standing)


def is_standing(claim: Admitted, facts: Facts) -> bool:
    """Whether the pull request is known to have had its target when the admission was given.

    GitHub's times are whole seconds: another target in that very second may have come after.
    """
    if facts.events is None:
        return False
    return all(datetime.fromisoformat(at) < datetime.fromisoformat(claim.at) for at in facts.events.retargeted)


def labelled_head(pull: OpenPull, facts: Facts, label: str) -> Admitted | NotAdmitted:
    """What the label that is on now was put on."""
    told = facts.events.labels if facts.events else ()
    events = [event for event in told if same_name(event.label, label)]
    if not events or not events[-1].added:
        return NotAdmitted(f"nobody is known to have put the label {label} on it")
    event = events[-1]
    # GitHub may be late to tell of pushes: a story that does not come to the head may lack what the label was put on.
    pushes = facts.pushes or ()
    head = head_before(pushes, event.at) if any(push.after == pull.head for push in pushes) else None
    if head is None:
        return NotAdmitted(
            f"what the label {label} was put on at {event.at} is not known, for GitHub does not tell when its branch "
            "was pushed before; an approval names the commit"
        )
    return Admitted(head, event.by, event.at)


def head_before(pushes: Sequence[Push], at: str) -> Sha | None:
    """Where a branch was at a moment, from its pushes, newest first; None where they do not tell.

    GitHub's times are whole seconds: what was pushed in that very second may have come after. Only the push
    that made the branch cannot, for without a branch there was no pull request to speak of.
    """
    moment = datetime.fromisoformat(at)
    complete = len(pushes) < PAGE
    following: Push | None = None
    for number, push in enumerate(pushes, 1):
        pushed = datetime.fromisoformat(push.at)
        made_it = complete and number == len(pushes)
        if pushed < moment or (pushed == moment and made_it):
            if following is not None and following.before != push.after:
                return None  # a push between the two is not told
            return push.after if set(push.after) != {"0"} else None
        following = push
    return None
