"""Which candidates say something new: the same head, a carried one, the same diff, no effect on the base.

First of all, what has commits of a blocked pull request is barred with it. Patches are never dropped
here: a series that repeats itself is its authors' business, and lint's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patchstack.compose import lookup
from patchstack.compose.conflict import plain_paths
from patchstack.compose.left_out import because, in_order, leave_out, listed
from patchstack.compose.memo import Memo, MergeResult
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
    """A blocked or barred head of a pull request with the commits that nobody else may bring in."""

    name: str
    head: Sha
    own_commits: frozenset[Sha]
    barred_by: str = ""
    """The rollback, or the night, that barred it; empty where it is blocked."""


def dedup(store: Repository, candidates: Candidates, skips: Mapping[str, str], memo: Memo | None = None) -> Deduped:
    """Keep what is new. ``skips`` say why `deploy.yaml` leaves a pull request out, by its name or by a bare number.

    `Deduped.left_out` holds those of ``candidates`` as well.
    """
    return decide(
        _read(store, candidates.base, candidates.topics, memo or Memo()),
        candidates.left_out,
        skips,
        _bars(store, candidates.blocked),
    )


def bound(store: Repository, included: Sequence[Topic], candidates: Sequence[Topic]) -> tuple[tuple[str, str], ...]:
    """Who of ``included`` has commits that are another one's own, with that one: by the rule that bars follow.

    The commits of what that one is stacked on bind nobody to it.
    """
    pulls = [topic for topic in candidates if topic.kind is Kind.PULL]
    walks = lookup.walks(store, [(topic.own_from, topic.own_to) for topic in pulls])
    own = {topic.name: walks[topic.own_from, topic.own_to].commits for topic in pulls}
    holders: dict[Sha, list[str]] = {}
    for name, commits in own.items():
        for commit in commits:
            holders.setdefault(commit, []).append(name)
    there = [topic for topic in included if topic.kind is Kind.PULL]
    names = {topic.name for topic in there}
    found = []
    for topic in there:
        mine = own[topic.name]
        sharing = {name for commit in mine for name in holders[commit]}
        below = [own[name] for name in sharing if own[name] < mine and topic.head not in own[name]]
        alone = mine.difference(*below)
        holding = {name for commit in alone for name in holders[commit]} & names - {topic.name}
        found += [(name, topic.name) for name in own if name in holding]
    return tuple(found)


def _bars(store: Repository, pulls: Sequence[Pull]) -> list[Bar]:
    walks = lookup.walks(store, [(pull.merge_base, pull.head) for pull in pulls])
    return [Bar(pull.name, pull.head, walks[pull.merge_base, pull.head].commits, pull.barred_by) for pull in pulls]


def _read(store: Repository, base: Base, topics: Sequence[Topic], memo: Memo) -> list[Reading]:
    pulls = [topic for topic in topics if topic.kind is Kind.PULL]
    walks = lookup.walks(store, [(topic.own_from, topic.own_to) for topic in pulls])
    replayed = lookup.commits(store, [topic.commit for topic in pulls if topic.replayed])
    onto = lookup.commits(store, [commit.parents[0] for commit in replayed.values()])

    def has_no_effect(topic: Topic) -> bool:
        if topic.replayed:
            commit = replayed[topic.commit]
            return commit.tree == onto[commit.parents[0]].tree
        # What it changes on the base is its own diff then, and that is not empty.
        return topic.own_from != base.commit and not _changes_the_base(store, base, topic.commit, memo)

    return [
        Reading(topic, walks[topic.own_from, topic.own_to].commits, has_no_effect(topic))
        if topic.kind is Kind.PULL
        else Reading(topic, frozenset({topic.head}), no_effect=False)
        for topic in topics
    ]


def _changes_the_base(store: Repository, base: Base, commit: Sha, memo: Memo) -> bool:
    key = f"{base.commit} {commit}, effect"
    outcome = memo.outcome(key)
    if outcome is None:
        merged = store.merge_tree(base.commit, commit)
        outcome = MergeResult(conflicts=plain_paths(merged.conflicts), tree=merged.tree if merged.clean else None)
        memo.keep_outcome(key, outcome)
    return outcome.tree != base.tree


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
    """What has commits of a blocked or barred one, also of an older push of it.

    The commits of what that one is stacked on are no reason: these bar nobody unless they are blocked too.
    """
    pulls = _pulls(readings)
    heads = {reading.topic.name: reading.topic.head for reading in pulls}
    below = [*(reading.own_commits for reading in pulls), *(bar.own_commits for bar in bars)]
    barring = [
        (bar, bar.own_commits.difference(*(own for own in below if own < bar.own_commits and bar.head not in own)))
        for bar in bars
    ]
    found = {}
    for reading in pulls:
        hits = [bar for bar, own in barring if own & reading.own_commits and not _has_moved_on(bar, reading, heads)]
        if hits:
            names = tuple(dict.fromkeys(bar.name for bar in hits))
            found[reading.topic.name] = leave_out(
                reading.topic, Outcome.EXCLUDED, Reason.CARRIES_BLOCKED, _why_barred(hits), twins=names
            )
    return found


def _has_moved_on(bar: Bar, reading: Reading, heads: Mapping[str, Sha]) -> bool:
    """Whether it is the barred one at a newer head, or is stacked on that: what mends a commit comes after it."""
    return bar.name == reading.topic.name or heads.get(bar.name) in reading.own_commits


def _why_barred(hits: Sequence[Bar]) -> str:
    blocked = tuple(dict.fromkeys(bar.name for bar in hits if not bar.barred_by))
    why = []
    if blocked:
        they, them = listed(blocked), "which is" if len(blocked) == 1 else "which are"
        why.append(f"it has commits of {they}, {them} blocked: rebase it without them, or have {they} unblocked")
    for bar in hits:
        if bar.barred_by:
            why.append(
                f"it has commits of {bar.name} at {bar.head[:12]}, which {bar.barred_by} barred: rebase it without "
                f"them, or onto a mended {bar.name}; or `patchstack release-hold '{bar.name}'`"
            )
    return "; ".join(why)


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
    holding: dict[Sha, list[Reading]] = {}
    for reading in pulls:
        for commit in reading.own_commits:
            holding.setdefault(commit, []).append(reading)
    found = {}
    for reading in pulls:
        # Who contains all of its commits contains any one of them.
        one = next(iter(reading.own_commits), None)
        others = pulls if one is None else holding[one]
        containing = [other for other in others if other is not reading and _is_within(reading, other)]
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
