"""Which parts of tonight can be asked about: what goes out goes with what stands on it, and what must stay stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

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

    @cached_property
    def all(self) -> Subset:
        return frozenset(range(len(self.units)))

    def above(self, unit: int) -> Subset:
        """The unit, and all that cannot stay without it."""
        goes = frozenset().union(*(self._goes[name] for name in self.units[unit]))
        return frozenset(at for at, names in enumerate(self.units) if goes.intersection(names))

    def below(self, units: Iterable[int]) -> Subset:
        """The units, and all that they cannot be there without."""
        wanted = frozenset(units)
        return frozenset(at for at in self.all if self.above(at) & wanted)

    def prefix(self, length: int) -> Subset:
        return frozenset(range(length))

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
    waiting = list(names)
    units: list[tuple[str, ...]] = []
    while waiting:
        # The first that nobody else holds up; two that hold each other up are one unit.
        unit = next(
            together
            for name in waiting
            if (together := [other for other in waiting if name in goes[other]])
            and all(other in goes[name] for other in together)
        )
        units.append(tuple(unit))
        waiting = [name for name in waiting if name not in unit]
    return tuple(units)
