"""One base, and the patches' commits on it.

On the release that a diff was cut on every pre-image must match and every hunk must land on its own line. On
another release of its range each hunk must land in the definition in which it was cut.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from patchstack.errors import CompositionError, ConfigError
from patchstack.git import Repository, Signature
from patchstack.model import Base, Kind, LeftOut, Outcome, Reason, Sha, Topic
from patchstack.patches.header import Patch
from patchstack.patches.placement import DoesNotApply, Placement, definitions, has_already, place, preimage_problems
from patchstack.patches.series import with_required
from patchstack.patches.variants import Variant, variant_name


@dataclass
class Site:
    """One base, and the commits that were made on it so far."""

    store: Repository
    base: Base
    patches: tuple[Patch, ...]
    releases: Mapping[str, Base]
    commits: dict[str, Sha] = field(default_factory=dict)
    placements: dict[str, Placement] = field(default_factory=dict)
    others: dict[str, Site] = field(default_factory=dict)
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
        direct = self._present(patch)
        inner = {lower.slug for slug in direct for lower in with_required(self.patches, slug) if lower.slug != slug}
        tops = [(other.slug, self.commits[other.slug]) for other in self.patches if other.slug in direct - inner]
        if len(tops) < 2:
            return tops[0][1] if tops else self.base.commit
        message = f"What {patch.slug} requires: {', '.join(slug for slug, _ in tops)}\n"
        joined = tops[0][1]
        for position, (slug, commit) in enumerate(tops[1:], 1):
            merged = self.store.merge_tree(joined, commit)
            if not merged.clean:
                raise CompositionError(
                    f"patch `{patch.slug}` requires patches that conflict on {self.base.version}: `{slug}` with "
                    f"{' and '.join(f'`{before}`' for before, _ in tops[:position])} in {', '.join(merged.conflicts)}",
                    patch=patch.slug,
                    files=merged.conflicts,
                )
            last = position == len(tops) - 1
            parents = [commit for _, commit in tops] if last else [joined, commit]
            joined = self.store.commit(merged.tree, parents, message, Signature(date=self._latest(tops)))
        return joined

    def _present(self, patch: Patch) -> set[str]:
        """What it requires and this base does not have by itself: in place of a patch that the base has, its own."""
        found: set[str] = set()
        for lower in self.patches:
            if lower.slug in patch.requires:
                found |= {lower.slug} if lower.slug in self.commits else self._present(lower)
        return found

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
                problems = _moved(variant, placed)
                self.placements[patch.slug] = placed
        if problems:
            raise _refusal(patch, variant, self.base.version, problems)
        return placed.tree

    def _place_elsewhere(self, patch: Patch, variant: Variant, parent: Sha) -> Sha | None:
        """The tree, or None when the release has the whole effect already."""
        before = self.store.tree_of(parent)
        meant = self._placement_where_cut(patch, variant)
        try:
            placed = place(self.store, before, variant.mail.diff, variant.files)
            problems = _strayed(self.store, variant, placed, meant)
        except DoesNotApply as error:
            if has_already(self.store, before, variant.mail.diff):
                return None
            problems = list(error.problems)
        if problems:
            raise _refusal(patch, variant, self.base.version, problems)
        return placed.tree

    def _placement_where_cut(self, patch: Patch, variant: Variant) -> Placement:
        """Where the patch landed on the release that the variant was cut on; what it requires is made there first."""
        release = self.releases.get(variant.cut_on)
        if release is None:
            problem = f"{variant.path}:1: Cut-On: {self.base.version} must be compared with {variant.cut_on}"
            raise ConfigError([f"{problem}, which is not at hand: fetch that release as well"])
        site = self.others.setdefault(
            variant.cut_on, Site(self.store, release, self.patches, self.releases, others=self.others)
        )
        site.build(patch.requires)
        if patch.slug not in site.commits:
            site.topic(patch)
        return site.placements[patch.slug]


def parent_of(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    patch: Patch,
    *,
    releases: Mapping[str, Base] | None = None,
) -> Sha:
    """What the patch stands on: the base, the one patch that it requires, or a commit that joins several."""
    return stands_on(store, base, patches, patch, releases=releases)[0]


def stands_on(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    patch: Patch,
    *,
    releases: Mapping[str, Base] | None = None,
) -> tuple[Sha, tuple[str, ...]]:
    """`parent_of`, and every patch that is in it, whether required directly or not, in series order."""
    site = Site(store, base, patches, {base.version: base, **(releases or {})})
    site.build(patch.requires)
    return site.parent(patch), tuple(other.slug for other in patches if other.slug in site.commits)


def topic_of(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    patch: Patch,
    *,
    releases: Mapping[str, Base] | None = None,
) -> Topic | LeftOut:
    """One patch, and what it requires, on ``base``, whatever its own `bases` and `optional` say."""
    site = Site(store, base, patches, {base.version: base, **(releases or {})})
    site.build(patch.requires)
    return site.topic(patch)


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


def _strayed(store: Repository, variant: Variant, placed: Placement, meant: Placement) -> list[str]:
    """Every hunk that would land in another definition than the one in which it was cut."""
    return [
        f"{landing.path} hunk {landing.hunk}: it was cut in {_named(home)} (line {cut.old_line}),"
        f" and would land in {_named(here)} (line {landing.old_line})"
        for landing, here, cut, home in zip(
            placed.landings,
            definitions(store, placed, variant.files),
            meant.landings,
            definitions(store, meant, variant.files),
            strict=True,
        )
        if here != home
    ]


def _moved(variant: Variant, placed: Placement) -> list[str]:
    """On the release that it was cut on a hunk lands on the line that it states."""
    stated = {(file.path, hunk.number): hunk.old_start for file in variant.files for hunk in file.hunks}
    return [
        f"{landing.path} hunk {landing.hunk}: it says line {stated[landing.path, landing.hunk]},"
        f" and its lines stand at {landing.old_line}"
        for landing in placed.landings
        if landing.old_line != stated[landing.path, landing.hunk]
    ]


def _named(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _refusal(patch: Patch, variant: Variant, version: str, problems: Sequence[str]) -> CompositionError:
    kind = "optional" if patch.optional else "required"
    lines = "\n".join(f"  {problem}" for problem in problems)
    if variant.cut_on == version:
        where = f"{version}, on which it was cut"
        cure = f"mend it in a work tree (patchstack patch edit {patch.slug} FOLDER) and write it back (patch export)"
    else:
        where = f"{version} (it was cut on {variant.cut_on})"
        cure = (
            f"end the range in its file name before {version}, and cut a diff for {version}"
            f" (patchstack patch edit {patch.slug} FOLDER), or narrow `bases`"
        )
    what = f"{kind} patch `{patch.slug}` ({variant.path.name})"
    return CompositionError(f"{what} does not apply on {where}:\n{lines}\n  {cure}", patch=patch.slug)
