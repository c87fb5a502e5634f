"""Dedup, plan and merge until they agree: what a left-out pull request carried gets a night of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from patchstack.compose.dedup import bound, dedup
from patchstack.compose.left_out import listed
from patchstack.compose.memo import Memo
from patchstack.compose.merge import merge
from patchstack.compose.plan import plan
from patchstack.compose.protected import PROTECTED
from patchstack.errors import PatchstackError
from patchstack.git import Repository
from patchstack.model import Candidates, Composition, Deduped, Fingerprint, Kind, LeftOut, MergePlan, Reason, Topic


@dataclass(frozen=True)
class Composed:
    """The last round: what it kept, planned and merged."""

    deduped: Deduped
    plan: MergePlan
    composition: Composition


def compose(
    store: Repository,
    candidates: Candidates,
    *,
    lane: str,
    skips: Mapping[str, str],
    fingerprint: Fingerprint,
    protected: Sequence[str] = PROTECTED,
    memo: Memo | None = None,
    stepwise: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Composed:
    """Take the candidates to one commit; for ``memo`` and ``stepwise`` see `merge`.

    Where the merge leaves out a topic that carries another, it is out for good, and what it carried stands for
    itself in the next round: each round has one candidate less, so the rounds end.
    """
    while True:
        deduped = dedup(store, candidates, skips, memo)
        planned = plan(deduped, lane=lane, base=candidates.base, fingerprint=fingerprint)
        composition = merge(store, planned, protected=protected, memo=memo, stepwise=stepwise, progress=progress)
        fallen = _fallen_carriers(composition)
        if not fallen:
            pairs = bound(store, composition.included, candidates.topics)
            return Composed(deduped, planned, replace(composition, bound=pairs))
        candidates = replace(
            candidates,
            topics=tuple(topic for topic in candidates.topics if topic.name not in fallen),
            left_out=(*candidates.left_out, *fallen.values()),
        )


def _fallen_carriers(composition: Composition) -> dict[str, LeftOut]:
    orphans = [item for item in composition.left_out if item.reason is Reason.CARRIER_LEFT_OUT]
    carriers = {twin for orphan in orphans for twin in orphan.twins}
    return {item.name: item for item in composition.left_out if item.name in carriers}


def verify(
    store: Repository,
    candidates: Candidates,
    composition: Composition,
    *,
    skips: Mapping[str, str],
    protected: Sequence[str] = PROTECTED,
) -> None:
    """Compose again, step by step and with nothing remembered, and compare; `PatchstackError` names what differs.

    What the candidates say of their own diffs is read again, and the commit itself is read back too: its tree and its
    parents must be those that the composition names.
    """
    _verify_topics(store, candidates.topics)
    again = compose(
        store,
        candidates,
        lane=composition.lane,
        skips=skips,
        fingerprint=composition.fingerprint,
        protected=protected,
        stepwise=True,
    ).composition
    if again != composition:
        raise PatchstackError(
            f"composed again, it is {again.commit} (tree {again.tree}), not {composition.commit} (tree "
            f"{composition.tree}): equal inputs gave two results{_differing(again, composition)}; remove the memo "
            f"folder of the state, merge again, and report it"
        )
    parents = (composition.base.commit, *(topic.commit for topic in composition.included))
    if store.parents(composition.commit) != parents or store.tree_of(composition.commit) != composition.tree:
        raise PatchstackError(f"{composition.commit} in the store has not the tree and parents of the composition")


def _verify_topics(store: Repository, topics: Sequence[Topic]) -> None:
    for topic in topics:
        if topic.kind is Kind.PULL and topic.patch_id != store.patch_id(topic.own_from, topic.own_to):
            raise PatchstackError(
                f"{topic.name} is planned with patch id {topic.patch_id or 'none'}, and its diff {topic.own_from}.."
                f"{topic.own_to} has another: remove the memo folder of the state, and plan again"
            )


def _differing(again: Composition, before: Composition) -> str:
    """The topics that fare otherwise, as the end of a sentence."""
    now, then = _fates(again), _fates(before)
    names = [name for name in now | then if now.get(name) != then.get(name)]
    return f" ({listed(names)} fared differently)" if names else ""


def _fates(made: Composition) -> dict[str, Topic | LeftOut]:
    fates: dict[str, Topic | LeftOut] = {topic.name: topic for topic in made.included}
    return fates | {item.name: item for item in made.left_out}
