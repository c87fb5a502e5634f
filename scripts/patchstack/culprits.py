"""Who made a night red, as values: what was asked, what was answered, what follows from it.

`regress/blame.py` decides what is asked next and what follows; `verbs/blame.py` asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from patchstack.ids import Sha
from patchstack.results import GuardOutcome


class Certainty(StrEnum):
    CONFIRMED = "CONFIRMED"
    """The set fails twice, and without the suspect it passes twice."""
    NARROWED = "NARROWED"
    """It is among these; what would tell which cannot be asked, or would go over a budget."""
    FLAKY = "FLAKY"
    """It passes and fails on one tree: nobody is blamed."""
    INFRA = "INFRA"
    """It fails on what passed when it was promoted: the machine, the bed or the guard; nobody is blamed."""


class Ask(StrEnum):
    """Which tree a probe runs on."""

    TONIGHT = "tonight"
    """Tonight's composition; of what is in ``without``, each patch as the last promoted night had it (or not at all if
    it had not), and no pull request."""
    LAST = "last promoted"
    """The tree of the last promoted night."""


@dataclass(frozen=True)
class Target:
    """A tree that can be asked."""

    ask: Ask
    without: frozenset[str] = frozenset()
    """Names of topics; of `Ask.LAST` empty."""


@dataclass(frozen=True)
class Probe:
    """One run of some guards on one tree."""

    number: int
    """From 1."""
    target: str
    """In words: ``tonight``, ``tonight without #41``, ``last promoted``."""
    without: tuple[str, ...]
    tree: Sha | None
    """None where it does not compose."""
    outcomes: tuple[tuple[str, GuardOutcome], ...]
    """By test."""
    seconds: float
    why: str
    """What the answer decides, in a few words."""


class Culprit(StrEnum):
    PULL = "pull request"
    PATCH = "patch"
    BASE = "base"


@dataclass(frozen=True)
class Suspect:
    culprit: Culprit
    name: str
    """A pull request's, a patch's slug, or the base's."""
    head: str
    """Its commit."""


@dataclass(frozen=True)
class Finding:
    """What follows for some tests that fail alike."""

    certainty: Certainty
    tests: tuple[str, ...]
    suspects: tuple[Suspect, ...]
    """Of `CONFIRMED` several fail only together, the last in merge order last. Empty where nobody is blamed."""
    detail: str
    """One sentence."""
    probes: tuple[int, ...]
    """Numbers of those that it follows from."""


@dataclass(frozen=True)
class Blame:
    """All that was found out about one red night."""

    composition: Sha
    """The composition that was red, a commit."""
    tree: Sha
    tests: tuple[tuple[str, GuardOutcome], ...]
    """What was red, and how."""
    findings: tuple[Finding, ...]
    probes: tuple[Probe, ...]
    left_out: tuple[str, ...] = ()
    """Whom the night has left out for it, and who carries their commits; in merge order."""
    before: Blame | None = None
    """The same of the composition before, where what was left was red again."""
