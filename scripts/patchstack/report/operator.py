"""What an operator's word did, and what is in force because of it: rollback, hold, bars."""

from __future__ import annotations

from collections.abc import Sequence

from patchstack.model import Action, Bar, Barring, LedgerLine, Promotion
from patchstack.report import words
from patchstack.report.page import Badge, Line, Page, Prose, Quoted, Section, Table

BARRED = "Barred"
ROWS = 30
TITLES = {
    Action.ROLLBACK: "Rollback",
    Action.HOLD: "Hold",
    Action.RELEASE: "Release",
}


def operation_page(promotion: Promotion, dry_run: bool) -> Page:
    """A rollback, a hold or a release: what it does, what it bars, which refs move."""
    line = promotion.line
    move = words.would_move(promotion) if dry_run else words.moved(promotion)
    rows = tuple(((Quoted(ref),), (words.short(sha),)) for ref, sha in promotion.pushed)
    bars = Section(BARRED, items=tuple(bar_said(bar) for bar in line.bars))
    refs = Section(words.MOVES, table=Table(words.MOVE_COLUMNS, rows))
    title: Line = (f"{TITLES[line.action]}, lane ", Quoted(promotion.lane))
    return Page(title, (did(line), *reason(line), move), (*([bars] if line.bars else []), refs))


def did(line: LedgerLine) -> Line:
    match line.action:
        case Action.ROLLBACK:
            return (
                "Back to night ",
                Quoted(line.to),
                ", tree ",
                words.short(line.tree),
                ", tag ",
                Quoted(line.tag),
                ".",
            )
        case Action.HOLD:
            return ("From here on nights are tested and not promoted, until ", _release(()), ".")
        case Action.RELEASE if line.releases:
            return ("Released: ", *words.names_all(line.releases), ".")
        case _:
            return ("The hold is over: the next night that passes is promoted.",)


def reason(line: LedgerLine) -> tuple[Line, ...]:
    return (("Because: ", Prose(line.because)),) if line.because else ()


def told(line: LedgerLine) -> Line:
    """One entry of the ledger that is no night, in one line."""
    why: Line = (" Because: ", Prose(line.because)) if line.because else ()
    return (Quoted(line.at), " ", Badge(line.action.value), " ", Quoted(line.night), ": ", *did(line), *why)


def _release(names: Sequence[str]) -> Quoted:
    quoted = " ".join(f"'{name}'" if "#" in name else name for name in names)
    return Quoted(f"patchstack release-hold {quoted}".strip(), whole=True)


def bar_said(bar: Bar) -> Line:
    """What does not come back as it is, and how it is released."""
    what: Line = ("the plan of night ", Quoted(bar.name))
    if bar.kind is Barring.HEAD:
        what = (Quoted(bar.name), " at ", words.short(bar.value))
    return (*what, ", until it changes or ", _release((bar.name,)))


def held(line: LedgerLine) -> Line:
    """The hold in force."""
    why: Line = (" (", Prose(line.because), ")") if line.because else ()
    return (
        Badge("on hold"),
        " since ",
        Quoted(line.at),
        *why,
        ": nights are tested and not promoted; ",
        _release(()),
        " ends it.",
    )


def bars_section(bars: Sequence[tuple[str, Bar]]) -> tuple[Section, ...]:
    """What is in force, each with the rollback or the red night that it is from; nothing where nothing is barred."""
    shown = bars[:ROWS]
    rollbacks = {barrer for barrer, bar in bars if bar.kind is Barring.PLAN}  # no night bars a plan
    items = tuple((*bar_said(bar), *_since(barrer, rollback=barrer in rollbacks)) for barrer, bar in shown)
    return (Section(BARRED, items=items, more=words.more(len(bars) - len(shown))),) if bars else ()


def _since(barrer: str, *, rollback: bool) -> Line:
    """Of a head alone it is not known here who barred it: a night, or a rollback whose plan somebody has released."""
    return ("; since rollback " if rollback else "; since ", Quoted(barrer))
