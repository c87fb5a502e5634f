"""What guards said on another machine, held against what this composition's guards can say.

A job that runs the code of pull requests hands its results on as a file, and that code could have written the
file. Which trees the composition has, which guards run on each and what their results prove is decided here
again; only whether each guard passed or failed is taken from the file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from patchstack.errors import UsageError
from patchstack.model import Composition, GuardOutcome, GuardReport, ImageTests, Look, Past, TreeRun
from patchstack.regress.attempts import follows
from patchstack.regress.expected import completed
from patchstack.regress.metrics import Metric, measuring
from patchstack.regress.prove import prove
from patchstack.regress.suites import BED_SUITE, Suite, files_of
from patchstack.release.ledger import is_one_line
from patchstack.store import encode
from patchstack.verbs.measure import LAST_PROMOTED, metrics_of, peer_of
from patchstack.verbs.quarantine import problems_of_quarantine
from patchstack.verbs.selection import Selection, dues_of, select
from patchstack.workplace import Workplace

LANE = "cpu"
_SHOWN = 3
_LONGEST_PROBLEM = 300
MOST_BYTES = 32 << 20
"""Of results as we write them: the report of the night, which has them and more, has to fit into a pack."""
MOST_ATTEMPTS = 100
"""Of one guard: those of the lane, and a blame's."""

Where = tuple[str, bool, str, str, bool]
"""Label, whether it is the composed tree, the tree, the mutant on it, and whether it is only measured beside."""


