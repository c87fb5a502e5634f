"""The definition around a line, as a reader would name it."""

from __future__ import annotations

import pytest

from patchstack.patches.definitions import MODULE, Outline

SOURCE = """\
import os

@decorated(
    with_arguments,
)
def first(
    a,
):
    if a:
        def inner():
            return a
    try:
        pass
    except ValueError:
        class Local:
            x = 1
    return lambda: a


class Outer:

    y = 2

    class Inner:
        async def run(self):
            match self:
                case 1:
                    def deep(): ...

    # at the end
z = 3
"""


def test_each_line_has_the_innermost_definition_around_it() -> None:
    outline = Outline.of(SOURCE.encode())
    names = [outline.at(line) for line in range(1, SOURCE.count("\n") + 1)]
    assert names == [
        MODULE,
        MODULE,
        *["first"] * 7,
        *["first.inner"] * 2,
        *["first"] * 3,
        *["first.Local"] * 2,
        "first",
        MODULE,
        MODULE,
        *["Outer"] * 4,
        "Outer.Inner",
        *["Outer.Inner.run"] * 3,
        "Outer.Inner.run.deep",
        MODULE,
        MODULE,
        MODULE,
    ]


@pytest.mark.parametrize("source", [b"def broken(:\n", b"x = 1\0\n", b"\xff = 1\n"])
def test_what_is_no_python_is_said_to_be_none(source: bytes) -> None:
    with pytest.raises(SyntaxError):
        Outline.of(source)
