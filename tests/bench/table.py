"""What a person sees of a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from tests.bench.measure import Measurement, Series
from tests.bench.record import Before, Machine, key


def show(console: Console, machine: Machine, measurements: Sequence[Measurement], before: Before | None) -> None:
    table = Table(title="Seconds, medians; a ratio above 1: ours is the slower one", title_justify="left")
    for heading in ("measured", "ours", "beside", "compared"):
        table.add_column(heading)
    for heading in ("ours CPU", "beside CPU", "CPU ratio", "ours wall", "beside wall", "wall ratio", "ratio before"):
        table.add_column(heading, justify="right")
    for row in measurements:
        was = before.cpu_ratio.get(key(row)) if before else None
        table.add_row(
            row.name,
            _label(row.ours),
            _label(row.beside),
            f"{row.compared}: {'equal' if row.equal else 'DIFFERENT'}",
            f"{row.ours.cpu_s:.2f}",
            f"{row.beside.cpu_s:.2f}",
            f"{row.cpu_ratio:.2f}",
            f"{row.ours.wall_s:.2f}",
            f"{row.beside.wall_s:.2f}",
            f"{row.wall_ratio:.2f}",
            "-" if was is None else f"{was:.2f}",
        )
    console.print(table)
    console.print(
        f"{machine.cores} cores of {machine.cpu}; git {machine.git}, Python {machine.python}; {machine.system}"
    )
    if before is not None:
        other = "" if before.machine == machine else ", on another machine or with other versions"
        console.print(f"'before' is the run of {before.at}{other}")


def _label(series: Series) -> str:
    return f"{series.label} (n={len(series.samples)})"
