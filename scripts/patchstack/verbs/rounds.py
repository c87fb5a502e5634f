"""The tests of a night, and what follows where they are red: who is to blame, and the rest without the guilty.

What is left is composed, made an image and tested whole like any night, and judged by the same gate; so it goes on
until it is green, or nobody can be left out any more. A part of the night that is handed what another one has found
follows it again, and runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from patchstack.compose.left_out import listed
from patchstack.compose.without import leave_out
from patchstack.culprits import Ask, Blame, Certainty, Finding
from patchstack.deadline import REASON, Deadline
from patchstack.errors import CompositionError, GateFailed, Incomplete, PatchstackError
from patchstack.losses import Losses
from patchstack.model import (
    Attempt,
    Composition,
    GuardOutcome,
    GuardReport,
    GuardResult,
    ImageResult,
    ImageTests,
    LaneRuns,
    LedgerLine,
    Measures,
    Outcome,
    RangeDiff,
    Status,
    Verdict,
    Verdicts,
)
from patchstack.regress.prove import prove
from patchstack.release.loss import require_few
from patchstack.report.rangediff import range_diffs
from patchstack.store import Run
from patchstack.verbs.blame import bed_is_red, find_guilty, follow, guilty_topics, must_stay, red_with_numbers
from patchstack.verbs.handed import require_said_of
from patchstack.verbs.handed_lanes import followed
from patchstack.verbs.history import past_of, quarantined_green
from patchstack.verbs.image import make_image
from patchstack.verbs.image_check import check_image
from patchstack.verbs.inputs import require_as_planned
from patchstack.verbs.lanes import image_in_order, lanes_of_a_night, run_lanes_of_a_night
from patchstack.verbs.losses import write_losses_again
from patchstack.verbs.measure import judged_measures
from patchstack.verbs.probes import Asking
from patchstack.verbs.selection import select
from patchstack.verbs.test import (
    NIGHTLY,
    gate,
    lanes_said,
    raise_for,
    run_guards,
    verdicts_on,
    write_junit,
    write_report,
)
from patchstack.workplace import Clock, Workplace

NO_IMAGE_PART = "the part of the night that makes the image did not run: `patchstack nightly --until image`"
NO_IMAGE_OF_A_PART = (
    "the image of this night was made before the guilty were left out, and is not promoted; the next night makes one"
)
FLAKY = "it has passed and failed on one tree of this night"


@dataclass
class Tested:
    """What a night knows of the composition that it tests."""

    composition: Composition | None = None
    losses: Losses | None = None
    range_diffs: tuple[RangeDiff, ...] = ()
    image: ImageResult | None = None
    image_tests: ImageTests | None = None
    tests: GuardReport | None = None
    lanes: LaneRuns | None = None
    verdicts: tuple[Verdict, ...] = ()
    measures: Measures | None = None
    quarantined_green: tuple[tuple[str, int], ...] = ()
    blame: Blame | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Handed:
    """What another machine has found out, held against what is composed: only whether guards passed is its word."""

    composition: Composition
    """Tonight's, or what is left of it."""
    tests: GuardReport
    image_tests: ImageTests | None
    blame: Blame | None
    lanes: LaneRuns | None = None


@dataclass(frozen=True)
class Means:
    """How a night tests."""

    previous: LedgerLine | None
    """What is deployed."""
    deadline: Deadline
    jobs: int | None = None
    handed: Handed | None = None
    makes_image: bool = True
    """This part of the night has the credentials for it, or needs none."""


def make_the_image(work: Workplace, run: Run, clock: Clock, tested: Tested, means: Means) -> None:
    """Make and push the image of what is tested, where another part has not; what it then lacks, the gate says."""
    assert tested.composition is not None
    if tested.image is not None:
        return
    # What is made after the tests nobody has looked into; and the part that tests hands on no image.
    if means.handed is not None or not means.makes_image:
        tested.image = ImageResult(None, NO_IMAGE_OF_A_PART if tested.blame else NO_IMAGE_PART)
        run.write(tested.image)
        return
    with clock.stage("image"), work.progress.stage("image"):
        previous = means.previous.image if means.previous else None
        tested.image = make_image(work, run, tested.composition, previous)


