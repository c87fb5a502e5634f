"""Parts of a night: as the last promoted night had them, or shipped without the guilty. Nothing is ever added."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, C, Fork, edit, names, tell

from patchstack.compose.topics import pull_topics
from patchstack.compose.without import WAITING, Against, against, in_part, leave_out
from patchstack.model import Candidates, Composition, LedgerLine, Sha
from patchstack.release.ledger import make_line

WHY = "it breaks what test_x.py guards"


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path, {A: TEN, B: TEN, C: TEN})


def pull(fork: Fork, number: int, path: str, line: int, onto: Sha | None = None) -> Sha:
    """One that changes one line."""
    begin = onto or fork.base.commit
    text = fork.files_of(begin)[path]
    return fork.pull(number, fork.commit(f"pull {number}", {path: edit(text, line, f"by {number}")}, begin))


def promote(fork: Fork, composition: Composition) -> LedgerLine:
    fork.deploy(composition.commit)
    return make_line("20261120T020000Z", datetime(2026, 11, 20, 2, tzinfo=UTC), composition, ["nightly"])


def tonight(fork: Fork, last: LedgerLine | None = None) -> Against:
    return against(fork.store, fork.compose().composition, last)


def next_night(fork: Fork, barred: str) -> Composition:
    """What the next night makes of the same candidates when the head of one of them is barred."""
    pulls, refused = fork.read()
    staying = [one for one in pulls if one.name != barred]
    topics, unfit = pull_topics(fork.store, fork.base, fork.patches, staying, lane=fork.lane)
    out = tuple(replace(one, barred_by="night 20261121T020000Z") for one in pulls if one.name == barred)
    found = Candidates(fork.base, (*fork.patches, *topics), (*refused, *unfit), blocked=out)
    return fork.compose(candidates=found).composition


# --- what is shipped ---


def test_all_but_the_guilty_is_the_next_night(fork: Fork) -> None:
    for number, path in ((1, A), (2, B), (3, C)):
        pull(fork, number, path, number)
    made = fork.compose().composition
    rest = leave_out(fork.store, made, {"#2": WHY})
    assert names(rest.included) == ["#1", "#3"]
    assert [tell(item) for item in rest.left_out] == ["#2 excluded: found guilty of a red night"]
    assert rest.left_out[0].detail == WHY
    following = next_night(fork, "#2")
    assert (rest.commit, rest.tree, rest.fingerprint) == (following.commit, following.tree, following.fingerprint)
    assert rest.fingerprint != made.fingerprint


def test_what_has_commits_of_the_guilty_goes_out_and_what_it_is_stacked_on_does_not(fork: Fork) -> None:
    """By the rule that its bar will follow in the next night."""
    shared = fork.commit("shared", {A: edit(TEN, 1, "shared")}, fork.base.commit)
    pull(fork, 1, B, 1, onto=shared)
    pull(fork, 2, C, 2, onto=shared)
    pull(fork, 3, C, 9)
    made = fork.compose().composition
    assert made.bound == (("#2", "#1"), ("#1", "#2"))
    rest = leave_out(fork.store, made, {"#1": WHY})
    assert [tell(item) for item in rest.left_out] == [
        "#1 excluded: found guilty of a red night",
        "#2 excluded: carries commits of a blocked one with #1",
    ]
    following = next_night(fork, "#1")
    assert (rest.commit, rest.fingerprint) == (following.commit, following.fingerprint)


def test_what_two_are_stacked_on_binds_them_not_if_it_is_open_itself(fork: Fork) -> None:
    below = pull(fork, 1, A, 1)
    pull(fork, 2, B, 1, onto=below)
    pull(fork, 3, C, 2, onto=below)
    made = fork.compose().composition
    assert (names(made.included), made.bound) == (["#2", "#3"], ())
    rest = leave_out(fork.store, made, {"#2": WHY})
    assert names(rest.included) == ["#3"]
    assert rest.commit == next_night(fork, "#2").commit


@pytest.mark.parametrize("others", ["stacked", "conflicting"])
def test_what_may_come_in_without_the_guilty_makes_the_next_night_another_one(fork: Fork, others: str) -> None:
    """What #2 carried, or had a conflict with, was never tested by itself: it waits, and nobody says nothing to do."""
    below = pull(fork, 1, A, 1)
    if others == "stacked":
        pull(fork, 2, B, 1, onto=below)
        guilty, waiting = "#2", "#1 excluded: its carrier is left out with #2"
    else:
        pull(fork, 2, A, 1)
        guilty, waiting = "#1", f"#2 excluded: conflict with #1 in {A}"
    pull(fork, 3, C, 3)
    rest = leave_out(fork.store, fork.compose().composition, {guilty: WHY})
    assert names(rest.included) == ["#3"]
    assert waiting in [tell(item) for item in rest.left_out]
    following = next_night(fork, guilty)
    assert len(following.included) == 2
    assert rest.fingerprint.digest != following.fingerprint.digest
    assert dict(rest.fingerprint.inputs)[WAITING] == waiting.split()[0]


def test_a_guilty_optional_patch_takes_what_stands_on_it_along(fork: Fork) -> None:
    fork.patch("kept", {A: edit(TEN, 1, "kept")})
    extra = fork.patch("extra", {B: edit(TEN, 1, "extra")}, required=False)
    fork.patch("more", {B: edit(edit(TEN, 1, "extra"), 5, "more")}, on=extra, required=False)
    pull(fork, 1, C, 1)
    rest = leave_out(fork.store, fork.compose().composition, {"extra": WHY})
    assert names(rest.included) == ["kept", "#1"]
    assert [tell(item) for item in rest.left_out] == [
        "extra excluded: found guilty of a red night",
        "more excluded: what it requires is left out with extra",
    ]
    inputs = dict(rest.fingerprint.inputs)
    assert inputs["left out extra"] == "found guilty of a red night"
    assert inputs["left out more"] == "what it requires is left out"


