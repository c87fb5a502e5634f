"""What is asked about a red night, and what was answered: the values that `regress/blame.py` plans with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from patchstack.culprits import Culprit, Suspect, Target
from patchstack.results import GuardOutcome


@dataclass(frozen=True)
class Item:
    """A topic of tonight that the last promoted night had not, or had at another head; without such a night, any."""

    name: str
    culprit: Culprit
    head: str
    goes_with: tuple[str, ...] = ()
    """Items that cannot stay without it: they carry its commits, or require it. Those of these too, named or not."""
    old: bool = False
    """Without it, the patch is there as the last promoted night had it; else it is absent."""

    @property
    def suspect(self) -> Suspect:
        return Suspect(self.culprit, self.name, self.head)


@dataclass(frozen=True)
class Red:
    """A guard that was red on tonight's tree."""

    test: str
    outcome: GuardOutcome
    context: tuple[str, ...] = ()
    """Those items that are the patches it guards, and what these require: it cannot pass where they are absent."""


@dataclass(frozen=True)
class Question:
    """Who made these guards red?"""

    reds: tuple[Red, ...]
    items: tuple[Item, ...]
    """In merge order."""
    base: Suspect
    base_changed: bool = False
    """The last promoted night has another base; False where there is no such night."""
    removed: tuple[Suspect, ...] = ()
    """What the last promoted night had and tonight has not."""
    last: bool = True
    """There is a last promoted night, and its tree can be asked."""
    max_probes: int = 40


@dataclass(frozen=True)
class Wanted:
    """The next probe."""

    target: Target
    tests: tuple[str, ...]
    times: int
    """How often each test is run on that tree, one run after the other; `Answer.outcomes` has them all."""
    why: str
    """What the answer decides, in a few words."""


class End(StrEnum):
    """What became of a probe."""

    RAN = "ran"
    DOES_NOT_COMPOSE = "does not compose"
    DIED = "died with the machine"
    """No guard was to blame for it: no room on disk, killed from outside, the bed could not be made."""


@dataclass(frozen=True)
class Answer:
    """What a probe said."""

    target: Target
    tests: tuple[str, ...]
    """Those that were asked: `Wanted.tests`."""
    outcomes: tuple[tuple[str, tuple[GuardOutcome, ...]], ...] = ()
    """By test, each run of it; of one that is not in it, or is `MISSING`, nothing was heard, as if it had died."""
    end: End = End.RAN
