"""Which pull requests say something new: same head, carried, same diff, no effect; and what a skip does."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, C, Fork, edit

from patchstack.model import Sha

FILES = {A: TEN, B: TEN}


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path, FILES)


def one_line(fork: Fork, number: int, line: int, *parents: Sha) -> Sha:
    """A pull request that changes one line of A, or of what it stands on."""
    parent = parents[0] if parents else fork.base.commit
    text = fork.repository.run("cat-file", "blob", f"{parent}:{A}") + "\n"
    return fork.pull(number, fork.commit(f"line {line}", {A: edit(text, line, f"by #{number}")}, parent))


def test_two_numbers_on_one_head(fork: Fork) -> None:
    fork.pull(5, one_line(fork, 3, 1))

    night = fork.night()

    assert night.included == ["#3 (base/production)"]
    assert night.left_out == ["#5 dropped: same head with #3"]


def test_two_numbers_on_one_head_that_is_refused_are_both_refused(fork: Fork) -> None:
    fork.pull(2, fork.pull(1, fork.commit("docs", {"docs/d.md": "d\n"}, fork.base.commit)))
    assert fork.night().left_out == [
        "#1 excluded: nothing left that the base carries in docs/d.md",
        "#2 excluded: nothing left that the base carries in docs/d.md",
    ]


def test_a_pull_request_that_is_a_patch(fork: Fork) -> None:
    patch = fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.pull(1, patch.commit)
    fork.pull(2, fork.commit("the same by itself", {A: edit(TEN, 1, "first")}, fork.base.commit))

    night = fork.night()

    assert night.included == ["first"]
    assert night.left_out == ["#1 dropped: same head with first", "#2 dropped: same diff with first"]


def test_a_stacked_one_carries_the_one_below(fork: Fork) -> None:
    one_line(fork, 3, 9, one_line(fork, 2, 5, one_line(fork, 1, 1)))

    night = fork.night()

    assert night.included == ["#3 (base/production)"]
    assert night.left_out == ["#1 carried: contained with #3", "#2 carried: contained with #3"]
    assert night.files[A] == edit(edit(edit(TEN, 1, "by #1"), 5, "by #2"), 9, "by #3")


def test_a_carrier_that_is_excluded_gives_back_what_it_carried(fork: Fork) -> None:
    one = one_line(fork, 1, 1)
    fork.pull(2, fork.commit("rival", {A: edit(TEN, 9, "rival")}, fork.base.commit))
    one_line(fork, 3, 9, one)

    night = fork.night()

    assert night.included == ["#1 (base/production)", "#2 (base/production)"]
    assert night.left_out == [f"#3 excluded: conflict with #2 in {A}"]
    assert night.files[A] == edit(edit(TEN, 1, "by #1"), 9, "rival")


def test_carriers_that_are_excluded_one_after_the_other(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 10, "patched"), B: edit(TEN, 10, "patched")})
    one = one_line(fork, 1, 1)
    two = one_line(fork, 2, 10, one)
    fork.pull(3, fork.commit("three", {B: edit(TEN, 10, "by #3")}, two))

    night = fork.night()

    assert night.included == ["first", "#1 (base/production)"]
    assert night.left_out == [
        f"#2 excluded: conflict with first in {A}",
        f"#3 excluded: conflict with first in {A}, {B}",
    ]


def test_a_carrier_that_touches_protected_paths_carries_nothing(fork: Fork) -> None:
    fork.pull(2, fork.commit("ci", {".github/w.yml": "w\n"}, one_line(fork, 1, 1)))

    night = fork.night()

    assert night.included == ["#1 (base/production)"]
    assert night.left_out == ["#2 excluded: touches protected paths in .github/w.yml"]


def test_stacked_on_the_stack_the_carrier_is_replayed_with_all_of_it(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 5, "first")})
    one_line(fork, 2, 9, one_line(fork, 1, 1, fork.publish_stack()))

    night = fork.night()

    assert night.included == ["first", "#2 (stack/production, replayed on 0.5.12.post1 + first)"]
    assert night.left_out == ["#1 carried: contained with #2"]
    assert night.files[A] == edit(edit(edit(TEN, 5, "first"), 1, "by #1"), 9, "by #2")


def test_cut_from_a_branch_that_has_merged_another_it_does_not_carry_it(fork: Fork) -> None:
    one = one_line(fork, 1, 1)
    feature = fork.branch("feature", fork.commit("more", {B: "x\n"}, one))
    one_line(fork, 2, 9, feature)

    night = fork.night()

    assert night.included == ["#1 (base/production)", "#2 (feature, replayed on 0.5.12.post1)"]
    assert night.left_out == []


def test_the_same_diff_twice_in_other_commits(fork: Fork) -> None:
    one_line(fork, 1, 1)
    squashed = fork.commit("step", {A: edit(TEN, 1, "by way of")}, fork.base.commit)
    fork.pull(2, fork.commit("the same in two steps", {A: edit(TEN, 1, "by #1")}, squashed))

    night = fork.night()

    assert night.included == ["#1 (base/production)"]
    assert night.left_out == ["#2 dropped: same diff with #1"]


def test_the_same_diff_twice_in_a_picture_or_a_mode_but_not_two_different_ones(tmp_path: Path) -> None:
    picture = "python/sglang/picture"
    fork = Fork(tmp_path, {picture: b"\0\1", A: TEN})
    for number, data in enumerate((b"\0\2", b"\0\2", b"\0\3"), 1):
        fork.pull(number, fork.commit(f"picture {number}", {picture: data}, fork.base.commit))

    assert fork.night().left_out == [
        "#2 dropped: same diff with #1",
        f"#3 excluded: conflict with #1 in {picture}",
    ]


def test_a_carrier_with_the_diff_of_an_earlier_one_falls_and_what_it_carried_stands(fork: Fork) -> None:
    fork.pull(1, fork.commit("squash of three", {A: edit(edit(TEN, 1, "by #2"), 9, "by #3")}, fork.base.commit))
    one_line(fork, 3, 9, one_line(fork, 2, 1))

    night = fork.night()

    assert night.included == ["#1 (base/production)"]
    assert night.left_out == [
        "#2 dropped: no effect on what is composed so far with #1",
        "#3 dropped: same diff with #1",
    ]


def test_no_effect_on_a_base_that_has_it_already(fork: Fork) -> None:
    one_line(fork, 1, 1)
    fork.new_base({A: edit(TEN, 1, "by #1"), B: "newer\n"}, release="0.5.13")

    night = fork.night()

    assert (night.included, night.left_out) == ([], ["#1 dropped: no effect on the base"])


def test_no_effect_on_the_base_with_the_patches_that_it_stands_on(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    last_week = fork.publish_stack()
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "first"), C: "new\n"}, last_week))
    fork.patch("first", {A: edit(TEN, 1, "first"), C: "new\n"}, instead_of="first")

    (refused,) = fork.compose().deduped.left_out

    assert refused.reason == "no effect on the base"
    assert refused.detail == "the base with first has all of it already: close it"


def test_no_effect_on_what_is_composed_so_far_names_the_twins(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "x")})
    fork.pull(1, fork.commit("one", {A: edit(TEN, 9, "y")}, fork.base.commit))
    fork.pull(2, fork.commit("elsewhere", {B: edit(TEN, 1, "z")}, fork.base.commit))
    fork.pull(3, fork.commit("both again", {A: edit(edit(TEN, 1, "x"), 9, "y")}, fork.base.commit))

    night = fork.night()

    assert night.included == ["first", "#1 (base/production)", "#2 (base/production)"]
    assert night.left_out == ["#3 dropped: no effect on what is composed so far with first, #1"]


def test_a_carrier_without_effect_on_the_base_gives_back_what_it_carried(fork: Fork) -> None:
    fork.patch("first", {B: edit(TEN, 1, "first")})
    fork.pull(2, fork.commit("takes it back", {A: TEN, B: edit(TEN, 1, "first")}, one_line(fork, 1, 1)))

    night = fork.night()

    assert night.included == ["first", "#1 (base/production)"]
    assert night.left_out == ["#2 dropped: same diff with first"]


def test_a_carrier_without_effect_on_the_stack_gives_back_what_it_carried(fork: Fork) -> None:
    fork.patch("first", {B: edit(TEN, 1, "first")})
    fork.patch("second", {C: "second\n"})
    undone = {A: TEN, B: edit(TEN, 1, "first"), C: "second\n"}
    fork.pull(2, fork.commit("takes it back", undone, one_line(fork, 1, 1)))

    night = fork.night()

    assert night.included == ["first", "second", "#1 (base/production)"]
    assert night.left_out == ["#2 dropped: no effect on what is composed so far with first, second"]


def test_a_skip_says_why_and_whether_it_comes_in_all_the_same(fork: Fork) -> None:
    one_line(fork, 3, 9, one_line(fork, 1, 1))
    fork.pull(2, fork.commit("two", {B: edit(TEN, 1, "two")}, fork.base.commit))

    composition = fork.compose(skips={"1": "superseded by 9", "#2": "too early", "77": "long gone"}).composition

    assert [topic.name for topic in composition.included] == ["#3"]
    assert [(item.name, item.outcome, item.detail, item.twins) for item in composition.left_out] == [
        ("#1", "skipped", "superseded by 9 (but #3 contains its commits)", ("#3",)),
        ("#2", "skipped", "too early", ()),
    ]


def test_what_is_skipped_with_its_carrier_does_not_come_in(fork: Fork) -> None:
    one_line(fork, 2, 9, one_line(fork, 1, 1))

    left_out = fork.compose(skips={"1": "not yet", "2": "nor this"}).composition.left_out

    assert [(item.name, item.detail) for item in left_out] == [("#1", "not yet"), ("#2", "nor this")]


def test_a_skipped_carrier_carries_nothing(fork: Fork) -> None:
    one_line(fork, 2, 9, one_line(fork, 1, 1))
    assert fork.night(skips={"2": "not yet"}).included == ["#1 (base/production)"]
