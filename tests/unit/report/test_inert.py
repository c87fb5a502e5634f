"""Outside text is inert: in Markdown by a real parser's reading, on the terminal by what is written to it."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from patchstack.report.inert import visible, visible_lines
from patchstack.report.markdown import code, prose, render_markdown
from patchstack.report.terminal import make_console, render_terminal

from . import fixed_night, hostile

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
# What GitHub makes of text that stands outside code, after Markdown has been read.
GITHUB_ACTS = re.compile(r"@[a-z]|#\d|\bgh-\d|://|\bwww\.\w|<!--|:[a-z]+:|\$.*\$", re.IGNORECASE)
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
ALLOWED = {"text", "code_inline", "strong_open", "strong_close", "html_inline", "softbreak"}


def _outside_code(tokens: list[Token]) -> Iterator[str]:
    within = False
    for token in tokens:
        assert token.type in ALLOWED, f"{token.type} {token.content!r}"
        if token.type == "html_inline":
            assert token.content in {"<code>", "</code>"}
            within = token.content == "<code>"
        elif token.type == "text" and not within:
            yield token.content


def _read(markdown: str) -> tuple[list[str], str]:
    """The blocks of a document, and the text in it that is not code."""
    blocks, text = [], []
    for token in PARSER.parse(markdown):
        blocks.append(f"{token.type} {token.tag} {token.level} {token.info}")
        assert token.type != "html_block"
        text += _outside_code(token.children or [])
    return blocks, "\n".join(text)


@pytest.mark.parametrize("text", hostile.TEXTS, ids=ascii)
def test_a_night_of_hostile_text_has_the_blocks_of_any_other(text: str) -> None:
    markdown = render_markdown(hostile.night(text))

    blocks, outside = _read(markdown)

    assert blocks == _read(render_markdown(hostile.night("plain")))[0]
    assert GITHUB_ACTS.search(outside) is None
    assert "<!--" not in markdown
    assert _hidden(markdown) == set()


def test_the_reading_would_notice() -> None:
    """The check above, on text that was let through."""
    with pytest.raises(AssertionError, match="link_open"):
        _read("[x](https://evil.example)")
    with pytest.raises(AssertionError, match="<b>"):
        _read("x <b>y</b>")
    assert GITHUB_ACTS.search(_read("by @team")[1])
    assert GITHUB_ACTS.search(_read("`by` @team")[1])
    assert _read("# a\n\n- b\n")[0] != _read("# a\n\n- 1. b\n")[0]


def _cells_and_items(text: str) -> str:
    row = f"| a | b |\n| --- | --- |\n| {code(text)} | {prose(text)} |\n"
    return f"{row}\n- {prose(text) or 'nothing'}\n- {code(text)} x\n"


def test_any_order_of_hostile_signs_stays_in_its_cell() -> None:
    for text in hostile.random_texts(2000):
        blocks, outside = _read(_cells_and_items(text))
        assert blocks == _read(_cells_and_items("plain"))[0], text
        assert GITHUB_ACTS.search(outside) is None, text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fix/metrics", "`fix/metrics`"),
        ("", ""),
        ("   ", ""),
        ("`a`", "`` `a` ``"),
        ("a``b", "```a``b```"),
        ("a|b", "<code>a&#124;b</code>"),
        ("a\nb", "`a\\x0ab`"),
        ("<!-- x", "`\\x3c!-- x`"),
        ("x" * 300, "`" + "x" * 159 + "…`"),
    ],
)
def test_code(text: str, shown: str) -> None:
    assert code(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Upstream has it; close it.", "Upstream has it; close it."),
        ("Rebase it: `git rebase --onto a b`.", "Rebase it: `git rebase --onto a b`."),
        ("Backport [0.5.13]", "Backport \\[0.5.13\\]"),
        ("see test_x.py::test_y: fail (a_b).", "see `test_x.py::test_y`: fail (`a_b`)."),
        ("ask @team, see #1", "ask `@team`, see `#1`"),
        ("1. first", "`1.` first"),
        ("--- a", "`---` a"),
        ("a\n  b", "a b"),
        ("an `open one", "an `` `open `` one"),
        ("a``b", "a``` `` ```b"),
        ("`a`@team", "`a` `@team`"),
        ("ü → naïve", "ü → naïve"),
    ],
)
def test_prose(text: str, shown: str) -> None:
    assert prose(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\u202eb", "a\\u202eb"),
        ("\U000e0041", "\\U000e0041"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
        ("日本 é 🙂", "日本 é 🙂"),
        ("a\tb\r\n", "a\\x09b\\x0d\\x0a"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_visible_lines_keep_lines_and_nothing_else() -> None:
    assert visible_lines("+\ta\n-b\r\n\x1b\n") == ("+   a", "-b\\x0d", "\\x1b")


def _hidden(text: str) -> set[str]:
    """The characters, other than a line's end, that a reader would not see."""
    return {sign for sign in text if sign != "\n" and unicodedata.category(sign) in HIDDEN}


@pytest.mark.parametrize("text", hostile.TEXTS, ids=ascii)
def test_the_terminal_gets_nothing_that_acts(text: str) -> None:
    stream = io.StringIO()
    console = make_console(stream)

    render_terminal(hostile.night(text), console)

    assert _hidden(stream.getvalue()) == set()


def test_markup_is_shown_and_not_read() -> None:
    stream = io.StringIO()

    render_terminal(hostile.night("[bold red]x[/] :smile:"), make_console(stream))

    assert "- [bold red]x[/] :smile:" in stream.getvalue()


def test_on_a_terminal_only_colours_of_ours_are_sent() -> None:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="standard", width=120, markup=False, emoji=False)

    render_terminal(hostile.night("\x1b[5m\x1b]8;;https://evil.example\x07x"), console)

    sent = set(re.findall(r"\x1b[^a-zA-Z]*[a-zA-Z]", stream.getvalue()))
    assert sent <= {"\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[1;31m", "\x1b[1;32m", "\x1b[1;33m"}
    assert _hidden(re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())) == set()


def test_a_failure_of_several_lines_stays_a_list() -> None:
    night = replace(fixed_night.STOPPED, failure="# one\n<b>two</b>\n1. three\n@team")

    blocks, outside = _read(render_markdown(night))

    assert "heading_open h1" in blocks[0]
    assert sum(block.startswith("heading_open h1") for block in blocks) == 1
    assert GITHUB_ACTS.search(outside) is None
