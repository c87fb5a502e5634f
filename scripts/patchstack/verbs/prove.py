"""`patchstack prove SLUG`: one patch alone on all that it requires, without it, with it, and mutant by mutant.

It asks no remote, composes nothing and moves nothing; what it finds out about a tree is kept as `test` keeps
it, and neither runs again what the other has an answer for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchstack.errors import GateFailed, Incomplete, UsageError
from patchstack.model import Base, GuardOutcome, GuardReport, LeftOut, Standing, Topic
from patchstack.patches.header import Patch
from patchstack.patches.mutants import with_mutants
from patchstack.patches.series import read_series
from patchstack.patches.site import stands_on, topic_of
from patchstack.patches.topics import releases_to_compare
from patchstack.regress.ground import Ground
from patchstack.regress.steps import Rerun, Subject
from patchstack.regress.suites import find_suites
from patchstack.store import Run
from patchstack.verbs.author import base_of, read_releases
from patchstack.verbs.declared import declared_in
from patchstack.verbs.selection import Selection, selection_of
from patchstack.verbs.test import run_trials, write_report
from patchstack.verbs.trees import forget_old_trees, lay_tree, open_bed, sweep_mutants
from patchstack.workplace import Workplace

_RAN = {GuardOutcome.PASS, GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT}


@dataclass(frozen=True)
class Closure:
    """A patch with all that it requires, and its guards."""

    base: Base
    topic: Topic
    ground: Ground
    selection: Selection


def prove(
    work: Workplace, run: Run, slug: str, *, rerun: str = Rerun.DUE.value, jobs: int | None = None
) -> GuardReport:
    """Run what has no answer yet; the report has one proof, and is written into ``run``."""
    closure = close(work, slug)
    sweep_mutants(work)
    bed = open_bed(work, closure.base)
    store = work.store()
    with_it = store.tree_of(closure.topic.commit)
    composed = Subject(closure.selection.label, True, with_it, lay_tree(work, with_it, bed))
    ground = Subject(closure.ground.label, False, closure.ground.tree, lay_tree(work, closure.ground.tree, bed))
    forget_old_trees(work.cache / "trees", keep={composed.tree.folder, ground.tree.folder})
    report = run_trials(
        work,
        run,
        closure.base,
        bed,
        composed,
        {slug: ground},
        closure.selection,
        rerun=rerun,
        jobs=jobs,
        night=False,
    )
    write_report(run, report)
    return report


def close(work: Workplace, slug: str) -> Closure:
    """The patch on what it requires, whether the lane switches it on or not; `UsageError` for an unknown slug."""
    patches = read_series(work.patches_folder)
    patch = _named(patches, slug)
    store = work.store()
    base = base_of(work, store, work.lane_name)
    releases = read_releases(work, store, releases_to_compare(patches, base.version))
    commit, below = stands_on(store, base, patches, patch, releases=releases)
    made = topic_of(store, base, patches, patch, releases=releases)
    if isinstance(made, LeftOut):
        raise GateFailed(f"patch {slug} is not proven on {base.version}: {made.detail}")
    topic = with_mutants(store, made, patch, base.version)
    ground = Ground(store.tree_of(commit), below)
    _, suite = find_suites(work.root, [(slug, patch.guards)])  # the bed's own controls stand before it
    selection = selection_of(
        work.root,
        [suite],
        f"{ground.label} + {slug}",
        {slug: ground},
        {slug: topic.mutants},
        declared_in(work.root, work.config, patches),
        slug=slug,
    )
    return Closure(base, topic, ground, selection)


def decided(work: Workplace, slug: str) -> list[str]:
    """What `prove --dry-run` prints: the trees, and the files of guards that would run on each."""
    closure = close(work, slug)
    selection = closure.selection
    return [
        *(f"{selection.label}: {', '.join(suite.paths)}" for suite in selection.suites),
        *(f"{closure.ground.label}: {', '.join(suite.paths)}" for suite in selection.on_grounds),
        *(f"mutant {trial.name}: {', '.join(trial.suite.paths)}" for trial in selection.on_mutants),
        *(
            f"mutant {slug}/{mutant.name}: it cannot be made: {problem}"
            for mutant in closure.topic.mutants
            for problem in mutant.problems
        ),
        *(f"{scenario.test}: not here, it needs {scenario.lane}" for scenario in selection.not_run),
    ]


def raise_for(report: GuardReport) -> None:
    """`Incomplete` if something did not run, `GateFailed` if the patch is anything else than proven."""
    (proof,) = report.proofs
    if proof.standing is Standing.PROVEN:
        return
    silent = [f"{said.test} on {run.label}" for run in report.runs for said in run.results if said.outcome not in _RAN]
    if silent:
        raise Incomplete(f"patch {proof.slug} is {proof.standing.value}: these did not run: {', '.join(silent)}")
    raise GateFailed(f"patch {proof.slug} is {proof.standing.value}: {proof.detail}")


def _named(patches: Sequence[Patch], slug: str) -> Patch:
    for patch in patches:
        if patch.slug == slug:
            return patch
    raise UsageError(f"no patch is called {slug!r}; the series has: {', '.join(patch.slug for patch in patches)}")
