"""Numbers that guards have measured, as values: what they were tonight, and what they are held against.

`regress/trend.py` judges them, `release/history.py` keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from patchstack.ids import Sha


class Trend(StrEnum):
    """How each metric ends."""

    PASS = "pass"  # noqa: S105
    WARN = "warn"
    FAIL = "fail"
    INSUFFICIENT = "insufficient data"


@dataclass(frozen=True)
class Measure:
    """One metric of tonight."""

    metric: str
    unit: str
    test: str
    """The guard that measured it."""
    value: float
    """The median of tonight's samples on the composed tree."""
    peer: float | None
    """The median of the last promoted tree's samples, of the same night on the same node."""
    n: int
    """Nights of this node's history that the band is made of."""
    baseline: float | None
    """Their median."""
    sigma: float | None
    trend: Trend
    detail: str
    """One sentence: what it was held against and by how much it is off."""


@dataclass(frozen=True)
class Measures:
    """All metrics of a night."""

    node: str
    """What they were measured on, such as ``2 x AMD EPYC 9554, 8 GB, no GPU``: others' numbers are not compared."""
    against: Sha | None
    """The last promoted tree, where it was measured beside; None where there is none, or it is the same."""
    measures: tuple[Measure, ...]
    missing: tuple[tuple[str, str], ...] = ()
    """Metrics that are declared and were not measured, each with why: what was not done is never green."""
    why_alone: str = ""
    """As `GuardReport.why_alone`."""


@dataclass(frozen=True)
class Deployed:
    """The content of the last promoted night."""

    night: str
    composition: Sha
    tree: Sha
    base_commit: Sha


@dataclass(frozen=True)
class LaneRecord:
    """What history keeps of one lane on one kind of hardware; of a rehearsal nothing."""

    lane: str
    hardware: str
    """Its kind, as `regress/hardware.py` says it: only where it is equal are numbers compared. Empty: none answered."""
    green: bool
    """All that is declared for the lane passed, or is in quarantine: only then its numbers make a band."""
    samples: tuple[tuple[str, float], ...] = ()
    """Metric, and that night's value."""
    outcomes: tuple[tuple[str, str], ...] = ()
    """Test and outcome of each that was not a plain pass."""


@dataclass(frozen=True)
class NightRecord:
    """What history keeps of one night, promoted or not: a file on the branch ``history/LANE``."""

    night: str
    at: str
    lane: str
    tree: Sha
    promoted: bool
    node: str
    samples: tuple[tuple[str, float], ...]
    """Metric, and tonight's value on the composed tree."""
    outcomes: tuple[tuple[str, str], ...]
    """Test and outcome of each guard on the composed tree that was not a plain pass: flaky, quarantined, red."""
    quarantined_green: tuple[str, ...] = ()
    """Tests in quarantine that passed: so many nights in a row are their way back."""
    blamed: tuple[tuple[str, str], ...] = ()
    """Name and certainty of whom `Blame` has found."""
    lanes: tuple[LaneRecord, ...] = ()
    """What other lanes said; empty in older records."""


@dataclass(frozen=True)
class Past:
    """What earlier nights have left behind, as it was when this one began; its tests are held against it."""

    lane: str
    deployed: Deployed | None
    """None where nothing is promoted yet."""
    nights: tuple[NightRecord, ...]
    """The newest first; as many as `release/history.py` says."""
    notes: tuple[str, ...] = ()
    """What could not be read, or is no record."""
