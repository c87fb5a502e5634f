"""Who made a night red: the guards that were red are asked again on other trees, until `regress/blame.py` knows.

What was asked on one machine can be followed on another: there the answers are the record's, and all else is decided
again (`follow`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from patchstack.compose.without import Against, against, bound_to
from patchstack.culprits import Ask, Blame, Certainty, Culprit, Finding, Probe, Suspect
from patchstack.deadline import Deadline
from patchstack.errors import UsageError
from patchstack.model import Composition, GuardOutcome, GuardReport, Kind, Measures
from patchstack.regress.blame import decide
from patchstack.regress.metrics import measuring
from patchstack.regress.question import Answer, Item, Question, Red, Wanted
from patchstack.regress.suites import BED_SUITE, Suite, files_of
from patchstack.regress.trend import told_by_numbers
from patchstack.verbs.history import past_of
from patchstack.verbs.measure import judged_measures, metrics_of
from patchstack.verbs.probes import Asking, Prober, answer_of, file_of, told, tree_of
from patchstack.verbs.selection import select
from patchstack.workplace import Workplace

_LONGEST_S = 1e6
METRICS = "metrics"
"""What probes call the bed's own guards that measure."""
RED = frozenset({GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT})

Reds = tuple[tuple[str, GuardOutcome], ...]


def red_guards(report: GuardReport) -> Reds:
    """What was red on the composed tree, each once."""
    results = [said for run in report.runs if run.composed for said in run.results if said.outcome in RED]
    return tuple({said.test: said.outcome for said in reversed(results)}.items())[::-1]


def red_with_numbers(work: Workplace, made: Composition, report: GuardReport, measures: Measures | None) -> Reds:
    """The same, and what was red for a number that it has measured."""
    metrics = metrics_of(work, made)
    composed = (run for run in report.runs if run.composed)
    runs = tuple(replace(run, results=told_by_numbers(metrics, measures, run.results)) for run in composed)
    return red_guards(replace(report, runs=runs))


def bed_is_red(report: GuardReport) -> tuple[str, ...]:
    """The bed's own controls that are not green on the plain base: then nothing is known of anybody."""
    bad = {*RED, GuardOutcome.FLAKY}
    return tuple(
        said.test
        for run in report.runs
        if run.is_ground
        for said in run.results
        if said.slug == BED_SUITE and said.outcome in bad
    )


def find_guilty(asking: Asking, report: GuardReport) -> Blame | None:
    """Who made the guards red that are so in ``report``; None where none is, or deploy.yaml allows no probe."""
    work, made = asking.work, asking.composition
    suites = _suites_by_file(work, made)
    reds = red_with_numbers(work, made, report, asking.measures)
    guards = tuple(red for red in reds if file_of(red[0]) in suites)
    if not guards or work.config.blame.max_probes == 0:
        return None
    controls = bed_is_red(report)
    if controls:
        return _blame(asking, guards, (_broken_bed(asking, guards, controls),), ())
    tonight = against(work.store(), made, asking.last)
    with tempfile.TemporaryDirectory(prefix="patchstack-blame-") as scratch:
        trees = Prober(asking, tonight, suites, Path(scratch))
        question = _question(asking, tonight, guards, suites, last=trees.can_ask_last())
        work.progress(f"{len(guards)} guards are red: who among {len(question.items)} that changed is to blame?")
        findings, probes = _inquire(question, trees.ask, _limit(asking))
    return _blame(asking, guards, findings, probes)


def _inquire(
    question: Question, ask: Callable[[Wanted, int], tuple[Probe, Answer] | None], limit: Deadline | None
) -> tuple[tuple[Finding, ...], tuple[Probe, ...]]:
    """Ask until it is known; what is not by then is NARROWED. ``ask`` gives None where it cannot go on."""
    probes: list[Probe] = []
    answers: list[Answer] = []
    while True:
        decided = decide(question, answers)
        if not isinstance(decided, Wanted):
            return decided, tuple(probes)
        over = limit is not None and limit.over
        found = None if over else ask(decided, len(probes) + 1)
        if found is None:
            question = replace(question, max_probes=len(answers))
            continue
        probe, answer = found
        probes.append(probe)
        answers.append(answer)


def _limit(asking: Asking) -> Deadline:
    """When no probe begins any more: what deploy.yaml allows a night for all of them, and the night's own deadline."""
    spent_s = sum(probe.seconds for probe in _probes_before(asking))
    mine = Deadline.after(asking.work.config.blame.max_minutes, spent_s=spent_s)
    night = asking.deadline
    return night if night is not None and night.left_s() < mine.left_s() else mine