def test_until_settled(work: Workplace, run: Run, clock: Clock, tested: Tested, means: Means) -> None:
    """Test and judge; where guards are red, find the guilty and go on without them.

    Ends without an error where channel `nightly` passed. Raises `GateFailed` or `Incomplete` where it did not, with
    all that is known in ``tested``.
    """
    if means.handed is not None:
        _take_over(work, run, tested, means, means.handed)
    for rounds_left in range(work.config.blame.rounds, -1, -1):
        _test(work, run, clock, tested, means)
        verdicts = _judge(work, run, tested, means)
        if _status(verdicts) is not Status.FAIL:
            break
        if means.handed is None:
            with clock.stage("blame"), work.progress.stage("blame"):
                if not _find_out(work, run, tested, means):
                    break
            verdicts = _judge(work, run, tested, means)
        verdicts = _without_a_sound_machine(work, run, tested, verdicts)
        blame = tested.blame
        if _status(verdicts) is not Status.FAIL or blame is None or means.handed is not None or not blame.left_out:
            break
        if not rounds_left:
            _nobody_left_out(run, tested, f"{work.config.blame.rounds} times the rest was composed again and was red")
            break
        if not _go_on_without(work, run, clock, tested, means, blame):
            break
    if _status(verdicts) is not Status.FAIL and _ask_lanes(work, run, clock, tested, means):
        verdicts = _without_a_sound_machine(work, run, tested, _judge(work, run, tested, means))
    _raise_for(verdicts, run, tested)


# --- one round -----------------------------------------------------------------------------------------


def _test(work: Workplace, run: Run, clock: Clock, tested: Tested, means: Means) -> None:
    """Look inside the image and run the guards, or take what was found elsewhere."""
    assert tested.composition is not None
    if means.handed is not None:
        tested.tests, tested.image_tests = means.handed.tests, means.handed.image_tests
        write_report(run, means.handed.tests)
        if means.handed.image_tests is not None:
            run.write(means.handed.image_tests)
        return
    assert tested.image is not None
    if tested.image.image is not None:
        with clock.stage("image check"), work.progress.stage("image check"):
            tested.image_tests = check_image(work, run, tested.composition, tested.image)
    require_as_planned(work, tested.composition)  # else an hour of guards is for nothing
    with clock.stage("test"), work.progress.stage("test"):
        tested.tests = run_guards(work, run, tested.composition, jobs=means.jobs, deadline=means.deadline)
    late = [said for ran in tested.tests.runs for said in ran.results if said.reason == REASON]
    if late:
        tested.notes.append(
            f"{REASON} of {means.deadline.minutes:g} min was over before {len(late)} guards had answered"
        )


def _ask_lanes(work: Workplace, run: Run, clock: Clock, tested: Tested, means: Means) -> bool:
    """Ask the lanes that the night gives to machines itself, or take what they said elsewhere; whether any said a word.

    Nobody is blamed for what they say: on other trees they are not asked.
    """
    assert tested.composition is not None
    if means.handed is not None:
        if means.handed.lanes is not None:
            run.write(means.handed.lanes)
    elif lanes_of_a_night(work):
        with clock.stage("lanes"), work.progress.stage("lanes"):
            tested.notes += run_lanes_of_a_night(work, run, tested.composition, means.previous, means.deadline)
    tested.lanes = lanes_said(run)
    if tested.lanes is not None:
        write_junit(run)
    return tested.lanes is not None


def _judge(work: Workplace, run: Run, tested: Tested, means: Means) -> Verdicts:
    """The gate's word; a guard that blame has found flaky is that, whatever it said this time."""
    assert tested.composition is not None
    assert tested.tests is not None
    marked = _with_flaky(work, tested.composition, tested.tests, tested.blame)
    if marked != tested.tests:
        tested.tests = marked
        write_report(run, marked)
    past = past_of(run)
    tested.measures = judged_measures(work, tested.composition, tested.tests, past)
    tested.quarantined_green = quarantined_green(tested.tests, past, tested.lanes)
    verdicts = gate(work, run, tested.composition, tested.tests)
    tested.verdicts = verdicts.verdicts
    return verdicts


def _status(verdicts: Verdicts) -> Status:
    return next((one.status for one in verdicts.verdicts if one.channel == NIGHTLY), Status.INCOMPLETE)


def _with_flaky(work: Workplace, composition: Composition, report: GuardReport, blame: Blame | None) -> GuardReport:
    """``report`` with what was found flaky tonight: also where it passed on what was composed later."""
    flaky: dict[str, Blame] = {}
    here: dict[str, Blame] = {}
    one = blame
    while one is not None:
        tests = {test for finding in one.findings if finding.certainty is Certainty.FLAKY for test in finding.tests}
        for test in tests:
            flaky.setdefault(test, one)
            if one.composition == composition.commit:
                here[test] = one
        one = one.before
    if not flaky:
        return report

    def marked(said: GuardResult) -> GuardResult:
        if said.test in here and said.outcome not in {GuardOutcome.FLAKY, GuardOutcome.MISSING}:
            again = [
                Attempt(outcome, f"probe {probe.number}", 0.0)
                for probe in here[said.test].probes
                if probe.target == Ask.TONIGHT.value
                for test, outcome in probe.outcomes
                if test == said.test
            ]
            first = Attempt(said.outcome, said.reason, said.duration_s)
            attempts = (*said.attempts, first, *again)
            return replace(said, outcome=GuardOutcome.FLAKY, reason=FLAKY, attempts=attempts)
        if said.test in flaky and said.outcome is GuardOutcome.PASS:
            return replace(said, outcome=GuardOutcome.FLAKY, reason=FLAKY)
        return said

    runs = tuple(replace(ran, results=tuple(map(marked, ran.results))) if ran.composed else ran for ran in report.runs)
    if runs == report.runs:
        return report
    return replace(report, runs=runs, proofs=prove(select(work, composition, ()).claims, runs))


