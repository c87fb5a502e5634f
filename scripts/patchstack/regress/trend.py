"""What tonight's numbers are held against, and how each of them ends. Pure.

Twice: against the last promoted tree, measured in the same night on the same node, in turns; and against a band, the
median of what earlier promoted nights measured on this node, and their spread. A red night's number is in no band:
a regression that stays would make itself the measure.

    worse than both                    fail
    worse than one of them             warn
    worse than neither                 pass
    fewer than `ENOUGH` nights         insufficient data; warn if worse than the last promoted tree,
                                       fail if by `Metric.alone_share`
    no last promoted tree beside it    pass or warn by the band: what a machine changed looks like what code did

The spread is robust: 1.4826 times the median distance from the median, which is sigma where the numbers are normally
distributed, and which one night that was out of the ordinary does not widen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from patchstack.model import GuardOutcome, GuardReport, GuardResult, Measure, Measures, Past, TreeRun, Trend
from patchstack.regress.metrics import Better, Metric

ENOUGH = 5
"""Nights that a band needs."""
BAND_NIGHTS = 30
"""The newest promoted nights of the node that it is made of."""
SIGMAS = 2.0
_NORMAL = 1.4826
"""Sigma of a normal distribution in units of its median absolute deviation: 1 / (Phi^-1(3/4))."""


@dataclass(frozen=True)
class Band:
    """What a metric has been on this node."""

    n: int
    baseline: float | None
    """The median; None where n is 0."""
    sigma: float | None
    """None where n is less than `ENOUGH`."""

    @property
    def holds(self) -> bool:
        return self.n >= ENOUGH


def band_of(values: Sequence[float]) -> Band:
    """The band of one value a night."""
    if not values:
        return Band(0, None, None)
    middle = median(values)
    sigma = _NORMAL * median(abs(value - middle) for value in values)
    return Band(len(values), middle, sigma if len(values) >= ENOUGH else None)


def nightly_values(metric: str, past: Past | None, node: str) -> list[float]:
    """One value for each of the newest promoted nights on ``node`` that measured ``metric``."""
    nights = past.nights if past else ()
    mine = (dict(night.samples) for night in nights if night.promoted and night.node == node)
    return [samples[metric] for samples in mine if metric in samples][:BAND_NIGHTS]


def judge(metric: Metric, value: float, peer: float | None, band: Band) -> tuple[Trend, str]:
    """How ``value`` ends, and the sentence that says why."""
    off_peer = None if peer is None else _worse_by(metric.better, value, peer)
    beyond_peer = peer is not None and off_peer is not None and off_peer > metric.floor_share * abs(peer)
    said = "the last promoted tree was not measured beside it"
    if peer is not None:
        said = f"{_told(metric, value, peer)} the last promoted tree ({peer:.4g})"
    if not band.holds or band.baseline is None or band.sigma is None:
        said = f"{said}; {band.n} of {ENOUGH} nights that a band of this node needs"
        alone = metric.alone_share
        if peer is not None and off_peer is not None and alone is not None and off_peer > alone * abs(peer):
            return Trend.FAIL, f"{said}; {alone:.0%} is red without one"
        return Trend.WARN if beyond_peer else Trend.INSUFFICIENT, said
    margin = max(SIGMAS * band.sigma, metric.floor_share * abs(band.baseline))
    beyond_band = _worse_by(metric.better, value, band.baseline) > margin
    said = (
        f"{said}; {_told(metric, value, band.baseline)} the median of {band.n} nights ({band.baseline:.4g}, "
        f"sigma {band.sigma:.2g}, {margin:.2g} is allowed)"
    )
    if beyond_peer and beyond_band:
        return Trend.FAIL, said
    return Trend.WARN if beyond_peer or beyond_band else Trend.PASS, said


def _worse_by(better: Better, value: float, reference: float) -> float:
    """In the metric's unit; below 0 where it is better."""
    return value - reference if better is Better.LOWER else reference - value


def _told(metric: Metric, value: float, reference: float) -> str:
    """``12.3 % worse than``; in the unit where there is nothing to take a share of."""
    off = _worse_by(metric.better, value, reference)
    word = "worse" if off > 0 else "better"
    if off == 0:
        return "as good as"
    return f"{abs(off / reference):.1%} {word} than" if reference else f"{abs(off):.4g} {word} than"


