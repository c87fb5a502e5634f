"""The verdict for each channel: a channel moves only when all that it needs ran and passed.

It is the verdict on one composition. A report of other trees, of some of its patches only, or on a
composition that lacks a patch on request, leaves something open: INCOMPLETE, never PASS. A guard that is flaky holds
the channels that say so, and many of them hold all; one that is in quarantine holds none, until its day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from patchstack.model import (
    Composition,
    GuardOutcome,
    GuardReport,
    GuardResult,
    ImageCheck,
    ImageRef,
    ImageResult,
    ImageTests,
    Kind,
    LaneRuns,
    Look,
    Measures,
    Quarantined,
    Reason,
    Sha,
    Standing,
    Status,
    Verdict,
    Verdicts,
)
from patchstack.regress.ground import BASE, Ground
from patchstack.regress.lanes_gate import said_of_lanes, together
from patchstack.regress.quarantine import EXCUSABLE, is_excused, overdue
from patchstack.regress.suites import BED_SUITE
from patchstack.regress.trend import said_to_gate

CPU, IMAGE = "cpu", "image"
CUDA = "cuda"
_SHOWN = 3
"""Names of scenarios in one reason; the report has all of them."""
_GREEN = GuardOutcome.PASS
_RED = {GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT}
_RED_CHECK = {*_RED, GuardOutcome.FLAKY}
"""Of an image: nobody excuses it there."""
_EXCUSED = {*EXCUSABLE, GuardOutcome.QUARANTINED}
_NOT_PROVEN = {Standing.BROKEN, Standing.UNPROVEN, Standing.UNGUARDED}


@dataclass(frozen=True)
class Lenience:
    """What is said of guards that are neither green nor red."""

    holds: frozenset[str] = frozenset()
    """Channels that a flaky guard keeps where they are."""
    max_flaky: int | None = None
    """More than this keep every channel; None: however many there are."""
    quarantine: tuple[Quarantined, ...] = ()
    """The file as it is now, whatever a report says of it."""


def judge(
    channels: Mapping[str, Sequence[str]],
    composition: Composition,
    grounds: Mapping[str, Ground],
    report: GuardReport,
    image: ImageResult | None = None,
    image_tests: ImageTests | None = None,
    runtime: str = "",
    measures: Measures | None = None,
    lenience: Lenience | None = None,
    lanes: LaneRuns | None = None,
) -> Verdicts:
    """One verdict on ``composition`` a channel; ``channels`` maps its name to the lanes and artefacts it needs.

    ``grounds`` has for each patch of the composition the tree on which its guards must have failed. ``image`` is what
    became of its image (None: nobody has tried), ``image_tests`` what was seen inside, and ``runtime`` the one that
    deploy.yaml says for the lane's image; empty where it says none. ``measures`` are tonight's numbers as they were
    judged; None where no metric is declared. ``lenience``: none at all where it is None. ``lanes`` is what other lanes
    than `cpu` said; None where none was asked.
    """
    lenience = lenience or Lenience(frozenset(channels))
    lane, numbers = _of_cpu_lane(report, lenience), said_to_gate(measures)
    red = [*lane.red, *numbers.red]
    open_ends = [*_beside_the_composition(composition, grounds, report), *lane.open_ends, *numbers.open_ends]
    every_need = sorted({need for needs in channels.values() for need in needs})
    not_run = {need: _not_run(need, report) for need in every_need}
    found = _of_image(composition, image, image_tests, runtime, not_run.get(IMAGE, ""))
    if not found.open_ends and not found.red:
        not_run.pop(IMAGE, None)  # it is there, also for a channel that does not need it
    tonight = image.image if image else None
    others = said_of_lanes(lanes, composition.commit, lenience.quarantine, lenience.max_flaky, tonight)
    for other in others:
        not_run.pop(other, None)
    verdicts = []
    for name, needs in channels.items():
        mine, on_cpu = together([others[need] for need in needs if need in others]), CPU in needs
        flaky = (*(lane.flaky if on_cpu else ()), *mine.flaky)
        holding = flaky if name in lenience.holds else ()
        its_red = [*(red if on_cpu else ()), *mine.red]
        its_open_ends = [*(open_ends if on_cpu else ()), *mine.open_ends, *holding]
        said = _verdict(name, needs, not_run, its_red, its_open_ends, found)
        warnings = (*(() if holding else flaky), *((*lane.warnings, *numbers.warnings) if on_cpu else ()))
        verdicts.append(replace(said, warnings=(*warnings, *mine.warnings)))
    return Verdicts(tuple(verdicts))


@dataclass(frozen=True)
class _Lane:
    """What makes the `cpu` lane red, what keeps it from being complete, and what somebody should know."""

    red: tuple[str, ...]
    open_ends: tuple[str, ...]
    flaky: tuple[str, ...]
    """It depends on the channel what follows."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Image:
    """What makes the image red, for every channel, and what a channel that needs it still lacks."""

    red: tuple[str, ...]
    open_ends: tuple[str, ...]


