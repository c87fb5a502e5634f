"""What a reader is shown, before it is Markdown or a terminal's text: both render the same page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quoted:
    """A name, title, path, id or command: shown letter by letter, never interpreted."""

    text: str
    whole: bool = False
    """Never cut, however long: it is there to be copied."""


@dataclass(frozen=True)
class Prose:
    """A sentence of another stage, which may quote outside text."""

    text: str


@dataclass(frozen=True)
class Badge:
    """A word of ours that a reader looks for first: PASS, proven, conflict."""

    text: str


@dataclass(frozen=True)
class Link:
    """A name with an address that we made; where links cannot be, the name alone."""

    text: str
    url: str


Part = str | Quoted | Prose | Badge | Link
Line = tuple[Part, ...]
"""Plain strings are words of ours (`words.py`) and nothing else."""


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[Line, ...], ...]


@dataclass(frozen=True)
class Block:
    """Several lines as they are, such as a diff, below a caption."""

    caption: Line
    lines: tuple[str, ...]
    more: str = ""


@dataclass(frozen=True)
class Section:
    title: str
    intro: tuple[Line, ...] = ()
    table: Table | None = None
    items: tuple[Line, ...] = ()
    more: str = ""
    """What was cut off the table or the items, and where it is."""
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Page:
    title: Line
    lead: tuple[Line, ...]
    sections: tuple[Section, ...] = ()
