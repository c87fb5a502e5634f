"""`patch import`: a branch on which a fork has gathered its changes, as patches of the stack.

Each commit of its first-parent line becomes one patch; of a merge, what it brought to that line. A patch
stands on the release and on as few earlier patches as it needs, and that is found by applying: without one of
them it conflicts, or the stack would become another than the branch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from patchstack.errors import CompositionError, UsageError
from patchstack.git import Merged, Repository, Signature, readable
from patchstack.model import Base, Sha, Topic
from patchstack.patches.header import Need, Patch
from patchstack.patches.mail import authorship, format_mail, read_mail, with_cut_on
from patchstack.patches.replay import replay
from patchstack.patches.site import Site

SLUG_LIMIT = 48
"""Characters of a slug that is made of a subject; it ends with a whole word."""

NOBODY = "unknown@localhost"
"""For a commit whose author has no address that a mail can name."""


@dataclass(frozen=True)
class Named:
    """What a commit of the branch is called as a patch, and who wrote it."""

    title: str
    body: str
    author: Signature


@dataclass(frozen=True)
class Step:
    """One commit of the branch, as far as the base carries what it changes."""

    commit: Sha
    named: Named
    before: Sha
    """The tree of its first parent, with nothing in it but what the base carries."""
    after: Sha
    left_off: tuple[str, ...]
    """Changed paths that the base does not carry."""


class Fate(StrEnum):
    """Why a commit of the branch is no patch."""

    EMPTY = "changes nothing"
    NOT_CARRIED = "changes nothing that the base carries"
    IN_BASE = "the base has it already"
    IN_STACK = "the patches before it have it already"


@dataclass(frozen=True)
class NotImported:
    commit: Sha
    title: str
    fate: Fate
    left_off: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """A patch that was made of a commit."""

    slug: str
    title: str
    body: str
    origin: Sha
    """The commit of the branch."""
    commit: Sha
    """The patch's own, on the base plus what it requires."""
    requires: tuple[str, ...]
    paths: tuple[str, ...]
    left_off: tuple[str, ...]


@dataclass(frozen=True)
class Turned:
    imported: tuple[Imported, ...]
    not_imported: tuple[NotImported, ...]


# --- reading the branch ---


def first_parent_line(store: Repository, base: Sha, tip: Sha) -> tuple[Sha, ...]:
    """The commits that ``tip`` adds to ``base``, along its first parents, oldest first."""
    if store.merge_base(base, tip) is None:
        raise UsageError(f"{base[:12]} and {tip[:12]} have no commit in common: name what the branch was cut from")
    line = store.run("rev-list", "--first-parent", "--reverse", tip, f"^{base}", "--").split()
    if not line:
        raise UsageError(f"{tip[:12]} adds no commit to {base[:12]}: there is nothing to import")
    if not store.parents(line[0]):
        raise UsageError(
            f"the first-parent line of {tip[:12]} does not come from {base[:12]} (it ends at {line[0][:12]}, which has"
            " no parent): name what the branch was cut from"
        )
    return tuple(map(Sha, line))


_MERGED_PULL = re.compile(r"Merge pull request #(?P<number>\d+) from \S+?/(?P<branch>\S+)")
_MERGED_BRANCH = re.compile(r"Merge (?:remote-tracking )?branch '(?P<branch>[^']+)'")


def named(store: Repository, commit: Sha) -> Named:
    """A commit by its subject; a merge by the pull request or the branch that it brought, and by who wrote that.

    https://git-scm.com/docs/git-fmt-merge-msg, and what GitHub writes: ``Merge pull request #N from OWNER/BRANCH``
    with the pull request's title below it.
    """
    subject, body = _subject(store, commit), readable(store.show(commit, "%b")).strip("\n")
    parents = store.parents(commit)
    if len(parents) < 2:
        return Named(subject, body, authorship(store, commit))
    own = store.commits("--no-merges", *parents[1:], f"^{parents[0]}")
    author = authorship(store, own[-1] if own else commit)
    pull, branch = _MERGED_PULL.match(subject), _MERGED_BRANCH.match(subject)
    if pull:
        title, _, rest = body.partition("\n")
        origin = f"Pull request #{pull['number']}, branch {pull['branch']}."
        return Named(title.strip() or pull["branch"], _paragraphs(rest.strip("\n"), origin), author)
    if branch:
        name = branch["branch"].removeprefix("origin/")
        if len(own) == 1:
            own_body = readable(store.show(own[0], "%b")).strip("\n")
            return Named(_subject(store, own[0]), _paragraphs(own_body, f"Branch {name}."), author)
        return Named(name, _paragraphs(body, f"Branch {name}."), author)
    return Named(subject, body, author)