def _verdict(
    name: str,
    needs: Sequence[str],
    not_run: Mapping[str, str],
    red: Sequence[str],
    open_ends: Sequence[str],
    image: _Image,
) -> Verdict:
    """``not_run`` has for every need of any channel that did not run its scenarios."""
    reasons = [*red, *open_ends]
    absent = [
        f"it needs {need}, which did not run{not_run[need]}"
        for need in needs
        if need not in (CPU, IMAGE) and need in not_run
    ]
    if IMAGE in needs:
        absent = [*image.open_ends, *absent]
    failed = bool(image.red or red)
    status = Status.FAIL if failed else Status.INCOMPLETE if reasons or absent else Status.PASS
    skipped = tuple(f"{need}: {name} does not need it{said}" for need, said in not_run.items() if need not in needs)
    return Verdict(name, status, (*image.red, *reasons, *absent), skipped)


def image_to_promote(composition: Composition, result: ImageResult | None, tests: ImageTests | None) -> ImageRef | None:
    """Tonight's image, where nothing is open on it but its runtime: no other one may be promoted.

    A local night's is of another runtime than deploy.yaml says, and has tags of its own.
    """
    image = result.image if result else None
    found = _of_image(composition, result, tests, image.runtime if image else "", "")
    return image if not found.red and not found.open_ends else None


def _of_image(
    composition: Composition, result: ImageResult | None, tests: ImageTests | None, runtime: str, not_run: str
) -> _Image:
    image = result.image if result else None
    if result is None or image is None:
        why = f": {result.why_not}" if result else not_run
        return _Image((), (f"it needs image, which did not run{why}",))
    said = f"the image {image.digest[:19]}"
    tree = next((text for key, text in image.labels if key.endswith(".patchstack.tree")), "none")
    if tree != composition.tree:
        return _Image((), (f"it needs image, and {said} is of tree {tree[:12]}, not of {composition.tree[:12]}",))
    if tests is None:
        return _Image((), (f"it needs image, and nobody looked inside {said}: run `patchstack image-check`",))
    if (tests.repository, tests.digest) != (image.repository, image.digest):
        other = f"{tests.repository}@{tests.digest[:19]}"
        return _Image((), (f"it needs image, and what was looked at is {other}, not {said}",))
    red = tuple(_told(check) for check in tests.checks if check.outcome in _RED_CHECK)
    rest = [check for check in tests.checks if check.outcome not in _RED_CHECK]
    open_ends = [_told(check) for check in rest if not _in_order(check, image)]
    seen = [check.name for check in tests.checks]
    open_ends += [f"image: {look.value}: nobody looked" for look in Look if look.value not in seen]
    open_ends += [f"image: {name}: it answers twice" for name in sorted(set(seen)) if seen.count(name) > 1]
    if not runtime:
        open_ends.append("it needs image, and deploy.yaml has none for this lane: add it")
    elif runtime != image.runtime:
        open_ends.append(f"it needs the {runtime} image, and this night made the {image.runtime} one")
    return _Image(red, tuple(open_ends))


def _told(check: ImageCheck) -> str:
    return f"image: {check.name}: {check.outcome.value}: {check.detail}"


def _in_order(check: ImageCheck, image: ImageRef) -> bool:
    """Green, or not done by rule: somebody else's image names no packages, and one for GPUs does not serve without."""
    if check.outcome is not GuardOutcome.SKIPPED_BY_RULE:
        return check.outcome is _GREEN
    return check.name == Look.PACKAGES or (check.name == Look.REQUEST and image.runtime == CUDA)


def _not_run(need: str, report: GuardReport) -> str:
    """`` (2 scenarios: a, b)``; nothing where there are none."""
    tests = [scenario.test for scenario in report.not_run if scenario.lane == need]
    count = f"{len(tests)} scenario{'' if len(tests) == 1 else 's'}"
    return f" ({count}: {_some(tests)})" if tests else ""


