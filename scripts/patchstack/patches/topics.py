"""Patches as commits on a base: each stands on the base plus what it requires, never on its neighbours.

Equal inputs give equal commits on any machine: author and date are the mail's, the committer is ours with
the same date, and the commit that joins several requirements has the latest date of what it joins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from patchstack.errors import CompositionError, ConfigError, UsageError
from patchstack.git import Repository, Signature
from patchstack.model import Base, Kind, LeftOut, Outcome, Reason, Sha, Topic
from patchstack.patches.header import Patch
from patchstack.patches.placement import DoesNotApply, Landing, has_already, place, preimage_problems
from patchstack.patches.series import with_required
from patchstack.patches.variants import Variant, variant_name

_NOT_NEEDED = (Reason.NOT_FOR_THIS_BASE, Reason.NO_EFFECT_ON_BASE)
"""Reasons after which what requires the patch still stands: the release has the cure by itself."""


def build_topics(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    *,
    optional_on: Collection[str],
    without: Collection[str] = (),
    releases: Mapping[str, Base] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[tuple[Topic, ...], tuple[LeftOut, ...]]:
    """Every patch that belongs on ``base`` as a topic, and every other one with the reason, in series order.

    ``releases`` gives other releases by version: a diff that was cut on another one than ``base`` is compared
    with it (`releases_to_compare` tells which). A release that matches no key of `bases` has the cure by
    itself: what requires such a patch needs nothing in its place.

    Raises `CompositionError` when a patch does not apply: it names the patch, the file, the hunk and the
    definition around it.
    """
    _check_names(patches, optional_on, without)
    site = _Site(store, base, patches, {base.version: base, **(releases or {})})
    topics: list[Topic] = []
    left_out: dict[str, LeftOut] = {}
    for patch in patches:
        reason = _reason_to_leave_out(patch, base, optional_on, without, left_out)
        if reason is None:
            progress(f"patch {patch.slug}")
            made = site.topic(patch)
            if isinstance(made, Topic):
                topics.append(made)
                continue
            reason = made
        left_out[patch.slug] = reason
    return tuple(topics), tuple(left_out.values())


def parent_of(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    patch: Patch,
    *,
    releases: Mapping[str, Base] | None = None,
) -> Sha:
    """What the patch stands on: the base, the one patch that it requires, or a commit that joins several."""
    site = _Site(store, base, patches, {base.version: base, **(releases or {})})
    site.build(patch.requires)
    return site.parent(patch)


def topic_of(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    patch: Patch,
    *,
    releases: Mapping[str, Base] | None = None,
) -> Topic | LeftOut:
    """One patch, and what it requires, on ``base``, whatever its own `bases` and `optional` say."""
    site = _Site(store, base, patches, {base.version: base, **(releases or {})})
    site.build(patch.requires)
    return site.topic(patch)


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


def leave_out(patch: Patch, outcome: Outcome, reason: Reason, detail: str, *, twins: tuple[str, ...] = ()) -> LeftOut:
    return LeftOut(
        name=patch.slug,
        kind=Kind.PATCH,
        title=patch.title,
        author=patch.author,
        head=None,
        outcome=outcome,
        reason=reason,
        detail=detail,
        twins=twins,
        required=not patch.optional,
    )


@dataclass
class _Site:
    """One base, and the commits that were made on it so far."""

    store: Repository
    base: Base
    patches: tuple[Patch, ...]
    releases: Mapping[str, Base]
    commits: dict[str, Sha] = field(default_factory=dict)
    landings: dict[str, tuple[Landing, ...]] = field(default_factory=dict)
    others: dict[str, _Site] = field(default_factory=dict)
    """The same for other releases, by version."""

    def build(self, slugs: Collection[str]) -> None:
        """Make the commits of these patches and of all that they require, where the release needs them."""
        wanted = {lower.slug for slug in slugs for lower in with_required(self.patches, slug)}
        for patch in self.patches:
            if patch.slug in wanted - set(self.commits) and patch.need_on(self.base.version) is not None:
                self.topic(patch)

    def topic(self, patch: Patch) -> Topic | LeftOut:
        variant = patch.variant_for(self.base.version)
        if variant is None:
            name = variant_name(self.base.version, self.base.version)
            problem = f"{patch.header_path}:1: bases: it is for {self.base.version}, and no diff is"
            raise ConfigError([f"{problem}: add {name}, or narrow `bases`"])
        parent = self.parent(patch)
        if variant.cut_on == self.base.version:
            tree = self._place_where_cut(patch, variant, parent)
        else:
            landed = self._place_elsewhere(patch, variant, parent)
            if landed is None:
                return leave_out(
                    patch,
                    Outcome.DROPPED,
                    Reason.NO_EFFECT_ON_BASE,
                    f"{self.base.version} has all of it already: narrow `bases` in patches/{patch.slug}/patch.md",
                )
            tree = landed
        mail = variant.mail
        commit = self.store.commit(tree, [parent], mail.message, mail.author)
        self.commits[patch.slug] = commit
        return Topic(
            name=patch.slug,
            kind=Kind.PATCH,
            title=patch.title,
            author=f"{mail.author.name} <{mail.author.email}>",
            head=commit,
            commit=commit,
            own_from=parent,
            own_to=commit,
            patch_id=self.store.patch_id(parent, commit),
            paths=tuple(change.path for change in self.store.changes(parent, commit)),
            required=not patch.optional,
            requires=patch.requires,
        )

    # --- what it stands on ---

    def parent(self, patch: Patch) -> Sha:
        """The base, the one required patch, or a commit that joins several."""
        inner = {
            lower.slug for slug in patch.requires for lower in with_required(self.patches, slug) if lower.slug != slug
        }
        order = [other.slug for other in self.patches]
        tops = [
            (slug, self.commits[slug])
            for slug in sorted(set(patch.requires) - inner, key=order.index)
            if slug in self.commits
        ]
        if len(tops) < 2:
            return tops[0][1] if tops else self.base.commit
        message = f"What {patch.slug} requires: {', '.join(slug for slug, _ in tops)}\n"
        joined = tops[0][1]
        for position, (slug, commit) in enumerate(tops[1:], 1):
            merged = self.store.merge_tree(joined, commit)
            if not merged.clean:
                raise CompositionError(
                    f"patch `{patch.slug}` requires patches that conflict on {self.base.version}: `{slug}` with "
                    f"{' and '.join(f'`{before}`' for before, _ in tops[:position])} in {', '.join(merged.conflicts)}"
                )
            last = position == len(tops) - 1
            parents = [commit for _, commit in tops] if last else [joined, commit]
            joined = self.store.commit(merged.tree, parents, message, Signature(date=self._latest(tops)))
        return joined

    def _latest(self, tops: Sequence[tuple[str, Sha]]) -> str:
        return f"@{max(int(self.store.show(commit, '%ct')) for _, commit in tops)} +0000"

    # --- applying ---

    def _place_where_cut(self, patch: Patch, variant: Variant, parent: Sha) -> Sha:
        problems = preimage_problems(self.store, parent, variant.files)
        if not problems:
            try:
                placed = place(self.store, self.store.tree_of(parent), variant.mail.diff, variant.files)
            except DoesNotApply as error:
                problems = list(error.problems)
            else:
                problems = _moved(variant, placed.landings)
                self.landings[patch.slug] = placed.landings
        if problems:
            what = f"{self.base.version}, on which it was cut"
            raise _refusal(patch, variant, what, problems)
        return placed.tree

    def _place_elsewhere(self, patch: Patch, variant: Variant, parent: Sha) -> Sha | None:
        """The tree, or None when the release has the whole effect already."""
        before = self.store.tree_of(parent)
        meant = self._landings_where_cut(patch, variant)
        try:
            placed = place(self.store, before, variant.mail.diff, variant.files)
        except DoesNotApply as error:
            if has_already(self.store, before, variant.mail.diff):
                return None
            problems = list(error.problems)
        else:
            problems = _strayed(placed.landings, meant)
        if problems:
            raise _refusal(patch, variant, f"{self.base.version} (it was cut on {variant.cut_on})", problems)
        return placed.tree

    def _landings_where_cut(self, patch: Patch, variant: Variant) -> tuple[Landing, ...]:
        """The patch's landings on the release that the variant was cut on; what it requires is made there first."""
        release = self.releases.get(variant.cut_on)
        if release is None:
            problem = f"{variant.path}:1: Cut-On: {self.base.version} must be compared with {variant.cut_on}"
            raise ConfigError([f"{problem}, which is not at hand: fetch that release as well"])
        site = self.others.setdefault(
            variant.cut_on, _Site(self.store, release, self.patches, self.releases, others=self.others)
        )
        site.build(patch.requires)
        if patch.slug not in site.commits:
            site.topic(patch)
        return site.landings[patch.slug]


