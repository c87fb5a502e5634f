"""The ledger: the last promoted nights, and how each one's image is pulled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from patchstack.model import LedgerLine
from patchstack.report import words
from patchstack.report.markdown import render_page
from patchstack.report.page import Line, Page, Quoted, Section, Table
from patchstack.report.terminal import page_text

NIGHTS, PULL = "Promoted nights", "How to pull them"
COLUMNS = ("Night", "Promoted", "Channels", "Tag", "Base", "In it", "Image")
NO_IMAGE = "none"


class LedgerView(Protocol):
    """The verb's `Ledger`."""

    @property
    def lane(self) -> str: ...
    @property
    def branch(self) -> str: ...
    @property
    def remote(self) -> str: ...
    @property
    def nights(self) -> Sequence[LedgerLine]: ...
    @property
    def promoted(self) -> int: ...


def render_ledger(ledger: LedgerView) -> str:
    """For a terminal."""
    return page_text(ledger_page(ledger))


def ledger_markdown(ledger: LedgerView) -> str:
    return render_page(ledger_page(ledger))


def ledger_page(ledger: LedgerView) -> Page:
    """Newest first. The pull commands stand below the table, whole, so that they can be copied."""
    title: Line = ("Ledger, lane ", Quoted(ledger.lane))
    if not ledger.nights:
        return Page(title, (words.no_night(ledger.branch, ledger.remote),))
    shown = words.count(len(ledger.nights), "night", "nights")
    lead: Line = (f"The newest {shown} of {ledger.promoted} on ", Quoted(ledger.branch), ".")
    rows = tuple(map(_row, ledger.nights))
    parts = (Section(NIGHTS, table=Table(COLUMNS, rows)), Section(PULL, items=tuple(map(_pull, ledger.nights))))
    return Page(title, (lead, words.published_on(ledger.remote)), parts)


def _row(night: LedgerLine) -> tuple[Line, ...]:
    return (
        (Quoted(night.night),),
        (Quoted(night.at),),
        words.names_all(night.channels),
        (Quoted(night.tag),),
        (Quoted(night.base),),
        (words.count(len(night.included), "topic", "topics"),),
        (Quoted(night.image.tag),) if night.image else (NO_IMAGE,),
    )


def _pull(night: LedgerLine) -> Line:
    if night.image is None:
        return (Quoted(night.tag), ": this night had no image")
    image = night.image
    if "/" not in image.repository:
        return (
            Quoted(image.tag),
            ": ",
            Quoted(image.digest, whole=True),
            " in the registry of the machine that made it",
        )
    return (Quoted(image.tag), ": ", Quoted(f"docker pull {image.repository}@{image.digest}", whole=True))
