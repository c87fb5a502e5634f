"""Mass loss: what of the deployed night tonight's composition lacks, and whether that is more than it may.

What its author merged, closed or withdrew, what `deploy.yaml`, a rollback or a red night keeps out, what cannot stay
without one that a night found guilty, and what is there by another name is no loss that counts. All else is: a
conflict, a head that is gone, a patch that is no longer in the series, a source that suddenly lists nothing. Nothing is
lost without a name and a reason, whether it counts or not.
"""

from __future__ import annotations

from collections.abc import Mapping

from patchstack.errors import Incomplete
from patchstack.losses import Losses, Lost, MovedBase
from patchstack.model import Composition, LedgerLine, LeftOut, Reason, Sha

EXCUSED = frozenset(
    {
        Reason.MERGED,
        Reason.CLOSED,
        Reason.NEEDS_ADMISSION,
        Reason.DRAFT,
        Reason.BLOCKED,
        Reason.BARRED,
        Reason.GUILTY,
        Reason.SKIPPED_BY_CONFIG,
        Reason.ON_REQUEST,
        Reason.NOT_FOR_THIS_BASE,
        Reason.SWITCHED_OFF,
    }
)
"""Somebody who may took it out, or the night found it guilty."""
REDUNDANT = frozenset(
    {
        Reason.SAME_HEAD,
        Reason.CONTAINED,
        Reason.SAME_DIFF,
        Reason.NO_EFFECT_ON_BASE,
        Reason.NO_EFFECT_ON_STACK,
    }
)
"""Its change is there, provided that its twins are."""

_WITH_ANOTHER = REDUNDANT | {Reason.CARRIES_BLOCKED, Reason.REQUIRED_LEFT_OUT, Reason.CARRIER_LEFT_OUT}
"""Its twins say why it is out."""

NO_LONGER_IN_SERIES = "no longer in patches/series"


def find_losses(
    last: LedgerLine | None,
    composition: Composition,
    *,
    upstream: str,
    most: int,
    accepted: bool = False,
) -> Losses:
    """Hold ``composition`` against ``last``, the line of what is deployed; pure.

    ``upstream`` is what deploy.yaml says of the base now; a line that does not tell what it said then is held
    against nothing. ``most`` is `max_lost`.
    """
    if last is None:
        return Losses("", most, accepted=accepted)
    included = {topic.name for topic in composition.included}
    left_out: dict[str, LeftOut] = {}
    for item in composition.left_out:
        left_out.setdefault(item.name, item)
    items = tuple(_lost(name, head, included, left_out) for name, head in last.included if name not in included)
    moved = upstream == last.upstream and composition.base.commit != last.base_commit
    base = MovedBase(upstream, last.base_commit, composition.base.commit) if moved else None
    return Losses(last.to or last.night, most, items, base, accepted)


def _lost(name: str, head: Sha, included: set[str], left_out: Mapping[str, LeftOut]) -> Lost:
    item = left_out.get(name)
    if item is not None:
        there = _is_there(name, included, left_out, frozenset())
        counts = item.reason not in EXCUSED and not there and not _goes_with_guilty(item, left_out, frozenset())
        return Lost(name, head, item.reason.value, item.twins, item.files, item.detail, counts)
    if "#" in name:  # a patch's name is a slug
        why = "no source lists it, and nobody says that it was merged or closed"
        return Lost(name, head, Reason.NO_LONGER_LISTED.value, (), (), why, counts=True)
    return Lost(name, head, NO_LONGER_IN_SERIES, (), (), "", counts=True)


def _is_there(name: str, included: set[str], left_out: Mapping[str, LeftOut], seen: frozenset[str]) -> bool:
    """Whether its change is in the night, by its own name or by those of its twins.

    What was dropped for a twin is lost with it where that twin itself is left out.
    """
    if name in included:
        return True
    item = left_out.get(name)
    if item is None or item.reason not in REDUNDANT or name in seen:
        return False
    return all(_is_there(twin, included, left_out, seen | {name}) for twin in item.twins)


def _goes_with_guilty(item: LeftOut, left_out: Mapping[str, LeftOut], seen: frozenset[str]) -> bool:
    """Whether it is out for nothing else than that it has commits of guilty ones, or stands on them.

    Else one bad push to what others are stacked on would stop every night until somebody comes.
    """
    if item.reason is Reason.GUILTY:
        return True
    if item.reason not in _WITH_ANOTHER or not item.twins or item.name in seen:
        return False
    twins = [left_out.get(twin) for twin in item.twins]
    return all(twin is not None and _goes_with_guilty(twin, left_out, seen | {item.name}) for twin in twins)


def require_few(losses: Losses) -> None:
    """`Incomplete`, with every name, where more is lost than may be and nobody has accepted it."""
    if losses.too_many and not losses.accepted:
        raise Incomplete("\n".join([*_said_of_topics(losses), *_said_of_base(losses), _ways_out(losses)]))


def _said_of_topics(losses: Losses) -> list[str]:
    if not losses.items:
        return []
    counted, others = losses.counted, [item for item in losses.items if not item.counts]
    what = f"{len(counted)} of what night {losses.since} had {'is' if len(counted) == 1 else 'are'} missing"
    lines = [f"{what}, and max_lost in deploy.yaml allows {losses.most}; nothing was moved:"] if counted else []
    lines += [f"  {_told(item)}" for item in counted]
    lines += ["missing too, and not counted:"] if others else []
    return [*lines, *(f"  {_told(item)}" for item in others)]


def _told(item: Lost) -> str:
    twins = f" ({', '.join(item.twins)})" if item.twins else ""
    files = f" in {', '.join(item.files)}" if item.files else ""
    detail = f": {item.detail}" if item.detail else ""
    return f"{item.name} at {item.head[:12]}: {item.reason}{twins}{files}{detail}"


def _said_of_base(losses: Losses) -> list[str]:
    if losses.base is None:
        return []
    before, now = losses.base.before, losses.base.now
    return [
        (
            f"the base is commit {now}, night {losses.since} had {before}, and deploy.yaml says the same of it "
            f"({losses.base.upstream}): it changed by itself; nothing was moved"
        )
    ]


def _ways_out(losses: Losses) -> str:
    ways = []
    if len(losses.counted) > losses.most:
        ways += [
            "mend the source that lost them",
            "say so with `skip` in deploy.yaml where a pull request is meant to be out",
            "raise max_lost",
        ]
    if losses.base is not None:
        ways += ["name the base in deploy.yaml by what does not move (a commit as `ref`, or its `tree`)"]
    return f"ways out: {'; '.join(ways)}; or `patchstack nightly --accept-lost`, for this one night"
