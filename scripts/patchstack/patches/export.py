"""`patch export`: what stands on top of the stack, back into the patch's folder, canonically.

Whatever the human's git configuration: the commits are copied into the store, where git sees none of it,
and written from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import CompositionError, UsageError
from patchstack.git import Repository
from patchstack.model import Base, LeftOut, Sha
from patchstack.patches.edit import find_patch, stack_below
from patchstack.patches.header import Patch
from patchstack.patches.mail import authorship, format_mail, message_of, with_cut_on
from patchstack.patches.replay import replay
from patchstack.patches.site import parent_of, topic_of
from patchstack.patches.variants import variant_name
from patchstack.patches.worktree import WorkTree
from patchstack.store import write_whole


@dataclass(frozen=True)
class ExportedFile:
    """A diff file as it should be, beside what it is."""

    path: Path
    data: bytes

    @property
    def is_stale(self) -> bool:
        return not self.path.is_file() or self.path.read_bytes() != self.data


def export(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    slug: str,
    folder: Path | None = None,
    *,
    releases: Mapping[str, Base] | None = None,
    dry_run: bool = False,
) -> tuple[Path, ...]:
    """Write the patch's diff for ``base`` and return the files that were stale; with ``dry_run`` only say which.

    With ``folder``, the work tree that `edit` made: all commits on top of the stack become one, with the message,
    author and date of the first of them. Without it: the diff as it stands, canonically.
    """
    patch = find_patch(patches, slug)
    work = None if folder is None else WorkTree(folder.absolute())
    if work is None:
        exported = _as_it_stands(store, base, patches, patch, releases)
    else:
        exported = _from_work_tree(store, base, patches, patch, work, releases)
    stale = exported.is_stale
    if not dry_run:
        if stale:
            write_whole(exported.path, exported.data)
        if work is not None:
            work.mark_exported()
    return (exported.path,) if stale else ()


def canonical_file(
    store: Repository,
    release: Base,
    patches: tuple[Patch, ...],
    patch: Patch,
    *,
    releases: Mapping[str, Base] | None = None,
) -> ExportedFile:
    """The diff that was cut on ``release``, as an export of it unchanged would write it."""
    variant = patch.variant_for(release.version)
    if variant is None or variant.cut_on != release.version:
        raise UsageError(f"{patch.slug} has no diff that was cut on {release.version}")
    made = topic_of(store, release, patches, patch, releases=releases)
    if isinstance(made, LeftOut):
        raise UsageError(f"{patch.slug} was not cut on {release.version}: {made.detail}")
    return ExportedFile(variant.path, format_mail(store, made.commit))


def _as_it_stands(
    store: Repository, base: Base, patches: tuple[Patch, ...], patch: Patch, releases: Mapping[str, Base] | None
) -> ExportedFile:
    variant = patch.variant_for(base.version)
    if variant is None:
        raise UsageError(f"{patch.slug} has no diff for {base.version}: make one with `patchstack patch edit`")
    release = {base.version: base, **(releases or {})}.get(variant.cut_on)
    if release is None:
        raise UsageError(f"{variant.path.name} was cut on {variant.cut_on}: export it in a lane of that release")
    return canonical_file(store, release, patches, patch, releases=releases)


def _from_work_tree(
    store: Repository,
    base: Base,
    patches: tuple[Patch, ...],
    patch: Patch,
    work: WorkTree,
    releases: Mapping[str, Base] | None,
) -> ExportedFile:
    if not work.is_ours:
        raise UsageError(f"{work.folder} is no work tree of `patch edit`: make one with `patchstack patch edit`")
    if work.slug != patch.slug:
        found = f"patch {work.slug!r}" if work.slug else "no patch's branch"
        raise UsageError(f"{work.folder} is on {found}, not on patchstack/{patch.slug}: check that branch out")
    work.must_be_at_rest()
    if work.base_tree != base.tree:
        raise UsageError(f"{work.folder} was made on another base than {base.name}: use the lane that it was made in")
    onto, head = work.hand_over(store, patch.slug)
    if not store.is_ancestor(onto, head):
        raise UsageError(
            f"{work.folder}: the commits below {patch.slug} were rewritten, and would be lost: edit each of those"
            f" patches in a work tree of its own; this stack is still at refs/patchstack/onto"
        )
    own = store.commits(head, f"^{onto}")
    if not own or store.tree_of(head) == store.tree_of(onto):
        raise UsageError(f"{work.folder}: nothing on top of the stack: commit the change of {patch.slug} first")
    first = own[-1]
    message = message_of(store, first)
    if message.partition("\n")[0] != patch.title:
        raise UsageError(
            f"the commit is called {message.partition(chr(10))[0]!r} and {patch.header_path} {patch.title!r}:"
            " give both the same title"
        )
    parent = parent_of(store, base, patches, patch, releases=releases)
    commit = store.commit(
        _own_tree(store, patch, stack_below(patches, patch, base), onto, head, parent),
        (parent,),
        with_cut_on(store, message, base.version),
        authorship(store, first),
    )
    variant = patch.variant_for(base.version)
    path = variant.path if variant else patch.folder / variant_name(base.version, base.version)
    return ExportedFile(path, format_mail(store, commit))


def _own_tree(store: Repository, patch: Patch, below: tuple[Patch, ...], onto: Sha, head: Sha, parent: Sha) -> Sha:
    """The change on the base plus what the patch requires, without the other patches below it."""
    merged = replay(store, onto, head, parent)
    if merged.clean:
        return merged.tree
    others = ", ".join(other.slug for other in below if other.slug not in patch.requires) or "another patch"
    raise CompositionError(
        f"patch `{patch.slug}` does not stand on what it requires: its change in {', '.join(merged.conflicts)} builds"
        f" on another patch below it: add that one to `requires` (one of {others})"
    )
