"""Patches as commits on a base: each stands on the base plus what it requires, never on its neighbours.

Equal inputs give equal commits on any machine: author and date are the mail's, the committer is ours with
the same date, and the commit that joins several requirements has the latest date of what it joins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from patchstack.errors import ConfigError, UsageError
from patchstack.git import Repository
from patchstack.model import Base, LeftOut, Outcome, Reason, Sha, Topic
from patchstack.patches.header import Patch
from patchstack.patches.mutants import with_mutants
from patchstack.patches.series import with_required
from patchstack.patches.site import Site, leave_out

_NOT_NEEDED = (Reason.NOT_FOR_THIS_BASE, Reason.NO_EFFECT_ON_BASE)
"""Reasons after which what requires the patch still stands: the release has the cure by itself."""


def build_topics(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    *,
    optional_on: Collection[str],
    without: Collection[str] = (),
    barred: Mapping[tuple[str, Sha], tuple[Reason, str]] | None = None,
    releases: Mapping[str, Base] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[tuple[Topic, ...], tuple[LeftOut, ...]]:
    """Every patch that belongs on ``base`` as a topic, and every other one with the reason, in series order.

    ``releases`` gives other releases by version: a diff that was cut on another one than ``base`` is compared
    with it (`releases_to_compare` tells which). A release that matches no key of `bases` has the cure by
    itself: what requires such a patch needs nothing in its place. ``barred`` says why a patch may not be in tonight as
    it is, by slug and commit: an optional one is left out then.

    Raises `CompositionError` when a patch does not apply: it names the patch, the file, the hunk and the
    definition around it.
    """
    _check_names(patches, optional_on, without)
    site = Site(store, base, patches, {base.version: base, **(releases or {})})
    topics: list[Topic] = []
    left_out: dict[str, LeftOut] = {}
    for patch in patches:
        reason = _reason_to_leave_out(patch, base, optional_on, without, left_out)
        if reason is None:
            progress(f"patch {patch.slug}")
            made = site.topic(patch)
            why = (barred or {}).get((made.name, made.head)) if isinstance(made, Topic) and patch.optional else None
            if why is not None:
                made = leave_out(patch, Outcome.EXCLUDED, *why)
            if isinstance(made, Topic):
                topics.append(with_mutants(store, made, patch, base.version))
                continue
            reason = made
        left_out[patch.slug] = reason
    return tuple(topics), tuple(left_out.values())


def releases_to_compare(patches: tuple[Patch, ...], version: str) -> tuple[str, ...]:
    """The versions, other than ``version`` itself, on which diffs that go onto ``version`` were cut; sorted."""
    pending = [(patch, version) for patch in patches if patch.need_on(version) is not None]
    seen = set(pending)
    found: set[str] = set()
    while pending:
        patch, release = pending.pop()
        variant = patch.variant_for(release)
        if variant is None or variant.cut_on == release:
            continue
        found.add(variant.cut_on)
        fresh = {(lower, variant.cut_on) for lower in with_required(patches, patch.slug)} - seen
        seen |= fresh
        pending += fresh
    return tuple(sorted(found - {version}))


def _check_names(patches: Sequence[Patch], optional_on: Collection[str], without: Collection[str]) -> None:
    known = {patch.slug: patch for patch in patches}
    problems = []
    for slug in sorted(optional_on):
        if slug not in known:
            problems.append(f"optional: no patch of the series is called {slug}: mend the name")
        elif not known[slug].optional:
            problems.append(f"optional: {slug} is not optional in patches/series: remove it from the list")
    if problems:
        raise ConfigError(problems)
    unknown = sorted(set(without) - set(known))
    if unknown:
        raise UsageError(f"--without {unknown[0]}: no such patch; the series has: {', '.join(known)}")


def _reason_to_leave_out(
    patch: Patch,
    base: Base,
    optional_on: Collection[str],
    without: Collection[str],
    left_out: Mapping[str, LeftOut],
) -> LeftOut | None:
    if patch.slug in without:
        return leave_out(patch, Outcome.SKIPPED, Reason.ON_REQUEST, f"--without {patch.slug} was given")
    if patch.need_on(base.version) is None:
        keys = ", ".join(key for key, _ in patch.bases)
        detail = f"{base.version} matches no key of its `bases` ({keys})"
        return leave_out(patch, Outcome.SKIPPED, Reason.NOT_FOR_THIS_BASE, detail)
    if patch.optional and patch.slug not in optional_on:
        detail = f"switch it on with `optional: [{patch.slug}]` in the lane"
        return leave_out(patch, Outcome.SKIPPED, Reason.SWITCHED_OFF, detail)
    lacking = tuple(slug for slug in patch.requires if slug in left_out and left_out[slug].reason not in _NOT_NEEDED)
    if lacking:
        why = "; ".join(f"{slug}: {left_out[slug].reason}" for slug in lacking)
        return leave_out(
            patch, Outcome.EXCLUDED, Reason.REQUIRED_LEFT_OUT, f"it requires what is left out ({why})", twins=lacking
        )
    return None
