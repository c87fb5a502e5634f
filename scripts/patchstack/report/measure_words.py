"""What guards have measured, in words: tonight's number, what it was held against, and how it ends."""

from __future__ import annotations

from patchstack.measures import Measure, Measures, Trend
from patchstack.report import words
from patchstack.report.blame_words import sentence
from patchstack.report.page import Badge, Line, Quoted, Section, Table

TITLE = "Metrics"
COLUMNS = ("Metric", "Ends as", "Tonight", "Last promoted", "Nights", "Median", "Sigma")
ROWS = 40
_WORST_FIRST = (Trend.FAIL, Trend.WARN, Trend.INSUFFICIENT, Trend.PASS)


def section(measures: Measures | None, title: str = TITLE) -> tuple[Section, ...]:
    """Every metric, the worst first, and below the table the sentence of each that is no plain pass."""
    if measures is None or not (measures.measures or measures.missing):
        return ()
    every = sorted(measures.measures, key=lambda item: _WORST_FIRST.index(item.trend))
    shown = every[:ROWS]
    rows = tuple(_row(item) for item in shown)
    told = [not_passed(item) for item in shown if item.trend is not Trend.PASS]
    told += [(Quoted(metric), ": ", Badge("missing"), ". ", *sentence(why)) for metric, why in measures.missing[:ROWS]]
    more = words.more(max(len(every), len(measures.missing)) - ROWS)
    return (Section(title, (_intro(measures),), Table(COLUMNS, rows) if rows else None, tuple(told), more),)


def _intro(measures: Measures) -> Line:
    on: Line = ("On ", Quoted(measures.node), ": ")
    tally = [(trend.value, sum(item.trend is trend for item in measures.measures)) for trend in _WORST_FIRST]
    tally.append(("missing", len(measures.missing)))
    numbers = ", ".join(f"{number} {word}" for word, number in tally if number)
    if measures.against is None:
        why: Line = (" ", *sentence(measures.why_alone)) if measures.why_alone else ()
        return (*on, f"{numbers}. No other tree was measured beside.", *why)
    return (*on, f"{numbers}. The last promoted tree, ", words.short(measures.against), ", was measured beside.")


def worse(measures: Measures | None) -> tuple[Line, ...]:
    """Each metric that makes the night red."""
    every = measures.measures if measures else ()
    return tuple(not_passed(item) for item in every if item.trend is Trend.FAIL)


def not_passed(item: Measure) -> Line:
    test: Line = (", of ", Quoted(item.test)) if item.test else ()
    return (Quoted(item.metric), ": ", Badge(item.trend.value), *test, ". ", *sentence(item.detail))


def _row(item: Measure) -> tuple[Line, ...]:
    return (
        (Quoted(item.metric),),
        (Badge(item.trend.value),),
        _number(item.value, item.unit),
        _number(item.peer, item.unit),
        (str(item.n),),
        _number(item.baseline, item.unit),
        _number(item.sigma, item.unit),
    )


def _number(value: float | None, unit: str) -> Line:
    """With four digits, which is more than any of them holds."""
    if value is None:
        return ()
    digits = f"{value:.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"
    return (Quoted(f"{digits} {unit}".strip()),)
