"""What a night reads of earlier ones when it begins, and what it leaves behind for later ones when it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from patchstack.errors import ConfigError, RemoteError
from patchstack.git import readable
from patchstack.model import (
    Blame,
    Composition,
    Deployed,
    Form,
    GuardOutcome,
    GuardReport,
    GuardResult,
    LaneRecord,
    LaneRuns,
    NightRecord,
    Past,
    Sha,
)
from patchstack.regress.lane_trend import lane_records
from patchstack.regress.suites import BED_SUITE
from patchstack.release.history import MOST_ENTRIES, green_in_a_row, history_branch, keep_night, read_history
from patchstack.release.ledger import LONGEST_NAME, LONGEST_WORDS
from patchstack.release.remote import RemoteState
from patchstack.store import Run, now_utc
from patchstack.verbs.measure import judged_measures
from patchstack.workplace import Workplace


def read_past(work: Workplace, run: Run, remote: RemoteState, listed: Mapping[str, Sha]) -> Past:
    """What tonight's tests are held against, written into ``run``. History that cannot be read is a note of it."""
    last = remote.history.last.line if remote.history.last else None
    deployed = Deployed(last.night, last.composition, last.tree, last.base_commit) if last else None
    try:
        found = read_history(work.store(), work.remote, work.lane_name, now_utc(), listed)
        past = Past(work.lane_name, deployed, found.nights, found.notes)
    except RemoteError as error:
        note = f"{history_branch(work.lane_name)} cannot be read, and no number is held against a band: {error}"
        past = Past(work.lane_name, deployed, (), (note,))
    run.write(past)
    return past


def past_of(run: Run) -> Past | None:
    """What was read when the run's night began; None for a run of single verbs."""
    return run.read(Past) if run.has(Past) else None


def remember_night(
    work: Workplace,
    run: Run,
    composition: Composition | None,
    tests: GuardReport | None,
    *,
    promoted: bool,
    blame: Blame | None = None,
) -> tuple[str, ...]:
    """Leave this night behind on the remote, where its guards have run: what a reader must know of that."""
    if composition is None or tests is None:
        return ()
    try:
        samples = _samples(work, run, composition, tests)
    except ConfigError as error:  # edited since the guards ran
        return (f"this night is not kept in {history_branch(work.lane_name)}: {error}",)
    lanes = run.read(LaneRuns) if run.has(LaneRuns) else None
    record = record_of(
        night=run.id,
        at=now_utc(),
        composition=composition,
        tests=tests,
        samples=samples,
        promoted=promoted,
        blame=blame,
        lanes=lanes if lanes and lanes.composition == composition.commit else None,
    )
    note = keep_night(work.store(), work.remote, record, now_utc())
    return (note,) if note else ()


def record_of(
    *,
    night: str,
    at: datetime,
    composition: Composition,
    tests: GuardReport,
    samples: tuple[tuple[str, float], ...],
    promoted: bool,
    blame: Blame | None,
    lanes: LaneRuns | None = None,
) -> NightRecord:
    """What later nights are told of this one; names that no reader would take are made fit."""
    composed = [result for run in tests.runs if run.composed for result in run.results]
    told = ((result.test, result.outcome.value) for result in composed if result.outcome is not GuardOutcome.PASS)
    findings = blame.findings if blame else ()
    return NightRecord(
        night=night,
        at=at.isoformat(),
        lane=composition.lane,
        tree=composition.tree,
        promoted=promoted,
        node=tests.node,
        samples=samples[:MOST_ENTRIES],
        outcomes=tuple((_fit(test), outcome) for test, outcome in told)[:MOST_ENTRIES],
        quarantined_green=tuple(map(_fit, _green_in_quarantine(tests, lanes)))[:MOST_ENTRIES],
        blamed=tuple(
            (_fit(suspect.name), finding.certainty.value) for finding in findings for suspect in finding.suspects
        )[:MOST_ENTRIES],
        lanes=tuple(map(_fit_lane, lane_records(lanes)))[:MOST_ENTRIES],
    )


def _fit_lane(record: LaneRecord) -> LaneRecord:
    return replace(
        record,
        hardware=_fit_line(record.hardware),
        samples=record.samples[:MOST_ENTRIES],
        outcomes=tuple((_fit(test), outcome) for test, outcome in record.outcomes)[:MOST_ENTRIES],
    )


def quarantined_green(
    tests: GuardReport, past: Past | None, lanes: LaneRuns | None = None
) -> tuple[tuple[str, int], ...]:
    """Guards in quarantine that passed tonight, each with the nights in a row in which it did."""
    nights = past.nights if past else ()
    return tuple((test, 1 + green_in_a_row(nights, _fit(test))) for test in _green_in_quarantine(tests, lanes))


def _green_in_quarantine(tests: GuardReport, lanes: LaneRuns | None) -> tuple[str, ...]:
    """Each entry of the quarantine of which all results where it must pass, and there are some, are green."""
    runs = [run for run in tests.runs if not run.beside]
    must_pass = [said for run in runs for said in run.results if run.composed or said.slug == BED_SUITE]
    must_pass += [said for run in lanes.runs if run.form is Form.DEVICE for said in run.results] if lanes else []
    found = []
    for entry in tests.quarantine:
        mine = [result for result in must_pass if _is_of(result, entry.test)]
        if mine and all(result.outcome is GuardOutcome.PASS for result in mine):
            found.append(entry.test)
    return tuple(found)


def _is_of(result: GuardResult, test: str) -> bool:
    return result.test == test or result.test.startswith((f"{test}[", f"{test}::"))


def _samples(work: Workplace, run: Run, composition: Composition, tests: GuardReport) -> tuple[tuple[str, float], ...]:
    judged = judged_measures(work, composition, tests, past_of(run))
    return tuple((measure.metric, measure.value) for measure in judged.measures) if judged else ()


def _fit(name: str) -> str:
    return "".join(_printable(readable(name)))[:LONGEST_NAME] or "?"


def _fit_line(text: str) -> str:
    """As a reader of history takes a line; what had to be changed is like no machine's own."""
    return "".join(_printable(readable(text)))[:LONGEST_WORDS]


def _printable(text: str) -> Iterator[str]:
    yield from (letter if letter.isprintable() else "?" for letter in text)