def measures_of(metrics: Sequence[Metric], report: GuardReport, past: Past | None) -> Measures | None:
    """Every one of ``metrics`` as tonight's ``report`` has it; None where none is declared.

    A metric whose test passed and said no number is missing. Where its test did not pass, that is said already, and
    it is not judged.
    """
    if not metrics:
        return None
    beside = [run for run in report.runs if run.beside]
    answers = _by_test(run for run in report.runs if run.composed)
    peers = _by_test(beside)
    measures, missing = [], []
    for metric in metrics:
        values = _samples(metric, answers.get(metric.test, ()))
        peer_values = _samples(metric, peers.get(metric.test, ()))
        if values and metric.better is Better.EQUAL:
            measures += _compared(metric, values, peer_values)
            continue
        if not values:
            said = answers.get(metric.test, ())
            if not said:
                missing.append((metric.name, f"{metric.test} did not run"))
            elif all(result.outcome is GuardOutcome.PASS for result in said):
                missing.append((metric.name, f"{metric.test} passed and measured nothing"))
            continue
        value, peer = median(values), median(peer_values) if peer_values else None
        band = band_of(nightly_values(metric.name, past, report.node))
        trend, detail = judge(metric, value, peer, band)
        silent = [result for result in peers.get(metric.test, ()) if result.outcome is not GuardOutcome.PASS]
        if peer is None and silent:
            detail = f"{detail} ({silent[0].outcome.value}: {silent[0].reason})"
        measures.append(
            Measure(
                metric=metric.name,
                unit=metric.unit,
                test=metric.test,
                value=value,
                peer=peer,
                n=band.n,
                baseline=band.baseline,
                sigma=band.sigma,
                trend=trend,
                detail=detail,
            )
        )
    against = beside[0].tree if beside else None
    return Measures(report.node, against, tuple(measures), tuple(missing), report.why_alone)


def _compared(metric: Metric, values: Sequence[float], peers: Sequence[float]) -> list[Measure]:
    """How many samples are the last promoted image's at their place; nothing where it was not asked."""
    if not peers:
        return []
    count = max(len(values), len(peers))
    same = sum(value == peer for value, peer in zip(values, peers, strict=False))
    off = 1 - same / count
    trend = Trend.PASS if off <= metric.floor_share else Trend.WARN
    if metric.alone_share is not None and off > metric.alone_share:
        trend = Trend.FAIL
    detail = f"{same} of {count} as the last promoted one"
    return [Measure(metric.name, metric.unit, metric.test, same / count, 1.0, 0, None, None, trend, detail)]


def told_by_numbers(
    metrics: Sequence[Metric], tonight: Measures | None, results: Sequence[GuardResult]
) -> tuple[GuardResult, ...]:
    """``results`` of some tree, where one that passed with a number that would be red tonight has failed by it.

    For whoever looks for the culprit: held against the same peer and band as tonight's composition.
    """
    held = {measure.metric: measure for measure in tonight.measures} if tonight else {}
    red: dict[str, str] = {}
    for metric in metrics:
        said = held.get(metric.name)
        values = _samples(metric, [result for result in results if _function(result.test) == metric.test])
        if said is None or not values or metric.better is Better.EQUAL:
            continue
        trend, detail = judge(metric, median(values), said.peer, Band(said.n, said.baseline, said.sigma))
        if trend is Trend.FAIL:
            red[metric.test] = f"{metric.name}: {median(values):.4g} {metric.unit}: {detail}"
    return tuple(
        replace(result, outcome=GuardOutcome.FAIL, reason=red[_function(result.test)])
        if result.outcome is GuardOutcome.PASS and _function(result.test) in red
        else result
        for result in results
    )


def _by_test(runs: Iterable[TreeRun]) -> Mapping[str, list[GuardResult]]:
    """By test, whatever its parameters."""
    found: dict[str, list[GuardResult]] = {}
    for run in runs:
        for result in run.results:
            found.setdefault(_function(result.test), []).append(result)
    return found


def _function(test: str) -> str:
    return test.partition("[")[0]


def _samples(metric: Metric, results: Iterable[GuardResult]) -> list[float]:
    """Those of tests that passed: what one measured before it failed is no number to compare."""
    return [
        sample.value
        for result in results
        if result.outcome is GuardOutcome.PASS
        for sample in result.samples
        if sample.metric == metric.name
    ]


@dataclass(frozen=True)
class Said:
    """What the gate hears of the numbers."""

    red: tuple[str, ...] = ()
    open_ends: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def said_to_gate(measures: Measures | None) -> Said:
    """What fails is red, what was not measured is open, what got worse is a warning; too few nights hold nothing."""
    if measures is None:
        return Said()

    def told(trend: Trend) -> tuple[str, ...]:
        mine = (measure for measure in measures.measures if measure.trend is trend)
        return tuple(f"metric {m.metric}: {m.value:.4g} {m.unit}: {m.detail} ({m.test})" for m in mine)

    missing = tuple(f"metric {name} is missing: {why}" for name, why in measures.missing)
    return Said(told(Trend.FAIL), missing, told(Trend.WARN))
