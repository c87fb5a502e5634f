"""The trees that guards run on, on disk: those of a composition in the cache, a mutant's for its own while.

A mutant's tree is laid when its turn has come and goes when its guards have answered; it lies in the run's
folder, so that two runs with one cache never share it. What a killed run left there goes with the next one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import LaneUnavailable
from patchstack.model import Base, Mutant, Sha
from patchstack.regress.bed import Bed, prepare_bed
from patchstack.regress.bytecode import take_over
from patchstack.regress.execute import Tree
from patchstack.regress.prove import mutant_id
from patchstack.regress.steps import Subject
from patchstack.store import Run
from patchstack.upstream.lay import materialise
from patchstack.upstream.releases import fetch_wheel
from patchstack.upstream.wheel import Wheel
from patchstack.workplace import Workplace

TREES_KEPT = 8
"""Trees on disk (60 MB each) that stay for the next run; the least recently used go first."""

_MUTANTS = "mutants"
"""In a run's folder."""

_USED: dict[Path, int] = {}
"""The trees that this process runs guards on, each with the descriptor of its lock, which goes with the process."""


def open_bed(work: Workplace, base: Base) -> Bed:
    """The test bed of this base's release, made if it is not there."""
    locks = work.root / "tests" / "support" / "locks" / base.version
    if not locks.is_dir():
        known = ", ".join(sorted(path.name for path in locks.parent.glob("*"))) or "none"
        raise LaneUnavailable(f"no test bed for {base.version}: tests/support/locks has {known}; add its locks")
    return prepare_bed(locks, work.cache, progress=work.progress)


def lay_tree(work: Workplace, tree: Sha, bed: Bed, *, release: str | None = None) -> Tree:
    """``tree`` on disk in the cache, with the release's compiled parts laid in; compared with git's tree.

    ``release`` is another one than the lane's (``sglang==X``), where the tree is of that.
    """
    wheel = _wheel_of(work, release)
    name = f"{tree}-{wheel.sha256[:12] if wheel else 'sources'}"
    folder = work.cache / "trees" / name
    use_tree(folder)
    with laying(folder):
        materialise(work.store(), tree, folder, natives=wheel, progress=work.progress)
        os.utime(folder)
    return Tree(folder, bed.python, work.cache / "bytecode" / f"{name}-{bed.key[:12]}")


def restored(work: Workplace, subject: Subject, *, release: str | None = None) -> bool:
    """Whether the subject's tree had to be written again."""
    folder, wheel = subject.tree.folder, _wheel_of(work, release)
    with laying(folder):
        return materialise(work.store(), subject.sha, folder, natives=wheel, progress=work.progress).written


def use_tree(folder: Path) -> None:
    """Keep other processes with this cache from forgetting the tree, until this process ends."""
    if folder not in _USED:
        descriptor = _lock_file(folder)
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # one that is being forgotten right now is gone after this
        _USED[folder] = descriptor


@contextmanager
def laying(folder: Path) -> Iterator[None]:
    """One process at a time: it clears away what a killed one left of the same tree, and a living one's looks alike."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.with_name(f".{folder.name}.lay"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def leave_tree(folder: Path) -> None:
    """This process runs no guard on the tree any more."""
    if folder in _USED:
        os.close(_USED.pop(folder))


def forget_old_trees(folder: Path, keep: set[Path]) -> None:
    """Remove all but `TREES_KEPT` trees, the least recently used first; none of ``keep``, and none in use."""
    trees = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in [path for path in trees if path not in keep][: max(0, len(trees) - TREES_KEPT)]:
        with _unless_used(path) as unused:
            for gone in (path, *(folder.parent / "bytecode").glob(f"{path.name}-*")) if unused else ():
                shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def _unless_used(folder: Path) -> Iterator[bool]:
    """Whether no process uses the tree; if so none begins to before the block ends."""
    descriptor = _lock_file(folder)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _lock_file(folder: Path) -> int:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return os.open(folder.with_name(f".{folder.name}.use"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


@dataclass(frozen=True)
class MutantTrees:
    """The trees of one run's mutants."""

    work: Workplace
    run: Run
    bed: Bed
    origins: Mapping[str, Subject]
    """Of each patch the tree without it, with what Python compiled for that. Not the composed tree, though it differs
    as little: its compiled files were written by code of pull requests, which no mutant contains."""

    def subject(self, slug: str, mutant: Mutant, tree: Sha) -> Subject:
        """``mutant`` as guards see it; its tree is not on disk yet."""
        name = mutant_id(slug, mutant)
        folder = self._folder(name)
        return Subject(f"mutant {name}", False, tree, Tree(folder / "tree", self.bed.python, folder / "bytecode"), name)

    def lay(self, subject: Subject) -> None:
        store = self.work.store()
        materialise(store, subject.sha, subject.tree.folder, natives=_wheel_of(self.work))
        origin = self.origins[subject.mutant.partition("/")[0]]
        changed = {change.path for change in store.changes(origin.sha, subject.sha)}
        take_over(origin.tree, subject.tree, changed)

    def drop(self, subject: Subject) -> None:
        shutil.rmtree(self._folder(subject.mutant), ignore_errors=True)

    def _folder(self, name: str) -> Path:
        return self.run.folder.absolute() / _MUTANTS / name


def sweep_mutants(work: Workplace) -> None:
    """Remove the mutants' trees of every run of this state folder; the caller holds its lock."""
    for run in work.state.all_runs():
        shutil.rmtree(run.folder / _MUTANTS, ignore_errors=True)


def _wheel_of(work: Workplace, release: str | None = None) -> Wheel | None:
    wanted = release or work.lane.upstream.pypi
    if wanted is None:
        return None
    return fetch_wheel(wanted, work.cache, offline=work.offline, progress=work.progress)
