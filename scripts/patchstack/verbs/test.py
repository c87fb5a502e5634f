"""`patchstack test`: the guards on the composed tree and on what their patch stands on, and the verdicts."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from patchstack import __version__
from patchstack.errors import GateFailed, Incomplete, LaneUnavailable
from patchstack.model import Base, Composition, GuardReport, Sha, Status, Verdicts
from patchstack.regress.bed import Bed, prepare_bed
from patchstack.regress.execute import Tree
from patchstack.regress.gate import judge
from patchstack.regress.ground import Ground
from patchstack.regress.lane import run_lane
from patchstack.regress.steps import Keeping, Rerun, Subject, decide_steps
from patchstack.regress.suites import BED_SUITE
from patchstack.store import Run, now_utc
from patchstack.upstream.lay import materialise
from patchstack.upstream.releases import fetch_wheel
from patchstack.upstream.wheel import Wheel
from patchstack.verbs.selection import Selection, grounds_of, select
from patchstack.workplace import Workplace

NIGHTLY = "nightly"
MOST_JOBS = 4
TREES_KEPT = 8
"""Trees on disk (60 MB each) that stay for the next run; the least recently used go first."""


def selected(work: Workplace, composition: Composition, only: Sequence[str]) -> list[str]:
    """What `test --dry-run` prints: each suite, and the trees that it would run on."""
    selection = select(work, composition, only)
    runs = [
        f"{suite.slug}: {', '.join(suite.paths)}, on {selection.grounds[suite.slug].label}"
        + ("" if suite.slug == BED_SUITE else f" and {selection.label}")
        for suite in selection.suites
    ]
    return [*runs, *(f"{scenario.test}: not here, it needs {scenario.lane}" for scenario in selection.not_run)]


def run_guards(
    work: Workplace,
    run: Run,
    composition: Composition,
    *,
    only: Sequence[str] = (),
    rerun: str = Rerun.DUE.value,
    jobs: int | None = None,
) -> GuardReport:
    """Run the guards, ``jobs`` suites at a time; the report says for each what it did on either tree."""
    selection = select(work, composition, only)
    bed = open_bed(work, composition.base)
    composed = Subject(selection.label, True, composition.tree, lay_tree(work, composition.tree, bed))
    grounds = _lay_grounds(work, selection, bed)
    _forget_old_trees(work.cache / "trees", keep={subject.tree.folder for subject in (composed, *grounds.values())})
    keeping = Keeping(
        folder=work.cache / "answers",
        bed_key=bed.key,
        natives=" ".join(native.sha256 for native in composition.base.natives),
        tool=f"{__version__} {_runner_digest()}",
        rerun=Rerun(rerun),
        today=now_utc().date(),
    )
    steps = decide_steps(composed, grounds, selection.suites, keeping)
    report = run_lane(
        "cpu",
        steps,
        keeping,
        root=work.root,
        logs=run.folder / "logs",
        workers=jobs or default_jobs(),
        progress=work.progress,
        restore=lambda subject: _restored(work, subject),
        not_run=selection.not_run,
    )
    run.write(report)
    return report


def default_jobs() -> int:
    """As many as this process has cores, but not more than four: each takes memory as well."""
    return min(len(os.sched_getaffinity(0)), MOST_JOBS)


def verdicts_on(work: Workplace, composition: Composition, report: GuardReport) -> Verdicts:
    """What ``report`` says of ``composition`` for each channel of deploy.yaml."""
    needs = {name: channel.needs for name, channel in work.config.channels.items()}
    return judge(needs, composition, grounds_of(work.store(), composition), report)


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


def _lay_grounds(work: Workplace, selection: Selection, bed: Bed) -> dict[str, Subject]:
    """The ground of each suite, laid once for all that stand on it."""
    laid: dict[Ground, Subject] = {}
    for suite in selection.suites:
        ground = selection.grounds[suite.slug]
        if ground not in laid:
            laid[ground] = Subject(ground.label, False, ground.tree, lay_tree(work, ground.tree, bed))
    return {suite.slug: laid[selection.grounds[suite.slug]] for suite in selection.suites}


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