def _find_out(work: Workplace, run: Run, tested: Tested, means: Means) -> bool:
    """Who made the guards red; False where that is not known in any way."""
    assert tested.composition is not None
    assert tested.tests is not None
    asking = Asking(
        work, run, tested.composition, means.previous, tested.blame, means.jobs, means.deadline, tested.measures
    )
    try:
        found = find_guilty(asking, tested.tests)
    except (PatchstackError, OSError) as error:  # the night is as red as it was
        tested.notes.append(f"who is to blame could not be found out: {error}")
        found = None
    if found is None:
        return False
    told = {test for finding in found.findings for test in finding.tests}
    reds = red_with_numbers(work, tested.composition, tested.tests, tested.measures)
    if not told.issuperset(test for test, _ in reds):
        found = replace(found, left_out=())  # something else is red, and stays so
    tested.blame = found
    run.write(found)
    return True


def _nobody_left_out(run: Run, tested: Tested, why: str) -> None:
    assert tested.blame is not None
    tested.blame = replace(tested.blame, left_out=())
    run.write(tested.blame)
    tested.notes.append(f"nobody more is left out: {why}")


def _without_a_sound_machine(work: Workplace, run: Run, tested: Tested, verdicts: Verdicts) -> Verdicts:
    """A guard that was red for the machine, or for the bed, has told nothing: it is as if it had not run."""
    assert tested.composition is not None
    assert tested.tests is not None
    infra = _by_test(tested.blame, tested.composition, Certainty.INFRA)
    if not infra:
        return verdicts

    broken = set(bed_is_red(tested.tests))
    runs = tuple(
        replace(
            ran,
            results=tuple(
                _silenced(said, infra[said.test])
                if ran.composed and said.test in infra
                else _silenced(said, None)
                if ran.is_ground and said.test in broken
                else said
                for said in ran.results
            ),
        )
        for ran in tested.tests.runs
    )
    said = replace(tested.tests, runs=runs)
    past, lanes = past_of(run), tested.lanes
    found = verdicts_on(work, tested.composition, said, tested.image, tested.image_tests, past, lanes)
    run.write(found)
    tested.verdicts = found.verdicts
    return found


def _silenced(said: GuardResult, finding: Finding | None) -> GuardResult:
    because = f", and {finding.detail}" if finding else ""
    return replace(said, outcome=GuardOutcome.MISSING, reason=f"it said {said.outcome.value}{because}")


def _by_test(blame: Blame | None, composition: Composition, certainty: Certainty) -> Mapping[str, Finding]:
    if blame is None or blame.composition != composition.commit:
        return {}
    return {test: one for one in blame.findings if one.certainty is certainty for test in one.tests}


# --- the rest ------------------------------------------------------------------------------------------


def _go_on_without(work: Workplace, run: Run, clock: Clock, tested: Tested, means: Means, blame: Blame) -> bool:
    """Compose what is left, and have its image made; False where the night ends here instead."""
    assert tested.composition is not None
    with clock.stage("merge"), work.progress.stage("merge"):
        try:
            rest = without_guilty(work, tested.composition, blame)
        except CompositionError as error:
            _nobody_left_out(run, tested, f"what is left does not compose: {error}")
            return False
        work.progress(f"without {', '.join(blame.left_out)}: composed again, and tested again")
        _begin_with(work, run, tested, rest, means.previous)
        assert tested.losses is not None
        require_few(tested.losses)
    make_the_image(work, run, clock, tested, means)
    return True


def without_guilty(work: Workplace, composition: Composition, blame: Blame) -> Composition:
    """What is left of ``composition``, the same wherever that is composed."""
    guilty = {
        name: f"{_why(finding)}{_with(composition, name)}; have a mended head admitted, or "
        f"`patchstack release-hold '{name}'`"
        for name, finding in guilty_topics(composition, blame.findings).items()
    }
    return leave_out(work.store(), composition, guilty, protected=work.config.pulls.protected)


