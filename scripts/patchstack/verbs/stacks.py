"""A lane's stack on its real base, composed for a look: what is in it, and every patch that is in the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from patchstack import verdict
from patchstack.compose.merge import merge
from patchstack.errors import CompositionError
from patchstack.git import Repository
from patchstack.model import Base, Fingerprint, LeftOut, MergePlan, Outcome, Reason, Topic
from patchstack.patches.header import Patch
from patchstack.patches.placement import preimage_problems
from patchstack.patches.site import parent_of, stands_on, topic_of
from patchstack.patches.topics import build_topics, releases_to_compare
from patchstack.verbs.author import base_of, read_releases
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class LaneStack:
    """One lane of one side."""

    work: Workplace
    base: Base
    topics: tuple[Topic, ...]
    """In series order; of a stack with a patch that does not apply, the others."""
    left_out: tuple[LeftOut, ...]
    shown: verdict.Stack


def compose_stack(work: Workplace, store: Repository, patches: tuple[Patch, ...]) -> LaneStack:
    """The required patches, and the optional ones that are on, of ``work``'s lane, in ``store``; nothing is pushed.

    A night stops at the first patch that does not apply or merge. Here each is named.
    """
    base = base_of(work, store, work.lane_name)
    releases = read_releases(work, store, releases_to_compare(patches, base.version))
    try:
        topics, left_out = build_topics(
            store, base, patches, optional_on=work.lane.optional, releases=releases, progress=work.progress
        )
    except CompositionError:
        return _with_refusals(work, store, base, patches, releases)
    # As if none were required: then a conflict is no end, but a value with its files and twins.
    steps = tuple(replace(topic, required=False) for topic in topics)
    made = merge(store, MergePlan(work.lane_name, base, steps, left_out, Fingerprint("", ())), progress=work.progress)
    optional = {patch.slug: patch.optional for patch in patches}
    refusals = tuple(
        verdict.PatchRefusal(
            patch=item.name,
            optional=optional[item.name],
            files=verdict.names(item.files),
            conflicts_with=item.twins,
            said=verdict.lines(item.detail),
        )
        for item in made.left_out
        if item.reason is Reason.CONFLICT
    )
    shown = verdict.Stack(
        base=verdict.name(base.name),
        commit=None if refusals else made.commit,
        tree=None if refusals else made.tree,
        patches=tuple(topic.name for topic in made.included),
        left_out=tuple(map(_left_out, (item for item in made.left_out if item.reason is not Reason.CONFLICT))),
        refusals=refusals,
    )
    return LaneStack(work, base, topics, left_out, shown)


def _left_out(item: LeftOut) -> verdict.LeftOutPatch:
    reason = f"{item.outcome.value}: {item.reason.value}"
    return verdict.LeftOutPatch(patch=item.name, reason=reason, detail=verdict.line(item.detail))


def _with_refusals(
    work: Workplace, store: Repository, base: Base, patches: tuple[Patch, ...], releases: Mapping[str, Base]
) -> LaneStack:
    """Every patch by itself: one that stands on a refused one is refused in the other's words, which are told once."""
    topics: list[Topic] = []
    left_out: list[LeftOut] = []
    refusals: dict[str, verdict.PatchRefusal] = {}
    held_up: dict[str, list[str]] = {}
    for patch in patches:
        if patch.need_on(base.version) is None or (patch.optional and patch.slug not in work.lane.optional):
            continue
        try:
            made = topic_of(store, base, patches, patch, releases=releases)
        except CompositionError as error:
            if error.patch == patch.slug:
                refusals[patch.slug] = _refusal(store, base, patches, patch, releases, error)
            else:
                held_up.setdefault(error.patch, []).append(patch.slug)
            continue
        if isinstance(made, Topic):
            topics.append(made)
        else:
            left_out.append(made)
    shown = verdict.Stack(
        base=verdict.name(base.name),
        left_out=tuple(_left_out(item) for item in left_out if item.outcome is not Outcome.EXCLUDED),
        refusals=tuple(
            refusal.model_copy(update={"holds_up": tuple(held_up.get(slug, ()))}) for slug, refusal in refusals.items()
        ),
    )
    return LaneStack(work, base, tuple(topics), tuple(left_out), shown)


def _refusal(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    patch: Patch,
    releases: Mapping[str, Base],
    error: CompositionError,
) -> verdict.PatchRefusal:
    files = error.files or _other_preimages(store, base, patches, patch, releases)
    _, below = stands_on(store, base, patches, patch, releases=releases) if not error.files else (None, patch.requires)
    return verdict.PatchRefusal(
        patch=patch.slug,
        optional=patch.optional,
        files=verdict.names(files),
        conflicts_with=tuple(
            other.slug for other in patches if other.slug in below and _changes(other, base.version, files)
        ),
        said=verdict.lines(str(error)),
    )


def _other_preimages(
    store: Repository, base: Base, patches: tuple[Patch, ...], patch: Patch, releases: Mapping[str, Base]
) -> tuple[str, ...]:
    """Where it was cut, the files that it finds other than it left them; on another release that says nothing."""
    variant = patch.variant_for(base.version)
    if variant is None or variant.cut_on != base.version:
        return ()
    parent = parent_of(store, base, patches, patch, releases=releases)
    return tuple(file.path for file in variant.files if preimage_problems(store, parent, (file,)))


def _changes(patch: Patch, version: str, files: tuple[str, ...]) -> bool:
    variant = patch.variant_for(version)
    return variant is not None and any(file.path in files for file in variant.files)
