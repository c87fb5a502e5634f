"""Merging by paths comes to what merging step by step comes to: one test for each rule, and each fails without it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, C, Content, Fork, Link, Program, edit, tell

from patchstack.compose import union
from patchstack.compose.compose import verify
from patchstack.errors import PatchstackError
from patchstack.git import Merged, Repository
from patchstack.model import Sha

FOLDER = "python/sglang/folder"
ONE, TWO, NEW = (f"{FOLDER}/{name}.py" for name in ("one", "two", "new"))
HUNDRED = "".join(f"a line of a file, number {number}\n" for number in range(100))
FILES: dict[str, Content] = {A: TEN, B: TEN, ONE: HUNDRED, TWO: HUNDRED.replace("a file", "another file")}


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path, FILES)


@dataclass
class Asked:
    """The two sides of each `merge-tree`."""

    merges: list[tuple[str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    seen = Asked([])
    merge_tree = Repository.merge_tree

    def recorded(store: Repository, ours: str, theirs: str) -> Merged:
        seen.merges.append((ours, theirs))
        return merge_tree(store, ours, theirs)

    monkeypatch.setattr(Repository, "merge_tree", recorded)
    return seen


def pull(fork: Fork, number: int, files: dict[str, Content], on: Sha | None = None) -> Sha:
    return fork.pull(number, fork.commit(f"pull {number}", files, on or fork.base.commit))


def composed(fork: Fork, asked: Asked) -> tuple[list[str], list[str], int]:
    """Who is in, who is out, and how many merges that took; the same as step by step."""
    candidates = fork.candidates()
    asked.merges.clear()
    composition = fork.compose(candidates=candidates).composition
    merges = len(asked.merges)
    verify(fork.store, candidates, composition, skips={})
    return [topic.name for topic in composition.included], [tell(item) for item in composition.left_out], merges


# --- by paths alone ---


def test_what_does_not_meet_is_merged_without_a_merge(fork: Fork, asked: Asked) -> None:
    pull(fork, 1, {A: edit(TEN, 1, "one"), NEW: "new\n"})
    pull(fork, 2, {B: Program(TEN), f"{FOLDER}/deep/er.py": "two\n"})
    pull(fork, 3, {ONE: Link("two.py")})
    fork.patch("first", {C: "first\n"})

    assert composed(fork, asked) == (["first", "#1", "#2", "#3"], [], 0)
    assert fork.night().files == {
        A: edit(TEN, 1, "one"),
        B: f"#!{TEN}",
        C: "first\n",
        ONE: "-> two.py",
        TWO: FILES[TWO],
        NEW: "new\n",
        f"{FOLDER}/deep/er.py": "two\n",
    }


def test_what_changes_nothing_in_the_end_has_no_effect(fork: Fork, asked: Asked) -> None:
    there = fork.commit("there", {A: edit(TEN, 1, "one")}, fork.base.commit)
    pull(fork, 1, {A: edit(TEN, 1, "one")})
    fork.patch("both", {A: edit(TEN, 1, "one"), B: edit(TEN, 1, "one")})
    fork.pull(2, fork.commit("and more", {B: edit(TEN, 1, "one")}, there))
    assert composed(fork, asked)[:2] == (
        ["both"],
        [
            "#1 dropped: no effect on what is composed so far with both",
            "#2 dropped: same diff with both",
        ],
    )


# --- where paths meet ---


def test_one_file_in_two_topics_is_merged_with_the_earlier_ones_commit(fork: Fork, asked: Asked) -> None:
    one = pull(fork, 1, {A: edit(TEN, 1, "one"), C: "one\n"})
    two = pull(fork, 2, {A: edit(TEN, 9, "two")})
    assert composed(fork, asked) == (["#1", "#2"], [], 1)
    assert asked.merges[0] == (one, two)


def test_a_conflict_with_one_is_named_by_that_one_merge(fork: Fork, asked: Asked) -> None:
    pull(fork, 1, {A: edit(TEN, 1, "one")})
    pull(fork, 2, {A: edit(TEN, 1, "two"), B: edit(TEN, 1, "two")})
    assert composed(fork, asked) == (["#1"], [f"#2 excluded: conflict with #1 in {A}"], 1)


def test_what_several_made_of_a_file_is_merged_as_they_left_it(fork: Fork, asked: Asked) -> None:
    pull(fork, 1, {A: edit(TEN, 1, "one")})
    pull(fork, 2, {A: edit(TEN, 5, "two")})
    pull(fork, 3, {A: edit(TEN, 9, "three")})
    pull(fork, 4, {A: edit(edit(TEN, 1, "four"), 9, "four")})
    pull(fork, 5, {A: edit(edit(edit(TEN, 1, "one"), 5, "two"), 9, "three")})

    included, left_out, _ = composed(fork, asked)

    assert included == ["#1", "#2", "#3"]
    assert left_out == [
        f"#4 excluded: conflict with #1, #3 in {A}",
        "#5 dropped: no effect on what is composed so far with #1, #2, #3",
    ]
    assert fork.night().files[A] == edit(edit(edit(TEN, 1, "one"), 5, "two"), 9, "three")


def test_what_one_left_of_another_is_not_in_its_commit(fork: Fork, asked: Asked) -> None:
    """#3 meets #2 alone in B, but #2's A is merged with #1's: with both files it must see both."""
    pull(fork, 1, {A: edit(TEN, 1, "one")})
    pull(fork, 2, {A: edit(TEN, 9, "two"), B: edit(TEN, 9, "two")})
    pull(fork, 3, {B: edit(TEN, 1, "three")})
    pull(fork, 4, {A: edit(TEN, 5, "four"), B: edit(TEN, 5, "four")})

    assert composed(fork, asked)[:2] == (["#1", "#2", "#3", "#4"], [])


