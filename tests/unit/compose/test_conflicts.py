"""A conflict names the pair and the files, costs only the later one, and stops the night for a required patch."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, C, Content, Fork, Link, edit

from patchstack.compose.conflict import ByPath, Culprits, find_culprits, plain_paths, touches
from patchstack.compose.octopus import write_step
from patchstack.errors import CompositionError
from patchstack.model import Sha

FILES = {A: TEN, B: TEN}


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path, FILES)


def pull(fork: Fork, number: int, files: dict[str, Content]) -> None:
    fork.pull(number, fork.commit(f"pull {number}", files, fork.base.commit))


def test_the_later_one_is_left_out_with_the_earlier_ones_name_and_the_files(fork: Fork) -> None:
    pull(fork, 1, {B: edit(TEN, 1, "one")})
    pull(fork, 2, {A: edit(TEN, 3, "two"), C: "two\n"})
    pull(fork, 3, {A: edit(TEN, 3, "three"), B: edit(TEN, 9, "three"), C: "three\n"})
    pull(fork, 4, {A: edit(TEN, 9, "four")})

    night = fork.night()

    assert night.included == [f"#{number} (base/production)" for number in (1, 2, 4)]
    assert night.left_out == [f"#3 excluded: conflict with #2 in {A}, {C}"]
    assert night.files == {
        A: edit(edit(TEN, 3, "two"), 9, "four"),
        B: edit(TEN, 1, "one"),
        C: "two\n",
    }


def test_every_earlier_one_that_conflicts_alone_is_named(fork: Fork) -> None:
    pull(fork, 1, {A: edit(TEN, 1, "one")})
    pull(fork, 2, {A: edit(TEN, 9, "two")})
    pull(fork, 3, {A: edit(edit(TEN, 1, "three"), 9, "three")})

    (left_out,) = fork.compose().composition.left_out

    assert (left_out.twins, left_out.files) == (("#1", "#2"), (A,))
    assert left_out.detail == "it conflicts with #1 and #2: merge #1 and #2 into it, or wait"


def test_what_stands_on_the_culprit_is_not_named(fork: Fork) -> None:
    first = fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.patch("second", {A: edit(edit(TEN, 1, "first"), 9, "second")}, on=first)
    pull(fork, 1, {A: edit(TEN, 1, "one")})
    assert fork.night().left_out == [f"#1 excluded: conflict with first in {A}"]


def test_with_no_single_culprit_the_shortest_prefix_is_named(fork: Fork) -> None:
    """#2 renames A and #3 edits it: with both, the new file is too unlike A for git to see what #4's edit meant."""
    long = "".join(f"line {number} of a file that is long enough\n" for number in range(1, 21))
    fork.new_base({A: long, B: TEN})
    edited = {
        number: "".join(
            f"{number}\n" if lines[0] <= at < lines[1] else line + "\n" for at, line in enumerate(long.splitlines())
        )
        for number, lines in {2: (0, 6), 3: (7, 13), 4: (18, 19)}.items()
    }
    pull(fork, 1, {B: edit(TEN, 1, "elsewhere")})
    pull(fork, 2, {A: None, C: edited[2]})
    pull(fork, 3, {A: edited[3]})
    pull(fork, 4, {A: edited[4]})

    composition = fork.compose().composition

    assert [topic.name for topic in composition.included] == ["#1", "#2", "#3"]
    assert [(item.name, item.twins, item.files, item.detail) for item in composition.left_out] == [
        (
            "#4",
            ("#2", "#3"),
            (A,),
            "it conflicts with #2 and #3, though with none of them alone: merge #2 and #3 into it, or wait",
        )
    ]


@pytest.mark.parametrize(
    ("one", "two", "files"),
    [
        ({A: None}, {A: edit(TEN, 1, "two")}, A),
        ({A: None, C: edit(TEN, 9, "moved")}, {A: edit(TEN, 9, "two")}, C),
        ({A: None, C: TEN}, {A: None, "python/sglang/d.py": TEN}, f"{A}, {C}, python/sglang/d.py"),
        ({C: "new\n"}, {C: "other\n"}, C),
        ({C: b"\0\1"}, {C: b"\0\2"}, C),
        ({C: "a file\n"}, {f"{C}/inside.py": "a folder\n"}, C),
        ({f"{C}/inside.py": "a folder\n"}, {C: "a file\n"}, C),
        ({C: Link("a.py")}, {C: Link("b.py")}, C),
        ({C: Link("a.py")}, {C: "a file\n"}, C),
    ],
    ids=[
        "delete-edit",
        "rename-edit",
        "rename-rename",
        "add-add",
        "binary",
        "file-folder",
        "folder-file",
        "links",
        "link-file",
    ],
)
def test_kinds_of_conflict(fork: Fork, one: dict[str, Content], two: dict[str, Content], files: str) -> None:
    pull(fork, 1, one)
    pull(fork, 2, two)

    night = fork.night()

    assert (night.included, night.left_out) == (["#1 (base/production)"], [f"#2 excluded: conflict with #1 in {files}"])


