"""Red nights whose cause is known: an oracle that answers probes as a machine would, and says which blame is wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from patchstack.culprits import Ask, Certainty, Culprit, Finding, Suspect, Target
from patchstack.regress.blame import decide
from patchstack.regress.question import Answer, End, Item, Question, Red, Wanted
from patchstack.results import GuardOutcome

PASS, FAIL, CRASH, TIMEOUT = GuardOutcome.PASS, GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT
MISSING = GuardOutcome.MISSING
BASE = Suspect(Culprit.BASE, "sglang==0.5.23", "ba5e")
NEVER = 10**9


def pull(number: int, *goes_with: int) -> Item:
    return Item(f"#{number}", Culprit.PULL, f"{number:04x}", tuple(f"#{other}" for other in goes_with))


def patch(slug: str, *goes_with: str, old: bool = False) -> Item:
    return Item(slug, Culprit.PATCH, slug, goes_with, old)


def pulls(count: int) -> tuple[Item, ...]:
    return tuple(pull(number) for number in range(1, count + 1))


@dataclass(frozen=True)
class Guard:
    """A test, and what it really hangs on."""

    test: str = "tests/regression/pd/test_abort.py::test_tells"
    causes: tuple[frozenset[str], ...] = ()
    """Each a set of names that makes it fail wherever all are there; the base and what was removed have names too."""
    flakes: float = 0.0
    """How often it fails for no reason."""
    red: GuardOutcome = FAIL
    context: tuple[str, ...] = ()
    needs_new: bool = False
    """It fails with the older version of its context too."""

    def fails(self, there: frozenset[str]) -> bool:
        return any(cause <= there for cause in self.causes)


@dataclass
class World:
    """What is true of one night."""

    items: tuple[Item, ...]
    guards: tuple[Guard, ...]
    base_changed: bool = False
    removed: tuple[str, ...] = ()
    last: bool = True
    broken_from: int = NEVER
    """From this probe on each guard fails, whatever it runs on; 0 is the night's own run."""
    dead_from: int = NEVER
    """From this probe on the machine dies under each."""
    dies: float = 0.0
    """How often it dies, else."""
    clashes: tuple[tuple[str, ...], ...] = ()
    """The first does not compose without the second."""
    crashes: tuple[tuple[str, ...], ...] = ()
    """With the first and without the second each guard crashes."""
    max_probes: int = 10_000
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    def question(self) -> Question | None:
        """What the night asks about those that were red; None where it was green."""
        red = [guard for guard in self.guards if self._runs(guard, self.tonight, 0) is not PASS]
        if not red:
            return None
        reds = tuple(Red(guard.test, guard.red, guard.context) for guard in red)
        gone = tuple(Suspect(Culprit.PULL, name, "9") for name in self.removed)
        return Question(reds, self.items, BASE, self.base_changed, gone, self.last, self.max_probes)

    @property
    def tonight(self) -> frozenset[str]:
        return self.tree(Target(Ask.TONIGHT))

    def tree(self, target: Target) -> frozenset[str]:
        """Names of all that may make a guard fail."""
        if target.ask is Ask.LAST:
            return frozenset()
        base = [BASE.name] if self.base_changed or not self.last else []
        return frozenset({item.name for item in self.items} - target.without | {*base, *self.removed})

    def answer(self, wanted: Wanted, number: int) -> Answer:
        there = self.tree(wanted.target)
        if wanted.target.ask is Ask.TONIGHT and any(one in there and two not in there for one, two in self.clashes):
            return Answer(wanted.target, wanted.tests, end=End.DOES_NOT_COMPOSE)
        if number >= self.dead_from or self.dice.random() < self.dies:
            return Answer(wanted.target, wanted.tests, end=End.DIED)
        guards = {guard.test: guard for guard in self.guards}
        outcomes = tuple(
            (test, tuple(self._runs(guards[test], there, number) for _ in range(wanted.times))) for test in wanted.tests
        )
        return Answer(wanted.target, wanted.tests, outcomes)

    def crash(self, there: frozenset[str]) -> bool:
        return any(one in there and two not in there for one, two in self.crashes)

    def stands_on(self, name: str, *, said: bool) -> frozenset[str]:
        """It, and what it cannot be there without; ``said``: only what the question tells."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += [item.name for item in self.items if one in item.goes_with]
                waiting += [two for first, two in (*self.clashes, *self.crashes) if first == one and not said]
        return frozenset(found)

    def _runs(self, guard: Guard, there: frozenset[str], number: int) -> GuardOutcome:
        if number >= self.broken_from:
            return guard.red
        if self.crash(there):
            return CRASH
        lacks = [name for name in guard.context if name not in there]
        older = {item.name for item in self.items if item.old}
        if any(guard.needs_new or name not in older for name in lacks):
            return FAIL
        return guard.red if guard.fails(there) or self.dice.random() < guard.flakes else PASS


@dataclass(frozen=True)
class Played:
    """A night's blame, to its end."""

    findings: tuple[Finding, ...]
    wanted: tuple[Wanted, ...]
    answers: tuple[Answer, ...]

    @property
    def runs(self) -> int:
        return sum(wanted.times for wanted in self.wanted)

    @property
    def certainties(self) -> list[Certainty]:
        return [finding.certainty for finding in self.findings]

    @property
    def confirmed(self) -> list[tuple[str, ...]]:
        return [names(one) for one in self.findings if one.certainty is Certainty.CONFIRMED]


