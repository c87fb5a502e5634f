"""Blocking a pull request keeps out whatever has its commits, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.builders import TEN, A, B, Fork, edit, tell

from patchstack.compose.dedup import Bar, Reading, decide
from patchstack.compose.topics import pull_topics
from patchstack.model import Candidates, Deduped, Kind, Sha, Topic


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path, {A: TEN, B: TEN})


def one_line(fork: Fork, number: int, line: int, parent: Sha | None = None) -> Sha:
    onto = parent or fork.base.commit
    text = fork.repository.run("cat-file", "blob", f"{onto}:{A}") + "\n"
    return fork.pull(number, fork.commit(f"line {line}", {A: edit(text, line, f"by #{number}")}, onto))


def blocking(fork: Fork, *numbers: int) -> Candidates:
    """Tonight's candidates, with these blocked."""
    pulls, refused = fork.read()
    admitted = [pull for pull in pulls if pull.number not in numbers]
    topics, left_out = pull_topics(fork.store, fork.base, fork.patches, admitted, lane=fork.lane)
    blocked = tuple(pull for pull in pulls if pull.number in numbers)
    return Candidates(fork.base, (*fork.patches, *topics), (*refused, *left_out), blocked=blocked)


def told(fork: Fork, *numbers: int) -> tuple[list[str], list[str]]:
    composition = fork.compose(candidates=blocking(fork, *numbers)).composition
    return [topic.name for topic in composition.included], [tell(item) for item in composition.left_out]


def test_who_stands_on_a_blocked_one_is_barred_with_it_and_told_what_to_do(fork: Fork) -> None:
    one_line(fork, 3, 9, one_line(fork, 1, 1))
    fork.pull(2, fork.commit("elsewhere", {B: edit(TEN, 1, "two")}, fork.base.commit))

    composition = fork.compose(candidates=blocking(fork, 1)).composition

    assert [topic.name for topic in composition.included] == ["#2"]
    (barred,) = composition.left_out
    assert tell(barred) == "#3 excluded: carries commits of a blocked one with #1"
    assert barred.detail == ("it has commits of #1, which is blocked: rebase it without them, or have #1 unblocked")


def test_what_a_barred_one_carried_comes_in_by_itself(fork: Fork) -> None:
    """#4 joins #1, which is blocked, and #2."""
    one, two = one_line(fork, 1, 1), one_line(fork, 2, 5)
    both = edit(edit(TEN, 1, "by #1"), 5, "by #2")
    fork.pull(4, fork.commit("both", {A: edit(both, 9, "by #4")}, one, two))

    assert told(fork) == (["#4"], ["#1 carried: contained with #4", "#2 carried: contained with #4"])
    assert told(fork, 1) == (["#2"], ["#4 excluded: carries commits of a blocked one with #1"])
    assert told(fork, 1, 2) == ([], ["#4 excluded: carries commits of a blocked one with #1, #2"])


def test_what_a_blocked_one_stands_on_is_free_and_so_is_what_else_stands_there(fork: Fork) -> None:
    one = one_line(fork, 1, 1)
    two = one_line(fork, 2, 5, one)
    one_line(fork, 3, 9, one)
    one_line(fork, 4, 10, two)

    assert told(fork, 2) == (
        ["#3"],
        ["#1 carried: contained with #3", "#4 excluded: carries commits of a blocked one with #2"],
    )


def test_the_same_head_under_another_number_is_barred(fork: Fork) -> None:
    fork.pull(2, one_line(fork, 1, 1))
    assert told(fork, 1) == ([], ["#2 excluded: carries commits of a blocked one with #1"])


def test_a_push_to_a_blocked_one_sets_nobody_free(fork: Fork) -> None:
    first = one_line(fork, 1, 1)
    one_line(fork, 2, 9, first)
    one_line(fork, 1, 5, first)
    assert told(fork, 1) == ([], ["#2 excluded: carries commits of a blocked one with #1"])


def test_one_whose_commits_the_base_has_already_bars_nobody(fork: Fork) -> None:
    one_line(fork, 1, 1)
    fork.pull(2, fork.base.commit)
    assert told(fork, 2) == (["#1"], [])