# --- what is asked ---


def test_without_all_that_changed_it_is_what_is_deployed(fork: Fork) -> None:
    fork.patch("fix", {A: edit(TEN, 1, "fix")})
    pull(fork, 1, B, 1)
    first = fork.compose().composition
    last = promote(fork, first)
    pull(fork, 1, B, 2)
    pull(fork, 2, C, 1)
    fork.patch("fix", {A: edit(TEN, 1, "another fix")}, instead_of="fix")
    now = tonight(fork, last)
    assert (now.changed, now.removed, now.base_changed) == (("fix", "#1", "#2"), (), False)
    assert now.has_old("fix")
    bare = in_part(fork.store, now, set(now.changed))
    assert bare is not None
    assert names(bare.included) == ["fix"]
    assert fork.files(bare.tree) == {A: edit(TEN, 1, "fix"), B: TEN, C: TEN}
    some = in_part(fork.store, now, {"fix", "#1"})
    assert some is not None
    assert fork.files(some.tree) == {A: edit(TEN, 1, "fix"), B: TEN, C: edit(TEN, 1, "by 2")}
    whole = in_part(fork.store, now, ())
    assert whole is not None
    assert (whole.commit, whole.tree) == (now.composition.commit, now.composition.tree)


def test_what_stands_on_a_patch_is_as_it_was_with_that_patch(fork: Fork) -> None:
    one = fork.patch("one", {A: edit(TEN, 1, "one")})
    fork.patch("two", {A: edit(edit(TEN, 1, "one"), 9, "two")}, on=one)
    last = promote(fork, fork.compose().composition)
    fork.patches.clear()
    one = fork.patch("one", {A: edit(TEN, 1, "another one")})
    fork.patch("two", {A: edit(edit(TEN, 1, "another one"), 9, "two")}, on=one)
    # On the ledger `two` is the same patch: its digest has not changed, only what it stands on.
    digests = {"one": "1", "two": "2"}
    last = replace(last, patches=tuple(digests.items()))
    made = fork.compose().composition
    inputs = {**dict(made.fingerprint.inputs), "patch one": "another", "patch two": "2"}
    made = replace(made, fingerprint=replace(made.fingerprint, inputs=tuple(inputs.items())))
    now = against(fork.store, made, last)
    assert (now.changed, now.goes_with) == (("one",), {"one": ("two",)})
    part = in_part(fork.store, now, {"one"})
    assert part is not None
    assert fork.files(part.tree)[A] == edit(edit(TEN, 1, "one"), 9, "two")


def test_a_patch_that_came_with_another_cannot_be_old_without_it(fork: Fork) -> None:
    one = fork.patch("one", {A: edit(TEN, 1, "one")})
    fork.patch("two", {B: edit(TEN, 9, "two")}, on=one)
    last = promote(fork, fork.compose().composition)
    fork.patches.clear()
    one = fork.patch("one", {A: edit(TEN, 5, "another one")})
    fork.patch("two", {B: edit(TEN, 9, "another two")}, on=one)
    now = tonight(fork, last)
    assert now.changed == ("one", "two")
    assert in_part(fork.store, now, {"two"}) is None  # the old one would bring the old `one` along
    both = in_part(fork.store, now, {"one", "two"})
    assert both is not None
    assert fork.files(both.tree) == {A: edit(TEN, 1, "one"), B: edit(TEN, 9, "two"), C: TEN}


def test_on_another_base_a_patch_is_what_it_is_and_nothing_can_be_as_it_was(fork: Fork) -> None:
    fork.patch("fix", {A: edit(TEN, 1, "fix")})
    first = fork.compose().composition
    digest = dict(first.fingerprint.inputs)["patch fix"]
    last = promote(fork, first)
    assert last.patches == (("fix", digest),)
    fork.patches.clear()
    fork.new_base({A: TEN, B: TEN, C: edit(TEN, 1, "upstream")}, release="0.5.13")
    fork.patch("fix", {A: edit(TEN, 1, "fix")})
    made = fork.compose().composition
    inputs = {**dict(made.fingerprint.inputs), "patch fix": digest}
    now = against(fork.store, replace(made, fingerprint=replace(made.fingerprint, inputs=tuple(inputs.items()))), last)
    assert (now.changed, now.base_changed, now.has_old("fix")) == ((), True, False)


def test_where_nothing_is_deployed_all_has_changed(fork: Fork) -> None:
    fork.patch("fix", {A: edit(TEN, 1, "fix")})
    pull(fork, 1, B, 1)
    now = tonight(fork)
    assert (now.changed, now.removed, now.has_old("fix")) == (("fix", "#1"), (), False)
    part = in_part(fork.store, now, {"fix"})
    assert part is not None
    assert names(part.included) == ["#1"]


def test_what_is_gone_is_named(fork: Fork) -> None:
    head = pull(fork, 1, A, 1)
    pull(fork, 2, B, 1)
    last = promote(fork, fork.compose().composition)
    fork.repository.set_refs({"refs/pull/1/head": None})
    now = tonight(fork, last)
    assert (now.changed, now.removed) == ((), (("#1", head),))