def _probes_before(asking: Asking) -> Iterator[Probe]:
    before = asking.before
    while before is not None:
        yield from before.probes
        before = before.before


def _blame(asking: Asking, reds: Reds, findings: Sequence[Finding], probes: Sequence[Probe]) -> Blame:
    made = asking.composition
    return Blame(
        composition=made.commit,
        tree=made.tree,
        tests=reds,
        findings=tuple(findings),
        probes=tuple(probes),
        left_out=tuple(bound_to(made, _shippable_without(made, findings))),
        before=asking.before,
    )


def _broken_bed(asking: Asking, reds: Reds, controls: Sequence[str]) -> Finding:
    more = f" and {len(controls) - 1} more" if len(controls) > 1 else ""
    moved = asking.last is not None and asking.last.base_commit != asking.composition.base.commit
    base = ", or the base, which is not that of the last promoted night" if moved else ""
    detail = f"the bed's own control {controls[0]}{more} is red on the plain base: the machine, the test bed{base}"
    return Finding(Certainty.INFRA, tuple(test for test, _ in reds), (), detail, ())


# --- what follows --------------------------------------------------------------------------------------


def _shippable_without(made: Composition, findings: Sequence[Finding]) -> tuple[str, ...]:
    """Whom the night goes on without; nobody where what would be left is red, too, or must not be shipped."""
    guilty = {one for finding in findings if finding.certainty is Certainty.CONFIRMED for one in finding.suspects}
    telling = [
        finding
        for finding in findings
        # Of many red guards a few are asked; the others are tested again without whom these have found guilty.
        if finding.certainty is not Certainty.FLAKY
        and not (finding.certainty is Certainty.NARROWED and finding.suspects and guilty.issuperset(finding.suspects))
    ]
    if made.hotfix is not None or any(finding.certainty is not Certainty.CONFIRMED for finding in telling):
        return ()
    names = tuple(guilty_topics(made, telling))
    if any(finding.suspects[-1].name not in names for finding in telling):  # the base
        return ()
    return () if set(must_stay(made)).intersection(bound_to(made, names)) else names


def guilty_topics(made: Composition, findings: Sequence[Finding]) -> dict[str, Finding]:
    """Who is found guilty, by name: of several that fail only together the last in merge order."""
    here = {topic.name for topic in made.included}
    found: dict[str, Finding] = {}
    for finding in findings:
        if finding.certainty is Certainty.CONFIRMED and finding.suspects and finding.suspects[-1].name in here:
            found.setdefault(finding.suspects[-1].name, finding)
    return found


def must_stay(made: Composition) -> tuple[str, ...]:
    """Patches that no night is shipped without: the required ones, and what a patch of tonight stands on."""
    patches = [topic for topic in made.included if topic.kind is Kind.PATCH]
    needed = {slug for topic in patches for slug in topic.requires}
    return tuple(topic.name for topic in patches if topic.required or topic.name in needed)


# --- the question --------------------------------------------------------------------------------------


def _question(
    asking: Asking, tonight: Against, reds: Reds, suites: Mapping[str, tuple[Suite, ...]], *, last: bool
) -> Question:
    made, changed = tonight.composition, set(tonight.changed)
    goes = tonight.goes_with
    spent = sum(1 for _ in _probes_before(asking))
    return Question(
        reds=tuple(
            Red(test, outcome, _context(made, [suite.slug for suite in suites[file_of(test)]], changed))
            for test, outcome in reds
        ),
        items=tuple(
            Item(
                name=topic.name,
                culprit=Culprit.PATCH if topic.kind is Kind.PATCH else Culprit.PULL,
                head=topic.head,
                goes_with=tuple(name for name in goes.get(topic.name, ()) if name in changed),
                old=tonight.has_old(topic.name),
            )
            for topic in made.included
            if topic.name in changed
        ),
        base=Suspect(Culprit.BASE, made.base.name, made.base.commit),
        base_changed=tonight.base_changed,
        removed=tuple(
            Suspect(Culprit.PULL if "#" in name else Culprit.PATCH, name, head) for name, head in tonight.removed
        ),
        last=last,
        max_probes=max(0, asking.work.config.blame.max_probes - spent),
    )


def _context(made: Composition, slugs: Sequence[str], changed: set[str]) -> tuple[str, ...]:
    """Those of ``changed`` that are the patches of ``slugs``, or that these require."""
    patches = {topic.name: topic for topic in made.included if topic.kind is Kind.PATCH}
    found: set[str] = set()
    waiting = [slug for slug in slugs if slug in patches]
    while waiting:
        slug = waiting.pop()
        if slug not in found:
            found.add(slug)
            waiting += [name for name in patches[slug].requires if name in patches]
    return tuple(slug for slug in patches if slug in found and slug in changed)


