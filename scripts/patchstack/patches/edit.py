"""`patch edit`: a work tree with the stack as commits up to one patch, for a human with ordinary git.

Every patch before it that belongs on the base is a commit, in series order; the patch itself is the topmost
one. `export.py` takes what stands on top of the stack back into the patch's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import CompositionError, UsageError
from patchstack.git import Repository
from patchstack.model import Base, Sha, Topic
from patchstack.patches.header import Patch
from patchstack.patches.mail import authorship, message_of
from patchstack.patches.replay import replay
from patchstack.patches.series import with_required
from patchstack.patches.topics import build_topics
from patchstack.patches.worktree import WorkTree, branch_of


@dataclass(frozen=True)
class Edited:
    """What `edit` made."""

    folder: Path
    branch: str
    below: tuple[str, ...]
    """The patches that are commits below this one, in order."""
    note: str
    """What the human has to do first; empty when the patch is the topmost commit."""


def find_patch(patches: tuple[Patch, ...], slug: str) -> Patch:
    found = next((patch for patch in patches if patch.slug == slug), None)
    if found is None:
        known = ", ".join(patch.slug for patch in patches) or "none"
        raise UsageError(f"no patch is called {slug!r}; the series has: {known}")
    return found


def edit(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    slug: str,
    folder: Path,
    *,
    releases: Mapping[str, Base] | None = None,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Edited:
    """Make ``folder`` the work tree of ``slug``; ``dry_run``: only say what would be in it.

    Refused with `UsageError`, and nothing changed, when ``folder`` holds anything that could be lost. When the
    patch has no diff for this release, or one that does not apply, its commit is left to the human (`note`).
    """
    patch = find_patch(patches, slug)
    work = WorkTree(folder.absolute())
    work.must_be_free()
    if patch.need_on(base.version) is None:
        raise UsageError(f"{slug} is not for {base.version}: add a key to `bases` in {patch.header_path} first")
    variant = patch.variant_for(base.version)
    if variant is not None and variant.cut_on != base.version:
        raise UsageError(
            f"{variant.path.name} of {slug} was cut on {variant.cut_on}, and this lane is on {base.version}: edit it in"
            " a lane of that release, or narrow the range in its file name and edit it here to cut another diff"
        )
    below = stack_below(patches, patch, base)
    topics = _topics(store, base, below, releases, progress)
    onto = _stacked(store, base, topics)
    tip, note = onto, ""
    if variant is None:
        older = patch.variants[-1].path if patch.variants else None
        note = f"the patch has no diff for {base.version} yet: {_take(folder, older)}"
    else:
        try:
            own = _topics(store, base, with_required(patches, slug), releases, progress)[-1]
            tip = _commit_onto(store, own, onto)
        except CompositionError as error:
            note = f"{error}\nThe work tree is the stack below it: {_take(folder, variant.path)}"
    if not dry_run:
        progress(f"checking out {folder}")
        work.lay(store, slug, base=base.commit, onto=onto, tip=tip)
    return Edited(work.folder, branch_of(slug), tuple(topic.name for topic in topics), note)


def _take(folder: Path, diff: Path | None) -> str:
    if diff is None:
        return "make it one or more commits"
    return f"git -C {folder} am --keep --keep-cr --3way {diff.absolute()}"


def stack_below(patches: tuple[Patch, ...], patch: Patch, base: Base) -> tuple[Patch, ...]:
    """The patches that are commits below ``patch``: the required ones before it, and the optional ones it needs."""
    needed = {other.slug for other in with_required(patches, patch.slug)}
    before = patches[: patches.index(patch)]
    return tuple(
        other
        for other in before
        if (not other.optional or other.slug in needed) and other.need_on(base.version) is not None
    )


def _topics(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    releases: Mapping[str, Base] | None,
    progress: Callable[[str], None],
) -> tuple[Topic, ...]:
    optional_on = [patch.slug for patch in patches if patch.optional]
    return build_topics(store, base, patches, optional_on=optional_on, releases=releases, progress=progress)[0]


def _stacked(store: Repository, base: Base, topics: tuple[Topic, ...]) -> Sha:
    tip = base.commit
    for topic in topics:
        tip = _commit_onto(store, topic, tip)
    return tip


def _commit_onto(store: Repository, topic: Topic, onto: Sha) -> Sha:
    merged = replay(store, topic.own_from, topic.own_to, onto)
    if not merged.clean:
        raise CompositionError(
            f"patch `{topic.name}` conflicts with the stack below it in {', '.join(merged.conflicts)}:"
            " name the patch that it builds on in `requires`"
        )
    return store.commit(merged.tree, (onto,), message_of(store, topic.commit), authorship(store, topic.commit))
