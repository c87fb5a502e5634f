"""Pages as GitHub-flavoured Markdown in which outside text is inert.

GitHub reads mentions, references and links from the rendered text, so that a backslash does not stop
them; inside code it reads nothing (https://github.github.com/gfm/#code-spans). So outside text stands in
code spans: a name or title as a whole, in a sentence each word that could act.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from patchstack.model import NightReport
from patchstack.report.inert import visible
from patchstack.report.page import Badge, Block, Line, Link, Page, Part, Prose, Quoted
from patchstack.report.pages import night_page

if TYPE_CHECKING:
    from jinja2 import Template

QUOTED_LIMIT = 160
PROSE_LIMIT = 1000

# A word with any of these could format, link, mention, refer, embed, or read as HTML or as mathematics.
_ACTS = re.compile(r"[`*_~<>|\\@#$&^{}]|:(?=.)|(?<!\w)www\.|(?<!\w)gh-\d", re.IGNORECASE)
_BRACKET = re.compile(r"([\[\]])")
_IN_ADDRESS = ":/?#=&%@+,;-._~"
# At the beginning of a line these make a list, a heading's underline or a rule.
_OPENS = re.compile(r"[-+=]+|\d+[.)]")


def render_markdown(report: NightReport) -> str:
    """A night as `report.md`."""
    return render_page(night_page(report))


def render_page(page: Page) -> str:
    return _template("page.md.j2").render(page=page)


def render_answer(page: Page, marker: str) -> str:
    """A page as an issue's body or a comment: below ``marker``, with its title for a paragraph."""
    return _template("answer.md.j2").render(page=page, marker=marker)


def code(text: str, limit: int | None = QUOTED_LIMIT) -> str:
    """A code span that holds ``text`` whatever is in it, also in a table; nothing for an empty text."""
    shown = visible(text, limit)
    if not shown.strip():
        return ""
    if "|" in shown:
        # A bar ends a table's cell even in code, and how it is escaped there depends on the reader. In HTML
        # every sign that Markdown knows can be a character reference, which is never structure:
        # https://github.github.com/gfm/#entity-and-numeric-character-references
        return f"<code>{re.sub(r'[!-/:-@[-`{-~]', lambda sign: f'&#{ord(sign[0])};', shown)}</code>"
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    # A span loses one blank on either side: https://github.github.com/gfm/#code-spans
    padding = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{padding}{shown}{padding}{fence}"


def prose(text: str) -> str:
    """A sentence in which what stands between backticks is a code span, and so is every word that could act."""
    pieces = visible(" ".join(text.split()), PROSE_LIMIT).split("`")
    if len(pieces) % 2 == 0:  # the last backtick opens nothing: it is a sign like any other
        pieces[-2:] = ["`".join(pieces[-2:])]
    line = ""
    for index, piece in enumerate(pieces):
        shown = " ".join(map(_word, piece.split(" "))) if index % 2 == 0 else code(piece, None) or code("``")
        # Two spans that touch would be read as one, with the fence between them inside.
        line += f" {shown}" if line.endswith("`") and shown.startswith("`") else shown
    first, blank, rest = line.strip().partition(" ")
    return f"{code(first, None) if _OPENS.fullmatch(first) else first}{blank}{rest}"


def _word(word: str) -> str:
    """A word as it is, or in code if it could act; the punctuation around it stays outside."""
    core = word.lstrip("(").rstrip(".,:;)")
    before, _, after = word.partition(core) if core else (word, "", "")
    return before + (code(core, None) if _ACTS.search(core) else _BRACKET.sub(r"\\\1", core)) + after


def inline(line: Line) -> str:
    return "".join(map(_part, line))


def _part(part: Part) -> str:
    if isinstance(part, Quoted):
        return code(part.text, None if part.whole else QUOTED_LIMIT)
    if isinstance(part, Link):
        # Within <> only these and a line's end could end an address, or begin a code span; encoded they mean the same.
        return f"[{code(part.text)}](<{quote(visible(part.url), safe=_IN_ADDRESS)}>)"
    if isinstance(part, Prose):
        return prose(part.text)
    return f"**{part.text}**" if isinstance(part, Badge) else part


def fenced(block: Block) -> str:
    """A code block whose fence is longer than any within."""
    longest = max((len(run) for line in block.lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}diff", *block.lines, fence])


@cache
def _template(name: str) -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Autoescape is for HTML; here the filters keep outside text inert.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("patchstack.report", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(inline=inline, prose=prose, fenced=fenced)
    return environment.get_template(name)