@pytest.mark.parametrize(
    ("earlier", "later", "files"),
    [
        ({NEW: "a file\n"}, {f"{NEW}/inside.py": "in a folder\n"}, NEW),
        ({f"{NEW}/deep/inside.py": "in a folder\n"}, {NEW: "a file\n"}, NEW),
        ({NEW: "a file\n"}, {f"{NEW}/deep/inside.py": "in a folder\n"}, NEW),
    ],
    ids=["folder-on-file", "file-on-folder", "deep-folder-on-file"],
)
def test_a_file_and_a_folder_of_one_name_meet(
    fork: Fork, asked: Asked, earlier: dict[str, Content], later: dict[str, Content], files: str
) -> None:
    pull(fork, 1, {B: edit(TEN, 1, "elsewhere")})
    pull(fork, 2, earlier)
    pull(fork, 3, later)
    assert composed(fork, asked) == (["#1", "#2"], [f"#3 excluded: conflict with #2 in {files}"], 1)


# --- what is merged with all ---


def test_a_topic_that_renames_is_merged_with_all(fork: Fork, asked: Asked) -> None:
    """What was added to the folder that it renames goes along, or is a conflict: git says which."""
    pull(fork, 1, {NEW: "new\n"})
    pull(fork, 2, {ONE: None, TWO: None, "python/sglang/to/one.py": HUNDRED, "python/sglang/to/two.py": FILES[TWO]})
    included, left_out, merges = composed(fork, asked)
    assert (included, merges > 0) == (["#1"], True)
    assert left_out == ["#2 excluded: conflict with #1 in python/sglang/to/new.py"]


def test_what_is_added_to_a_folder_that_was_renamed_is_merged_with_all(fork: Fork, asked: Asked) -> None:
    pull(fork, 1, {ONE: None, TWO: None, "python/sglang/to/one.py": HUNDRED, "python/sglang/to/two.py": FILES[TWO]})
    pull(fork, 2, {NEW: "new\n"})
    assert composed(fork, asked)[:2] == (["#1"], ["#2 excluded: conflict with #1 in python/sglang/to/new.py"])


def test_a_folder_that_is_still_there_was_not_renamed(fork: Fork, asked: Asked) -> None:
    pull(fork, 1, {ONE: None, "python/sglang/to/one.py": HUNDRED})
    pull(fork, 2, {NEW: "new\n"})
    pull(fork, 3, {f"{FOLDER}/deep/new.py": "new\n"})
    assert composed(fork, asked) == (["#1", "#2", "#3"], [], 1)


def test_an_edit_follows_a_file_that_was_renamed_before(fork: Fork, asked: Asked) -> None:
    pull(fork, 1, {ONE: None, C: edit(HUNDRED, 1, "renamed")})
    pull(fork, 2, {ONE: edit(HUNDRED, 99, "edited")})
    pull(fork, 3, {A: edit(TEN, 1, "three")})
    assert composed(fork, asked)[:2] == (["#1", "#2", "#3"], [])
    assert fork.night().files[C] == edit(edit(HUNDRED, 1, "renamed"), 99, "edited")


@pytest.mark.parametrize(
    ("text", "included", "left_out"),
    [
        (edit(HUNDRED, 50, "its own"), ["#1"], [f"#2 excluded: conflict with #1 in {C}"]),
        (edit(HUNDRED, 1, "renamed"), ["#1", "#2"], []),
    ],
    ids=["otherwise", "alike"],
)
def test_what_is_added_where_a_file_was_renamed_to_meets_that_file(
    fork: Fork, asked: Asked, text: str, included: list[str], left_out: list[str]
) -> None:
    pull(fork, 1, {ONE: None, C: edit(HUNDRED, 1, "renamed")})
    pull(fork, 2, {C: text, NEW: "new\n"})
    assert composed(fork, asked)[:2] == (included, left_out)


