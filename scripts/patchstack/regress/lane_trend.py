"""What other lanes' numbers are held against: those of equal hardware, and of no other. Pure.

The last promoted image, where the same job measured it in turns with tonight's; and the band of earlier nights on
machines of one `kind`. A rehearsal's numbers are nobody's: a tiny model on a CPU says nothing of what runs on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from patchstack.model import (
    Form,
    GuardOutcome,
    GuardReport,
    GuardResult,
    LaneAnswer,
    LaneRecord,
    LaneRun,
    LaneRuns,
    Measures,
    Past,
    TreeRun,
    Trend,
)
from patchstack.regress.declared import bare
from patchstack.regress.hardware import kind
from patchstack.regress.metrics import Metric
from patchstack.regress.trend import measures_of

UNKNOWN = "an unknown machine"
_GREEN = {GuardOutcome.PASS, GuardOutcome.QUARANTINED}


def lane_measures(metrics: Sequence[Metric], run: LaneRun, past: Past | None) -> tuple[Measures, ...]:
    """How each of ``metrics`` that ``run`` was to measure ends, for each kind of hardware that answered.

    What no machine answered is missing by its tests, and is not said again. `Measures.node` is the kind.
    """
    found = []
    for hardware, answers in by_kind(run).items():
        files = {file for answer in answers for file in answer.job.shard.files}
        mine = tuple(metric for metric in metrics if metric.file in files)
        results = tuple(said for said in run.results if _file(said) in files)
        beside = tuple(said for answer in answers for said in answer.beside)
        tree = answers[0].job.tree
        runs = [TreeRun(run.lane, True, tree, results)]
        if beside:
            against = past.deployed.tree if past and past.deployed else tree
            runs.append(TreeRun("last promoted", False, against, beside, beside=True))
        report = GuardReport(run.lane, "", tuple(runs), (), node=hardware)
        measures = measures_of(mine, report, lane_past(past, run.lane))
        found += [measures] if measures is not None else []
    return (*found, *_of_unknown_machines(metrics, run))


def _of_unknown_machines(metrics: Sequence[Metric], run: LaneRun) -> Iterator[Measures]:
    """What passed where nobody has looked at the hardware: there is nothing that its numbers compare with."""
    silent = [answer for answer in run.answers if answer.hardware is None] if run.form is Form.DEVICE else []
    files = {file for answer in silent for file in answer.job.shard.files}
    passed = {bare(said.test) for said in run.results if said.outcome is GuardOutcome.PASS and _file(said) in files}
    why = "passed on a machine that did not say what it is"
    missing = tuple((metric.name, f"{metric.test} {why}") for metric in metrics if metric.test in passed)
    if missing:
        yield Measures(UNKNOWN, None, (), missing)


def by_kind(run: LaneRun) -> dict[str, list[LaneAnswer]]:
    """The answers of a lane's own machines by their hardware; none of a rehearsal."""
    found: dict[str, list[LaneAnswer]] = {}
    for answer in run.answers if run.form is Form.DEVICE else ():
        if answer.hardware is not None:
            found.setdefault(kind(answer.hardware), []).append(answer)
    return found


def lane_past(past: Past | None, lane: str) -> Past | None:
    """Earlier nights as ``lane`` saw them: one for each kind of hardware of each, with its samples there.

    One in which the lane was not green is none that was promoted: what it measured makes no band.
    """
    if past is None:
        return None
    nights = tuple(
        replace(
            night,
            node=record.hardware,
            promoted=night.promoted and record.green,
            samples=record.samples,
            outcomes=record.outcomes,
            lanes=(),
        )
        for night in past.nights
        for record in night.lanes
        if record.lane == lane
    )
    return replace(past, nights=nights)


def lane_records(lanes: LaneRuns | None) -> tuple[LaneRecord, ...]:
    """What history keeps of ``lanes``: for each its kinds of hardware, and what no machine answered."""
    return tuple(record for run in lanes.runs for record in _records(run)) if lanes else ()


def _records(run: LaneRun) -> list[LaneRecord]:
    if run.form is not Form.DEVICE:
        return []
    worse = any(measure.trend is Trend.FAIL for measures in run.measures for measure in measures.measures)
    green = bool(run.results) and not worse and all(said.outcome in _GREEN for said in run.results)
    records, told = [], set()
    for hardware, answers in by_kind(run).items():
        files = {file for answer in answers for file in answer.job.shard.files}
        told |= files
        mine = [said for said in run.results if _file(said) in files]
        samples = (measure for each in run.measures if each.node == hardware for measure in each.measures)
        values = tuple((measure.metric, measure.value) for measure in samples)
        records.append(LaneRecord(run.lane, hardware, green, values, _outcomes(mine)))
    silent = [said for said in run.results if _file(said) not in told]
    return [*records, *([LaneRecord(run.lane, "", False, (), _outcomes(silent))] if silent else [])]


def _outcomes(results: Sequence[GuardResult]) -> tuple[tuple[str, str], ...]:
    return tuple((said.test, said.outcome.value) for said in results if said.outcome is not GuardOutcome.PASS)


def _file(said: GuardResult) -> str:
    return said.test.partition("::")[0]