def require_said_of(
    work: Workplace,
    composition: Composition,
    report: GuardReport,
    image_tests: ImageTests | None = None,
    past: Past | None = None,
) -> None:
    """`UsageError` unless ``report`` has the trees, guards and proofs of ``composition``, all of them and no other.

    Of the image's checks only their names are held here; what they are worth for which image, the gate says. The tree
    of ``past`` that its numbers are compared with need not be there: the machine may not have had it.
    """
    selection = select(work, composition, ())
    if any(len(encode(said)) > MOST_BYTES for said in (report, image_tests) if said is not None):
        problems = [f"no night's have more than {MOST_BYTES} bytes"]
    else:
        problems = [*_problems(work, selection, composition, report, past), *_image_problems(image_tests)]
    if problems:
        shown = "; ".join(problem[:_LONGEST_PROBLEM] for problem in problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UsageError(
            f"the results are not those of composition {composition.commit[:12]}, nothing was moved: {shown}{more}; "
            "hand in what `nightly --until test` packed of this very night"
        )


def _problems(
    work: Workplace, selection: Selection, composition: Composition, report: GuardReport, past: Past | None
) -> Iterator[str]:
    metrics = metrics_of(work, composition)
    places = _places(work, selection, composition, metrics, past)
    if report.lane != LANE:
        yield f"they are of lane {report.lane!r}"
    if report.not_run != selection.not_run:
        yield "other scenarios are skipped by rule"
    found = [_where(run) for run in report.runs]
    yield from (f"{_told(where)} is no tree of it" for where in found if where not in places)
    yield from (f"{_told(where)} is there twice" for where in dict.fromkeys(found) if found.count(where) > 1)
    yield from (f"{_told(where)} is missing" for where in places if where not in found and not where[-1])
    for run in report.runs:
        expected = places.get(_where(run))
        if expected is not None:
            yield from expected.problems(run)
    yield from _unheard(work, selection, composition, report)
    if report.proofs != prove(selection.claims, report.runs):
        yield "what they are said to prove does not follow from them"
    yield from _problems_of_numbers(metrics, report)
    yield from _problems_of_attempts(report)
    yield from problems_of_quarantine(work, report)


def _problems_of_numbers(metrics: Sequence[Metric], report: GuardReport) -> Iterator[str]:
    """Numbers go into the history of the lane: nobody but a test that is to measure one says it."""
    tests = {metric.name: metric.test for metric in metrics}
    if not is_one_line(report.node):
        yield "what they ran on has no name that can be shown"
    if report.why_alone and not is_one_line(report.why_alone):
        yield "why nothing was measured beside is nothing that can be shown"
    for run in report.runs:
        for result in run.results:
            mine = result.test.partition("[")[0]
            if any(tests.get(one.metric) != mine or not math.isfinite(one.value) for one in result.samples):
                yield f"{result.test} on {run.label} says numbers that it is not to measure"


def _problems_of_attempts(report: GuardReport) -> Iterator[str]:
    """A pass that does not follow from what was before it; all other ends are no better than what they say."""
    for run in report.runs:
        for said in run.results:
            if len(said.attempts) > MOST_ATTEMPTS:
                yield f"{said.test} on {run.label} ran {len(said.attempts) + 1} times"
            elif said.outcome is GuardOutcome.PASS and not follows(said):
                yield f"{said.test} on {run.label} passed after it had not, and is not called flaky"


def _unheard(work: Workplace, selection: Selection, composition: Composition, report: GuardReport) -> Iterator[str]:
    """Tests that must answer and did not, and those that answered and that no guard's file has."""
    heard = {(run.label, said) for run in report.runs for said in run.results}
    for run in completed(report.runs, dues_of(selection, work.root, composition.tree)):
        yield from (
            f"{said.test} of {said.slug} on {run.label}: {said.reason}"
            for said in run.results
            if (run.label, said) not in heard
        )


def _image_problems(tests: ImageTests | None) -> Iterator[str]:
    names = [check.name for check in tests.checks] if tests else []
    yield from (f"{name[:80]!r} is nothing that is looked at in an image" for name in names if name not in set(Look))
    yield from (f"{name} of the image answers twice" for name in Look if names.count(name) > 1)


@dataclass
class _Expected:
    """The test files that have a say on one tree. Two patches can have one file among their guards."""

    files: set[tuple[str, str]] = field(default_factory=set)
    """Slug and file."""
    folders: set[tuple[str, str]] = field(default_factory=set)
    """Slug, and what its suite names: of guards that never began, no more is known."""

    def add(self, suite: Suite, files: tuple[str, ...]) -> None:
        self.files |= {(suite.slug, file) for file in files}
        self.folders |= {(suite.slug, path) for path in suite.paths}

    def problems(self, run: TreeRun) -> Iterator[str]:
        where = f"on {run.label}"
        heard = [(result.slug, result.test) for result in run.results]
        places = {(slug, test.partition("::")[0]) for slug, test in heard}
        strange = sorted(places - self.files - self.folders)
        yield from (f"{path} {where} has no guard of {slug}" for slug, path in strange)
        again = [(slug, test) for (slug, test), times in Counter(heard).items() if times > 1]
        yield from (f"{test} {where} answers twice for {slug}" for slug, test in again)
        silent = sorted((slug, file) for slug, file in self.files - places if not _within(file, slug, places))
        yield from (f"nobody answers for {file} of {slug} {where}" for slug, file in silent)


def _within(file: str, slug: str, places: Collection[tuple[str, str]]) -> bool:
    """Whether a folder that ``file`` is in has answered for all that is in it."""
    return any((slug, parent.as_posix()) in places for parent in PurePosixPath(file).parents)


def _places(
    work: Workplace, selection: Selection, composition: Composition, metrics: Sequence[Metric], past: Past | None
) -> dict[Where, _Expected]:
    """Every tree that a night of this composition runs guards on, with their files: as `verbs/test.py` decides it."""
    composed = (selection.label, True, composition.tree, "", False)
    places: dict[Where, _Expected] = {}

    def add(where: Where, suite: Suite) -> None:
        places.setdefault(where, _Expected()).add(suite, files_of(work.root, suite))

    for suite in selection.suites:
        if suite.slug != BED_SUITE:
            add(composed, suite)
    for suite in selection.on_grounds:
        ground = selection.grounds[suite.slug]
        add((ground.label, False, ground.tree, "", False), suite)
    for trial in selection.on_mutants:
        add((f"mutant {trial.name}", False, trial.tree, trial.name, False), trial.suite)
    peer = peer_of(past, composition)
    for part in measuring(work.root, selection.suites, metrics):
        add(composed, part.files)
        if peer is not None:
            add((LAST_PROMOTED, False, peer.tree, "", True), part.files)
    return places


def _where(run: TreeRun) -> Where:
    return run.label, run.composed, run.tree, run.mutant, run.beside


def _told(where: Where) -> str:
    label, _, tree, _, _ = where
    return f"{label} (tree {tree[:12]})"
