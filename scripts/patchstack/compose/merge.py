"""Merge a plan, one topic after the other, in git's object store alone.

`git merge -s octopus` detects no renames and fails as a whole. So each topic is merged as `git merge` would
merge it (`Stepwise`, or `Union`, which comes to the same and does less), and the last tree becomes one commit with
the base and every topic as parents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from patchstack.compose.left_out import in_order, leave_out, listed
from patchstack.compose.line import Line
from patchstack.compose.memo import Memo
from patchstack.compose.octopus import write_octopus
from patchstack.compose.protected import PROTECTED, refusal
from patchstack.compose.spellings import Spellings, spelled_twice
from patchstack.compose.stepwise import Stepwise
from patchstack.compose.union import Deltas, Union
from patchstack.errors import CompositionError
from patchstack.git import Change, Repository
from patchstack.model import Base, Composition, Kind, LeftOut, MergePlan, Outcome, Reason, Topic


def merge(
    store: Repository,
    plan: MergePlan,
    *,
    protected: Sequence[str] = PROTECTED,
    memo: Memo | None = None,
    stepwise: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Composition:
    """Compose what merges; leave out the later one of a conflict, and go on.

    What was carried by a topic that is left out here is left out as well (`CARRIER_LEFT_OUT`): `compose` plans
    again for it. ``stepwise``: nothing is remembered, and each topic is merged with all that came before it. Raises
    `CompositionError` when a required patch does not merge.
    """
    line = Stepwise(store, plan.base) if stepwise else _line(store, plan, memo or Memo())
    merging = _Merging(store, plan.base, plan.lane, tuple(protected), line)
    for topic in plan.steps:
        progress(f"merging {topic.name}")
        merging.step(topic)
    included, tree = tuple(line.included), line.tree()
    commit = write_octopus(store, plan.base, included, tree)
    left_out = in_order([*_orphaned(plan.left_out, merging.left_out), *merging.left_out.values()])
    return Composition(plan.lane, plan.base, commit, tree, included, left_out, plan.fingerprint)


def _line(store: Repository, plan: MergePlan, memo: Memo) -> Line:
    deltas = Deltas.read(store, plan.base.commit, plan.steps)
    return Union(store, plan.base, deltas, memo) if deltas.can_be_indexed else Stepwise(store, plan.base)


@dataclass
class _Merging:
    """How far the merge is."""

    store: Repository
    base: Base
    lane: str
    protected: tuple[str, ...]
    line: Line
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    spellings: Spellings | None = None
    """Of what is composed so far."""

    def step(self, topic: Topic) -> None:
        left_out = self._try(topic)
        if left_out is None:
            return
        if topic.required and left_out.outcome is Outcome.EXCLUDED:
            files = f" in {listed(left_out.files)}" if left_out.files else ""
            raise CompositionError(
                f"the required patch {topic.name} does not compose on {self.base.name}{files}: {left_out.detail}",
                patch=topic.name,
                files=left_out.files,
            )
        self.left_out[topic.name] = left_out

    def _try(self, topic: Topic) -> LeftOut | None:
        """Merge ``topic``; or say why it is left out, with nothing changed."""
        lacking = tuple(
            name for name in topic.requires if name in self.left_out and self.left_out[name].outcome is Outcome.EXCLUDED
        )
        if lacking:
            detail = f"it stands on {listed(lacking)}"
            return leave_out(topic, Outcome.EXCLUDED, Reason.REQUIRED_LEFT_OUT, detail, twins=lacking)
        attempt = self.line.attempt(topic)
        outcome = attempt.outcome
        if outcome.conflicts:
            return self._conflict(topic, outcome.conflicts)
        if not outcome.changes and outcome.tree in (None, self.line.tree()):
            twins = tuple(earlier.name for earlier in self.line.near(topic.paths))
            detail = f"{listed(twins)} together with the base hold all of it" if twins else "the base holds all of it"
            return leave_out(topic, Outcome.DROPPED, Reason.NO_EFFECT_ON_STACK, detail, twins=twins)
        if topic.kind is Kind.PULL:
            refused = self._brings_in(topic, outcome.changes)
            if refused is not None:
                return refused
        if self.spellings is not None:
            self.spellings.follow(outcome.changes)
        self.line.take(attempt)
        return None

    def _brings_in(self, topic: Topic, changes: Sequence[Change]) -> LeftOut | None:
        """Why ``changes`` may not be made to what is composed so far."""
        # A rename on one side and a change on the other can move a link to where it leads out of the tree.
        refused = refusal(self.store, changes, self.protected)
        if refused is not None:
            detail = f"merged with what is composed so far: {refused.detail}"
            return leave_out(topic, Outcome.EXCLUDED, refused.reason, detail, files=refused.files)
        if self.spellings is None:
            # Only now: patches, which come before all pull requests, may spell as their authors like.
            self.spellings = Spellings.of_tree(self.store, self.line.tree())
        clashes = self.spellings.clashes(changes)
        twice = spelled_twice(self.store, self.base.tree, clashes, self.line.included)
        if twice is None:
            return None
        refused, twins = twice
        return leave_out(topic, Outcome.EXCLUDED, refused.reason, refused.detail, twins=twins, files=refused.files)

    def _conflict(self, topic: Topic, files: tuple[str, ...]) -> LeftOut:
        culprits = self.line.culprits(topic, files)
        who = listed(culprits.names) if culprits.names else f"{self.base.name} itself"
        alone = ", though with none of them alone" if culprits.together else ""
        if topic.kind is Kind.PATCH:
            way_out = f"mend it (`patchstack patch edit {topic.name} FOLDER`), or its place in patches/series"
        else:
            way_out = f"merge {who} into it, or wait" if culprits.names else f"rebase it onto base/{self.lane}"
        detail = f"it conflicts with {who}{alone}: {way_out}"
        return leave_out(topic, Outcome.EXCLUDED, Reason.CONFLICT, detail, twins=culprits.names, files=files)


def _orphaned(planned: Sequence[LeftOut], fallen: dict[str, LeftOut]) -> list[LeftOut]:
    """What the plan left out; of it, what was carried by one of ``fallen`` is in no longer."""
    found = []
    for item in planned:
        lost = [twin for twin in item.twins if twin in fallen]
        if item.outcome is Outcome.CARRIED and lost:
            detail = f"{lost[0]}, which contains it, is left out: {fallen[lost[0]].reason}; plan again"
            item = replace(item, outcome=Outcome.EXCLUDED, reason=Reason.CARRIER_LEFT_OUT, detail=detail)
        found.append(item)
    return found
