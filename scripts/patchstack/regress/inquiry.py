"""Who made one guard red: the order of the questions, each asked when those before it have their answers.

Delta debugging (Zeller and Hildebrandt, https://doi.org/10.1109/32.988498) over what changed, in an order in which a
prefix can always be composed, so that the smallest set that fails is found member by member by halving.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Set
from dataclasses import dataclass
from typing import TypeVar

from patchstack.culprits import Certainty, Suspect, Target
from patchstack.regress.evidence import LAST, TONIGHT, Evidence, Reading
from patchstack.regress.question import Question, Red
from patchstack.regress.subsets import Subset, Subsets

TWICE = 2
"""Runs that decide, but for those of a halving, which only choose whom to look at."""
PROOF = 6
"""Runs that must fail with a suspect, and as many that must pass without, before it is guilty: a guard that fails by
chance, at whatever rate, does all that once in 4,096 nights at most."""
PROOF_OF_SEVERAL = 8
"""The same where several are suspected, or the base: there are more ways to be wrong."""
TRIED = 8
"""Runs on tonight's tree before a guard that fails elsewhere too is taken to fail there always, not by chance."""
MOST = 4
"""Independent culprits of one guard; with more, something else is wrong."""


@dataclass(frozen=True)
class Need:
    """A tree that must have been run so often before the inquiry goes on."""

    target: Target
    runs: int
    why: str
    among: tuple[Suspect, ...]
    """Who is suspected as long as this is not answered."""
    since: int = 0
    """Only answers from this one on count."""


@dataclass(frozen=True)
class Conclusion:
    certainty: Certainty
    suspects: tuple[Suspect, ...]
    detail: str


Conclusions = tuple[Conclusion, ...]
T = TypeVar("T")
Steps = Generator[Need, Reading, T]
"""It yields what it needs, is sent what that tree does, and returns what follows."""


@dataclass(frozen=True)
class _Culprit:
    """Units that fail together and not without any of them."""

    guilty: Subset
    helpers: Subset
    """Without one of these the others cannot be asked: that does not compose, or is red in another way."""
    last: int
    """The guilty one that would be left out: the last in merge order."""

    @property
    def units(self) -> Subset:
        return self.guilty | self.helpers


