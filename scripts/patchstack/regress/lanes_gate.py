"""What other lanes than `cpu` mean for the channels that need them: red, incomplete, or nothing. Pure.

A lane is green where every test that is declared for it ran on the machine that it is for, and passed. A rehearsal
never makes one green, and never red: it ran on another machine than the one that the lane is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchstack.model import (
    Form,
    GuardOutcome,
    GuardResult,
    ImageRef,
    JobState,
    LaneRun,
    LaneRuns,
    Quarantined,
    Sha,
)
from patchstack.regress.quarantine import EXCUSABLE, is_excused
from patchstack.regress.trend import said_to_gate

REHEARSED = "rehearsed on a CPU, never run on a GPU"
_SHOWN = 3
_RED = {GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT}
_EXCUSED = {*EXCUSABLE, GuardOutcome.QUARANTINED}


@dataclass(frozen=True)
class LaneSaid:
    """What makes a lane red, what keeps it from being complete, and what somebody should know."""

    red: tuple[str, ...] = ()
    open_ends: tuple[str, ...] = ()
    flaky: tuple[str, ...] = ()
    """It depends on the channel what follows."""
    warnings: tuple[str, ...] = ()


def said_of_lanes(
    lanes: LaneRuns | None,
    composition: Sha,
    quarantine: Sequence[Quarantined],
    max_flaky: int | None,
    image: ImageRef | None = None,
) -> dict[str, LaneSaid]:
    """By lane; none of what was said of another composition. ``max_flaky``: see `gate.Lenience`.

    ``image`` is tonight's, beside which nothing counts that was said inside another one; None where there is none.
    """
    if lanes is None or lanes.composition != composition:
        return {}
    tonight = f"{image.repository}@{image.digest}" if image else ""
    return {run.lane: _said(run, quarantine, max_flaky, tonight) for run in lanes.runs}


def together(said: Sequence[LaneSaid]) -> LaneSaid:
    """Of all lanes that one channel needs."""
    return LaneSaid(
        tuple(one for each in said for one in each.red),
        tuple(one for each in said for one in each.open_ends),
        tuple(one for each in said for one in each.flaky),
        tuple(one for each in said for one in each.warnings),
    )


def _said(run: LaneRun, quarantine: Sequence[Quarantined], max_flaky: int | None, tonight: str) -> LaneSaid:
    if run.form is Form.REHEARSAL:
        not_green = [said.test for said in run.results if said.outcome is not GuardOutcome.PASS]
        failed = f"; not green there: {_some(not_green)}" if not_green else ""
        return LaneSaid(open_ends=(f"it needs {run.lane}, which was {REHEARSED}{failed}",))
    if not run.results:
        return LaneSaid(open_ends=(f"it needs {run.lane}, and no test is declared for it",))
    if not any(end.state is JobState.ANSWERED for end in run.jobs):
        why = "; ".join(dict.fromkeys(f"{end.state.value}: {end.detail}" for end in run.jobs)) or "it has no job"
        return LaneSaid(open_ends=(f"it needs {run.lane}, which did not run: {why}",))
    others = [end.job.image for end in run.jobs if end.state is JobState.ANSWERED and end.job.image != tonight]
    if tonight and others:
        why = f"which ran inside {others[0] or 'no image'}, and tonight's image is {tonight}"
        return LaneSaid(open_ends=(f"it needs {run.lane}, {why}",))
    excused = [said for said in run.results if said.outcome in _EXCUSED and is_excused(said, quarantine)]
    results = [said for said in run.results if said not in excused]
    neither = [said for said in results if said.outcome not in {*_RED, GuardOutcome.PASS, GuardOutcome.FLAKY}]
    flaky = [_told(run, said) for said in results if said.outcome is GuardOutcome.FLAKY]
    open_ends = [_told(run, said) for said in neither]
    if max_flaky is not None and len(flaky) > max_flaky:
        open_ends.append(f"flaky tests of {run.lane}: {len(flaky)}, and tests.max_flaky allows {max_flaky}")
    if not any(said.outcome is GuardOutcome.PASS for said in results):
        open_ends.append(f"no test of {run.lane} ran and passed")
    numbers = [said_to_gate(measures) for measures in run.measures]
    return LaneSaid(
        (*(_told(run, said) for said in results if said.outcome in _RED), *_of_lane(run, [one.red for one in numbers])),
        (*open_ends, *_of_lane(run, [one.open_ends for one in numbers])),
        tuple(flaky),
        (*(_told(run, said) for said in excused), *_of_lane(run, [one.warnings for one in numbers])),
    )


def _of_lane(run: LaneRun, said: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """What its numbers say, for each kind of hardware."""
    return tuple(f"{run.lane}: {sentence}" for each in said for sentence in each)


def _told(run: LaneRun, said: GuardResult) -> str:
    return f"{run.lane}: {said.test}: {said.outcome.value}: {said.reason}"


def _some(tests: Sequence[str]) -> str:
    shown = [*tests[:_SHOWN], *([f"{len(tests) - _SHOWN} more"] if len(tests) > _SHOWN else [])]
    return ", ".join(shown)
