"""The ledger: the last promoted nights, and how each one's image is pulled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from patchstack.model import Bar, LedgerLine
from patchstack.report import operator, words
from patchstack.report.hotfix import HOTFIX
from patchstack.report.markdown import render_page
from patchstack.report.page import Badge, Line, Page, Quoted, Section, Table
from patchstack.report.terminal import page_text

NIGHTS, SAID, PULL = "Promoted nights", "Said by operators", "How to pull them"
TAKEN_BACK = "taken back"
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
    @property
    def taken_back(self) -> tuple[str, ...]: ...
    @property
    def said(self) -> Sequence[LedgerLine]: ...
    @property
    def held(self) -> LedgerLine | None: ...
    @property
    def bars(self) -> Sequence[tuple[str, Bar]]: ...


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
    rows = tuple(_row(night, taken_back=night.night in ledger.taken_back) for night in ledger.nights)
    parts = [Section(NIGHTS, table=Table(COLUMNS, rows))]
    parts += [Section(SAID, items=tuple(map(operator.told, ledger.said)))] if ledger.said else []
    parts += [*operator.bars_section(ledger.bars), Section(PULL, items=tuple(map(_pull, ledger.nights)))]
    held = (operator.held(ledger.held),) if ledger.held else ()
    return Page(title, (lead, *held, words.published_on(ledger.remote)), tuple(parts))


def _row(night: LedgerLine, *, taken_back: bool) -> tuple[Line, ...]:
    return (
        (
            Quoted(night.night),
            *((" ", Badge(HOTFIX)) if night.onto else ()),
            *((" ", Badge(TAKEN_BACK)) if taken_back else ()),
        ),
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
