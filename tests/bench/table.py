"""What a person sees of a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from tests.bench.measure import Interval, Measurement, Series, Tally
from tests.bench.record import Before, Machine, key

FINE_S = 0.1
"""Below this a time is shown in hundredths of a millisecond."""


def show(
    console: Console,
    machine: Machine,
    measurements: Sequence[Measurement],
    before: Before | None,
    tallies: Sequence[Tally] = (),
) -> None:
    table = Table(title="Seconds, medians; a ratio above 1: ours is the slower one", title_justify="left")
    for heading in ("measured", "ours", "beside", "compared"):
        table.add_column(heading)
    cpu = ("ours CPU", "beside CPU", "CPU ratio", "pairs (95 %)")
    wall = ("ours wall", "beside wall", "wall ratio", "pairs (95 %)")
    for heading in (*cpu, *wall, "least: CPU, wall", "ratio before"):
        table.add_column(heading, justify="right")
    for row in measurements:
        cpu_interval, wall_interval = row.ratio_intervals or (None, None)
        was = before.cpu_ratio.get(key(row)) if before else None
        table.add_row(
            row.name,
            _label(row.ours),
            _label(row.beside),
            f"{row.compared}: {_verdict(row.equal)}",
            _seconds(row.ours.cpu_s),
            _seconds(row.beside.cpu_s),
            f"{row.cpu_ratio:.3f}",
            _range(cpu_interval),
            _seconds(row.ours.wall_s),
            _seconds(row.beside.wall_s),
            f"{row.wall_ratio:.3f}",
            _range(wall_interval),
            ", ".join(f"{ratio:.3f}" for ratio in row.least_ratios),
            "-" if was is None else f"{was:.3f}",
        )
    console.print(table)
    if tallies:
        _show_tallies(console, tallies)
    console.print(
        f"{machine.cores} cores of {machine.cpu}; git {machine.git}, Python {machine.python}; {machine.system}"
    )
    if before is not None:
        other = "" if before.machine == machine else ", on another machine or with other versions"
        console.print(f"'before' is the run of {before.at}{other}")


def _show_tallies(console: Console, tallies: Sequence[Tally]) -> None:
    table = Table(title="Counted", title_justify="left")
    for heading in ("counted", "unit"):
        table.add_column(heading)
    for heading in ("ours", "beside"):
        table.add_column(heading, justify="right")
    table.add_column("compared")
    for tally in tallies:
        said = f"{tally.compared}: {_verdict(tally.equal)}"
        table.add_row(tally.name, tally.unit, str(tally.ours), str(tally.beside), said)
    console.print(table)


def _verdict(equal: bool) -> str:
    return "equal" if equal else "DIFFERENT"


def _seconds(value_s: float) -> str:
    return f"{value_s:.2f}" if value_s >= FINE_S else f"{value_s:.5f}"


def _range(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[1]:.3f} ({interval[0]:.3f} to {interval[2]:.3f})"


def _label(series: Series) -> str:
    return f"{series.label} (n={len(series.samples)})"
