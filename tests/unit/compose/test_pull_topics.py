"""What of a pull request is merged, and in which form; what is refused, and what its author is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, C, Content, Fork, Link, Program, Submodule, edit

from patchstack.model import Reason, Sha

FILES = {A: TEN, B: TEN}


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path, FILES)


# --- merged by its head, or replayed ---


def test_what_is_all_its_own_and_all_carried_is_merged_by_its_head(fork: Fork) -> None:
    head = fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit))

    (topic,) = fork.candidates().topics

    assert (topic.commit, topic.head, topic.own_from, topic.own_to) == (head, head, fork.base.commit, head)
    assert (topic.paths, topic.replayed, topic.not_carried, topic.requires) == ((A,), False, (), ())


def test_cut_from_the_stack_it_is_replayed_on_the_patches_that_it_contains(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    stack = fork.publish_stack()
    fork.patch("second", {A: edit(TEN, 10, "second")})
    head = fork.pull(
        1, fork.commit("one", {A: edit(edit(TEN, 1, "first"), 2, "one")}, stack, author="Bo Li", when=1_800_000_000)
    )

    topic = fork.candidates().topics[-1]

    assert (topic.replayed, topic.requires, topic.head, topic.own_from) == (True, ("first",), head, stack)
    assert fork.files(topic.commit) == {A: edit(edit(TEN, 1, "first"), 2, "one"), B: TEN}
    assert fork.store.show(topic.commit, "%an <%ae> %ad | %cn %cd | %s") == (
        "Bo Li <bo@example.com> Fri Jan 15 08:00:00 2027 +0000 | patchstack Fri Jan 15 08:00:00 2027 +0000 | #1: one"
    )
    assert fork.night().files == {A: edit(edit(edit(TEN, 1, "first"), 2, "one"), 10, "second"), B: TEN}


def test_cut_from_last_weeks_stack_it_is_replayed_on_what_became_of_those_patches(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    last_week = fork.publish_stack()
    fork.pull(1, fork.commit("one", {A: edit(edit(TEN, 1, "first"), 2, "one")}, last_week))
    fork.patch("first", {A: edit(TEN, 1, "first"), C: "and more\n"}, instead_of="first")
    fork.publish_stack()

    night = fork.night()

    assert night.included == ["first", "#1 (stack/production, replayed on 0.5.12.post1 + first)"]
    assert night.files == {A: edit(edit(TEN, 1, "first"), 2, "one"), B: TEN, C: "and more\n"}


def test_a_pull_requests_own_commit_is_no_patch_whatever_its_subject(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    last_week = fork.publish_stack()
    fork.pull(1, fork.commit("title of second", {B: edit(TEN, 9, "one")}, last_week))
    fork.patch("second", {B: edit(TEN, 1, "second")})
    assert fork.night().included[-1] == "#1 (stack/production, replayed on 0.5.12.post1 + first)"


def test_cut_from_last_weeks_stack_on_another_base(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    last_week = fork.publish_stack()
    fork.pull(1, fork.commit("one", {A: edit(edit(TEN, 1, "first"), 2, "one")}, last_week))
    fork.new_base({A: edit(TEN, 9, "newer"), B: "newer\n"}, release="0.5.13")
    fork.patch("first", {A: edit(edit(TEN, 9, "newer"), 1, "first")}, instead_of="first")
    fork.publish_stack()

    night = fork.night()

    assert night.included == ["first", "#1 (stack/production, replayed on 0.5.13 + first)"]
    assert night.files == {A: edit(edit(edit(TEN, 9, "newer"), 1, "first"), 2, "one"), B: "newer\n"}


def test_cut_from_an_older_base_its_own_diff_moves_to_the_new_one(fork: Fork) -> None:
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit))
    fork.new_base({"python/sglang/moved.py": edit(TEN, 9, "newer"), B: TEN}, release="0.5.13")

    night = fork.night()

    assert night.included == ["#1 (base/production, replayed on 0.5.13)"]
    assert night.files == {"python/sglang/moved.py": edit(edit(TEN, 9, "newer"), 1, "one"), B: TEN}


def test_a_diff_that_does_not_merge_on_tonights_base_says_where_it_was_cut(fork: Fork) -> None:
    old = fork.base.commit
    head = fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, old))
    fork.new_base({A: edit(TEN, 1, "newer"), B: TEN}, release="0.5.13")

    (refused,) = fork.candidates().left_out

    assert (refused.reason, refused.files, refused.twins) == (Reason.CONFLICT, (A,), ())
    assert refused.detail == (
        f"its own diff, {old[:12]}..{head[:12]} (it was cut from base/production), does not merge on "
        "sglang==0.5.13: rebase it onto base/production"
    )


def test_a_diff_that_does_not_merge_with_the_patches_that_it_contains_names_those_on_its_files(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.patch("second", {B: edit(TEN, 1, "second")})
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.publish_stack()))
    fork.patch("first", {A: edit(TEN, 1, "first, mended")}, instead_of="first")

    (refused,) = fork.candidates().left_out

    assert (refused.reason, refused.files, refused.twins) == (Reason.CONFLICT, (A,), ("first",))
    assert refused.detail.endswith("on sglang==0.5.12.post1 with second and first: rebase it onto stack/production")


def test_an_old_patch_that_left_the_series_is_not_brought_back(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    last_week = fork.publish_stack()
    fork.pull(1, fork.commit("one", {B: "one\n"}, last_week))
    fork.patches.clear()

    night = fork.night()

    assert night.included == ["#1 (stack/production, replayed on 0.5.12.post1)"]
    assert night.files == {A: TEN, B: "one\n"}


@pytest.mark.parametrize(
    ("author", "written"),
    [
        ("Bo Li <bo@x> 1800000000 +0100", "Bo Li <bo@x> 1800000000 +0000"),
        ("\x1b[31mRed\u202e <r@x> 1800000000 +0000", "[31mRed <r@x> 1800000000 +0000"),
        (" <nobody@x> 1800000000 +0000", "patchstack <patchstack@localhost> 1800000000 +0000"),
        ("... <dots@x> 1800000000 +0000", "patchstack <patchstack@localhost> 1800000000 +0000"),
        ("Bo <> 1800000000 +0000", "patchstack <patchstack@localhost> 1800000000 +0000"),
        ("Bo <bo@x> 99999999999999 +0000", "Bo <bo@x> 4102444800 +0000"),
    ],
)
def test_whatever_a_head_says_of_its_author_and_date_it_can_be_replayed(fork: Fork, author: str, written: str) -> None:
    stack = fork.publish_stack()
    stack = fork.publish("stack/production", stack)
    tree = fork.repository.tree_of(fork.commit("x", {B: "one\n"}, stack))
    raw = f"tree {tree}\nparent {stack}\nauthor {author}\ncommitter {author}\n\nsubject\n".encode()
    fork.pull(1, Sha(fork.repository.run("hash-object", "-w", "-t", "commit", "--literally", "--stdin", stdin=raw)))

    (topic,) = fork.candidates().topics

    assert (topic.replayed, fork.store.show(topic.commit, "%an <%ae> %at +0000")) == (True, written)


# --- what the base carries ---


def test_tests_and_docs_are_left_off_and_listed(fork: Fork) -> None:
    changes: dict[str, Content] = {A: edit(TEN, 1, "one"), "test/t.py": "t\n", "docs/d.md": "d\n"}
    fork.pull(1, fork.commit("one", changes, fork.base.commit))

    night = fork.night()

    assert night.included == ["#1 (base/production, replayed on 0.5.12.post1, without docs/d.md, without test/t.py)"]
    assert night.files == {A: edit(TEN, 1, "one"), B: TEN}


def test_a_rename_out_of_the_package_is_a_deletion(fork: Fork) -> None:
    fork.pull(1, fork.commit("one", {B: None, "sgl-kernel/b.py": TEN}, fork.base.commit))

    night = fork.night()

    assert night.included == ["#1 (base/production, replayed on 0.5.12.post1, without sgl-kernel/b.py)"]
    assert night.files == {A: TEN}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"test/t.py": "t\n"}, "excluded: nothing left that the base carries in test/t.py"),
        ({"python/README.md": "r\n"}, "excluded: nothing left that the base carries in python/README.md"),
        ({A: "x\n", "python/pyproject.toml": "[p]\n"}, "excluded: changes build files in python/pyproject.toml"),
        ({A: "x\n", "python/setup.py": "s\n"}, "excluded: changes build files in python/setup.py"),
        ({"sgl-model-gateway/Cargo.lock": "c\n"}, "excluded: changes build files in sgl-model-gateway/Cargo.lock"),
        ({"sgl-kernel/CMakeLists.txt": "c\n"}, "excluded: changes build files in sgl-kernel/CMakeLists.txt"),
        ({"sgl-kernel/cmake/x.cmake": "c\n"}, "excluded: changes build files in sgl-kernel/cmake/x.cmake"),
        ({A: "x\n", ".github/workflows/w.yml": "w\n"}, "excluded: touches protected paths in .github/workflows/w.yml"),
        ({"x/.GitHub/w.yml": "w\n"}, "excluded: touches protected paths in x/.GitHub/w.yml"),
        ({".gitmodules": "m\n"}, "excluded: touches protected paths in .gitmodules"),
        (
            {"python/sglang/.gitattributes": "*.py ident export-ignore\n", A: "x\n"},
            "excluded: touches protected paths in python/sglang/.gitattributes",
        ),
        ({"python/sglang/l": Link("/etc/passwd")}, "excluded: touches protected paths in python/sglang/l"),
        ({"python/sglang/l": Link("../../../x")}, "excluded: touches protected paths in python/sglang/l"),
        ({"python/sglang/l": Link("d/../../../../x")}, "excluded: touches protected paths in python/sglang/l"),
        ({"python/sglang/l": Link("../../.git/config")}, "excluded: touches protected paths in python/sglang/l"),
        ({"python/sglang/l": Link("../..")}, ""),
        ({"python/sglang/l": Link("a.py")}, ""),
        ({"python/sglang/setup.py": "s\n"}, ""),
        ({"python/sglang/github/w.yml": "w\n"}, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_is_refused_by_its_paths(fork: Fork, changes: dict[str, Content], told: str) -> None:
    fork.pull(1, fork.commit("one", changes, fork.base.commit))

    night = fork.night()

    if told:
        assert (night.included, night.left_out) == ([], [f"#1 {told}"])
        assert night.files == FILES
    else:
        assert (night.included, night.left_out) == (["#1 (base/production)"], [])


def test_the_way_out_of_a_build_change_is_named(fork: Fork) -> None:
    fork.pull(1, fork.commit("one", {"python/pyproject.toml": "[p]\n"}, fork.base.commit))
    (refused,) = fork.candidates().left_out
    assert refused.detail == ("sglang==0.5.12.post1 is installed as it was built; use a lane whose upstream is `git:`")


def test_a_base_that_holds_its_build_files_takes_their_changes(tmp_path: Path) -> None:
    fork = Fork(tmp_path, {A: TEN, "python/pyproject.toml": "[p]\n", "test/t.py": "t\n"})
    fork.pull(1, fork.commit("one", {"python/pyproject.toml": "[q]\n", "test/t.py": "u\n"}, fork.base.commit))

    night = fork.night()

    assert night.included == ["#1 (base/production)"]
    assert night.files == {A: TEN, "python/pyproject.toml": "[q]\n", "test/t.py": "u\n"}


@pytest.mark.parametrize("by_merge", [False, True])
def test_what_is_refused_is_in_no_history_either(fork: Fork, by_merge: bool) -> None:
    planted = {".github/workflows/w.yml": "on: push\n", A: edit(TEN, 1, "one")}
    other = fork.commit("other", {B: edit(TEN, 1, "other")}, fork.base.commit)
    before = fork.commit("plain", {A: edit(TEN, 1, "one")}, fork.base.commit)
    with_it = fork.commit("planted", planted, *((before, other) if by_merge else (fork.base.commit,)))
    fork.pull(1, fork.commit("taken back", {".github": None}, with_it))

    (topic,) = fork.candidates().topics
    night = fork.night()

    assert night.included == ["#1 (base/production, replayed on 0.5.12.post1)"]
    assert night.files[A] == edit(TEN, 1, "one")
    assert with_it not in fork.store.commits(topic.commit)


def test_a_submodule_is_refused(fork: Fork) -> None:
    fork.pull(1, fork.commit("one", {"python/sglang/m": Submodule(fork.base.commit)}, fork.base.commit))
    assert fork.night().left_out == ["#1 excluded: touches protected paths in python/sglang/m"]


# --- nothing in it ---


def test_a_head_that_changes_nothing(fork: Fork) -> None:
    fork.patch("first", {A: edit(TEN, 1, "first")})
    stack = fork.publish_stack()
    there = fork.commit("there", {A: edit(TEN, 1, "x")}, fork.base.commit)
    fork.pull(1, fork.base.commit)
    fork.pull(2, fork.commit("empty", {}, fork.base.commit))
    fork.pull(3, fork.commit("and back", {A: TEN}, there))
    fork.pull(4, stack)

    night = fork.night()

    assert night.included == ["first"]
    assert night.left_out == [f"#{number} excluded: changes nothing" for number in (1, 2, 3, 4)]


# --- contents ---


def test_every_kind_of_change_arrives_as_it_was_made(tmp_path: Path) -> None:
    folder = "python/sglang"
    fork = Fork(
        tmp_path,
        {
            A: TEN,
            f"{folder}/renamed.py": TEN * 3,
            f"{folder}/tool.sh": "tool\n",
            f"{folder}/picture": b"\0\1\2",
            f"{folder}/link": Link("a.py"),
            f"{folder}/gone.py": "gone\n",
            f"{folder}/thing": "a file\n",
            f"{folder}/pack/x.py": "x\n",
        },
    )
    changes: list[dict[str, Content]] = [
        {f"{folder}/renamed.py": None, f"{folder}/new/name.py": TEN * 3},
        {f"{folder}/tool.sh": Program("tool\n")},
        {f"{folder}/picture": b"\0\1\xff"},
        {f"{folder}/link": Link("renamed.py")},
        {f"{folder}/gone.py": None},
        {f"{folder}/thing": None, f"{folder}/thing/inside.py": "inside\n"},
        {f"{folder}/pack/x.py": None, f"{folder}/pack": "no longer a folder\n"},
        {f"{folder}/renamed.py": edit(TEN * 3, 2, "edited where it was")},
    ]
    for number, files in enumerate(changes, 1):
        fork.pull(number, fork.commit(f"change {number}", files, fork.base.commit))

    night = fork.night()

    assert (night.included, night.left_out) == ([f"#{number} (base/production)" for number in range(1, 9)], [])
    assert night.files == {
        A: TEN,
        f"{folder}/new/name.py": edit(TEN * 3, 2, "edited where it was"),
        f"{folder}/tool.sh": "#!tool\n",
        f"{folder}/picture": "\0\1\\xff",
        f"{folder}/link": "-> renamed.py",
        f"{folder}/thing/inside.py": "inside\n",
        f"{folder}/pack": "no longer a folder\n",
    }


def test_the_same_kinds_arrive_by_replay(tmp_path: Path) -> None:
    folder = "python/sglang"
    fork = Fork(
        tmp_path, {A: TEN, f"{folder}/tool.sh": "tool\n", f"{folder}/thing": "a file\n", f"{folder}/old.py": TEN}
    )
    fork.patch("first", {A: edit(TEN, 1, "first"), f"{folder}/old.py": edit(TEN, 1, "first")})
    stack = fork.publish_stack()
    changes: dict[str, Content] = {
        f"{folder}/tool.sh": Program("tool\n"),
        f"{folder}/thing": None,
        f"{folder}/thing/inside.py": "inside\n",
        f"{folder}/old.py": None,
        f"{folder}/new.py": edit(TEN, 1, "first"),
        f"{folder}/picture": b"\0\xff",
        f"{folder}/link": Link("thing/inside.py"),
    }
    fork.pull(1, fork.commit("all of it", changes, stack))

    assert fork.night().files == {
        A: edit(TEN, 1, "first"),
        f"{folder}/tool.sh": "#!tool\n",
        f"{folder}/thing/inside.py": "inside\n",
        f"{folder}/new.py": edit(TEN, 1, "first"),
        f"{folder}/picture": "\0\\xff",
        f"{folder}/link": "-> thing/inside.py",
    }


@pytest.mark.parametrize("name", ["$(touch pwned)", "a b'c", "[a-z].py", "-rf", "(glob)", "..py", "~" + "a" * 40])
def test_any_path_that_everybody_can_have_is_only_a_path(fork: Fork, name: str) -> None:
    path = f"python/sglang/{name}"
    fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.pull(1, fork.commit("one", {path: "by head\n"}, fork.base.commit))
    fork.pull(2, fork.commit("two", {f"{path}.2": "replayed\n"}, fork.publish_stack()))

    assert fork.night().files == {A: edit(TEN, 1, "first"), B: TEN, path: "by head\n", f"{path}.2": "replayed\n"}


@pytest.mark.parametrize("name", ['"c"', "[a-z]*.py", ":(glob)**", "tab\tnew\nline", "caf\udce9.py"])
def test_a_path_that_only_git_allows_is_only_a_path_where_the_base_has_it(tmp_path: Path, name: str) -> None:
    path = f"python/sglang/{name}"
    fork = Fork(tmp_path, {A: TEN, path: TEN})
    fork.patch("first", {A: edit(TEN, 1, "first")})
    fork.pull(1, fork.commit("one", {path: edit(TEN, 1, "by head")}, fork.base.commit))
    fork.pull(2, fork.commit("two", {path: edit(TEN, 9, "replayed")}, fork.publish_stack()))

    assert fork.night().files == {A: edit(TEN, 1, "first"), path: edit(edit(TEN, 1, "by head"), 9, "replayed")}


def test_attributes_that_the_base_has_do_not_change_how_it_is_merged(tmp_path: Path) -> None:
    fork = Fork(tmp_path, {A: TEN, ".gitattributes": "* merge=union -diff binary\n"})
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit))
    fork.pull(2, fork.commit("two", {A: edit(TEN, 1, "two")}, fork.base.commit))
    fork.pull(3, fork.commit("three", {A: edit(TEN, 9, "three")}, fork.base.commit))

    night = fork.night()

    assert night.included == ["#1 (base/production)", "#3 (base/production)"]
    assert night.left_out == [f"#2 excluded: conflict with #1 in {A}"]


def test_a_path_that_is_no_utf8_is_carried_and_told_in_escapes(tmp_path: Path) -> None:
    path = "python/sglang/caf\udce9.py"
    fork = Fork(tmp_path, {A: TEN, path: "tea\n"})
    fork.pull(1, fork.commit("one", {path: "coffee\n"}, fork.base.commit))

    composition = fork.compose().composition

    assert composition.included[0].paths == ("python/sglang/caf\\xe9.py",)
    assert fork.files(composition.tree)[path] == "coffee\n"
