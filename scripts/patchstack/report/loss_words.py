"""What a night lacks of the deployed one, in words: every name with its reason, whether it counts or not."""

from __future__ import annotations

from patchstack.losses import Losses, Lost, MovedBase
from patchstack.report import words
from patchstack.report.page import Badge, Line, Prose, Quoted, Section

TITLE = "Lost"
ROWS = 30


def section(losses: Losses | None) -> tuple[Section, ...]:
    """None where nothing is lost, or nobody has looked."""
    if losses is None or not (losses.items or losses.base):
        return ()
    # What counts first: where the rest is cut, it is still told.
    items = sorted(losses.items, key=lambda item: not item.counts)
    shown = items[: max(ROWS, len(losses.counted))]
    base = (_base(losses.base),) if losses.base else ()
    intro = (_tally(losses), *([_ACCEPTED] if losses.accepted and losses.too_many else []))
    return (Section(TITLE, intro, items=(*base, *map(_item, shown)), more=words.more(len(items) - len(shown))),)


_ACCEPTED: Line = ("Somebody has accepted that for this night: ", Quoted("--accept-lost"), ".")


def _tally(losses: Losses) -> Line:
    number = words.count(len(losses.items), "topic", "topics")
    counted = len(losses.counted)
    said = f" had {number} that tonight has not; {counted} of them {'counts' if counted == 1 else 'count'}, and "
    return ("Night ", Quoted(losses.since), said, f"at most {losses.most} may.")


def _base(moved: MovedBase) -> Line:
    commits: Line = (words.short(moved.before), " was the base, and ", words.short(moved.now), " is: ")
    return (*commits, Badge("changed by itself"), ", for deploy.yaml says ", Quoted(moved.upstream), " as it did")


def _item(item: Lost) -> Line:
    twins: Line = (" ", *words.names(item.twins)) if item.twins else ()
    files: Line = (" in ", *words.names(item.files)) if item.files else ()
    detail: Line = (". ", Prose(item.detail)) if item.detail else ()
    counts = Badge("counts" if item.counts else "does not count")
    why = Prose(words.reason(item))
    return (Quoted(item.name), " at ", words.short(item.head), ": ", counts, ", ", why, *twins, *files, *detail)