def test_a_required_patch_in_conflict_stops_the_night(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.patch("second", {A: edit(TEN, 1, "second")})

    with pytest.raises(CompositionError) as stopped:
        fork.compose()

    assert str(stopped.value) == (
        f"the required patch second does not compose on sglang==0.5.12.post1 in {A}: it conflicts with first: "
        "mend it (`patchstack patch edit second FOLDER`), or its place in patches/series"
    )
    assert (stopped.value.exit_code, stopped.value.patch, stopped.value.files) == (4, "second", (A,))


def test_an_optional_patch_in_conflict_is_left_out_with_all_that_stands_on_it(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    second = fork.patch("second", {A: edit(TEN, 1, "second")}, required=False)
    fork.patch("third", {B: edit(TEN, 1, "third")}, on=second, required=False)
    fork.pull(1, fork.commit("on the second", {B: edit(TEN, 9, "one")}, second.commit))

    night = fork.night()

    assert night.included == ["first"]
    assert night.left_out == [
        f"second excluded: conflict with first in {A}",
        "third excluded: what it requires is left out with second",
        "#1 excluded: what it requires is left out with second",
    ]


def test_two_that_are_harmless_alone_but_lead_a_link_out_of_the_tree_together(tmp_path: Path) -> None:
    deep, shallow = "python/sglang/one/two/link", "python/sglang/link"
    fork = Fork(tmp_path, {A: TEN, deep: Link("../../here")})
    pull(fork, 1, {deep: None, shallow: Link("../../here")})
    pull(fork, 2, {deep: Link("../../../../there")})
    pull(fork, 3, {A: edit(TEN, 1, "three")})

    night = fork.night()

    assert night.included == ["#1 (base/production)", "#3 (base/production)"]
    assert night.left_out == [f"#2 excluded: touches protected paths in {shallow}"]
    assert night.files == {A: edit(TEN, 1, "three"), shallow: "-> ../../here"}


# --- the base of a git: lane has upstream's history ---


@pytest.fixture
def git_lane(fork: Fork) -> Fork:
    upstream = fork.commit("upstream", {**FILES, "python/pyproject.toml": "[p]\n"})
    newer = fork.commit("upstream goes on", {A: edit(TEN, 1, "upstream")}, upstream)
    fork.repository.set_refs({"refs/heads/base/production": None})
    fork.new_base({A: edit(TEN, 1, "upstream"), B: TEN, "python/pyproject.toml": "[p]\n"}, upstream=newer)
    return fork


def upstream_of(fork: Fork) -> Sha:
    return fork.store.parents(fork.store.parents(fork.base.commit)[0])[0]


def test_a_head_cut_from_upstream_before_the_base_is_merged_as_git_merges_it(git_lane: Fork) -> None:
    git_lane.pull(1, git_lane.commit("one", {A: edit(TEN, 9, "one")}, upstream_of(git_lane)))

    night = git_lane.night()

    assert (night.included, night.left_out) == (["#1 (base/production)"], [])
    assert night.files[A] == edit(edit(TEN, 1, "upstream"), 9, "one")


def test_a_conflict_with_the_base_itself_blames_no_topic(git_lane: Fork) -> None:
    git_lane.pull(1, git_lane.commit("one", {A: edit(TEN, 5, "one")}, upstream_of(git_lane)))
    git_lane.pull(2, git_lane.commit("two", {A: edit(TEN, 1, "two")}, upstream_of(git_lane)))

    (left_out,) = git_lane.compose().composition.left_out

    assert (left_out.name, left_out.twins, left_out.files) == ("#2", (), (A,))
    assert left_out.detail == "it conflicts with sglang==0.5.12.post1 itself: rebase it onto base/production"


def test_what_upstream_has_by_other_commits_has_no_effect(git_lane: Fork) -> None:
    git_lane.pull(1, git_lane.commit("one", {A: edit(TEN, 1, "upstream")}, upstream_of(git_lane)))
    assert git_lane.night().left_out == ["#1 dropped: no effect on the base"]


# --- the search by itself ---


def test_the_prefix_ends_where_the_conflict_begins(fork: Fork) -> None:
    long = "".join(f"line {number} of a file that is long enough\n" for number in range(1, 21))
    fork.new_base({A: long, B: TEN})
    pull(fork, 1, {A: None, C: "".join(["1\n"] * 6 + long.splitlines(keepends=True)[6:])})
    pull(fork, 2, {A: "".join(long.splitlines(keepends=True)[:7] + ["2\n"] * 6 + long.splitlines(keepends=True)[13:])})
    pull(fork, 3, {B: edit(TEN, 1, "elsewhere")})
    pull(fork, 4, {A: edit(long, 19, "four")})
    *earlier, last = fork.candidates().topics

    tip, tips, by_path = fork.base.commit, [], ByPath()
    for place, topic in enumerate(earlier):
        tip = write_step(fork.store, fork.store.merge_tree(tip, topic.commit).tree, tip, topic)
        tips.append(tip)
        by_path.add(place, [A])

    def conflicts_with(ours: Sha) -> bool:
        return A in plain_paths(fork.store.merge_tree(ours, last.commit).conflicts)

    found = find_culprits(fork.base.commit, earlier, by_path.near([A]), conflicts_with, tips.__getitem__)
    assert found == Culprits(("#1", "#2"), together=True)


def test_near_is_who_touches_a_file_or_what_is_in_its_place(fork: Fork) -> None:
    pull(fork, 1, {C: "a file\n"})
    pull(fork, 2, {f"{C}/inside.py": "a folder\n", f"{C}/deep/er.py": "a folder\n"})
    pull(fork, 3, {A: edit(TEN, 1, "three"), "python/sglang/cc.py": "a name that begins alike\n"})
    topics = fork.candidates().topics
    by_path = ByPath()
    for place, topic in enumerate(topics):
        by_path.add(place, topic.paths)

    for files in ([C], [f"{C}/inside.py"], [f"{C}/deep"], [A], [B], [C, A], ["python"], [f"{A}/x"]):
        assert by_path.near(files) == [place for place, topic in enumerate(topics) if touches(topic, files)]