def test_shared_commits_are_not_merged_twice(fork: Fork, asked: Asked) -> None:
    """#2 takes back what #3 stands on: its merge base with #3 is #1, and not the base."""
    below = fork.commit("below", {A: edit(TEN, 1, "below")}, fork.base.commit)
    fork.pull(2, fork.commit("two", {A: TEN, B: edit(TEN, 1, "two")}, below))
    fork.pull(3, fork.commit("three", {C: "three\n"}, below))
    assert composed(fork, asked)[:2] == (["#2", "#3"], [])
    assert fork.night().files[A] == TEN


def test_what_stands_on_a_patch_is_merged_with_all(fork: Fork, asked: Asked) -> None:
    first = fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.patch("second", {A: edit(edit(TEN, 1, "first"), 2, "second")}, on=first)
    fork.patch("third", {B: edit(TEN, 1, "third")})
    fork.pull(1, fork.commit("one", {A: edit(edit(TEN, 1, "one"), 9, "one")}, first.commit))
    fork.pull(2, fork.commit("two", {A: edit(edit(TEN, 1, "first"), 9, "two")}, first.commit))
    included, left_out, _ = composed(fork, asked)
    assert (included, left_out) == (["first", "second", "third", "#2"], [f"#1 excluded: conflict with second in {A}"])


def git_lane(folder: Path) -> tuple[Fork, Sha]:
    """A base on upstream's newer commit, which changed A and B; and the one before that."""
    fork = Fork(folder, FILES)
    root = fork.commit("upstream", {**FILES, "python/pyproject.toml": "[p]\n"})
    changed: dict[str, Content] = {path: edit(TEN, 1, "upstream") for path in (A, B)}
    newer = fork.commit("upstream goes on", changed, root)
    fork.repository.set_refs({"refs/heads/base/production": None})
    fork.new_base({**FILES, **changed, "python/pyproject.toml": "[p]\n"}, upstream=newer)
    return fork, root


def test_what_is_not_of_the_base_is_not_merged_with_by_its_commit(tmp_path: Path, asked: Asked) -> None:
    """#3 meets #2 alone, but #2's commit lacks what upstream did to B, which #1 builds on."""
    fork, root = git_lane(tmp_path)
    upstream = edit(TEN, 1, "upstream")
    fork.pull(1, fork.commit("one", {B: edit(upstream, 9, "one")}, fork.base.commit))
    fork.pull(2, fork.commit("two", {A: edit(TEN, 9, "two")}, root))
    fork.pull(3, fork.commit("three", {A: edit(upstream, 5, "three")}, fork.base.commit))

    assert composed(fork, asked)[:2] == (["#1", "#2", "#3"], [])
    assert fork.night().files[B] == edit(upstream, 9, "one")


def test_a_head_that_was_cut_before_the_base_is_merged_with_all(tmp_path: Path, asked: Asked) -> None:
    fork, root = git_lane(tmp_path)
    fork.pull(1, fork.commit("old", {A: edit(TEN, 9, "old")}, root))
    fork.pull(2, fork.commit("new", {B: edit(TEN, 9, "new")}, fork.base.commit))
    fork.pull(3, fork.commit("old and new", {A: edit(TEN, 9, "three")}, root))

    included, left_out, _ = composed(fork, asked)

    assert (included, left_out) == (["#1", "#2"], [f"#3 excluded: conflict with #1 in {A}"])
    assert fork.night().files[A] == edit(edit(TEN, 1, "upstream"), 9, "old")


def test_names_that_an_index_refuses_are_merged_step_by_step(fork: Fork, asked: Asked) -> None:
    fork.patch("odd", {"python/sglang/a\\b.py": "odd\n"})
    pull(fork, 1, {A: edit(TEN, 1, "one")})
    assert composed(fork, asked) == (["odd", "#1"], [], 2)


def test_verify_finds_what_is_wrong_with_merging_by_paths(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    """It composes step by step: a rule that is broken in the one way is not broken in the other."""
    pull(fork, 1, {NEW: "new\n"})
    pull(fork, 2, {ONE: None, TWO: None, "python/sglang/to/one.py": HUNDRED, "python/sglang/to/two.py": FILES[TWO]})
    monkeypatch.setattr(union, "_deletes", lambda delta: False)
    candidates = fork.candidates()
    composition = fork.compose(candidates=candidates).composition
    assert [topic.name for topic in composition.included] == ["#1", "#2"]
    with pytest.raises(PatchstackError, match=r"equal inputs gave two results \(#2 fared differently\)"):
        verify(fork.store, candidates, composition, skips={})
