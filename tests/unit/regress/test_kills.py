"""Which guard kills which mutant, from the text of its file; and what of a suite runs where."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchstack.errors import ConfigError
from patchstack.model import KillMark
from patchstack.regress.kills import KillFile, on_ground, on_mutant, read_kills
from patchstack.regress.suites import Suite

NAME = "tests/regression/x/test_x.py"


def read(root: Path, text: str) -> KillFile:
    (root / NAME).parent.mkdir(parents=True, exist_ok=True)
    (root / NAME).write_text(text)
    (found,) = read_kills(root, [NAME])
    return found


def marks(*found: tuple[int, str]) -> tuple[KillMark, ...]:
    return tuple(KillMark(NAME, line, name) for line, name in found)


def test_marks_of_tests_classes_files_and_parameters(tmp_path: Path) -> None:
    text = """\
import pytest

@pytest.mark.kills("a", "b")
def test_one(): ...

@pytest.mark.kills("c")
class TestTwo:
    def test_in_it(self): ...

@pytest.mark.parametrize("it", [pytest.param(1, marks=pytest.mark.kills("d"))])
def test_three(it): ...

def helper():
    engine.kills("not a mark")
"""
    assert read(tmp_path, text) == KillFile(NAME, marks((3, "a"), (3, "b"), (6, "c"), (10, "d")), every_test=False)


@pytest.mark.parametrize(
    ("text", "every_test"),
    [
        ("pytestmark = pytest.mark.kills('a')\ndef test_it(): ...\n", True),
        ("pytestmark = [pytest.mark.limit(5), pytest.mark.kills('a')]\ndef test_it(): ...\n", True),
        ("class TestIt:\n    pytestmark = mark.kills('a')\n    async def test_it(self): ...\n", True),
        ("@pytest.mark.kills('a')\ndef test_it(): ...\n@pytest.mark.control\ndef test_other(): ...\n", False),
        ("@pytest.mark.kills('a')\ndef test_it(): ...\ndef helper(): ...\n", True),
        ("from elsewhere import test_it\n", False),
        ("def test_it(:\n", False),
        ("", False),
    ],
)
def test_a_file_of_killers_alone_says_nothing_on_a_ground(tmp_path: Path, text: str, every_test: bool) -> None:
    assert read(tmp_path, text).every_test is every_test


def test_marks_that_cannot_be_read_are_named_all_at_once(tmp_path: Path) -> None:
    text = """\
import pytest

NAME = "a"

@pytest.mark.kills
def test_bare(): ...

@pytest.mark.kills()
def test_empty(): ...

@pytest.mark.kills(NAME)
def test_computed(): ...

@pytest.mark.kills("a", 7)
def test_number(): ...

@pytest.mark.control
@pytest.mark.kills("a")
def test_both(): ...
"""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    plain = "kills: it names no mutant: write their names as plain text"
    assert caught.value.problems == [
        *(f"{NAME}:{line}: {plain}" for line in (5, 8, 11, 14)),
        f"{NAME}:19: test_both: a control passes on every tree and kills no mutant: keep one mark",
    ]


def file(name: str, *mutants: str, every_test: bool = False) -> KillFile:
    return KillFile(name, tuple(KillMark(name, 1, mutant) for mutant in mutants), every_test)


def test_each_tree_gets_the_files_that_say_something_there() -> None:
    suite = Suite("x", ("folder",), "d")
    files = [file("a.py", "p", every_test=True), file("b.py", "p", "q"), file("c.py")]
    assert on_ground(suite, files) == Suite("x", ("b.py", "c.py"), "d")
    assert on_ground(suite, files[1:]) == suite
    assert on_ground(suite, files[:1]) is None
    assert on_mutant(suite, files, "p") == Suite("x", ("a.py", "b.py"), "d")
    assert on_mutant(suite, files, "q") == Suite("x", ("b.py",), "d")
    assert on_mutant(suite, files, "r") is None