def _with(composition: Composition, name: str) -> str:
    """Whose commits it brings in, too: they were composed by it alone, and the fault may be theirs."""
    carried = [out.name for out in composition.left_out if out.outcome is Outcome.CARRIED and name in out.twins]
    return f" (it contains {listed(carried)}, which the next night tries alone)" if carried else ""


def _why(finding: Finding) -> str:
    """Files alone: the rest of a guard's id can be anything."""
    files = list(dict.fromkeys(test.partition("::")[0] for test in finding.tests))
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    others = [suspect.name for suspect in finding.suspects[:-1]]
    beside = f" together with {', '.join(others)}" if others else ""
    return f"it breaks what {files[0]}{more} guards{beside}: {finding.detail}"


def _begin_with(work: Workplace, run: Run, tested: Tested, rest: Composition, previous: LedgerLine | None) -> None:
    """Nothing that is known of what was composed before holds for ``rest``."""
    tested.composition = rest
    tested.image = tested.image_tests = tested.tests = tested.measures = tested.lanes = None
    tested.verdicts, tested.quarantined_green = (), ()
    run.write(rest)  # first: what is left of the others is not of it, and whoever reads them finds that
    for kind in (ImageResult, ImageTests, GuardReport, LaneRuns, Verdicts):
        run.path(kind).unlink(missing_ok=True)
    tested.losses = write_losses_again(work, run, rest, previous)
    tested.range_diffs = range_diffs(work.store(), previous, rest)


def _take_over(work: Workplace, run: Run, tested: Tested, means: Means, handed: Handed) -> None:
    """Go on with what another machine has found out."""
    tested.blame = handed.blame
    if handed.blame is not None:  # before the rest: where this is killed, the run tells why it has a part (`keep_run`)
        run.write(handed.blame)
    if handed.composition != tested.composition:
        _begin_with(work, run, tested, handed.composition, means.previous)
        assert tested.losses is not None
        require_few(tested.losses)
        tested.image = ImageResult(None, NO_IMAGE_OF_A_PART)
        run.write(tested.image)


def hand_over(
    work: Workplace,
    run: Run,
    composition: Composition,
    previous: LedgerLine | None,
    tests: GuardReport,
    image_tests: ImageTests | None,
    blame: Blame | None,
    lanes: LaneRuns | None = None,
) -> Handed:
    """What a file says that another machine has found out about ``composition``, each step of it followed here.

    `UsageError` where one does not follow, or the results are not those of what is left in the end.
    """
    rest, known = composition, None
    trees = {ran.tree for ran in tests.runs if ran.composed}
    chain = _oldest_first(blame)
    for number, told in enumerate(chain, 1):
        is_last = number == len(chain)
        about_this = is_last and trees == {rest.tree}
        known = follow(Asking(work, run, rest, previous, known), told, tests if about_this else None)
        if about_this or not known.left_out:
            known = replace(known, left_out=())
            break
        rest = without_guilty(work, rest, known)
    looked = image_tests if rest is composition else None
    require_said_of(work, rest, tests, looked, past_of(run))
    if lanes is not None:
        image = run.read(ImageResult) if rest is composition and run.has(ImageResult) else None
        lanes = followed(work, run, rest, lanes, image_in_order(rest, image, looked), previous)
    return Handed(rest, tests, looked, known, lanes)


def _oldest_first(blame: Blame | None) -> Sequence[Blame]:
    chain: list[Blame] = []
    while blame is not None:
        chain.insert(0, blame)
        blame = blame.before
    return chain


# --- how it ends ---------------------------------------------------------------------------------------


def _raise_for(verdicts: Verdicts, run: Run, tested: Tested) -> None:
    """As `raise_for`, with what was found out about who is to blame."""
    try:
        raise_for(verdicts, run.id)
    except (GateFailed, Incomplete) as error:
        assert tested.composition is not None
        blame = tested.blame
        if blame is None or blame.composition != tested.composition.commit:
            raise
        stays = set(must_stay(tested.composition))
        found = [
            f"  {finding.certainty.value}: "
            f"{', '.join(f'{one.culprit.value} {one.name}' for one in finding.suspects) or 'nobody is blamed'}: "
            f"{finding.detail}{'; no night is shipped without it' if _stays(finding, stays) else ''}"
            for finding in blame.findings
        ]
        raise type(error)("\n".join([str(error), *found])) from error


def _stays(finding: Finding, stays: set[str]) -> bool:
    if finding.certainty is not Certainty.CONFIRMED or not finding.suspects:
        return False
    return finding.suspects[-1].culprit.value == "base" or finding.suspects[-1].name in stays
