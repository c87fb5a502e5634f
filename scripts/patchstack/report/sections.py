"""The parts of a report, each from the values that it tells of; long ones are cut and say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from patchstack.model import (
    Asked,
    GuardOutcome,
    GuardReport,
    GuardResult,
    LaneRuns,
    LedgerLine,
    LeftOut,
    RangeDiff,
    Timing,
    Topic,
    TreeRun,
    Verdict,
)
from patchstack.report import steady_words, words
from patchstack.report.inert import visible_lines
from patchstack.report.page import Badge, Block, Line, Prose, Quoted, Section, Table
from patchstack.report.rangediff import CHANGED, GONE, NEW, UNCHANGED

ROWS = 30
"""How many rows, items or blocks a section shows before it points to the JSON."""
DIFF_LINES = 60
DIFF_WIDTH = 240

_TOLD_ELSEWHERE = {GuardOutcome.PASS, GuardOutcome.QUARANTINED}

Item = TypeVar("Item")


def _cut(items: Sequence[Item]) -> tuple[Sequence[Item], str]:
    return items[:ROWS], words.more(len(items) - ROWS)


def included(topics: Sequence[Topic]) -> Section:
    if not topics:
        return Section(words.INCLUDED, (words.NOTHING_INCLUDED,))
    shown, more = _cut(topics)
    rows = tuple(
        (
            (Quoted(topic.name),),
            (Quoted(topic.title),),
            (Quoted(topic.author),),
            (words.short(topic.head),),
            words.joined([note for note in (words.topic_notes(topic), _newer(topic)) if note]),
        )
        for topic in shown
    )
    return Section(words.INCLUDED, table=Table(words.INCLUDED_COLUMNS, rows), more=more)


def _newer(topic: Topic) -> Line:
    return words.newer_head(topic.newer_head) if topic.newer_head else ()


def left_out(items: Sequence[LeftOut]) -> tuple[Section, ...]:
    """One section an outcome, in the order of `words.LEFT_OUT`; none for an outcome that nobody has."""
    sections = []
    for outcome, (title, meaning) in words.LEFT_OUT.items():
        those = [item for item in items if item.outcome is outcome]
        shown, more = _cut(those)
        if those:
            sections.append(Section(title, ((meaning,),), items=tuple(map(words.left_out, shown)), more=more))
    return tuple(sections)


def tests(
    report: GuardReport | None, green_nights: Sequence[tuple[str, int]], lanes: LaneRuns | None
) -> tuple[Section, ...]:
    if report is None:
        return (Section(words.PROOFS, (words.NO_TESTS,)),)
    shown, more = _cut(report.proofs)
    rows = tuple(
        (
            (Quoted(proof.slug),),
            (Badge(proof.standing.value),),
            (Quoted(proof.ground),),
            (Prose(proof.detail),) if proof.detail else (),
        )
        for proof in shown
    )
    proofs = Section(words.PROOFS, table=Table(words.PROOF_COLUMNS, rows), more=more)
    return (*([proofs] if rows else []), *trials(report, green_nights, lanes))


def trials(
    report: GuardReport, green_nights: Sequence[tuple[str, int]] = (), lanes: LaneRuns | None = None
) -> tuple[Section, ...]:
    """What the proofs rest on: the mutants, the guards, those that said two things, and what did not run."""
    steady = steady_words.sections(report, green_nights, lanes)
    return (*_mutants(report), _guards(report), *steady, *_not_run(report))


def _mutants(report: GuardReport) -> tuple[Section, ...]:
    """Every mutant with the guards that killed it, those alive first, and below them each guard that did not."""
    runs = sorted((run for run in report.runs if run.mutant), key=_is_killed)
    if not runs:
        return ()
    shown, more = _cut(runs)
    rows: tuple[tuple[Line, ...], ...] = tuple(
        (
            (Quoted(run.mutant),),
            (Badge(words.KILLED if _is_killed(run) else words.ALIVE),),
            words.names([result.test for result in run.results if result.outcome is GuardOutcome.FAIL]),
        )
        for run in shown
    )
    alive = [
        words.not_green(run.label, result)
        for run in runs
        for result in run.results
        if result.outcome is not GuardOutcome.FAIL
    ]
    items, more_items = _cut(alive)
    intro = words.mutants(sum(map(_is_killed, runs)), runs)
    table = Table(words.MUTANT_COLUMNS, rows)
    return (Section(words.MUTANTS, (intro,), table, tuple(items), more_items or more),)


def _is_killed(run: TreeRun) -> bool:
    return bool(run.results) and all(result.outcome is GuardOutcome.FAIL for result in run.results)


def _not_run(report: GuardReport) -> tuple[Section, ...]:
    if not report.not_run:
        return ()
    shown, more = _cut(report.not_run)
    intro = words.not_run(report.not_run, report.lane)
    return (Section(words.NOT_RUN, (intro,), items=tuple(map(words.scenario, shown)), more=more),)


def _guards(report: GuardReport) -> Section:
    """Every guard with its outcome with its patch and without it, and below them what is not green and should be."""
    intro = (words.bed(report.bed), *(words.tree_run(run) for run in report.runs if not run.mutant))
    composed = [run for run in report.runs if run.composed]
    with_it = {_key(result): result for run in composed for result in run.results}
    without_it = {_key(result): (run, result) for run in report.runs if run.is_ground for result in run.results}
    every = {_key(result): result for run in report.runs if not run.mutant for result in run.results}
    shown, more = _cut(list(every.items()))
    rows: tuple[tuple[Line, ...], ...] = tuple(
        (
            (Quoted(result.test),),
            words.kind(result),
            *(_outcome(with_it.get(key)) for _ in composed),
            *_on_ground(without_it.get(key)),
        )
        for key, result in shown
    )
    items, more_items = _cut(not_green(report))
    columns = (*words.GUARD_COLUMNS, *(run.label for run in composed), *words.GROUND_COLUMNS)
    table = Table(columns, rows) if rows else None
    return Section(words.GUARDS, intro, table, tuple(items), more_items or more)


def not_green(report: GuardReport) -> list[Line]:
    """Without its patch a guard is meant to fail; anywhere else whatever is not green has its reason told.

    What is in quarantine is told there.
    """
    return [
        words.not_green(run.label, result)
        for run in report.runs
        for result in run.results
        if result.outcome not in _TOLD_ELSEWHERE and not run.mutant and (result.control or _has_every_patch(run))
    ]


def _has_every_patch(run: TreeRun) -> bool:
    return run.composed and not run.label.startswith("without ")


def _key(result: GuardResult) -> tuple[str, str]:
    """Two patches may share a test."""
    return result.slug, result.test


def _outcome(result: GuardResult | None) -> Line:
    return (Badge(result.outcome.value),) if result else ()


def _on_ground(found: tuple[TreeRun, GuardResult] | None) -> tuple[Line, Line]:
    """The outcome without the patch, and the tree that says so."""
    return (_outcome(found[1]), (Quoted(found[0].label),)) if found else ((), ())


def verdicts(items: Sequence[Verdict], moved: Sequence[str] | None) -> tuple[Section, ...]:
    """``moved`` are the channels that a promotion moved; None where none was meant to."""
    lines = tuple(words.verdict(item, moved) for item in items)
    return (Section(words.VERDICTS, items=lines),) if lines else ()


def range_diffs(previous: LedgerLine | None, diffs: Sequence[RangeDiff]) -> tuple[Section, ...]:
    if previous is None:
        return (Section(words.RANGE_DIFF, (words.FIRST_NIGHT,)),) if diffs else ()
    if not diffs:
        return ()
    tally = {change: sum(diff.change == change for diff in diffs) for change in (CHANGED, NEW, GONE, UNCHANGED)}
    intro = words.since(previous, tally[CHANGED], tally[NEW], tally[GONE], tally[UNCHANGED])
    moved = [diff for diff in diffs if diff.change in (NEW, GONE)]
    changed = [diff for diff in diffs if diff.change not in (NEW, GONE, UNCHANGED)]
    items, more_items = _cut(moved)
    blocks, more_blocks = _cut(changed)
    lines = tuple(words.difference(diff.name, diff.change, diff.text) for diff in items)
    return (
        Section(
            words.RANGE_DIFF,
            (intro,),
            items=lines,
            blocks=tuple(_block(diff) for diff in blocks),
            more=more_items or more_blocks,
        ),
    )


def _block(diff: RangeDiff) -> Block:
    lines = visible_lines(diff.text, DIFF_WIDTH)
    return Block(
        words.difference(diff.name, diff.change), lines[:DIFF_LINES], words.more_lines(len(lines) - DIFF_LINES)
    )


def asked(items: Sequence[Asked]) -> tuple[Section, ...]:
    """What GitHub was asked; none where it was not."""
    shown, more = _cut(items)
    lines = tuple(map(words.asked_of, shown))
    return (Section(words.GITHUB, (words.asked(items),), items=lines, more=more),) if items else ()


def timings(items: Sequence[Timing]) -> tuple[Section, ...]:
    if not items:
        return ()
    rows: list[tuple[Line, ...]] = [((timing.stage,), (words.seconds(timing.seconds),)) for timing in items]
    rows.append(((words.TOTAL,), (words.seconds(sum(timing.seconds for timing in items)),)))
    return (Section(words.TIMINGS, table=Table(words.TIMING_COLUMNS, tuple(rows))),)


def notes(items: Sequence[str]) -> tuple[Section, ...]:
    shown, more = _cut(items)
    return (Section(words.NOTES, items=tuple((Prose(note),) for note in shown), more=more),) if items else ()
