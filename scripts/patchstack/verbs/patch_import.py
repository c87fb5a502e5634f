"""`patchstack patch import`: read a branch, decide its patches, check the stack that they make, write them."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patchstack.compose.carried import restrict, roots, sort_out
from patchstack.compose.octopus import write_stack
from patchstack.errors import CompositionError, PatchstackError, UsageError
from patchstack.git import Repository, readable
from patchstack.model import Base, Sha, Topic
from patchstack.patches.accumulator import Imported, Step, Turned, first_parent_line, named, turn
from patchstack.patches.export import canonical_file
from patchstack.patches.header import HEADER_NAME, Patch
from patchstack.patches.mail import format_mail
from patchstack.patches.series import SERIES_NAME, read_series
from patchstack.patches.skeleton import guard_folder, guard_text, header_text
from patchstack.patches.topics import build_topics, releases_to_compare
from patchstack.patches.variants import variant_name
from patchstack.store import write_whole
from patchstack.verbs.author import base_of, read_releases
from patchstack.workplace import Workplace

_FETCHED = "refs/patchstack/import"
_SERIES = f"patches/{SERIES_NAME}"


@dataclass(frozen=True)
class Difference:
    """A path on which the composed stack is not what the branch is."""

    path: str
    why: str


@dataclass(frozen=True)
class BranchImport:
    """What `patch import` found and, unless it was a dry run, wrote."""

    base: str
    """The release that the patches are on."""
    begin: Sha
    tip: Sha
    turned: Turned
    files: tuple[str, ...]
    """Relative to the repository's root, in the order of the series."""
    differences: tuple[Difference, ...]
    """Of what the base carries, between the composed stack and the branch."""


def import_branch(work: Workplace, revisions: str, *, url: str | None = None, dry_run: bool = False) -> BranchImport:
    """Make patches of ``BASE..BRANCH`` of the repository at ``url`` (none: the lane's remote).

    `CompositionError` for a commit that conflicts and `UsageError` for names that are in use; then, and with
    ``dry_run``, nothing is written.
    """
    where = work.remote if url is None else here_or_there(url)
    store = work.store()
    begin, tip = _fetch(store, where, *_split(revisions))
    base = base_of(work, store, work.lane_name)
    patches = read_series(work.patches_folder)
    existing = _existing(work, store, base, patches)
    carried = roots(store, base.tree)
    steps = _steps(store, begin, tip, carried)
    taken = {patch.slug for patch in patches} | {path.name for path in work.patches_folder.iterdir()}
    turned = turn(store, base, existing, steps, taken, progress=work.progress)
    in_the_way = [folder for patch in turned.imported if (work.root / (folder := guard_folder(patch.slug))).exists()]
    if in_the_way:
        raise UsageError(f"{', '.join(in_the_way)}: it is there already, nothing was written: move it away first")
    with _staged(work, store, base, turned) as staging:
        stack = _composed(work, store, base, staging / "patches", turned)
        differences = _differences(store, base, existing, (begin, tip), stack, carried)
        if not dry_run and turned.imported:
            _put_in_place(work.root, staging, turned.imported)
    return BranchImport(base.name, begin, tip, turned, _files(base, turned.imported), differences)


def here_or_there(url: str) -> str:
    """``url``, with a path on this machine made absolute: git runs in the store's folder."""
    return str(Path(url).resolve()) if Path(url).exists() else url


# --- the branch ---


def _split(revisions: str) -> tuple[str, str]:
    base, dots, branch = revisions.partition("..")
    if not dots or not base or not branch or branch.startswith(".") or ".." in branch:
        raise UsageError(f"{revisions!r} is no range: write BASE..BRANCH, such as v0.5.12.post1..deploy")
    for name in (base, branch):
        if name.startswith("-") or re.search(r"[\s~^:?*\[\\\x00-\x1f]", name):
            raise UsageError(f"{name!r} is no branch, tag or full commit id: write one of these")
    return base, branch


def _fetch(store: Repository, url: str, *names: str) -> tuple[Sha, Sha]:
    """Both ends of the range as commits in the store."""
    listed = store.ls_remote(url, *(f"refs/{kind}/{name}" for name in names for kind in ("heads", "tags")))
    wanted: dict[str, Sha] = {}
    for end, name in zip(("base", "branch"), names, strict=True):
        found = {ref: listed[ref] for ref in (f"refs/heads/{name}", f"refs/tags/{name}", name) if ref in listed}
        if len(set(found.values())) > 1:
            raise UsageError(f"{name!r} is both a branch and a tag there: write its commit id, one of {_ids(found)}")
        if not found and not re.fullmatch(r"[0-9a-f]{40}", name):
            raise UsageError(f"{name!r} is no branch and no tag there, and no full commit id: look with git ls-remote")
        wanted[end] = next(iter(found.values()), Sha(name))
    store.fetch(url, [f"+{sha}:{_FETCHED}/{end}" for end, sha in wanted.items()])
    ends = [store.resolve(f"{_FETCHED}/{end}^{{commit}}") for end in wanted]
    if None in ends:
        raise UsageError(f"{' and '.join(names)}: one of them is no commit: name a branch, a tag or a commit")
    begin, tip = (Sha(str(end)) for end in ends)
    return begin, tip


