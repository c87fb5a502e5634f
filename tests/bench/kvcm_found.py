"""What the tool asks the bed about the collectives of a kvcm batch, and what comes back; JSON, as in `kv_found`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.measure import Cost

KINDS = ("agreed", "reduced", "objects")
"""What is measured in turns, as `Batches` has it."""


@dataclass(frozen=True)
class KvcmOrder:
    environment: dict[str, str]
    """What a process must have in its environment to run the composed tree."""
    groups: list[int]
    """Numbers of ranks, each measured by itself."""
    pages: int
    """Of one batch."""
    batches: int
    """In one sample."""
    repeats: int
    budget_s: float
    """For each number of ranks: no further sample after this."""


@dataclass(frozen=True)
class Batches:
    """One number of ranks: a batch's cost, processor time of all ranks together and the slowest rank's wall time."""

    ranks: int
    agreed: list[Cost]
    """Ours: a header, the reduced flags, what was committed."""
    reduced: list[Cost]
    """The same header, then `all_reduce` of the flags: each rank takes the reduced flags for what was committed."""
    objects: list[Cost]
    """`broadcast_object_list` of the manager's answer, and `all_reduce` of the flags."""
    right: int
    """Batches of all kinds after which every rank had its own URIs, and said what every other said."""
    expected: int


@dataclass(frozen=True)
class KvcmFound:
    groups: list[Batches]


def write_json(path: Path, value: KvcmOrder | KvcmFound) -> None:
    path.write_text(json.dumps(asdict(value)))


def read_order(path: Path) -> KvcmOrder:
    return KvcmOrder(**json.loads(path.read_text()))


def read_found(path: Path) -> KvcmFound:
    groups = [
        Batches(**{**said, **{name: [Cost(**cost) for cost in said[name]] for name in KINDS}})
        for said in json.loads(path.read_text())["groups"]
    ]
    return KvcmFound(groups)
