"""Dedup, plan and merge until they agree: what a left-out pull request carried gets a night of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from patchstack.compose.dedup import dedup
from patchstack.compose.merge import merge
from patchstack.compose.plan import plan
from patchstack.compose.protected import PROTECTED
from patchstack.errors import PatchstackError
from patchstack.git import Repository
from patchstack.model import Candidates, Composition, Deduped, Fingerprint, LeftOut, MergePlan, Reason


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
    progress: Callable[[str], None] = lambda _: None,
) -> Composed:
    """Take the candidates to one commit.

    Where the merge leaves out a topic that carries another, it is out for good, and what it carried stands for
    itself in the next round: each round has one candidate less, so the rounds end.
    """
    while True:
        deduped = dedup(store, candidates, skips)
        planned = plan(deduped, lane=lane, base=candidates.base, fingerprint=fingerprint)
        composition = merge(store, planned, protected=protected, progress=progress)
        fallen = _fallen_carriers(composition)
        if not fallen:
            return Composed(deduped, planned, composition)
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
    """Compose again, with nothing remembered, and compare; `PatchstackError` names both when they differ.

    The commit itself is read back too: its tree and its parents must be those that the composition names.
    """
    again = compose(
        store,
        candidates,
        lane=composition.lane,
        skips=skips,
        fingerprint=composition.fingerprint,
        protected=protected,
    ).composition
    if again != composition:
        raise PatchstackError(
            f"composed again, it is {again.commit} (tree {again.tree}), not {composition.commit} (tree "
            f"{composition.tree}): equal inputs gave two results"
        )
    parents = (composition.base.commit, *(topic.commit for topic in composition.included))
    if store.parents(composition.commit) != parents or store.tree_of(composition.commit) != composition.tree:
        raise PatchstackError(f"{composition.commit} in the store has not the tree and parents of the composition")