def _of_cpu_lane(report: GuardReport, lenience: Lenience) -> _Lane:
    """What its guards say; on its ground a guard is meant to fail, and only the bed's own controls are not."""
    runs = [run for run in report.runs if not run.beside]
    every = [result for run in runs for result in run.results if run.composed or result.slug == BED_SUITE]
    excused = [said for said in every if said.outcome in _EXCUSED and is_excused(said, lenience.quarantine)]
    results = [said for said in every if said not in excused]
    red = [_said(result) for result in results if result.outcome in _RED]
    red += overdue(lenience.quarantine)
    # Whatever is neither green nor red did not run: it is never green. Nor is what no entry excuses any more.
    missing = [_said(result) for result in results if result.outcome not in {*_RED, _GREEN, GuardOutcome.FLAKY}]
    unproven = [
        f"patch {proof.slug} is {proof.standing.value}: {proof.detail}"
        for proof in report.proofs
        # A broken patch has a guard that is not green, and that one is named already.
        if proof.standing in _NOT_PROVEN and not (proof.standing is Standing.BROKEN and (red or missing))
    ]
    nothing = [] if any(result.outcome is GuardOutcome.PASS for result in results) else ["no guard ran and passed"]
    flaky = [_said(result) for result in results if result.outcome is GuardOutcome.FLAKY]
    most = lenience.max_flaky
    too_many = most is not None and len(flaky) > most
    many = [f"flaky guards: {len(flaky)}, and tests.max_flaky allows {most}"] if too_many else []
    again = [result.test for result in results if result.outcome is _GREEN and result.attempts]
    warnings = list(map(_said, excused))
    if again:
        warnings.append(f"passed only when they ran again, for their process had died: {_some(again)}")
    return _Lane(tuple(red), (*missing, *many, *unproven, *nothing), tuple(flaky), tuple(warnings))


def _said(result: GuardResult) -> str:
    return f"{result.test}: {result.outcome.value}: {result.reason}"


def _some(tests: Sequence[str]) -> str:
    shown = [*tests[:_SHOWN], *([f"{len(tests) - _SHOWN} more"] if len(tests) > _SHOWN else [])]
    return ", ".join(shown)


def _beside_the_composition(
    composition: Composition, grounds: Mapping[str, Ground], report: GuardReport
) -> Iterator[str]:
    """What the report does not say about this very composition."""
    for out in composition.left_out:
        if out.kind is Kind.PATCH and out.reason is Reason.ON_REQUEST:
            yield f"patch {out.name} is left out on request: what lacks it is not a night"
        elif out.kind is Kind.PATCH and out.reason is Reason.REQUIRED_LEFT_OUT and out.required:
            yield f"required patch {out.name} is left out: {out.detail}"
    if {run.tree for run in report.runs if run.composed} != {composition.tree}:
        yield f"the guards did not run on the composed tree {composition.tree[:12]}, and it alone"
    on_base = (BASE, composition.base.tree)
    if on_base not in _places(report) or _places(report, BED_SUITE) - {on_base}:
        yield f"the bed's own guards did not run on the base tree {composition.base.tree[:12]}, and it alone"
    proven = {proof.slug: proof.ground for proof in report.proofs}
    standings = {proof.slug: proof.standing for proof in report.proofs}
    for topic in composition.included:
        if topic.kind is not Kind.PATCH:
            continue
        ground = grounds[topic.name]
        if topic.name not in proven:
            yield f"patch {topic.name}: its guards did not run"
            continue
        expected = set() if _kill_mutants_only(report, topic.name) else {(ground.label, ground.tree)}
        if proven[topic.name] != ground.label or _places(report, topic.name) != expected:
            where = f"{ground.label} (tree {ground.tree[:12]})"
            yield f"patch {topic.name}: its guards did not run on {where}, and it alone"
        for mutant in topic.mutants:
            trees = [run.tree for run in report.runs if run.mutant == f"{topic.name}/{mutant.name}"]
            # One that cannot be made, or that nobody kills, leaves its patch unproven, and that is said already.
            if trees != [mutant.tree] and (trees or standings[topic.name] is Standing.PROVEN):
                yield f"patch {topic.name}: its guards did not run on the tree of mutant {mutant.name}, and it alone"


def _kill_mutants_only(report: GuardReport, slug: str) -> bool:
    """Whether every guard of the patch kills mutants: then none runs on a ground."""
    guards = [said for run in report.runs if run.composed for said in run.results if said.slug == slug]
    return bool(guards) and all(said.kills for said in guards)


def _places(report: GuardReport, slug: str | None = None) -> set[tuple[str, Sha]]:
    """Label and tree of every run on a ground; of those with a result of ``slug``, if one is given."""
    runs = [run for run in report.runs if run.is_ground]
    return {(run.label, run.tree) for run in runs if slug is None or any(said.slug == slug for said in run.results)}
