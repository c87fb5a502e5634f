"""Parts of a night: what was composed, less some topics and what cannot stay without them. Nothing is ever added.

To find out who made a night red, parts of it are asked, in which a changed patch is as the last promoted night had it
(`in_part`). What is shipped in the end is all that was composed, less those who were found guilty (`leave_out`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from patchstack.compose.left_out import in_order, listed
from patchstack.compose.left_out import leave_out as left_out_as
from patchstack.compose.merge import merge
from patchstack.compose.plan import fingerprint_of
from patchstack.compose.protected import PROTECTED
from patchstack.errors import CompositionError
from patchstack.git import Repository, readable
from patchstack.model import (
    Composition,
    Fingerprint,
    Kind,
    LedgerLine,
    LeftOut,
    MergePlan,
    Outcome,
    Reason,
    Sha,
    Topic,
)

WAITING = "left out until the next night"
"""The input of a fingerprint that keeps a night from being the next one's: that one will have more."""


@dataclass(frozen=True)
class Against:
    """Tonight held against the last promoted night."""

    composition: Composition
    changed: tuple[str, ...]
    """Topics that it had not, or at another head, in merge order; without such a night, all."""
    removed: tuple[tuple[str, Sha], ...]
    """What it had and tonight has not."""
    then: Mapping[str, Topic]
    """Its topics, as they can be merged on tonight's base; none where that is another."""
    base_changed: bool

    @property
    def goes_with(self) -> dict[str, tuple[str, ...]]:
        """Of each topic those that cannot stay without it: they stand on it, or have commits of its own."""
        return _goes_with(self.composition)

    def has_old(self, name: str) -> bool:
        """Whether the patch can be there as it was then, provided that what it stood on then is."""
        old = self.then.get(name)
        here = {topic.name for topic in self.composition.included}
        return old is not None and old.kind is Kind.PATCH and here.issuperset(old.requires)


def against(store: Repository, composition: Composition, last: LedgerLine | None) -> Against:
    """``last`` is the line of what is deployed; None: nothing is."""
    if last is None:
        return Against(composition, tuple(topic.name for topic in composition.included), (), {}, base_changed=False)
    heads, digests = dict(last.included), dict(last.patches)
    inputs = dict(composition.fingerprint.inputs)

    def is_changed(topic: Topic) -> bool:
        if topic.name not in heads:
            return True
        if topic.kind is Kind.PATCH and topic.name in digests:  # on another base it is another commit in any case
            return digests[topic.name] != inputs.get(f"patch {topic.name}")
        return heads[topic.name] != topic.head

    here = {topic.name for topic in composition.included}
    base_changed = last.base_commit != composition.base.commit
    return Against(
        composition,
        tuple(topic.name for topic in composition.included if is_changed(topic)),
        tuple((name, head) for name, head in last.included if name not in here),
        {} if base_changed else _topics_then(store, last),
        base_changed,
    )


def _topics_then(store: Repository, line: LedgerLine) -> dict[str, Topic]:
    """What the octopus of ``line`` has merged; nothing where it is not at hand, or does not fit its line."""
    if not store.has(f"{line.composition}^{{commit}}"):
        return {}
    parents = store.parents(line.composition)
    if len(parents) != len(line.included) + 1 or parents[0] != line.base_commit:
        return {}
    merged = [(name, head, commit) for (name, head), commit in zip(line.included, parents[1:], strict=True)]
    patches = {commit: name for name, _, commit in merged if "#" not in name}  # a slug holds no #
    return {name: _topic_then(store, line, name, head, commit, patches) for name, head, commit in merged}


def _topic_then(
    store: Repository, line: LedgerLine, name: str, head: Sha, commit: Sha, patches: Mapping[Sha, str]
) -> Topic:
    reached = set(store.commits(commit, f"^{line.base_commit}"))
    below = next(iter(store.parents(commit)), line.base_commit)
    return Topic(
        name=name,
        kind=Kind.PULL if "#" in name else Kind.PATCH,
        title="",
        author="",
        head=head,
        commit=commit,
        own_from=below,
        own_to=commit,
        patch_id="",
        paths=tuple(readable(change.path) for change in store.changes(line.base_commit, commit)),
        required="#" not in name and name not in line.optional,
        requires=tuple(slug for other, slug in patches.items() if other in reached and slug != name),
    )


def in_part(
    store: Repository, tonight: Against, without: Collection[str], *, protected: Sequence[str] = PROTECTED
) -> Composition | None:
    """Tonight less the changed topics of ``without``; None where that does not compose.

    Of these a patch is there as the last promoted night had it, where it had it. What has not changed and stands on
    one of them is there as it was then, too.
    """
    steps: list[Topic] = []
    there: dict[str, Sha] = {}
    gone: set[str] = set()
    for topic in tonight.composition.included:
        out = topic.name in without
        if not out and gone.isdisjoint(topic.requires):
            steps.append(topic)
            there[topic.name] = topic.commit
            continue
        gone.add(topic.name)
        old = tonight.then.get(topic.name)
        if out and (old is None or topic.kind is Kind.PULL):
            continue
        fits = old is not None and all(there.get(slug) == tonight.then[slug].commit for slug in old.requires)
        if old is None or not fits or (not out and topic.name in tonight.changed):
            return None
        steps.append(replace(old, required=topic.required))
        there[topic.name] = old.commit
    made = tonight.composition
    plan = MergePlan(made.lane, made.base, tuple(steps), (), made.fingerprint)
    try:
        merged = merge(store, plan, protected=protected)
    except CompositionError:  # a required patch
        return None
    return None if any(item.outcome is Outcome.EXCLUDED for item in merged.left_out) else merged