def _subject(store: Repository, commit: Sha) -> str:
    # One line without doubled blanks: what a mail header can hold and give back.
    return " ".join(readable(store.show(commit, "%s")).split()) or f"Commit {commit[:12]}"


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))


# --- turning it into patches ---


def turn(
    store: Repository,
    base: Base,
    existing: Sequence[tuple[Patch, Topic]],
    steps: Sequence[Step],
    taken: Iterable[str] = (),
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Turned:
    """Each step as a patch on ``base``, behind the ``existing`` ones of the series, or why it is none.

    ``taken`` are slugs that are in use. `CompositionError` names the first commit that conflicts, with the files;
    `UsageError` a slug that is in use: that branch was imported before.
    """
    bench = _Bench(store, base)
    for patch, topic in existing:
        bench.add(patch, topic.commit, topic.paths)
    used, refused = set(taken), set(taken)
    imported: list[Imported] = []
    not_imported: list[NotImported] = []
    for number, step in enumerate(steps, 1):
        progress(f"commit {number} of {len(steps)}: {step.named.title}")
        whole = replay(store, step.before, step.after, bench.stack)
        fate = bench.fate_of(step, whole)
        if fate is not None:
            not_imported.append(NotImported(step.commit, step.named.title, fate, step.left_off))
            continue
        slug = slug_of(step, used, refused)
        used.add(slug)
        imported.append(bench.take(slug, step, whole))
    return Turned(tuple(imported), tuple(not_imported))


def slug_of(step: Step, used: Iterable[str] = (), refused: Iterable[str] = ()) -> str:
    """Lower-case words of the subject; a number behind it where this import has made the same one before."""
    words = re.findall(r"[a-z0-9]+", step.named.title.lower())
    slug = ""
    for word in words:
        longer = f"{slug}-{word}" if slug else word[:SLUG_LIMIT]
        if len(longer) > SLUG_LIMIT:
            break
        slug = longer
    slug = slug or f"commit-{step.commit[:12]}"
    if slug in set(refused):
        raise UsageError(
            f"{step.commit[:12]} {step.named.title!r} would be patch {slug}, and patches/ has one of that name: was"
            " this branch imported before? Begin behind what is there already (BASE), or rename that patch"
        )
    numbers = (f"{slug}-{number}" for number in range(2, 10_000))
    return slug if slug not in set(used) else next(name for name in numbers if name not in set(used))


@dataclass
class _Bench:
    """The stack as it grows, and the commits that its patches are."""

    store: Repository
    base: Base
    patches: list[Patch] = field(default_factory=list)
    commits: dict[str, Sha] = field(default_factory=dict)
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tip: Sha | None = None

    @property
    def stack(self) -> Sha:
        return self.tip or self.base.commit

    def add(self, patch: Patch, commit: Sha, paths: Sequence[str]) -> None:
        merged = self.store.merge_tree(self.stack, commit)
        if not merged.clean:
            raise CompositionError(
                f"patch `{patch.slug}` conflicts with a patch before it in {', '.join(merged.conflicts)}: mend the"
                " stack first (`patchstack plan` says more)"
            )
        self._put(patch, commit, paths, merged.tree)

    def _put(self, patch: Patch, commit: Sha, paths: Sequence[str], tree: Sha) -> None:
        # As the night merges them: what a step brought is known to the next one.
        self.tip = self.store.commit(tree, (self.stack, commit), f"{patch.slug}\n")
        self.patches.append(patch)
        self.commits[patch.slug] = commit
        self.paths[patch.slug] = tuple(paths)

    def fate_of(self, step: Step, whole: Merged) -> Fate | None:
        if step.before == step.after:
            return Fate.NOT_CARRIED if step.left_off else Fate.EMPTY
        if not whole.clean or whole.tree != self.store.tree_of(self.stack):
            return None
        alone = replay(self.store, step.before, step.after, self.base.commit)
        return Fate.IN_BASE if alone.clean and alone.tree == self.base.tree else Fate.IN_STACK

    def take(self, slug: str, step: Step, whole: Merged) -> Imported:
        """Find what the step stands on, and put it on top of the stack, which becomes ``whole``."""
        if not whole.clean:
            raise self._conflict(step, whole.conflicts)
        changed = [change.path for change in self.store.changes(step.before, step.after)]
        near = [patch.slug for patch in self.patches if _meet(self.paths[patch.slug], changed)]
        every = [patch.slug for patch in self.patches]
        found: Sha | None = None
        for requires in ([], near, every):
            found = self._stands(slug, step, requires, whole.tree)
            if found is not None:
                break
        if found is None:
            raise self._conflict(step, tuple(changed))
        # The newest first: one that is kept stands for what it requires itself.
        for candidate in reversed(requires):
            fewer = [name for name in requires if name != candidate]
            smaller = self._stands(slug, step, fewer, whole.tree)
            if smaller is not None:
                requires, found = fewer, smaller
        patch = _plain_patch(slug, step, requires, self.base)
        paths = [change.path for change in self.store.changes(self.store.parents(found)[0], found)]
        self._put(patch, found, paths, whole.tree)
        return Imported(
            slug=slug,
            title=read_mail(format_mail(self.store, found)).subject,
            body=step.named.body,
            origin=step.commit,
            commit=found,
            requires=tuple(requires),
            paths=tuple(map(readable, paths)),
            left_off=step.left_off,
        )

    def _stands(self, slug: str, step: Step, requires: Sequence[str], wanted: Sha) -> Sha | None:
        """The patch's commit on ``requires``, if the stack with it has the tree ``wanted``."""
        patch = _plain_patch(slug, step, requires, self.base)
        site = Site(self.store, self.base, (*self.patches, patch), {}, commits=dict(self.commits))
        try:
            parent = site.parent(patch)
        except CompositionError:  # what it would require conflicts with each other
            return None
        own = replay(self.store, step.before, step.after, parent)
        if not own.clean or own.tree == self.store.tree_of(parent):
            return None
        commit = settled(self.store, own.tree, parent, step.named, self.base.version)
        merged = self.store.merge_tree(self.stack, commit)
        return commit if merged.clean and merged.tree == wanted else None

    def _conflict(self, step: Step, files: Sequence[str]) -> CompositionError:
        meeting = [patch.slug for patch in self.patches if _meet(self.paths[patch.slug], files)]
        alone = replay(self.store, step.before, step.after, self.base.commit)
        with_whom = f"with {', '.join(meeting)}" if alone.clean and meeting else f"with {self.base.name} itself"
        return CompositionError(
            f"{step.commit[:12]} {step.named.title!r} conflicts {with_whom} in {', '.join(map(readable, files))}; "
            "nothing was written. Rebase the branch onto the release that this lane is on, or import up to the commit"
            f" before it (BASE..{step.commit[:12]}~) and make this one by hand with `patchstack patch edit`"
        )


def _meet(paths: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a path is in both, or a file of one is a folder of the other."""
    return any(one == two or one.startswith(f"{two}/") or two.startswith(f"{one}/") for one in paths for two in others)


def _plain_patch(slug: str, step: Step, requires: Sequence[str], base: Base) -> Patch:
    """What the order of commits needs to know of a patch that is not written yet."""
    return Patch(
        slug=slug,
        title=step.named.title,
        owner="",
        upstream_status="",
        upstream=(),
        requires=tuple(requires),
        bases=((base.version, Need.NEEDED),),
        guards=(),
        mutants=(),
        kill_switch="",
        remove_when="",
        prose="",
        prose_line=1,
        optional=False,
        folder=Path(slug),
        variants=(),
        digest="",
    )


def settled(store: Repository, tree: Sha, parent: Sha, named: Named, release: str) -> Sha:
    """The commit whose canonical mail reads back as that very commit.

    A message may hold what a mail would take for its end, an author no address, a subject what a header folds.
    """
    email = named.author.email if re.fullmatch(r"[!-;=?-~]+@[!-;=?-~]+", named.author.email) else NOBODY
    author = replace(named.author, name=readable(named.author.name) or email, email=email)
    # Git-am would end the message there (https://git-scm.com/docs/git-am).
    body = re.sub(r"^(?=---$|diff --git |diff -|Index: )", "  ", named.body, flags=re.MULTILINE)
    message = with_cut_on(store, f"{named.title}\n\n{body}\n" if body else f"{named.title}\n", release)
    commit = store.commit(tree, (parent,), message, author)
    mail = read_mail(format_mail(store, commit))
    return store.commit(tree, (parent,), mail.message, mail.author)
