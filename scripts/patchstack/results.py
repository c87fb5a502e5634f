"""What guards said, on which tree, and what that proves. Part of `model.py`, which hands it on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from patchstack.ids import Sha


class GuardOutcome(StrEnum):
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    FLAKY = "flaky"
    TIMEOUT = "timeout"
    CRASH = "crash"
    MISSING = "missing"
    QUARANTINED = "quarantined"
    SKIPPED_BY_RULE = "skipped_by_rule"


@dataclass(frozen=True)
class Attempt:
    """How a guard ended before it was run again on the same tree."""

    outcome: GuardOutcome
    reason: str
    duration_s: float
    by_machine: bool = False
    """As `GuardResult.by_machine`."""


@dataclass(frozen=True)
class Sample:
    """One number that a guard has measured."""

    metric: str
    """As ``tests/regression/metrics.yaml`` names it."""
    value: float


@dataclass(frozen=True)
class GuardResult:
    """One test on one tree."""

    test: str
    """pytest's node id, from the repository's root."""
    slug: str
    """The patch that it guards; ``bed`` for the bed's own controls."""
    control: bool
    """A control must pass with and without the patch; a guard must turn."""
    outcome: GuardOutcome
    duration_s: float
    reason: str = ""
    kills: tuple[str, ...] = ()
    """The mutants on which it must fail; a guard that names any does not run on a ground."""
    attempts: tuple[Attempt, ...] = ()
    """Those before this one, oldest first; of what is flaky all that there were."""
    samples: tuple[Sample, ...] = ()
    by_machine: bool = False
    """The process that ran it was killed, or did not get so far: it says nothing of the code under test."""


@dataclass(frozen=True)
class TreeRun:
    """The guards on one tree."""

    label: str
    """The composed one's: ``composed``, or ``without <slug>, <slug>``. A ground's: ``base``, or ``base + <slug>``.
    A mutant's: ``mutant <slug>/<name>``. What numbers are compared with: ``last promoted``."""
    composed: bool
    """The tree has the patches; on any other a guard is meant to fail."""
    tree: Sha
    results: tuple[GuardResult, ...]
    kept: bool = False
    """Not run again: an equal key was proven before."""
    mutant: str = ""
    """``<slug>/<name>`` of the mutant that is on the tree."""
    beside: bool = False
    """The last promoted tree, on which only what measures runs: it is compared with, and proves nothing."""

    @property
    def is_ground(self) -> bool:
        """The base with what a patch requires, and no more."""
        return not self.composed and not self.mutant and not self.beside


class Standing(StrEnum):
    """What a patch's guards say of it, without and with it."""

    PROVEN = "proven"
    REDUNDANT = "redundant"
    BROKEN = "broken"
    UNPROVEN = "unproven"
    UNGUARDED = "unguarded"


@dataclass(frozen=True)
class Proof:
    slug: str
    ground: str
    """The label of the tree on which its guards must fail."""
    standing: Standing
    detail: str


@dataclass(frozen=True)
class Scenario:
    """A test that needs another lane than the one that ran."""

    lane: str
    """What it needs, such as ``1-gpu``."""
    test: str
    """pytest's node id, from the repository's root, without parameters."""


@dataclass(frozen=True)
class Quarantined:
    """A guard that holds no channel for a while, as its entry in ``tests/regression/quarantine.yaml`` says."""

    test: str
    """pytest's node id without parameters, or a file."""
    owner: str
    because: str
    since: str
    """Like ``until`` a day, ``2026-12-04``."""
    until: str
    back: str
    """What lets it out."""
    expired: bool = False
    """It excuses nothing any more."""


@dataclass(frozen=True)
class Shard:
    """The part of a lane's guards that one of several machines has run."""

    number: int
    """From 1."""
    count: int
    files: tuple[str, ...]
    """Of tests, relative to the repository's root."""

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Division:
    """How the guards of a run are divided over machines; decided once, for measured times change with every run."""

    lane: str
    shards: tuple[tuple[str, ...], ...]
    """The files of each."""


@dataclass(frozen=True)
class GuardReport:
    lane: str
    bed: str
    runs: tuple[TreeRun, ...]
    proofs: tuple[Proof, ...]
    not_run: tuple[Scenario, ...] = ()
    """Skipped by rule: what this lane never runs."""
    node: str = ""
    """What the guards ran on, as `regress/node.py` says it; empty where no guard measures anything."""
    quarantine: tuple[Quarantined, ...] = ()
    """Every entry of the quarantine that was in force, or had expired, when these guards were judged."""
    shard: Shard | None = None
    """None where one machine has run all of them."""
    why_alone: str = ""
    """Why nothing was measured beside, where another tree is deployed; empty where that was done, or there is none."""
