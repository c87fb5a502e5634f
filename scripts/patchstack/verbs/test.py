"""`patchstack test`: the guards on the composed tree and on the plain base, and the verdict for each channel."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchstack import __version__
from patchstack.errors import GateFailed, Incomplete, LaneUnavailable, UsageError
from patchstack.model import Base, Composition, GuardReport, Reason, Sha, Status, Verdicts
from patchstack.patches.series import read_series
from patchstack.regress.bed import Bed, prepare_bed
from patchstack.regress.execute import Tree
from patchstack.regress.gate import BASE, judge
from patchstack.regress.lane import Keeping, Rerun, Subject, decide_steps, run_lane
from patchstack.regress.suites import BED_SUITE, Suite, find_suites
from patchstack.store import Run, now_utc
from patchstack.upstream.lay import materialise
from patchstack.upstream.releases import fetch_wheel
from patchstack.upstream.wheel import Wheel
from patchstack.workplace import Workplace

NIGHTLY = "nightly"
TREES_KEPT = 8
"""Trees on disk (60 MB each) that stay for the next run; the least recently used go first."""


@dataclass(frozen=True)
class Selection:
    """Which suites run, and what was asked to be left out."""

    suites: tuple[Suite, ...]
    label: str


def select(work: Workplace, composition: Composition, only: Sequence[str]) -> Selection:
    """The suites of every patch that belongs on this base, or of ``only``; the bed's own always.

    A patch that was left out on request keeps its guards: they must fail, and the report must show it.
    """
    patches = read_series(work.patches_folder)
    unknown = [slug for slug in only if slug not in {patch.slug for patch in patches}]
    if unknown:
        known = ", ".join(patch.slug for patch in patches)
        raise UsageError(f"no patch is called {', '.join(unknown)}; the series has: {known}")
    included = {topic.name for topic in composition.included}
    requested = _left_out_on_request(composition)
    chosen = [
        (patch.slug, patch.guards)
        for patch in patches
        if patch.slug in {*included, *requested} and (not only or patch.slug in only)
    ]
    if not chosen:
        raise UsageError("nothing to test: none of the patches asked for is in this composition")
    label = f"without {', '.join(requested)}" if requested else "composed"
    return Selection(find_suites(work.root, chosen), label)


def _left_out_on_request(composition: Composition) -> list[str]:
    """The patches that --without named, and by name those that require one of them; in series order."""
    found: list[str] = []
    for out in composition.left_out:
        named = out.reason is Reason.ON_REQUEST
        if named or (out.reason is Reason.REQUIRED_LEFT_OUT and not set(found).isdisjoint(out.twins)):
            found.append(out.name)
    return found


def selected(work: Workplace, composition: Composition, only: Sequence[str]) -> list[str]:
    """What `test --dry-run` prints: each suite, and the trees that it would run on."""
    selection = select(work, composition, only)
    return [
        f"{suite.slug}: {', '.join(suite.paths)}, on "
        + (BASE if suite.slug == BED_SUITE else f"{BASE} and {selection.label}")
        for suite in selection.suites
    ]


def run_guards(
    work: Workplace, run: Run, composition: Composition, *, only: Sequence[str] = (), rerun: str = Rerun.DUE.value
) -> GuardReport:
    """Run the guards; the report says for each what it did on either tree."""
    selection = select(work, composition, only)
    bed = open_bed(work, composition.base)
    composed = lay_tree(work, composition.tree, bed)
    base = lay_tree(work, composition.base.tree, bed)
    _forget_old_trees(work.cache / "trees", keep={composed.folder, base.folder})
    keeping = Keeping(
        folder=work.cache / "answers",
        bed_key=bed.key,
        natives=" ".join(native.sha256 for native in composition.base.natives),
        tool=f"{__version__} {_runner_digest()}",
        rerun=Rerun(rerun),
        today=now_utc().date(),
    )
    steps = decide_steps(
        Subject(selection.label, composition.tree, composed),
        Subject(BASE, composition.base.tree, base),
        selection.suites,
        keeping,
    )
    report = run_lane(
        "cpu",
        steps,
        keeping,
        root=work.root,
        logs=run.folder / "logs",
        progress=work.progress,
        restore=lambda subject: _restored(work, subject),
    )
    run.write(report)
    return report


def verdicts_on(work: Workplace, composition: Composition, report: GuardReport) -> Verdicts:
    """What ``report`` says of ``composition`` for each channel of deploy.yaml; pure."""
    return judge({name: channel.needs for name, channel in work.config.channels.items()}, composition, report)


def gate(work: Workplace, run: Run, composition: Composition, report: GuardReport) -> Verdicts:
    """The verdict for each channel of deploy.yaml, written into ``run``."""
    verdicts = verdicts_on(work, composition, report)
    run.write(verdicts)
    return verdicts


def raise_for(verdicts: Verdicts, run_id: str) -> None:
    """`GateFailed` or `Incomplete` unless the channel `nightly` passed."""
    for verdict in verdicts.verdicts:
        if verdict.channel == NIGHTLY and verdict.status is not Status.PASS:
            kind = GateFailed if verdict.status is Status.FAIL else Incomplete
            why = "\n".join(f"  {reason}" for reason in verdict.reasons)
            raise kind(f"channel {NIGHTLY} is {verdict.status.value} in run {run_id}:\n{why}")


def open_bed(work: Workplace, base: Base) -> Bed:
    """The test bed of this base's release, made if it is not there."""
    locks = work.root / "tests" / "support" / "locks" / base.version
    if not locks.is_dir():
        known = ", ".join(sorted(path.name for path in locks.parent.glob("*"))) or "none"
        raise LaneUnavailable(f"no test bed for {base.version}: tests/support/locks has {known}; add its locks")
    return prepare_bed(locks, work.cache, progress=work.progress)


def lay_tree(work: Workplace, tree: Sha, bed: Bed) -> Tree:
    """``tree`` on disk in the cache, with the release's compiled parts laid in; compared with git's tree."""
    wheel = _wheel_of(work)
    name = f"{tree}-{wheel.sha256[:12] if wheel else 'sources'}"
    folder = work.cache / "trees" / name
    materialise(work.store(), tree, folder, natives=wheel, progress=work.progress)
    os.utime(folder)
    return Tree(folder, bed.python, work.cache / "bytecode" / f"{name}-{bed.key[:12]}")


def _restored(work: Workplace, subject: Subject) -> bool:
    """Whether the subject's tree had to be written again."""
    return materialise(
        work.store(), subject.sha, subject.tree.folder, natives=_wheel_of(work), progress=work.progress
    ).written


def _wheel_of(work: Workplace) -> Wheel | None:
    if work.lane.upstream.pypi is None:
        return None
    return fetch_wheel(work.lane.upstream.pypi, work.cache, offline=work.offline, progress=work.progress)


def _forget_old_trees(folder: Path, keep: set[Path]) -> None:
    trees = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in [path for path in trees if path not in keep][: max(0, len(trees) - TREES_KEPT)]:
        for gone in (path, *(folder.parent / "bytecode").glob(f"{path.name}-*")):
            shutil.rmtree(gone, ignore_errors=True)


def _runner_digest() -> str:
    """The code that runs guards decides what they say: it is part of an answer's key."""
    from patchstack.regress import execute

    return hashlib.sha256(Path(execute.__file__).read_bytes()).hexdigest()[:16]
