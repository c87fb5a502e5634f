"""What the tool asks of the bed's Python, and what comes back: two files of JSON.

The tool's Python has no SGLang, the bed's has none of the tool's libraries; this module needs neither.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.measure import Cost


@dataclass(frozen=True)
class KvOrder:
    """What is to be measured, and on what."""

    plain_env: dict[str, str]
    """What a process must have in its environment to run the plain tree."""
    composed_env: dict[str, str]
    rooms: int
    """In one sample of the send path."""
    fault_rooms: int
    """In one session, of whose transfers one in a hundred fails."""
    requests: int
    """In one sample of decode's throughput."""
    repeats: int
    budget_s: float
    """For each timed row: no further sample after this."""


@dataclass(frozen=True)
class Sending:
    """Rooms sent without a fault, on one tree."""

    samples: list[Cost]
    """A room's cost, prefill and decode together."""
    whole: int
    """Rooms of all samples that ended well on both sides, with every byte at decode."""
    rooms: int


@dataclass(frozen=True)
class Faults:
    """One session in which one transfer in a hundred fails, on one tree."""

    rooms: int
    completed: int
    """Rooms that ended well on both sides, with the right bytes."""
    injected: int
    """Calls of the engine that we made fail."""


@dataclass(frozen=True)
class Aborted:
    """A room that decode aborts while its first chunk is in the engine, on one tree."""

    in_engine_bytes: int
    sent_bytes: int
    """From the abort on: what was in the engine, and what came after it."""
    room_bytes: int


@dataclass(frozen=True)
class Holding:
    """Decode's throughput with a share of aborted requests, with the hold on and off."""

    aborted_percent: int
    on: list[Cost]
    """A request's cost, prefill and decode together."""
    off: list[Cost]
    on_answered: list[int]
    """Of each sample, the requests that were not to be aborted and got their bytes."""
    off_answered: list[int]
    expected: int
    most_held: int
    """Requests that were held at once."""


@dataclass(frozen=True)
class KvFound:
    plain_sending: Sending
    composed_sending: Sending
    plain_faults: Faults
    composed_faults: Faults
    plain_aborted: Aborted
    composed_aborted: Aborted
    holding: list[Holding]


def write_json(path: Path, value: KvOrder | KvFound) -> None:
    path.write_text(json.dumps(asdict(value)))


def read_order(path: Path) -> KvOrder:
    return KvOrder(**json.loads(path.read_text()))


def read_found(path: Path) -> KvFound:
    said = json.loads(path.read_text())
    return KvFound(
        plain_sending=_sending(said["plain_sending"]),
        composed_sending=_sending(said["composed_sending"]),
        plain_faults=Faults(**said["plain_faults"]),
        composed_faults=Faults(**said["composed_faults"]),
        plain_aborted=Aborted(**said["plain_aborted"]),
        composed_aborted=Aborted(**said["composed_aborted"]),
        holding=[Holding(**{**row, "on": _costs(row["on"]), "off": _costs(row["off"])}) for row in said["holding"]],
    )


def _sending(said: dict[str, object]) -> Sending:
    return Sending(**{**said, "samples": _costs(said["samples"])})  # type: ignore[arg-type]


def _costs(said: object) -> list[Cost]:
    assert isinstance(said, list)
    return [Cost(**cost) for cost in said]
