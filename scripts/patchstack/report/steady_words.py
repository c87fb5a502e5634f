"""Guards that do not say the same twice, and those that are excused for a while: run again, flaky, in quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patchstack.model import (
    Attempt,
    Form,
    GuardOutcome,
    GuardReport,
    GuardResult,
    LaneRuns,
    NightReport,
    Quarantined,
    TreeRun,
)
from patchstack.report import words
from patchstack.report.blame_words import outcome_said, sentence
from patchstack.report.page import Badge, Line, Prose, Quoted, Section

RUN_AGAIN, QUARANTINE = "Run again", "Quarantine"
ROWS = 30
_FEW = 5
_UNSTEADY = GuardOutcome.FLAKY
_BED = "bed"
"""The slug of the bed's own controls, which must pass on every tree (`GuardResult.slug`)."""


def sections(
    report: GuardReport | None, green_nights: Sequence[tuple[str, int]] = (), lanes: LaneRuns | None = None
) -> tuple[Section, ...]:
    """None for guards that all said what they have to say at once, and are in no quarantine."""
    if report is None:
        return ()
    return (*_run_again(report), *_quarantine(report, dict(green_nights), lanes))


# --- run again ---


def _run_again(report: GuardReport) -> tuple[Section, ...]:
    found = _several_attempts(report)
    if not found:
        return ()
    flaky = sum(result.outcome is _UNSTEADY for _, result in found)
    rest = len(found) - flaky
    said: list[Line] = []
    if flaky:
        said.append((f"{words.count(flaky, 'guard is', 'guards are')} flaky: pass and fail on one tree.",))
    if rest:
        were = words.count(rest, "other guard was", "other guards were")
        said.append((f"{were} run again: the first end was no assertion.",))
    lines = tuple(attempts_said(run, result) for run, result in found[:ROWS])
    return (Section(RUN_AGAIN, tuple(said), items=lines, more=words.more(len(found) - ROWS)),)


def _several_attempts(report: GuardReport) -> list[tuple[TreeRun, GuardResult]]:
    """Flaky ones first: of a long list their names are shown."""
    every = [(run, result) for run in report.runs if not run.mutant for result in run.results]
    found = [(run, result) for run, result in every if result.attempts or result.outcome is _UNSTEADY]
    return sorted(found, key=lambda pair: pair[1].outcome is not _UNSTEADY)


def flaky(report: GuardReport) -> tuple[Line, ...]:
    """Each flaky guard with all that it said."""
    found = _several_attempts(report)
    return tuple(attempts_said(run, result) for run, result in found if result.outcome is _UNSTEADY)


def attempts_said(run: TreeRun, result: GuardResult) -> Line:
    """Its outcome with those before it; a flaky guard has no other than those of its attempts."""
    ends = words.joined([_attempt(attempt) for attempt in result.attempts[:_FEW]], ", then ")
    more = f" and {len(result.attempts) - _FEW} more" if len(result.attempts) > _FEW else ""
    reason: Line = (": ", Prose(result.reason)) if result.reason else ()
    earlier: Line = ("; before that ", *ends, more) if ends else ()
    if ends and result.outcome is _UNSTEADY:
        reason, earlier = (": ", *ends, more), ()
    return (
        Quoted(result.test),
        " on ",
        Quoted(run.label),
        ": ",
        Badge(outcome_said(result.outcome)),
        *reason,
        *earlier,
    )


def _attempt(attempt: Attempt) -> Line:
    why: Line = (" (", Prose(attempt.reason), ")") if attempt.reason else ()
    machine = (" with its machine",) if attempt.by_machine else ()
    took = f" in {words.seconds(attempt.duration_s)} s" if attempt.duration_s else ""  # of a probe it is told there
    return (Badge(outcome_said(attempt.outcome)), *machine, took, *why)


# --- quarantine ---


@dataclass(frozen=True)
class _Kept:
    """One entry, and what its guards said tonight."""

    entry: Quarantined
    red: tuple[GuardResult, ...]
    green: int
    nights: int


def _quarantine(report: GuardReport, green_nights: Mapping[str, int], lanes: LaneRuns | None) -> tuple[Section, ...]:
    lines = quarantined(report, green_nights, lanes)
    if not lines:
        return ()
    intro: Line = ("These run as all others do, and what they say holds no channel until their day.",)
    return (Section(QUARANTINE, (intro,), items=lines[:ROWS], more=words.more(len(lines) - ROWS)),)


def quarantined(
    report: GuardReport, green_nights: Mapping[str, int], lanes: LaneRuns | None = None
) -> tuple[Line, ...]:
    """Each entry, the expired ones first, and each result that no entry of the report explains."""
    runs = [run for run in report.runs if not run.beside]
    results = [result for run in runs for result in run.results if run.composed or result.slug == _BED]
    results += [result for run in lanes.runs if run.form is Form.DEVICE for result in run.results] if lanes else []
    kept = [_look(entry, results, green_nights) for entry in report.quarantine]
    lines = [_entry(one) for one in sorted(kept, key=lambda one: (not one.entry.expired, one.entry.until))]
    alone = [
        result
        for result in results
        if result.outcome is GuardOutcome.QUARANTINED
        and not any(belongs(result.test, entry.test) for entry in report.quarantine)
    ]
    return (*lines, *((Quoted(result.test), ": ", *_outcome(result)) for result in alone))


def belongs(test: str, entry: str) -> bool:
    """Whether an entry means a test: by its file, its class, or its function with any parameters."""
    return test == entry or test.startswith((f"{entry}::", f"{entry}["))


def _look(entry: Quarantined, results: Sequence[GuardResult], green_nights: Mapping[str, int]) -> _Kept:
    of = [result for result in results if belongs(result.test, entry.test)]
    nights = [number for test, number in green_nights.items() if belongs(test, entry.test)]
    return _Kept(
        entry,
        red=tuple(result for result in of if result.outcome is not GuardOutcome.PASS),
        green=sum(result.outcome is GuardOutcome.PASS for result in of),
        nights=min(nights, default=0),
    )


def _entry(kept: _Kept) -> Line:
    entry = kept.entry
    until: Line = (" until ", Quoted(entry.until))
    if entry.expired:
        until = (", ", Badge("expired"), " on ", Quoted(entry.until), " and excused no more")
    because: Line = (": ", *sentence(entry.because)) if entry.because.strip() else (".",)
    back: Line = (" Out once: ", *sentence(entry.back)) if entry.back.strip() else ()
    return (Quoted(entry.test), ", of ", Quoted(entry.owner), *until, *because, *_tonight(kept), *back)


def _tonight(kept: _Kept) -> Line:
    if kept.red:
        first = kept.red[0]
        more = f", and {len(kept.red) - 1} more of it" if len(kept.red) > 1 else ""
        green = f", {kept.green} pass" if kept.green else ""
        return (" Tonight ", *_outcome(first), f"{more}{green}.")
    if not kept.green:
        return (" Tonight it gave no answer.",)
    nights = f", green {kept.nights} nights in a row" if kept.nights > 1 else ""
    return (" Tonight ", Badge(outcome_said(GuardOutcome.PASS)), f"{nights}.")


def _outcome(result: GuardResult) -> Line:
    reason: Line = (" (", Prose(result.reason), ")") if result.reason else ()
    return (Badge(outcome_said(result.outcome)), *reason)


def worth_an_issue(report: NightReport) -> bool:
    """Somebody has to mend a guard: a flaky one, or one that is excused for a while."""
    return bool(report.tests and (flaky(report.tests) or quarantined(report.tests, {})))