def leave_out(
    store: Repository, composition: Composition, guilty: Mapping[str, str], *, protected: Sequence[str] = PROTECTED
) -> Composition:
    """``composition`` less the topics of ``guilty``, each with a sentence on why, and what cannot stay without them.

    It has the fingerprint of the next night, which finds their heads barred, where that one will have no more.
    What conflicts now is left out as well. Raises `CompositionError` where a required patch does not merge.
    """
    out = bound_to(composition, guilty)
    topics = {topic.name: topic for topic in composition.included}
    fresh = [_left_out(topics[name], because, guilty) for name, because in out.items()]
    before = [_orphaned(item, out) for item in composition.left_out]
    kept = tuple(topic for topic in composition.included if topic.name not in out)
    plan = MergePlan(composition.lane, composition.base, kept, in_order([*before, *fresh]), composition.fingerprint)
    merged = merge(store, plan, protected=protected)
    here = {topic.name for topic in merged.included}
    fell = [topic.name for topic in kept if topic.name not in here]
    waiting = [item.name for item in composition.left_out if {*item.twins} & {*out, *fell}] + fell
    # What stands on a patch that is gone is cut anew the next time, and may stand without it.
    waiting += [item.name for item in fresh if item.reason is Reason.REQUIRED_LEFT_OUT and item.kind is Kind.PULL]
    return replace(
        merged,
        fingerprint=_next_fingerprint(composition.fingerprint, fresh, waiting),
        hotfix=composition.hotfix,
        bound=tuple(pair for pair in composition.bound if here.issuperset(pair)),
    )


def bound_to(composition: Composition, names: Collection[str]) -> dict[str, str]:
    """Those of ``names`` that are in it, and what cannot stay without them, in merge order; each with whom it goes.

    One of ``names`` goes by itself.
    """
    found = {topic.name: topic.name for topic in composition.included if topic.name in names}
    goes, waiting = _goes_with(composition), list(found)
    while waiting:
        name = waiting.pop(0)
        for other in goes.get(name, ()):
            if other not in found:
                found[other] = name
                waiting.append(other)
    return {topic.name: found[topic.name] for topic in composition.included if topic.name in found}


def _goes_with(composition: Composition) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for topic in composition.included:
        for name in topic.requires:
            found.setdefault(name, []).append(topic.name)
    for name, other in composition.bound:
        found.setdefault(other, []).append(name)
    return {name: tuple(dict.fromkeys(others)) for name, others in found.items()}


def _left_out(topic: Topic, because: str, guilty: Mapping[str, str]) -> LeftOut:
    if topic.name in guilty:
        return left_out_as(topic, Outcome.EXCLUDED, Reason.GUILTY, guilty[topic.name])
    if because in topic.requires:
        return left_out_as(
            topic, Outcome.EXCLUDED, Reason.REQUIRED_LEFT_OUT, f"it stands on {because}", twins=(because,)
        )
    detail = f"it has commits of {because}, which this night leaves out: rebase it without them, or onto a mended one"
    return left_out_as(topic, Outcome.EXCLUDED, Reason.CARRIES_BLOCKED, detail, twins=(because,))


def _orphaned(item: LeftOut, out: Collection[str]) -> LeftOut:
    """What was in by way of one that is out now is out as well: it was never composed by itself."""
    lost = [twin for twin in item.twins if twin in out]
    if item.outcome is not Outcome.CARRIED or not lost:
        return item
    detail = f"{listed(lost)}, which contains it, is left out tonight: it stands for itself in the next night"
    return replace(item, outcome=Outcome.EXCLUDED, reason=Reason.CARRIER_LEFT_OUT, detail=detail)


def _next_fingerprint(tonight: Fingerprint, fresh: Sequence[LeftOut], waiting: Sequence[str]) -> Fingerprint:
    """What the next night's plan is named, if nothing changes but that the guilty are barred (`compose/plan.py`)."""
    inputs = dict(tonight.inputs)
    for item in fresh:
        if item.kind is Kind.PATCH:
            inputs[f"left out {item.name}"] = item.reason.value
        elif item.reason is Reason.GUILTY:
            inputs.pop(f"pull request {item.name}", None)
            inputs[f"barred {item.name} {item.head}"] = ""
    if waiting:
        inputs[WAITING] = " ".join(sorted(set(waiting)))
    return fingerprint_of(inputs)


def as_if_never_opened(tonight: Fingerprint, guilty: Sequence[tuple[str, str]]) -> Fingerprint:
    """What a plan without ``guilty``, pull requests by name and head, would have been named had they never been there.

    So what was taken back does not come back because somebody opens a pull request that breaks a guard.
    """
    gone = {f"barred {name} {head}" for name, head in guilty}
    return fingerprint_of({name: value for name, value in tonight.inputs if name not in gone})