def names(finding: Finding) -> tuple[str, ...]:
    return tuple(suspect.name for suspect in finding.suspects)


def play(world: World, question: Question | None = None) -> Played:
    """The blame of a night that was red."""
    question = question or world.question()
    assert question is not None, "the night was green"
    wanted: list[Wanted] = []
    answers: list[Answer] = []
    while isinstance(step := decide(question, tuple(answers)), Wanted):
        assert len(answers) < 1000, "it does not end"
        wanted.append(step)
        answers.append(world.answer(step, len(answers) + 1))
    return Played(step, tuple(wanted), tuple(answers))


def wrong(world: World, played: Played) -> list[str]:
    """What a finding says that is not so; empty where all is right, however little it says."""
    found: list[str] = []
    for finding in played.findings:
        for guard in (guard for guard in world.guards if guard.test in finding.tests):
            if finding.certainty is Certainty.CONFIRMED and not guilty(world, guard, names(finding)):
                found.append(f"{guard.test}: {names(finding)} did not do it, {guard.causes} did")
            if finding.certainty is Certainty.FLAKY and guard.fails(world.tonight):
                found.append(f"{guard.test}: it always fails, and is called flaky")
            sound = min(world.broken_from, world.dead_from) == NEVER and not world.dies and not guard.flakes
            if finding.certainty is Certainty.INFRA and guard.fails(world.tonight) and sound:
                found.append(f"{guard.test}: it always fails, and the machine is said to be broken")
    return found


def guilty(world: World, guard: Guard, suspects: tuple[str, ...]) -> bool:
    """These fail together, and not without any one of them; what a suspect stands on is always there with it."""
    if suspects == (BASE.name,):
        return frozenset(suspects) in guard.causes
    older = {item.name for item in world.items if item.old}
    fewer = [[other for other in suspects if other != name] for name in suspects]

    def fails(members: Iterable[str], context: Iterable[str], said: bool) -> bool:
        staying = (world.stands_on(name, said=said) for name in context)
        always = {BASE.name, *world.removed}.union(*staying) - set(suspects)
        there = frozenset(always.union(*(world.stands_on(name, said=said) for name in members)))
        # A guard that crashed tonight is not told from one that crashes because something is not there.
        crashes = said and guard.red is CRASH and world.crash(there)
        return crashes or guard.fails(there)

    return any(
        fails(suspects, context, said) and not any(fails(some, context, said) for some in fewer)
        for said in (False, True)
        for context in (guard.context, set(guard.context) - older)  # it stays, or it is what it was
    )


def limit(count: int) -> float:
    """How many probes one culprit among so many may take."""
    return 2 * math.log2(count) + 6