def test_a_skip_is_said_before_a_bar_and_a_barred_one_brings_nothing_in(fork: Fork) -> None:
    two = one_line(fork, 2, 5, one_line(fork, 1, 1))
    one_line(fork, 3, 9, two)
    found = blocking(fork, 1)
    composition = fork.compose(skips={"2": "not yet"}, candidates=found).composition
    assert [(item.name, item.reason, item.twins) for item in composition.left_out] == [
        ("#2", "skipped by deploy.yaml", ()),
        ("#3", "carries commits of a blocked one", ("#1",)),
    ]


def test_the_commits_of_a_replayed_one_count_too(fork: Fork) -> None:
    fork.patch("first", {B: edit(TEN, 1, "first")})
    one = one_line(fork, 1, 1, fork.publish_stack())
    one_line(fork, 2, 9, one)
    assert told(fork, 1) == (["first"], ["#2 excluded: carries commits of a blocked one with #1"])


def test_a_patch_is_never_barred(fork: Fork) -> None:
    patch = fork.patch("first", {B: edit(TEN, 1, "first")})
    fork.pull(1, patch.commit)
    assert told(fork, 1) == (["first"], [])


# --- any history ---


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[int, frozenset[int]], set[int]]:
    """Up to eight pull requests, each one commit on up to two earlier ones, and which of them are blocked."""
    size = draw(st.integers(1, 8))
    own: dict[int, frozenset[int]] = {}
    for number in range(1, size + 1):
        parents = draw(st.sets(st.integers(1, number - 1), max_size=2)) if number > 1 else set()
        own[number] = frozenset({number}).union(*(own[parent] for parent in parents))
    return own, draw(st.sets(st.integers(1, size)))


def sha(number: int) -> Sha:
    return Sha(f"{number:040x}")


def reading(number: int, commits: frozenset[int]) -> Reading:
    head = sha(number)
    topic = Topic(f"#{number}", Kind.PULL, "t", "a", head, head, sha(0), head, f"id {number}", ("a.py",))
    return Reading(topic, frozenset(map(sha, commits)), no_effect=False)


def decided(own: dict[int, frozenset[int]], blocked: set[int], *, without: set[int] | None = None) -> Deduped:
    readings = [reading(number, own[number]) for number in own if number not in blocked | (without or set())]
    bars = [Bar(f"#{number}", sha(number), frozenset(map(sha, own[number]))) for number in own if number in blocked]
    return decide(readings, (), {}, bars)


def numbers(found: Deduped, reason: str | None = None) -> set[int]:
    named = [item.name for item in found.left_out if item.reason == reason] if reason else [t.name for t in found.kept]
    return {int(name[1:]) for name in named}


def test_the_head_of_a_blocked_one_bars_also_who_left_another_branch_with_it() -> None:
    """#2 has the head of #1 and is meant for a branch that has the first of its commits: its own is the second."""
    bars = [Bar("#1", sha(9), frozenset({sha(8), sha(9)}))]
    found = decide([reading(2, frozenset({9}))], (), {}, bars)
    assert numbers(found, BARRED) == {2}


BARRED = "carries commits of a blocked one"


@given(histories())
@settings(max_examples=300, deadline=None)
def test_exactly_what_contains_a_blocked_one_is_barred(history: tuple[dict[int, frozenset[int]], set[int]]) -> None:
    """Every commit here is the head of some pull request, so containment decides alone."""
    own, blocked = history
    found = decided(own, blocked)
    assert numbers(found, BARRED) == {number for number in own if number not in blocked and own[number] & blocked}
    twins = {int(item.name[1:]): {int(twin[1:]) for twin in item.twins} for item in found.left_out}
    assert all(twins[number] == own[number] & blocked for number in numbers(found, BARRED))


@given(histories())
@settings(max_examples=300, deadline=None)
def test_nothing_free_is_lost_with_what_is_barred(history: tuple[dict[int, frozenset[int]], set[int]]) -> None:
    """Whoever is not barred is judged as if the barred ones were not there, and is in, by itself or carried."""
    own, blocked = history
    found = decided(own, blocked)
    barred = numbers(found, BARRED)
    assert found.kept == decided(own, set(), without=blocked | barred).kept
    free = set(own) - blocked - barred
    brought_in = set[int]().union(*(own[number] for number in numbers(found)))
    assert free == brought_in
    assert not brought_in & blocked