class Inquiry:
    """One guard's."""

    def __init__(self, question: Question, red: Red, evidence: Evidence) -> None:
        self._question = question
        self._red = red
        self._evidence = evidence
        self._subsets = Subsets(question.items, red.context)
        self._among = self._everybody()
        self._spent: set[Target] = set()
        """Trees whose first run has chosen a suspect: it proves nothing against that one."""

    @property
    def _comparable(self) -> bool:
        """The last promoted tree can be held against tonight's: the patches that the guard is of are the same."""
        return self._question.last and not self._red.context

    def steps(self) -> Steps[Conclusions]:
        """The order of the questions."""
        if self._evidence.passed_tonight:
            return (Conclusion(Certainty.FLAKY, (), "it passes and fails on tonight's tree"),)
        if self._evidence.dead is not None:
            return (Conclusion(Certainty.INFRA, (), "the machine died under it twice on one tree"),)
        if self._evidence.contradicted is not None:
            return (yield from self._contradiction(self._evidence.contradicted))
        yield self._need(TONIGHT, TWICE, "whether it fails again on the same tree")
        if self._comparable:
            reading = yield self._need(LAST, TWICE, "whether it fails on the last promoted tree as well")
            if reading is Reading.FAILS:
                yield self._need(TONIGHT, TRIED, "whether it ever passes on tonight's tree")
                detail = "it fails on the last promoted tree as well: machine, test bed or guard are not what they were"
                return (Conclusion(Certainty.INFRA, (), detail),)
        reading = yield self._need(self._bare, TWICE, "whether it fails without all that changed")
        if reading is Reading.FAILS:
            return (yield from self._not_what_may_go_out())
        return (yield from self._one_culprit_after_the_other())

    # --- stations of it --------------------------------------------------------------------------------

    def _contradiction(self, since: int) -> Steps[Conclusions]:
        """One tree, not tonight's, has passed and failed. What never passes tonight is not taken for a flaky guard."""
        yield self._need(TONIGHT, TRIED, "whether it ever passes on tonight's tree")
        control = LAST if self._comparable else self._bare
        reading = yield self._need(control, TWICE, "whether the machine is still sound", since)
        if reading is Reading.FAILS and not self._evidence.tally(control, since).passes:
            detail = "it fails now on a tree where it has passed before: the machine, or the test bed"
            return (Conclusion(Certainty.INFRA, (), detail),)
        detail = "it always fails on tonight's tree, and both passes and fails on another: nobody can be singled out"
        return (Conclusion(Certainty.NARROWED, (), detail),)

    def _not_what_may_go_out(self) -> Steps[Conclusions]:
        """It fails although all is out that may go out."""
        question = self._question
        absent_else = set(self._red.context) - {item.name for item in question.items if item.old}
        wider = Subsets(question.items, absent_else)
        if wider.stay != self._subsets.stay:  # the patch that it guards cannot go, but it can be what it was
            changed = self._subsets.stay - wider.stay
            self._subsets = wider
            reading = yield self._need(self._bare, TWICE, f"whether it passes with {self._told(changed)} as it was")
            if reading is not Reading.FAILS:
                return (yield from self._one_culprit_after_the_other())
        staying = tuple(item.suspect for item in question.items if item.name in {*self._red.context, *wider.stay})
        if question.base_changed and self._comparable and not staying and not question.removed:
            self._among = (question.base,)
            yield from self._weigh({TONIGHT, self._bare}, {LAST}, self._bare, LAST, PROOF_OF_SEVERAL)
            return (Conclusion(Certainty.CONFIRMED, (question.base,), "it fails on tonight's base without all else"),)
        yield self._need(TONIGHT, TRIED, "whether it ever passes on tonight's tree")
        if self._comparable:
            heard = self._evidence.heard_by(self._bare, TWICE)
            yield self._need(LAST, TWICE, "whether the machine is still sound", heard)
        base = (question.base,) if question.base_changed or not question.last else ()
        suspects = (*staying, *question.removed, *base)
        detail = "it fails without all that changed but this" if suspects else "it fails without all that changed"
        return (Conclusion(Certainty.NARROWED, suspects, detail),)

    def _one_culprit_after_the_other(self) -> Steps[Conclusions]:
        """As long as it fails without those found before."""
        culprits: list[_Culprit] = []
        out: Subset = frozenset()
        while True:
            culprits.append((yield from self._smallest_set(out)))
            out |= self._subsets.above(culprits[-1].last)
            names = self._told(self._subsets.names(one.last for one in culprits))
            self._among = self._suspects(unit for one in culprits for unit in one.guilty)
            rest = self._target(self._subsets.all - out)
            reading = yield self._need(rest, self._fresh(rest), f"whether it passes without {names}")
            if reading is Reading.PASSES:
                break
            if reading is Reading.UNRESOLVED:
                why = f"without {names} it cannot be asked: that does not compose, or is red in another way"
                return tuple(self._narrowed(one, why) for one in culprits)
            control = LAST if self._comparable else self._bare
            yield self._need(control, 1, "whether the machine is still sound", self._evidence.heard_by(rest, TWICE))
            if len(culprits) == MOST:
                return tuple(self._narrowed(one, f"it fails without {names} as well") for one in culprits)
        found: list[Conclusion] = []
        for culprit in culprits:
            found += yield from self._confirm(culprit, culprits)
        return tuple(found) or (self._narrowed(culprits[0], f"with {names} it does not always fail"),)

    def _smallest_set(self, out: Subset) -> Steps[_Culprit]:
        """By halving: the shortest prefix that fails ends in a member; with it in, the shortest that fails, and so on.

        What does not compose or is red in another way does not fail, here: so no one item need be to blame for that.
        """
        subsets = self._subsets
        order = sorted(subsets.all - out)
        members: set[int] = set()
        fails = len(order)
        while True:
            passes = 0
            while fails - passes > 1:
                half = (passes + fails) // 2
                self._among = self._suspects({*members, *order[passes:fails]})
                target = self._target(subsets.below({*members, *order[:half]}))
                reading = yield self._need(target, 1, "which half it is in")
                self._spent.add(target)
                passes, fails = (passes, half) if reading is Reading.FAILS else (half, fails)
            fails -= 1
            members.add(order[fails])
            self._among = self._suspects(members)
            alone = self._target(subsets.below(members))
            reading = yield self._need(alone, self._fresh(alone), f"whether {self._whom(members)} is enough")
            if reading is Reading.FAILS or not fails:
                break
            # That more are needed is believed only of a guard that fails still: else all that follows is in vain.
            known = self._target(subsets.below({*members, *order[:fails]}))
            heard = self._evidence.heard_by(alone, self._fresh(alone))
            yield self._need(known, 1, f"whether {self._whom(members)} and the others still fail", heard)
        helpers: set[int] = set()
        for member in sorted(members) if len(members) > 1 else ():
            why = f"whether it fails without {self._whom({member})}"
            fewer = self._target(subsets.below(members - {member}))
            reading = yield self._need(fewer, self._fresh(fewer), why)
            if reading is Reading.UNRESOLVED:  # the others may hang on it, or on what came in with it
                most = self._target(subsets.all - out - subsets.above(member))
                needed = yield self._need(most, self._fresh(most), why)
                helpers |= set() if needed is Reading.PASSES else {member}
            members -= {member} if reading is Reading.FAILS else set()
        guilty = frozenset(members - helpers or members)
        last = max(guilty, key=lambda at: self._place(subsets.units[at]))
        return _Culprit(guilty, frozenset(members) - guilty, last)

    def _confirm(self, culprit: _Culprit, culprits: Iterable[_Culprit]) -> Steps[Conclusions]:
        """It fails with the culprit and passes without, often enough to be no chance; nothing where it passes with."""
        subsets = self._subsets
        guilty = list(culprits)
        others = frozenset(at for one in guilty if one != culprit for at in subsets.above(one.last))
        alone = self._target(subsets.below(culprit.units))
        with_it = self._target(subsets.all - others)
        without = self._target(subsets.all - others - subsets.above(culprit.last))
        fewer = {self._target(subsets.below(culprit.units - {one})) for one in culprit.guilty}
        whom = self._whom(culprit.guilty)
        self._among = self._suspects(culprit.guilty)
        for target in (alone, with_it):
            reading = yield self._need(target, self._fresh(target), f"whether it fails with {whom}")
            if reading is Reading.PASSES:
                return ()
            if reading is Reading.UNRESOLVED:
                return (self._narrowed(culprit, f"with {whom} it cannot be asked for itself"),)
        proof = PROOF if len(guilty) == len(culprit.units) == 1 else PROOF_OF_SEVERAL
        controls = {LAST} if self._comparable else set[Target]()
        yield from self._weigh({TONIGHT, alone, with_it}, {*controls, *fewer, without}, with_it, without, proof)
        if any(len(subsets.units[at]) > 1 for at in culprit.guilty):
            return (self._narrowed(culprit, f"it fails with {whom} and passes without; they go only together"),)
        together = " together, and not with fewer of them" if len(culprit.guilty) > 1 else ""
        detail = f"it fails with {whom}{together}, and passes without"
        return (Conclusion(Certainty.CONFIRMED, self._suspects(culprit.guilty), detail),)

    def _weigh(self, red: Set[Target], green: Set[Target], with_it: Target, without: Target, proof: int) -> Steps[None]:
        """As many runs as a proof takes: those on ``red`` have failed so far, those on ``green`` have passed."""
        while True:
            failed = sum(self._failed(target) for target in red)
            passed = sum(self._passed(target) for target in green)
            if failed >= proof and passed >= proof:
                return
            target = with_it if failed <= passed and failed < proof else without
            seen = self._evidence.tally(target).words
            yield self._need(target, seen + TWICE, "the same again: it must be no chance")

    # --- small words -----------------------------------------------------------------------------------

    @property
    def _bare(self) -> Target:
        return self._target(frozenset())

    def _target(self, present: Subset) -> Target:
        return self._subsets.target(present)

    def _need(self, target: Target, runs: int, why: str, since: int = 0) -> Need:
        return Need(target, runs, why, self._among, since)

    def _fresh(self, target: Target) -> int:
        """Runs that decide, beside the one that a halving has used up."""
        return TWICE + (target in self._spent)

    def _failed(self, target: Target) -> int:
        tally = self._evidence.tally(target)
        return max(0, tally.fails + tally.others - (target in self._spent))

    def _passed(self, target: Target) -> int:
        return max(0, self._evidence.tally(target).passes - (target in self._spent))

    def _everybody(self) -> tuple[Suspect, ...]:
        question = self._question
        base = (question.base,) if question.base_changed or not question.last else ()
        return (*(item.suspect for item in question.items), *question.removed, *base)

    def _suspects(self, units: Iterable[int]) -> tuple[Suspect, ...]:
        names = self._subsets.names(units)
        return tuple(item.suspect for item in self._question.items if item.name in names)

    def _narrowed(self, culprit: _Culprit, why: str) -> Conclusion:
        return Conclusion(Certainty.NARROWED, self._suspects(culprit.units), why)

    def _whom(self, units: Iterable[int]) -> str:
        return self._told(self._subsets.names(units))

    def _told(self, names: Iterable[str]) -> str:
        wanted = set(names)
        *head, tail = [item.name for item in self._question.items if item.name in wanted]
        return f"{', '.join(head)} and {tail}" if head else tail

    def _place(self, unit: Iterable[str]) -> int:
        names = set(unit)
        return max(at for at, item in enumerate(self._question.items) if item.name in names)