def _strayed(landings: Sequence[Landing], meant: Sequence[Landing]) -> list[str]:
    """Every hunk that would land in another definition than the one in which it was cut."""
    problems = []
    for landing, cut in zip(landings, meant, strict=True):
        if landing.definitions != cut.definitions:
            problems.append(
                f"{landing.path} hunk {landing.hunk}: it was cut in {_named(cut)} (line {cut.old_line}),"
                f" and would land in {_named(landing)} (line {landing.old_line})"
            )
    return problems


def _moved(variant: Variant, landings: Sequence[Landing]) -> list[str]:
    """On the release that it was cut on a hunk lands on the line that it states."""
    stated = {(file.path, hunk.number): hunk.old_start for file in variant.files for hunk in file.hunks}
    return [
        f"{landing.path} hunk {landing.hunk}: it says line {stated[landing.path, landing.hunk]},"
        f" and its lines stand at {landing.old_line}"
        for landing in landings
        if landing.old_line != stated[landing.path, landing.hunk]
    ]


def _named(landing: Landing) -> str:
    return " and ".join(f"`{name}`" for name in landing.definitions)


def _refusal(patch: Patch, variant: Variant, release: str, problems: Sequence[str]) -> CompositionError:
    kind = "optional" if patch.optional else "required"
    lines = "\n".join(f"  {problem}" for problem in problems)
    return CompositionError(
        f"{kind} patch `{patch.slug}` ({variant.path.name}) does not apply on {release}:\n{lines}\n"
        f"  mend it in a work tree (patchstack patch edit {patch.slug} FOLDER) and write it back (patch export)"
    )
