"""What was heard of one guard, tree by tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from patchstack.culprits import Ask, Target
from patchstack.regress.question import Answer, End, Red
from patchstack.results import GuardOutcome

TONIGHT = Target(Ask.TONIGHT)
LAST = Target(Ask.LAST)
_RED = {GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT}
_ASKED_OF_THE_DEAD = 2
"""How often a tree is asked on which the machine dies."""


class Reading(StrEnum):
    """What a tree is known to do."""

    PASSES = "passes"
    FAILS = "fails"
    """As it did tonight."""
    UNRESOLVED = "unresolved"
    """It does not compose, or is red in a way that was never seen on tonight's tree."""


@dataclass
class Tally:
    """The words of one guard on one tree, each run one word."""

    passes: int = 0
    fails: int = 0
    others: int = 0
    """Red in a way that was never seen on tonight's tree."""
    silent: int = 0
    """Probes in a row that came to nothing."""
    composes: bool = True

    @property
    def words(self) -> int:
        return self.passes + self.fails + self.others

    @property
    def contradicts_itself(self) -> bool:
        return bool(self.passes and self.words > self.passes)


@dataclass
class Evidence:
    """All answers, as far as they are about one guard."""

    red: Red
    answers: Sequence[Answer]
    _how: set[GuardOutcome] = field(init=False)

    def __post_init__(self) -> None:
        # A red of another kind is another failure: what is taken out was needed, perhaps, by what stayed in.
        said = (outcome for answer in self.answers if answer.target == TONIGHT for outcome in self._said(answer))
        self._how = {self.red.outcome, *(outcome for outcome in said if outcome in _RED)}

    def reading(self, target: Target, runs: int, since: int = 0) -> Reading | None:
        """None where it was not run ``runs`` times yet, counted from answer ``since`` on."""
        tally = self.tally(target, since)
        if not tally.composes:
            return Reading.UNRESOLVED
        if tally.words < runs:
            return None
        return Reading.FAILS if tally.fails else Reading.PASSES if tally.passes else Reading.UNRESOLVED

    def tally(self, target: Target, since: int = 0) -> Tally:
        tally = Tally()
        for answer in self.answers[since:]:
            if answer.target == target:
                self._count(tally, answer)
        return tally

    @property
    def passed_tonight(self) -> bool:
        return self.tally(TONIGHT).passes > 0

    @property
    def dead(self) -> Target | None:
        """A tree that was asked in vain, and once more."""
        return next((one for one in self._targets() if self.tally(one).silent >= _ASKED_OF_THE_DEAD), None)

    @property
    def contradicted(self) -> int | None:
        """How many answers there were when one tree had both passed and failed."""
        tallies: dict[Target, Tally] = {}
        for number, answer in enumerate(self.answers, 1):
            tally = tallies.setdefault(answer.target, Tally())
            self._count(tally, answer)
            if tally.contradicts_itself:
                return number
        return None

    def heard_by(self, target: Target, runs: int) -> int:
        """How many answers there were when ``target`` had been run so often, or was found not to compose."""
        tally = Tally()
        for number, answer in enumerate(self.answers, 1):
            if answer.target == target:
                self._count(tally, answer)
            if tally.words >= runs or not tally.composes:
                return number
        return len(self.answers)

    def _targets(self) -> tuple[Target, ...]:
        return tuple(dict.fromkeys(answer.target for answer in self.answers))

    def _said(self, answer: Answer) -> tuple[GuardOutcome, ...]:
        return next((outcomes for test, outcomes in answer.outcomes if test == self.red.test), ())

    def _count(self, tally: Tally, answer: Answer) -> None:
        if answer.end is End.DOES_NOT_COMPOSE:
            tally.composes = False
        if answer.end is End.DOES_NOT_COMPOSE or self.red.test not in answer.tests:
            return
        before = tally.words
        for outcome in self._said(answer):
            tally.passes += outcome in {GuardOutcome.PASS, GuardOutcome.FLAKY}
            # On the last promoted tree any red is a failure: it was green there.
            as_tonight = outcome in self._how or answer.target == LAST
            tally.fails += outcome is GuardOutcome.FLAKY or (outcome in _RED and as_tonight)
            tally.others += outcome in _RED and not as_tonight
        tally.silent = 0 if tally.words > before else tally.silent + 1
