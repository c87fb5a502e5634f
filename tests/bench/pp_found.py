"""What the tool asks of the bed's Python about pipeline stages, and what comes back: two files of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.measure import Cost


@dataclass(frozen=True)
class PpOrder:
    """What is to be measured, and on what."""

    env: dict[str, str]
    """What a process must have in its environment to run the tree."""
    stages: list[int]
    """Numbers of pipeline stages, a row of each kind for each."""
    rounds: int
    """In one sample."""
    repeats: int
    budget_s: float
    """For each row: no further sample after this."""


@dataclass(frozen=True)
class Rounds:
    """Rounds of a scheduler on all stages, with stages that follow the first one, and with each on its own."""

    what: str
    stages: int
    on: list[Cost]
    """A round's cost, all stages together."""
    off: list[Cost]
    same_trees: bool
    """All stages, with both settings, came to the same tree."""


def write_json(path: Path, value: PpOrder | list[Rounds]) -> None:
    path.write_text(json.dumps([asdict(row) for row in value] if isinstance(value, list) else asdict(value)))


def read_order(path: Path) -> PpOrder:
    return PpOrder(**json.loads(path.read_text()))


def read_found(path: Path) -> list[Rounds]:
    return [
        Rounds(**{**row, "on": [Cost(**cost) for cost in row["on"]], "off": [Cost(**cost) for cost in row["off"]]})
        for row in json.loads(path.read_text())
    ]
