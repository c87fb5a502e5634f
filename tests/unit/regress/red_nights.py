"""Red nights by seed: random culprits, pairs, flakes, bases and machines, and all of them at once."""

from __future__ import annotations

import random
from dataclasses import replace

from patchstack.regress.question import Item, Question

from .oracle import BASE, CRASH, FAIL, TIMEOUT, Guard, World, patch, pull


def night(seed: int) -> tuple[World, Question]:
    """What is true, and what is asked about those that were red in its own run; the same for the same seed."""
    dice = random.Random(seed)
    while True:
        world = _night(dice)
        question = world.question()
        if question is not None:
            return world, question


def _night(dice: random.Random) -> World:
    items = _items(dice)
    world = World(
        items=items,
        guards=(),
        base_changed=dice.random() < 0.25,
        removed=tuple(f"#{number}" for number in range(900, 900 + dice.choice([0, 0, 0, 1, 2]))),
        last=dice.random() < 0.85,
        dice=dice,
    )
    if not world.last:
        world.base_changed, world.removed = False, ()
    count = dice.choice([1, 1, 1, 2, 3])
    world.guards = tuple(_guard(dice, world, number) for number in range(count))
    kind = dice.random()
    if kind < 0.12:
        world.broken_from = dice.choice([0, dice.randint(1, 30)])
    elif kind < 0.2:
        world.dead_from = dice.randint(1, 20)
    elif kind < 0.3:
        world.dies = dice.uniform(0.02, 0.3)
    elif kind < 0.5 and len(items) > 3:
        # Never in a circle: who cannot be told apart in any tree is no riddle.
        turn = dice.choice([1, -1])
        unsaid = tuple(_two(dice, world)[::turn] for _ in range(dice.randint(1, 3)))
        world.clashes, world.crashes = (unsaid, ()) if kind < 0.4 else ((), unsaid)
    return world


def _items(dice: random.Random) -> tuple[Item, ...]:
    patches = [patch(f"patch-{number}", old=dice.random() < 0.5) for number in range(dice.choice([0, 0, 0, 1, 2]))]
    numbers = range(1, dice.choice([0, 1, 2, 3, 5, 8, 12, 16, 16, 24, 40]) + 1)
    found = [pull(number) for number in numbers]
    for at, item in enumerate(found):  # some carry the commits of another, before or after them
        if dice.random() < 0.15:
            other = dice.choice(found)
            if other.name != item.name and item.name not in other.goes_with:
                found[at] = replace(item, goes_with=(other.name,))
    return (*patches, *found)


def _guard(dice: random.Random, world: World, number: int) -> Guard:
    names = [item.name for item in world.items]
    guard = Guard(f"tests/regression/test_{number}.py::test_it", red=dice.choice([FAIL, FAIL, FAIL, CRASH, TIMEOUT]))
    patches = [item.name for item in world.items if not item.name.startswith("#")]
    if patches and dice.random() < 0.4:
        guard = replace(guard, context=(dice.choice(patches),), needs_new=dice.random() < 0.5)
    sizes = dice.choice([[1], [1], [1], [2], [3], [1, 1], [1, 2], [2, 2], [1, 1, 1], [], [], []])
    causes = [frozenset(dice.sample(names, min(size, len(names)))) for size in sizes if names]
    if world.base_changed and dice.random() < 0.3:
        causes.append(frozenset({BASE.name, *dice.sample(names, min(len(names), dice.choice([0, 0, 1])))}))
    if world.removed and dice.random() < 0.3:
        causes.append(frozenset({dice.choice(world.removed)}))
    flakes = dice.choice([0.0, 0.0, 0.0, dice.random()]) if causes else dice.random()
    return replace(guard, causes=tuple(causes), flakes=flakes)


def _two(dice: random.Random, world: World) -> tuple[str, ...]:
    """In merge order."""
    one, two = sorted(dice.sample(range(len(world.items)), 2))
    return world.items[one].name, world.items[two].name