def _suites_by_file(work: Workplace, made: Composition) -> dict[str, tuple[Suite, ...]]:
    """Every test file that has a say on the composed tree, with the suites that it is of."""
    found: dict[str, tuple[Suite, ...]] = {}
    selected = select(work, made, ()).suites
    for suite in selected:
        if suite.slug != BED_SUITE:
            for file in files_of(work.root, suite):
                found[file] = (*found.get(file, ()), suite)
            for path in suite.paths:  # of guards that never began only this is known
                found.setdefault(path, (suite,))
    for part in measuring(work.root, selected, metrics_of(work, made)):
        for file in part.files.paths:  # also of the bed's, whose controls are asked on the base alone
            found.setdefault(file, (replace(part.files, slug=METRICS),))
    return found


# --- on another machine --------------------------------------------------------------------------------


def follow(asking: Asking, told_there: Blame, report: GuardReport | None) -> Blame:
    """What follows from the answers that ``told_there`` has, all else decided here; `UsageError` where it does not fit.

    ``report`` is what the guards said of this very composition, where that was handed on.

    A job that runs the code of pull requests has written it: what a guard said on which tree is believed, as it is in
    its results, and nothing else. So somebody can be left out whom it was lied about, if he is new in this night or
    has changed in it, and nothing can come in.
    """
    work, made = asking.work, asking.composition
    if (told_there.composition, told_there.tree) != (made.commit, made.tree):
        raise UsageError(_not_of(f"it is of composition {told_there.composition[:12]}, not of {made.commit[:12]}"))
    suites = _suites_by_file(work, made)
    names = [test for test, _ in told_there.tests]
    asked = set(names) if report is None else _not_green(asking, report)
    strange = [
        test
        for test, outcome in told_there.tests
        if file_of(test) not in suites or outcome not in RED or test not in asked
    ]
    if strange or not names or len(names) != len(set(names)):
        what = f"{strange[0][:80]!r} is no red guard of it" if strange else "it names no red guard, or one twice"
        raise UsageError(_not_of(what))
    controls = bed_is_red(report) if report is not None else ()
    if controls:
        return _blame(asking, told_there.tests, (_broken_bed(asking, told_there.tests, controls),), ())
    tonight = against(work.store(), made, asking.last)
    last = asking.last is not None and (
        not tonight.base_changed or any(probe.target == Ask.LAST.value for probe in told_there.probes)
    )
    question = _question(asking, tonight, told_there.tests, suites, last=last)
    recorded = iter(told_there.probes)

    def ask(wanted: Wanted, number: int) -> tuple[Probe, Answer] | None:
        probe = next(recorded, None)
        if probe is None:
            return None
        tree = tree_of(asking, tonight, wanted.target)
        runs = sorted(name for name, _ in probe.outcomes)
        expected = sorted(test for test in wanted.tests for _ in range(wanted.times)) if tree else []
        if (probe.number, probe.target, probe.tree, runs) != (number, told(wanted.target), tree, expected):
            raise UsageError(_not_of(f"probe {number} is another than follows from those before it"))
        without = tuple(sorted(wanted.target.without))
        seconds = probe.seconds if 0 <= probe.seconds < _LONGEST_S else 0.0  # a number that is none compares to nothing
        heard = replace(probe, without=without, why=wanted.why, seconds=seconds)
        return heard, answer_of(wanted, heard)

    findings, probes = _inquire(question, ask, None)
    if len(probes) != len(told_there.probes):
        raise UsageError(_not_of(f"it has {len(told_there.probes)} probes, and {len(probes)} follow from each other"))
    return _blame(asking, told_there.tests, findings, probes)


def _not_green(asking: Asking, report: GuardReport) -> set[str]:
    """Guards that ``report`` gives a reason to ask about: red, also by a number, or flaky, as red ones may become."""
    work, made = asking.work, asking.composition
    reds = red_with_numbers(work, made, report, judged_measures(work, made, report, past_of(asking.run)))
    composed = [said for run in report.runs if run.composed for said in run.results]
    return {test for test, _ in reds} | {said.test for said in composed if said.outcome is GuardOutcome.FLAKY}


def _not_of(what: str) -> str:
    return (
        f"what was found out about the red guards is not of this night, nothing was moved: {what}; hand in what "
        "`nightly --until test` packed of this very night"
    )
