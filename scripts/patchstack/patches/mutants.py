"""A patch's mutants as commits: each a small diff on the patch's own topic that brings a known fault back.

A mutant may lie at another line than the one that it states, for the patch above it may have grown, but only
where its lines stand once in the file; it is never applied with fuzz. What is wrong with one is a value and
not an exception: the night composes without it, and the patch is not proven.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack.git import Repository, Signature
from patchstack.model import Mutant, Sha, Topic
from patchstack.patches.diff import DiffProblem, FileDiff, parse_diff
from patchstack.patches.header import MUTANTS, Patch
from patchstack.patches.placement import DoesNotApply, place, split_lines
from patchstack.patches.variants import Variant

ENDING = ".patch"


def name_of(file: str) -> str:
    """``one-string.patch`` as guards name it: ``one-string``."""
    return file.removesuffix(ENDING)


def with_mutants(store: Repository, topic: Topic, patch: Patch, version: str) -> Topic:
    """``topic``, which ``patch`` became on the release ``version``, with its mutants."""
    variant = patch.variant_for(version)
    if variant is None or not patch.mutants:
        return topic
    return replace(topic, mutants=mutants_of(store, topic.commit, patch, variant))


def mutants_of(store: Repository, topic: Sha, patch: Patch, variant: Variant) -> tuple[Mutant, ...]:
    """Every mutant that the front matter lists, on ``topic``, the commit that ``variant`` became."""
    made: dict[Sha, str] = {store.tree_of(topic): ""}
    found = []
    for file in patch.mutants:
        mutant = _Reading(store, topic, patch, variant, patch.folder / MUTANTS / file).read()
        if mutant.tree is not None:
            twin = made.setdefault(mutant.tree, mutant.name)
            if twin != mutant.name:
                what = f"it makes the same tree as mutant {twin}" if twin else "it changes nothing"
                mutant = Mutant(mutant.name, None, None, (f"1: (diff): {what}: remove it, or make it another",))
        found.append(mutant)
    return tuple(found)


@dataclass(frozen=True)
class _Reading:
    """One mutant on its way to a commit."""

    store: Repository
    topic: Sha
    patch: Patch
    variant: Variant
    path: Path

    def read(self) -> Mutant:
        name = name_of(self.path.name)
        if not self.path.is_file() or self.path.is_symlink():
            return Mutant(name, None, None, ("1: (the whole file): it is not there: add it, or take its name away",))
        diff = self.path.read_bytes()
        if not diff.strip():
            return Mutant(name, None, None, (f"1: (diff): it is empty: {self._remake}",))
        try:
            files = parse_diff(diff)
        except DiffProblem as problem:
            return Mutant(name, None, None, (f"{problem.line}: {problem}: {self._remake}",))
        problems = [*self._foreign(files), *self._loose(files)]
        if problems:
            return Mutant(name, None, None, tuple(problems))
        try:
            tree = place(self.store, self.store.tree_of(self.topic), diff, files).tree
        except DoesNotApply as error:
            return Mutant(name, None, None, tuple(f"1: {line}: {self._changed_since}" for line in error.problems))
        broken = tuple(self._no_python(tree, files))
        if broken:
            return Mutant(name, None, None, broken)
        date = self.store.show(self.topic, "%ct")
        message = f"Mutant {name} of {self.patch.slug}\n"
        commit = self.store.commit(tree, [self.topic], message, Signature(date=f"@{date} +0000"))
        return Mutant(name, commit, tree)

    @property
    def _remake(self) -> str:
        return (
            f"bring the fault back in a work tree (`patchstack patch edit {self.patch.slug} FOLDER`) and write"
            f" `git -C FOLDER diff --full-index` over this file"
        )

    @property
    def _changed_since(self) -> str:
        return f"the patch was changed since this mutant was made: {self._remake}"

    def _foreign(self, files: Sequence[FileDiff]) -> Iterator[str]:
        """What no mutant of this patch may touch."""
        own = {file.path for file in self.variant.files if not file.is_deleted}
        for file in files:
            if file.path not in own:
                yield f"1: {file.path}: {self.variant.path.name} does not touch it: change only what the patch brings"
            elif file.binary:
                yield f"1: {file.path}: it is no text: a mutant changes sources only"

    def _loose(self, files: Sequence[FileDiff]) -> Iterator[str]:
        """Hunks that fit in several places and not where they say."""
        for file in files:
            data = self.store.read_blob(f"{self.topic}:{file.path}")
            lines = split_lines(data) if data is not None else []
            for hunk in file.hunks:
                old = list(hunk.old)
                places = [at for at in range(len(lines) - len(old) + 1) if lines[at : at + len(old)] == old]
                if len(places) > 1 and hunk.old_start - 1 not in places:
                    where = f"{file.path} hunk {hunk.number}"
                    yield f"1: {where}: its lines stand in {len(places)} places, none at line {hunk.old_start}: " + (
                        self._changed_since
                    )

    def _no_python(self, tree: Sha, files: Sequence[FileDiff]) -> Iterator[str]:
        for file in files:
            if file.path.endswith(".py") and not file.is_deleted:
                try:
                    ast.parse(self.store.read_blob(f"{tree}:{file.path}") or b"")
                except (SyntaxError, ValueError) as error:
                    yield f"1: {file.path}: with the mutant it is no Python ({error}): no guard can kill it so"
