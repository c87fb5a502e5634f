"""Which parts of tonight can be asked about: what goes out goes with what stands on it, and what must stay stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from patchstack.culprits import Ask, Target
from patchstack.regress.question import Item

Subset = frozenset[int]
"""Numbers of units that are there."""


class Subsets:
    """The items that may go out, as units in an order in which each comes after all that it stands on.

    A unit is one item, or those that go only together. Every prefix of the order is a tree that can be asked, as far
    as the closed sets go; merge order decides where they leave a choice.
    """

    def __init__(self, items: Sequence[Item], stay: Iterable[str] = ()) -> None:
        """``stay`` are items that never go out; neither does what they stand on."""
        known = {item.name: item for item in items}
        self._goes = {item.name: _closure(item.name, known) for item in items}
        staying = frozenset(stay)
        self.stay = frozenset(name for name, goes in self._goes.items() if goes & staying)
        self.units = _ordered([item.name for item in items if item.name not in self.stay], self._goes)

        number = {name: at for at, names in enumerate(self.units) for name in names}
        self.all: Subset = frozenset(range(len(self.units)))
        self._above = [
            frozenset(number[other] for name in names for other in self._goes[name] if other in number)
            for names in self.units
        ]

    def above(self, unit: int) -> Subset:
        """The unit, and all that cannot stay without it."""
        return self._above[unit]

    def below(self, units: Iterable[int]) -> Subset:
        """The units, and all that they cannot be there without."""
        wanted = frozenset(units)
        return frozenset(at for at in self.all if not self._above[at].isdisjoint(wanted))

    def target(self, present: Subset) -> Target:
        """The tree with these and with what always stays; of tonight's whole composition nothing is left out."""
        out = (self._goes[name] for at in self.all - present for name in self.units[at])
        return Target(Ask.TONIGHT, frozenset[str]().union(*out))

    def names(self, units: Iterable[int]) -> frozenset[str]:
        return frozenset(name for at in units for name in self.units[at])


def _closure(name: str, items: dict[str, Item]) -> frozenset[str]:
    """What goes out when it goes out: itself, those that it names, those that these name."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += items[one].goes_with if one in items else ()
    return frozenset(found)


def _ordered(names: Sequence[str], goes: dict[str, frozenset[str]]) -> tuple[tuple[str, ...], ...]:
    """Units, each as early as what it stands on lets it be, in merge order else."""
    stands_on: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for other in goes[name] & stands_on.keys():
            stands_on[other].add(name)
    waiting = dict.fromkeys(names)
    units: list[tuple[str, ...]] = []
    while waiting:
        # The first that nothing else holds up; two that hold each other up are one unit.
        first = next(name for name in waiting if stands_on[name] & waiting.keys() <= goes[name])
        units.append(tuple(name for name in waiting if name in stands_on[first]))
        for name in units[-1]:
            del waiting[name]
    return tuple(units)
