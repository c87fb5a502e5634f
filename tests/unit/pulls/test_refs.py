"""Where a pull request was cut from decides what is its own."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, C, Clone, Fork, edit, tell

from patchstack.model import Sha

FILES = {A: TEN, B: TEN}


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path, FILES)


def cuts(fork: Fork) -> list[tuple[str, str, Sha, bool]]:
    """Name, target, merge base, and whether it shares commits with a branch; refused ones as told."""
    pulls, refused = fork.read()
    assert not refused
    return [(pull.name, pull.target, pull.merge_base, pull.shared) for pull in pulls]


def refusals(fork: Fork) -> list[str]:
    pulls, refused = fork.read()
    assert not pulls
    return [tell(item) for item in refused]


# --- targets ---


def test_cut_from_the_published_base(fork: Fork) -> None:
    fork.pull(7, fork.commit("seven", {A: edit(TEN, 1, "seven")}, fork.base.commit, author="Bo"))

    (pull,), refused = fork.read()

    assert (pull.name, pull.title, pull.author, pull.target, pull.merge_base) == (
        "#7",
        "seven",
        "Bo",
        "base/production",
        fork.base.commit,
    )
    assert not pull.shared
    assert refused == ()


def test_before_the_first_night_the_base_counts_although_it_is_not_published(tmp_path: Path) -> None:
    fork = Fork(tmp_path, FILES, publish_base=False)
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit))
    assert cuts(fork) == [("#1", "base/production", fork.base.commit, False)]


def test_cut_from_the_stack_of_tonight_and_of_last_week(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    last_week = fork.publish_stack()
    fork.patch("second", {A: edit(TEN, 10, "second")})
    tonight = fork.publish_stack()
    fork.pull(1, fork.commit("one", {B: "one\n"}, last_week))
    fork.pull(2, fork.commit("two", {B: "two\n"}, tonight))

    assert cuts(fork) == [
        ("#1", "stack/production", last_week, True),
        ("#2", "stack/production", tonight, True),
    ]


def test_of_two_branches_with_one_merge_base_the_published_line_is_meant(fork: Fork) -> None:
    fork.branch("aaa", fork.commit("elsewhere", {B: "x\n"}, fork.base.commit))
    fork.branch("main", fork.commit("elsewhere too", {B: "y\n"}, fork.base.commit))
    fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.publish_stack()
    fork.pull(1, fork.commit("one", {A: edit(TEN, 9, "one")}, fork.base.commit))

    assert cuts(fork) == [("#1", "base/production", fork.base.commit, False)]


def test_another_branch_is_the_target_when_it_is_nearest(fork: Fork) -> None:
    shared = fork.commit("shared work", {A: edit(TEN, 1, "shared")}, fork.base.commit)
    fork.branch("feature", fork.commit("goes on", {B: "x\n"}, shared))
    fork.pull(1, fork.commit("one", {A: edit(edit(TEN, 1, "shared"), 9, "one")}, shared))

    assert cuts(fork) == [("#1", "feature", shared, True)]


def test_the_branch_that_it_was_pushed_from_is_no_target_nor_one_built_on_it(fork: Fork) -> None:
    one = fork.pull(1, fork.branch("fix", fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit)))
    two = fork.pull(2, fork.branch("fix-2", fork.commit("on top of one", {B: "two\n"}, one)))
    fork.branch("experiment", fork.commit("on top of both", {C: "x\n"}, two))

    assert cuts(fork) == [
        ("#1", "base/production", fork.base.commit, False),
        ("#2", "base/production", fork.base.commit, False),
    ]


def test_what_nights_have_measured_is_no_place_to_begin(fork: Fork) -> None:
    night = fork.commit("night", {"nights/20261101T020000Z.json": "{}\n"})
    fork.branch("history/production", fork.commit("next", {"nights/20261102T020000Z.json": "{}\n"}, night))
    fork.pull(1, fork.commit("forged", {"nights/20261101T020000Z.json": "{1}\n"}, night))
    fork.pull(2, night)

    pulls, refused = fork.read()
    assert pulls == ()
    assert [(one.name, one.reason.value) for one in refused] == [
        ("#1", "into a branch that is not composed"),
        ("#2", "no common history"),
    ]
    assert refused[0].detail == (
        "history/production holds what nights have measured: cut a branch from base/production and open it again"
    )


def test_of_several_merge_bases_the_nearest_counts(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    stack = fork.publish_stack()
    before = fork.commit("begun on the base", {B: "one\n"}, fork.base.commit)
    merged = fork.commit("merge the stack", {A: edit(TEN, 1, "first")}, before, stack)
    fork.pull(1, fork.commit("one", {B: "two\n"}, merged))

    assert cuts(fork) == [("#1", "stack/production", stack, True)]


def test_a_new_base_is_one_more_commit_on_the_line_and_older_cuts_still_count(fork: Fork) -> None:
    first = fork.base.commit
    fork.new_base({**FILES, C: "new\n"}, release="0.5.13")
    tip = fork.repository.resolve("refs/heads/base/production")
    assert tip is not None
    fork.pull(1, fork.commit("from the first", {A: edit(TEN, 2, "one")}, first))
    fork.pull(2, fork.commit("from the tip", {A: edit(TEN, 9, "two")}, tip))

    assert cuts(fork) == [("#1", "base/production", first, True), ("#2", "base/production", tip, True)]


# --- refused as they stand ---


def test_what_was_promoted_by_its_head_stays_a_pull_request(fork: Fork) -> None:
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit))
    fork.deploy(fork.compose().composition.commit)
    fork.deploy(fork.compose().composition.commit)

    assert cuts(fork) == [("#1", "base/production", fork.base.commit, False)]


def test_what_goes_on_from_a_promoted_one_is_not_taken_for_cut_from_deploy(fork: Fork) -> None:
    one = fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit))
    fork.deploy(fork.compose().composition.commit)
    fork.pull(1, fork.commit("one more", {A: edit(TEN, 2, "one")}, one))
    fork.pull(2, fork.commit("on top", {B: "two\n"}, one))

    assert cuts(fork) == [
        ("#1", "base/production", fork.base.commit, False),
        ("#2", "base/production", fork.base.commit, False),
    ]


def mend(detail: str) -> list[list[str]]:
    """The commands in a sentence, as argv."""
    return [shlex.split(command) for command in detail.split("`")[1].split(" && ")]


@pytest.mark.parametrize("published", ["stack", "base", "nothing"])
@pytest.mark.parametrize("cut_from", ["deploy", "deploy~1", "deploy^2"])
def test_cut_from_deploy_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, published: str, cut_from: str
) -> None:
    fork = Fork(tmp_path, FILES, publish_base=published != "nothing")
    fork.patch("first", {A: edit(TEN, 1, "first")})
    if published == "stack":
        fork.publish_stack()
    fork.pull(1, fork.commit("one", {A: edit(TEN, 9, "one")}, fork.base.commit))
    octopus = fork.compose().composition.commit
    fork.deploy(octopus)
    fork.deploy(octopus)
    start = fork.repository.resolve(cut_from)
    assert start is not None
    mine = fork.commit("b", {B: edit(TEN, 1, "b")}, fork.commit("a", {B: edit(TEN, 1, "a")}, start))
    fork.pull(2, fork.branch("mine", mine))

    _, (refused,) = fork.read()
    assert tell(refused) == "#2 excluded: contains a deploy commit"
    assert f"it contains {start[:12]} of deploy" in refused.detail

    clone = Clone(fork.url, tmp_path / "clone", "mine")
    for argv in mend(refused.detail):
        assert argv[0] == "git"
        clone.type(*argv[1:])
    fork.repository.fetch(str(clone.folder), ["+HEAD:refs/pull/2/head"])

    night = fork.night()
    told = "#2 (stack/production, replayed on 0.5.12.post1 + first)" if published == "stack" else "#2 (base/production)"
    assert (night.included, night.left_out) == (["first", "#1 (base/production)", told], [])
    assert night.files == {A: edit(edit(TEN, 1, "first"), 9, "one"), B: edit(TEN, 1, "b")}


def test_cut_from_a_night_of_the_stack_alone_it_is_refused_as_well(fork: Fork) -> None:
    """The first night has no pull requests: what it composed is the very commit that stack/production holds."""
    fork.patch("first", {A: edit(TEN, 1, "first")})
    octopus = fork.compose().composition.commit
    assert fork.publish_stack() == octopus
    night = fork.deploy(octopus)
    fork.pull(2, fork.commit("one", {A: edit(edit(TEN, 1, "first"), 9, "one")}, night))

    assert fork.night().left_out == ["#2 excluded: contains a deploy commit"]


def test_a_branch_that_merged_deploy_is_refused_too(fork: Fork) -> None:
    fork.pull(1, fork.commit("one", {A: edit(TEN, 9, "one")}, fork.base.commit))
    night = fork.deploy(fork.compose().composition.commit)
    mine = fork.commit("mine", {B: "x\n"}, fork.base.commit)
    fork.pull(2, fork.commit("merge deploy", {A: edit(TEN, 9, "one")}, mine, night))

    pulls, (refused,) = fork.read()

    assert [pull.name for pull in pulls] == ["#1"]
    assert refused.detail.startswith(f"it contains {night[:12]} of deploy")


def test_cut_from_another_lanes_deploy_is_mended_onto_that_lane(fork: Fork) -> None:
    fork.branch("base/edge", fork.commit("edge", {A: "edge\n"}))
    night = fork.deploy(fork.commit("a night of edge", {A: "edge\n", B: "b\n"}, fork.base.commit), "deploy-edge")
    fork.pull(1, fork.commit("one", {C: "one\n"}, night))

    _, (refused,) = fork.read()

    assert mend(refused.detail) == [
        ["git", "fetch", fork.url, "base/edge"],
        ["git", "rebase", "--onto", "FETCH_HEAD", night],
    ]


def test_cut_from_upstream_main_without_common_history_is_refused_and_the_night_goes_on(fork: Fork) -> None:
    upstream = fork.commit("upstream main", {**FILES, "test/t.py": "t\n"})
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, upstream))
    fork.pull(2, fork.commit("two", {A: edit(TEN, 9, "two")}, fork.base.commit))

    night = fork.night()

    assert night.included == ["#2 (base/production)"]
    assert night.left_out == ["#1 excluded: no common history"]


def test_cut_from_an_upstream_branch_that_the_fork_has_its_own_diff_is_replayed(fork: Fork) -> None:
    upstream = fork.branch("upstream", fork.commit("upstream main", {**FILES, C: "newer\n", "test/t.py": "t\n"}))
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one"), "test/t.py": "tt\n"}, upstream))

    night = fork.night()

    assert night.included == ["#1 (upstream, replayed on 0.5.12.post1, without test/t.py)"]
    assert night.files == {A: edit(TEN, 1, "one"), B: TEN}


def test_what_the_base_does_not_carry_is_not_taken_for_renamed_into_it(fork: Fork) -> None:
    fork.new_base({**FILES, C: "helper\n" * 9}, release="0.5.13")
    upstream = fork.branch("upstream", fork.commit("upstream main", {**FILES, "test/helper.py": "helper\n" * 9}))
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, upstream))

    night = fork.night()

    assert night.included == ["#1 (upstream, replayed on 0.5.13)"]
    assert night.files == {A: edit(TEN, 1, "one"), B: TEN, C: "helper\n" * 9}


def test_into_main_is_a_patch_pull_request_and_never_composed(fork: Fork) -> None:
    main = fork.branch("main", fork.commit("this code", {"patches/series": "first\n"}))
    fork.pull(1, fork.commit("a patch", {"patches/series": "first\nsecond\n"}, main))
    assert refusals(fork) == ["#1 skipped: into main: never composed"]


def test_for_another_lane(fork: Fork) -> None:
    edge = fork.branch("base/edge", fork.commit("edge", {A: "edge\n"}))
    fork.pull(1, fork.commit("one", {A: "edge one\n"}, edge))
    assert refusals(fork) == ["#1 skipped: for another lane"]


def test_a_head_that_is_missing_is_told_and_the_night_goes_on(fork: Fork) -> None:
    gone = fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit))
    (fork.repository.folder / "objects" / gone[:2] / gone[2:]).unlink()
    fork.pull(2, fork.commit("two", {A: edit(TEN, 9, "two")}, fork.base.commit))

    night = fork.night()

    assert (night.included, night.left_out) == (["#2 (base/production)"], ["#1 excluded: head is missing"])