def _ids(found: Mapping[str, Sha]) -> str:
    return " or ".join(f"{sha} ({ref})" for ref, sha in found.items())


def _steps(store: Repository, begin: Sha, tip: Sha, carried: Sequence[str]) -> list[Step]:
    steps = []
    for commit in first_parent_line(store, begin, tip):
        parent = store.parents(commit)[0]
        left_off = sort_out(store.changes(parent, commit), carried).left_off
        before, after = restrict(store, parent, carried), restrict(store, commit, carried)
        steps.append(Step(commit, named(store, commit), before, after, tuple(map(readable, left_off))))
    return steps


# --- the stack that they make ---


def _existing(work: Workplace, store: Repository, base: Base, patches: tuple[Patch, ...]) -> list[tuple[Patch, Topic]]:
    topics = {topic.name: topic for topic in _topics(work, store, base, patches)}
    return [(patch, topics[patch.slug]) for patch in patches if patch.slug in topics]


def _topics(work: Workplace, store: Repository, base: Base, patches: tuple[Patch, ...]) -> tuple[Topic, ...]:
    releases = read_releases(work, store, releases_to_compare(patches, base.version))
    return build_topics(store, base, patches, optional_on=work.lane.optional, releases=releases)[0]


@contextmanager
def _staged(work: Workplace, store: Repository, base: Base, turned: Turned) -> Iterator[Path]:
    """A folder beside the patches with all files as they will be: one rename away from their place."""
    with tempfile.TemporaryDirectory(dir=work.root, prefix=".patch-import-") as folder:
        staging = Path(folder)
        shutil.copytree(work.patches_folder, staging / "patches")
        series = staging / "patches" / SERIES_NAME
        text = series.read_text(encoding="utf-8")
        text += "" if text.endswith("\n") or not text else "\n"
        series.write_text(text + "".join(f"{patch.slug}\n" for patch in turned.imported), encoding="utf-8")
        owner = work.config.fork.repo.partition("/")[0]
        for patch in turned.imported:
            own = staging / "patches" / patch.slug
            own.mkdir()
            (own / HEADER_NAME).write_text(header_text(patch, owner=owner, release=base.version), encoding="utf-8")
            (own / variant_name(base.version, base.version)).write_bytes(format_mail(store, patch.commit))
            guard = staging / _guard(patch.slug)
            guard.parent.mkdir(parents=True)
            guard.write_text(guard_text(patch.slug), encoding="utf-8")
        yield staging


def _files(base: Base, imported: Sequence[Imported]) -> tuple[str, ...]:
    """What is written, relative to the repository's root."""
    if not imported:
        return ()
    names = (HEADER_NAME, variant_name(base.version, base.version))
    own = [f"patches/{patch.slug}/{name}" for patch in imported for name in names]
    return (*own, *(_guard(patch.slug) for patch in imported), _SERIES)


def _guard(slug: str) -> str:
    folder = guard_folder(slug)
    return f"{folder}/test_{folder.rpartition('/')[2]}.py"


def _composed(work: Workplace, store: Repository, base: Base, patches_folder: Path, turned: Turned) -> Sha:
    """The tree of the whole stack, read from the files as a night reads them."""
    patches = read_series(patches_folder)
    topics = _topics(work, store, base, patches)
    made = {patch.slug: patch for patch in patches}
    for imported in turned.imported:
        if canonical_file(store, base, patches, made[imported.slug]).is_stale:
            raise PatchstackError(f"patch {imported.slug} is not as an export would write it; nothing was written")
    commit, joined = write_stack(store, base, topics)
    if len(joined) != len(topics):
        lost = ", ".join(topic.name for topic in topics if topic not in joined)
        raise CompositionError(f"{lost}: it does not compose with the patches before it; nothing was written")
    return store.tree_of(commit)


def _differences(
    store: Repository,
    base: Base,
    existing: Sequence[tuple[Patch, Topic]],
    branch: tuple[Sha, Sha],
    stack: Sha,
    carried: Sequence[str],
) -> tuple[Difference, ...]:
    begin, tip = branch
    cut_from, released = (restrict(store, revision, carried) for revision in (begin, base.tree))
    by_base = {change.path for change in store.changes(cut_from, released)}
    found = []
    for change in store.changes(restrict(store, stack, carried), restrict(store, tip, carried)):
        others = [patch.slug for patch, topic in existing if change.path in topic.paths]
        if others:
            why = f"patch {', '.join(others)} of the series changes it"
        elif change.path in by_base:
            why = f"what the branch was cut from ({begin[:12]}) has it other than {base.name}"
        else:
            why = "the branch has it otherwise: look at it before you rely on this stack"
        found.append(Difference(readable(change.path), why))
    return tuple(found)


# --- writing ---


def _put_in_place(root: Path, staging: Path, imported: Sequence[Imported]) -> None:
    """Every new folder by one rename, the series last; what was moved goes away again if one cannot be."""
    moved: list[Path] = []
    (root / guard_folder("x")).parent.mkdir(parents=True, exist_ok=True)
    try:
        for patch in imported:
            for name in (f"patches/{patch.slug}", guard_folder(patch.slug)):
                (staging / name).rename(root / name)
                moved.append(root / name)
        write_whole(root / _SERIES, (staging / _SERIES).read_bytes())
    except BaseException:
        for folder in moved:
            shutil.rmtree(folder)
        raise
