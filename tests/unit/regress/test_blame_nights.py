"""Whole nights with a known cause, by seed; how many probes one culprit takes; and what holds of every night."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from patchstack.culprits import Certainty
from patchstack.regress.blame import decide
from patchstack.regress.inquiry import PROOF
from patchstack.regress.question import Answer, Question, Red, Wanted

from .oracle import BASE, FAIL, NEVER, PASS, TIMEOUT, Guard, World, limit, play, pulls, wrong
from .red_nights import night

SEEDS = range(50)
MOST_OF_ONE_TREE = 8
"""Probes of one tree: again, as the control of a second culprit, for a proof, after a contradiction; and the dead."""


def culprit(number: int) -> Guard:
    return Guard(causes=(frozenset({f"#{number}"}),))


# --- the count -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [True, False])
def test_one_culprit_among_64_takes_18_probes_at_most_wherever_it_is(last: bool) -> None:
    for number in range(1, 65):
        played = play(World(pulls(64), (culprit(number),), last=last))
        assert played.confirmed == [(f"#{number}",)]
        assert len(played.wanted) == 12 <= limit(64)
        assert played.runs == 18 <= limit(64)  # also where each run is counted for itself


@pytest.mark.parametrize("count", [*range(1, 21), 31, 32, 33, 63, 65, 99, 100])
def test_one_culprit_among_so_many_takes_no_more_than_it_may(count: int) -> None:
    for number in sorted({1, 2, count // 3 + 1, count // 2 + 1, count - 1, count} & set(range(1, count + 1))):
        for last in (True, False):
            played = play(World(pulls(count), (culprit(number),), last=last))
            assert played.confirmed == [(f"#{number}",)]
            assert len(played.wanted) <= limit(count)


# --- chance --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("base_changed", [False, True])
def test_a_flaky_guard_gets_nobody_blamed_in_2000_nights_at_any_rate(
    count: int, *, last: bool, base_changed: bool
) -> None:
    """Every run of answers that chance can give is followed: the sum is exact."""
    question = Question((Red("test", FAIL),), pulls(count), BASE, base_changed and last, last=last, max_probes=NEVER)
    blamed: Counter[tuple[int, int]] = Counter()
    waiting: list[tuple[tuple[Answer, ...], int, int]] = [((), 0, 0)]
    while waiting:
        answers, failed, passed = waiting.pop()
        decided = decide(question, answers)
        if not isinstance(decided, Wanted):
            blamed[failed, passed] += any(one.certainty is Certainty.CONFIRMED for one in decided)
        elif failed + passed < 22:  # what is less likely than that is nothing
            # A probe whose runs differ has contradicted itself, and nobody is blamed after that.
            for outcome in (FAIL, PASS):
                runs = (("test", (outcome,) * decided.times),)
                more = (*answers, Answer(decided.target, decided.tests, runs))
                fails = decided.times * (outcome is FAIL)
                waiting.append((more, failed + fails, passed + decided.times - fails))
    for percent in range(1, 100):
        rate = percent / 100
        assert sum(n * rate**failed * (1 - rate) ** passed for (failed, passed), n in blamed.items()) < 1 / 2000


def test_nobody_is_blamed_after_a_contradiction() -> None:
    """What the sum above takes for granted."""
    for seed in range(200):
        world = World(pulls(6), (Guard(flakes=0.7),), dice=random.Random(seed))
        question = Question((Red(world.guards[0].test, FAIL),), world.items, BASE)
        played = play(world, question)
        mixed = any(len(set(runs)) > 1 for answer in played.answers for _, runs in answer.outcomes)
        assert not (mixed and played.confirmed)
        assert played.confirmed or set(played.certainties) <= {
            Certainty.FLAKY,
            Certainty.INFRA,
            Certainty.NARROWED,
        }


def test_as_many_runs_as_a_proof_takes_are_once_in_4096_nights_by_chance() -> None:
    assert max((p / 100) ** PROOF * (1 - p / 100) ** PROOF for p in range(101)) == 1 / 4096


# --- fifty nights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_night_by_seed_gets_nobody_innocent_blamed_and_no_culprit_excused(seed: int) -> None:
    world, question = night(seed)
    played = play(world, question)
    assert wrong(world, played) == []
    tests = {test for finding in played.findings for test in finding.tests}
    assert tests == {red.test for red in question.reds}
    asked = Counter(wanted.target for wanted in played.wanted)
    assert max(asked.values(), default=0) <= MOST_OF_ONE_TREE


def test_the_fifty_nights_have_all_that_can_happen() -> None:
    """A seed is no luck: they are the first fifty."""
    worlds = [night(seed) for seed in SEEDS]
    guards = [guard for world, _ in worlds for guard in world.guards]
    assert sum(any(len(cause) > 1 for cause in guard.causes) for guard in guards) >= 10
    assert sum(len(guard.causes) > 1 for guard in guards) >= 10
    assert sum(not guard.causes for guard in guards) >= 10
    assert sum(min(world.broken_from, world.dead_from) < NEVER for world, _ in worlds) >= 5
    assert sum(world.base_changed for world, _ in worlds) >= 5
    assert sum(bool(world.clashes or world.crashes) for world, _ in worlds) >= 5
    assert {one for world, question in worlds for one in play(world, question).certainties} == set(Certainty)


@pytest.mark.parametrize("seed", range(1000, 1030))
def test_on_a_sound_machine_what_is_left_without_the_guilty_is_green(seed: int) -> None:
    """Up to three culprits or sets of them, of one guard or two; all that is known of them is told."""
    dice = random.Random(seed)
    items = pulls(dice.randint(3, 32))
    names = [item.name for item in items]

    def guard(number: int) -> Guard:
        causes = tuple(frozenset(dice.sample(names, dice.randint(1, 3))) for _ in range(dice.randint(1, 2)))
        return Guard(f"{number}.py::test_it", causes, red=dice.choice([FAIL, TIMEOUT]))

    world = World(items, (guard(1), guard(2)), base_changed=dice.random() < 0.3, last=dice.random() < 0.8)
    played = play(world)
    assert wrong(world, played) == []
    assert set(played.certainties) == {Certainty.CONFIRMED}
    left = world.tonight - {found[-1] for found in played.confirmed}
    assert not any(guard.fails(left) for guard in world.guards)


# --- what holds of every night -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(0, 50, 5))
def test_a_night_can_be_replayed_from_any_of_its_answers(seed: int) -> None:
    world, question = night(seed)
    played = play(world, question)
    for length, wanted in enumerate(played.wanted):
        assert decide(question, played.answers[:length]) == wanted
    assert decide(question, played.answers) == played.findings


@pytest.mark.parametrize("seed", range(0, 50, 5))
def test_a_night_ends_within_any_budget_and_every_guard_has_a_finding(seed: int) -> None:
    world, question = night(seed)
    for probes in (0, 1, 3, 7, 40):
        world.dice = random.Random(seed)
        played = play(world, replace(question, max_probes=probes))
        assert len(played.wanted) <= probes
        assert {test for one in played.findings for test in one.tests} == {red.test for red in question.reds}
        assert wrong(world, played) == []


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_answered_it_ends_and_asks_no_tree_for_ever(seed: int) -> None:
    """Answers that no machine gives: each tree says now this and now that, or nothing."""
    dice = random.Random(seed)
    world, question = night(seed)
    world.dies, world.broken_from, world.dead_from = 0.2, NEVER, NEVER
    world.guards = tuple(replace(guard, flakes=dice.random(), causes=()) for guard in world.guards)
    played = play(world, question)
    asked = Counter(wanted.target for wanted in played.wanted)
    assert max(asked.values()) <= MOST_OF_ONE_TREE
    assert all(1 <= wanted.times <= 8 for wanted in played.wanted)
    assert all(wanted.tests for wanted in played.wanted)
