"""Names that not everybody can have: refused in one pull request, and between two of them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from tests.unit.builders import TEN, A, B, Content, Fork, edit

from patchstack.names import LONGEST_NAME_BYTES, LONGEST_PATH_BYTES, clashes, folded, name_problem, path_problem

HERE = "python/sglang"
LONG = "x" * LONGEST_NAME_BYTES
LONG_PATH = f"{HERE}/{'/'.join(['y' * 100] * 9)}"


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path, {A: TEN, B: TEN, f"{HERE}/Lib/in.py": "base\n"})


# --- one name ---


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("..", "leads out of its folder"),
        ("a/../b", "leads out of its folder"),
        ("/a", "is an absolute path"),
        ("a//b", "has an empty part"),
        ("./a", "has an empty part"),
        (".git/hooks/post-checkout", "leads into a .git folder"),
        ("x/.gIt", "leads into a .git folder"),
        (".git. .", "leads into a .git folder"),
        (".git::$INDEX_ALLOCATION/config", "leads into a .git folder"),
        (".git:\n", "leads into a .git folder"),
        ("GIT~1/config", "leads into a .git folder"),
        (".g\u200cit/config", "leads into a .git folder"),
        ("\ufeff.git", "leads into a .git folder"),
        ("a\0b", "has a zero byte in its name"),
    ],
)
def test_what_is_no_place_in_a_folder(name: str, problem: str) -> None:
    assert (path_problem(name), name_problem(name)) == (problem, problem)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a\nb.py", "has the character U+000A in it"),
        ("a\x1b[2J.py", "has the character U+001B in it"),
        ("a\x7f", "has the character U+007F in it"),
        ("a\x85b", "has the character U+0085 in it"),
        ("a\u2028b", "has the character U+2028 in it"),
        ("exe\u202egpj.py", "has the character U+202E in it"),
        (".git\u200dmodules", "has the character U+200D in it"),
        ("caf\udce9.py", "is not UTF-8"),
        ("a\\b", "has a \\ in it, which Windows forbids"),
        ("a:b", "has a : in it, which Windows forbids"),
        (".gitattributes::$DATA", "has a : in it, which Windows forbids"),
        ('"', 'has a " in it, which Windows forbids'),
        ("a*", "has a * in it, which Windows forbids"),
        ("what?", "has a ? in it, which Windows forbids"),
        ("<a>", "has a < in it, which Windows forbids"),
        ("a|b", "has a | in it, which Windows forbids"),
        (".gitattributes.", "has a part that ends with a dot or a space, which Windows takes away"),
        ("a /b.py", "has a part that ends with a dot or a space, which Windows takes away"),
        ("con", "is the name of a device on Windows"),
        ("d/Aux.py", "is the name of a device on Windows"),
        ("nul.tar.gz", "is the name of a device on Windows"),
        ("prn .txt", "is the name of a device on Windows"),
        ("COM1", "is the name of a device on Windows"),
        ("lpt\u00b2.py", "is the name of a device on Windows"),
        ("conin$", "is the name of a device on Windows"),
        ("gitmod~1", "is what NTFS may call one of git's own files"),
        ("GI7EBA~1", "is what NTFS may call one of git's own files"),
        (".wh.server.py", "begins with .wh., which means a deletion in an image"),
        (f"{LONG}x", "has a part that is longer than 255 bytes"),
        ("\u00e9" * 128, "has a part that is longer than 255 bytes"),
        (LONG_PATH, "is longer than 900 bytes"),
    ],
)
def test_what_some_cannot_have(name: str, problem: str) -> None:
    assert (path_problem(name), name_problem(name)) == (None, problem)


@pytest.mark.parametrize(
    "name",
    [
        "a.py",
        ".gitignore",
        ".github2",
        "git/x",
        "digit~1",
        "...py",
        "connect.py",
        "com10.py",
        "auxiliary",
        "x.con",
        "a b.py",
        "caf\u00e9.py",
        "cafe\u0301.py",
        "\u65e5\u672c.py",
        "E=896,N=256,device_name=NVIDIA_H20-3e(1)[2]{3}@4#5%6&7!.json",
        ".whatever",
        "a.wh.py",
        LONG,
        LONG_PATH[: LONGEST_PATH_BYTES - 1],
    ],
)
def test_what_everybody_can_have(name: str) -> None:
    assert (path_problem(name), name_problem(name)) == (None, None)


def test_what_is_one_name_to_some_file_system() -> None:
    assert folded("Lib/A.PY") == folded("lib/a.py")
    assert folded("caf\u00e9") == folded("cafe\u0301") == folded("CAFE\u0301")
    assert folded("stra\u00dfe") == folded("STRASSE")
    assert folded("a.py") != folded("b.py")


def test_paths_that_cannot_be_in_one_tree() -> None:
    assert clashes(["a", "a", "b", "b/c", "d/e"]) == [
        "'a' is there twice",
        "'b' is both a file and the folder of 'b/c'",
    ]


# --- a pull request ---


def test_who_brings_such_a_name_in_is_left_out_and_told_which(fork: Fork) -> None:
    odd: dict[str, Content] = {f"{HERE}/aux.py": "x\n", f"{HERE}/a\nb.py": "x\n", f"{HERE}/d:/x.py": "x\n"}
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one"), **odd, f"{HERE}/nul": "x\n"}, fork.base.commit))
    fork.pull(2, fork.commit("two", {B: edit(TEN, 1, "two")}, fork.base.commit))

    composition = fork.compose().composition

    (refused,) = composition.left_out
    assert [topic.name for topic in composition.included] == ["#2"]
    assert refused.reason.value == "a name that some file systems cannot hold"
    assert refused.files == (f"{HERE}/a\nb.py", f"{HERE}/aux.py", f"{HERE}/d:/x.py", f"{HERE}/nul")
    assert refused.detail == (
        f"'{HERE}/a\\nb.py' has the character U+000A in it; '{HERE}/aux.py' is the name of a device on Windows; "
        f"'{HERE}/d:/x.py' has a : in it, which Windows forbids; and 1 more: rename what is named"
    )


def test_such_a_name_that_the_base_has_may_be_changed_and_taken_away(tmp_path: Path) -> None:
    fork = Fork(tmp_path, {A: TEN, f"{HERE}/aux.py": TEN, f"{HERE}/what?": TEN})
    fork.pull(1, fork.commit("one", {f"{HERE}/aux.py": edit(TEN, 1, "one")}, fork.base.commit))
    fork.pull(2, fork.commit("two", {f"{HERE}/what?": None}, fork.base.commit))
    assert fork.night().files == {A: TEN, f"{HERE}/aux.py": edit(TEN, 1, "one")}


def test_a_name_that_was_taken_back_is_in_no_history(fork: Fork) -> None:
    planted = fork.commit("planted", {A: edit(TEN, 1, "one"), f"{HERE}/nul": "x\n"}, fork.base.commit)
    fork.pull(1, fork.commit("taken back", {f"{HERE}/nul": None}, planted))
    night = fork.night()
    assert night.included == ["#1 (base/production, replayed on 0.5.12.post1)"]
    assert planted not in fork.store.commits(fork.compose().composition.commit)


# --- two spellings ---


def composed(fork: Fork) -> tuple[list[str], list[tuple[str, tuple[str, ...], tuple[str, ...], str]]]:
    composition = fork.compose().composition
    return (
        [topic.name for topic in composition.included],
        [(item.name, item.twins, item.files, item.detail) for item in composition.left_out],
    )


def test_two_spellings_in_one_pull_request(fork: Fork) -> None:
    fork.pull(1, fork.commit("one", {f"{HERE}/new.py": "1\n", f"{HERE}/New.py": "2\n"}, fork.base.commit))
    named = f"on some file systems '{HERE}/New.py' is '{HERE}/new.py'; '{HERE}/new.py' is '{HERE}/New.py'"
    assert composed(fork) == (
        [],
        [("#1", (), (f"{HERE}/New.py", f"{HERE}/new.py"), f"{named}: rename it, or spell it alike")],
    )


@pytest.mark.parametrize(
    ("path", "other"),
    [
        (f"{HERE}/A.py", A),
        (f"{HERE}/lib/new.py", f"{HERE}/Lib"),
        (f"{HERE}/LIB", f"{HERE}/Lib"),
    ],
)
def test_another_spelling_of_what_the_base_has(fork: Fork, path: str, other: str) -> None:
    fork.patch("first", {A: edit(TEN, 9, "first"), f"{HERE}/Lib/in.py": "first\n", f"{HERE}/Lib/more.py": "first\n"})
    fork.pull(1, fork.commit("one", {path: "x\n"}, fork.base.commit))
    first = path if path != f"{HERE}/lib/new.py" else f"{HERE}/lib"
    detail = f"on some file systems '{first}' is '{other}': rename it, or spell it alike"
    assert composed(fork) == (["first"], [("#1", (), (first,), detail)])


def test_the_later_of_two_pull_requests_is_left_out_and_names_the_earlier(fork: Fork) -> None:
    told = "on some file systems '{}' is '{}', which {} has: rename it, or spell it alike"
    patched, other = f"{HERE}/patched.py", f"{HERE}/Patched.py"
    composed_form, decomposed = (unicodedata.normalize(form, f"{HERE}/caf\u00e9.py") for form in ("NFC", "NFD"))
    fork.patch("first", {patched: "p\n"})
    for number, path in enumerate((composed_form, decomposed, other, f"{HERE}/fine.py"), 1):
        fork.pull(number, fork.commit(f"pull {number}", {path: f"{number}\n"}, fork.base.commit))
    assert composed(fork) == (
        ["first", "#1", "#4"],
        [
            ("#2", ("#1",), (decomposed,), told.format(decomposed, composed_form, "#1")),
            ("#3", ("first",), (other,), told.format(other, patched, "first")),
        ],
    )


def test_a_new_spelling_in_the_place_of_the_old_one_is_fine(fork: Fork) -> None:
    fork.pull(1, fork.commit("one", {A: None, f"{HERE}/A.py": TEN}, fork.base.commit))
    fork.pull(2, fork.commit("two", {f"{HERE}/Lib/in.py": None, f"{HERE}/lib/in.py": "base\n"}, fork.base.commit))
    fork.pull(3, fork.commit("three", {f"{HERE}/a.PY": "again\n"}, fork.base.commit))
    assert fork.night().files.keys() == {f"{HERE}/A.py", B, f"{HERE}/lib/in.py"}
    assert composed(fork)[1][0][:3] == ("#3", ("#1",), (f"{HERE}/a.PY",))


def test_two_spellings_that_the_base_has_are_nobodys_fault(tmp_path: Path) -> None:
    fork = Fork(tmp_path, {A: TEN, f"{HERE}/A.py": TEN})
    fork.pull(1, fork.commit("one", {A: edit(TEN, 1, "one")}, fork.base.commit))
    fork.pull(2, fork.commit("two", {f"{HERE}/new.py": "x\n"}, fork.base.commit))
    assert composed(fork) == (["#1", "#2"], [])
