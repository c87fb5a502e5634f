"""Which candidates say something new: the same head, a carried one, the same diff, no effect on the base.

First of all, what has commits of a blocked pull request is barred with it. Patches are never dropped
here: a series that repeats itself is its authors' business, and lint's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patchstack.compose.left_out import because, in_order, leave_out, listed
from patchstack.git import Repository
from patchstack.model import Base, Candidates, Deduped, Kind, LeftOut, Outcome, Pull, Reason, Sha, Topic


@dataclass(frozen=True)
class Reading:
    """A topic with what git says of it."""

    topic: Topic
    own_commits: frozenset[Sha]
    """The commits from where its own diff begins to its head."""
    no_effect: bool
    """Merged on the base (and the patches that it stands on) it changes nothing."""


@dataclass(frozen=True)
class Bar:
    """A blocked pull request with the commits that nobody else may bring in."""

    name: str
    head: Sha
    own_commits: frozenset[Sha]


def dedup(store: Repository, candidates: Candidates, skips: Mapping[str, str]) -> Deduped:
    """Keep what is new. ``skips`` say why `deploy.yaml` leaves a pull request out, by its name or by a bare number.

    `Deduped.left_out` holds those of ``candidates`` as well.
    """
    return decide(
        [_read(store, candidates.base, topic) for topic in candidates.topics],
        candidates.left_out,
        skips,
        [_bar(store, pull) for pull in candidates.blocked],
    )


def _bar(store: Repository, pull: Pull) -> Bar:
    return Bar(pull.name, pull.head, frozenset(store.commits(pull.head, f"^{pull.merge_base}")))


def _read(store: Repository, base: Base, topic: Topic) -> Reading:
    if topic.kind is Kind.PATCH:
        return Reading(topic, frozenset({topic.head}), no_effect=False)
    own = frozenset(store.commits(topic.own_to, f"^{topic.own_from}"))
    if topic.replayed:
        no_effect = store.tree_of(topic.commit) == store.tree_of(f"{topic.commit}^")
    elif topic.own_from == base.commit:
        no_effect = False  # its own diff is what it changes on the base, and that is not empty
    else:
        merged = store.merge_tree(base.commit, topic.commit)
        no_effect = merged.clean and merged.tree == base.tree
    return Reading(topic, own, no_effect)


def decide(
    readings: Sequence[Reading], left_out: Sequence[LeftOut], skips: Mapping[str, str], bars: Sequence[Bar] = ()
) -> Deduped:
    """The decision, on values alone.

    What is carried is carried only by what stays: where a carrier falls to a later rule, all begins again
    without it.
    """
    gone: dict[str, LeftOut] = {}
    while True:
        dropped = _one_pass([reading for reading in readings if reading.topic.name not in gone], skips, bars)
        carriers = {twin for item in dropped.values() if item.outcome is Outcome.CARRIED for twin in item.twins}
        fallen = {name: item for name, item in dropped.items() if name in carriers}
        if not fallen:
            break
        gone |= fallen
    dropped |= gone
    kept = tuple(reading.topic for reading in readings if reading.topic.name not in dropped)
    return Deduped(kept, in_order([*left_out, *dropped.values()]))


def _one_pass(readings: Sequence[Reading], skips: Mapping[str, str], bars: Sequence[Bar]) -> dict[str, LeftOut]:
    wanted = [reading for reading in readings if _skip(reading, skips) is None]
    found = _barred(wanted, bars)
    rest = [reading for reading in readings if reading.topic.name not in found]
    found |= _skipped(rest, skips)
    rest = [reading for reading in rest if reading.topic.name not in found]
    for rule in (_same_head, _carried, _same_diff, _without_effect):
        found |= rule(rest)
        rest = [reading for reading in rest if reading.topic.name not in found]
    return found


def _pulls(readings: Sequence[Reading]) -> list[Reading]:
    return [reading for reading in readings if reading.topic.kind is Kind.PULL]


def _skip(reading: Reading, skips: Mapping[str, str]) -> str | None:
    return because(skips, reading.topic.name) if reading.topic.kind is Kind.PULL else None


def _barred(readings: Sequence[Reading], bars: Sequence[Bar]) -> dict[str, LeftOut]:
    """What has commits of a blocked one, also of an older push of it.

    The commits of what the blocked one is stacked on are no reason: these bar nobody unless they are blocked too.
    """
    pulls = _pulls(readings)
    below = [*(reading.own_commits for reading in pulls), *(bar.own_commits for bar in bars)]
    barring = {
        bar.name: bar.own_commits.difference(
            *(own for own in below if own < bar.own_commits and bar.head not in own),
        )
        for bar in bars
    }
    found = {}
    for reading in pulls:
        blocked = tuple(name for name, commits in barring.items() if commits & reading.own_commits)
        if blocked:
            they, them = listed(blocked), "which is" if len(blocked) == 1 else "which are"
            detail = f"it has commits of {they}, {them} blocked: rebase it without them, or have {they} unblocked"
            found[reading.topic.name] = leave_out(
                reading.topic, Outcome.EXCLUDED, Reason.CARRIES_BLOCKED, detail, twins=blocked
            )
    return found


def _skipped(readings: Sequence[Reading], skips: Mapping[str, str]) -> dict[str, LeftOut]:
    pulls = _pulls(readings)
    staying = [reading for reading in pulls if _skip(reading, skips) is None]
    found = {}
    for reading in pulls:
        why = _skip(reading, skips)
        if why is None:
            continue
        within = tuple(other.topic.name for other in staying if _is_within(reading, other))
        detail = f"{why} (but {listed(within)} contains its commits)" if within else why
        found[reading.topic.name] = leave_out(
            reading.topic, Outcome.SKIPPED, Reason.SKIPPED_BY_CONFIG, detail, twins=within
        )
    return found


def _same_head(readings: Sequence[Reading]) -> dict[str, LeftOut]:
    first: dict[Sha, Topic] = {}
    found = {}
    for reading in readings:
        topic = reading.topic
        twin = first.setdefault(topic.head, topic)
        if twin is not topic and topic.kind is Kind.PULL:
            detail = f"its head {topic.head[:12]} is that of {twin.name} too"
            found[topic.name] = leave_out(topic, Outcome.DROPPED, Reason.SAME_HEAD, detail, twins=(twin.name,))
    return found


def _carried(readings: Sequence[Reading]) -> dict[str, LeftOut]:
    """Contained in another; of several that contain it, by the one that none of them contains."""
    pulls = _pulls(readings)
    found = {}
    for reading in pulls:
        containing = [other for other in pulls if other is not reading and _is_within(reading, other)]
        outermost = [
            one for one in containing if not any(_is_within(one, other) for other in containing if other is not one)
        ]
        if outermost:
            by = outermost[0].topic
            detail = f"{by.name} contains its commits, and brings them in"
            found[reading.topic.name] = leave_out(
                reading.topic, Outcome.CARRIED, Reason.CONTAINED, detail, twins=(by.name,)
            )
    return found


def _is_within(one: Reading, other: Reading) -> bool:
    return one.own_commits < other.own_commits


def _same_diff(readings: Sequence[Reading]) -> dict[str, LeftOut]:
    first: dict[str, Topic] = {}
    found = {}
    for reading in readings:
        topic = reading.topic
        twin = first.setdefault(topic.patch_id, topic) if topic.patch_id else topic
        if twin is not topic and topic.kind is Kind.PULL:
            detail = f"its whole diff is that of {twin.name}: git patch-id {topic.patch_id[:12]}"
            found[topic.name] = leave_out(topic, Outcome.DROPPED, Reason.SAME_DIFF, detail, twins=(twin.name,))
    return found


def _without_effect(readings: Sequence[Reading]) -> dict[str, LeftOut]:
    found = {}
    for reading in _pulls(readings):
        topic = reading.topic
        if reading.no_effect:
            with_patches = f" with {listed(topic.requires)}" if topic.requires else ""
            detail = f"the base{with_patches} has all of it already: close it"
            found[topic.name] = leave_out(topic, Outcome.DROPPED, Reason.NO_EFFECT_ON_BASE, detail)
    return found
