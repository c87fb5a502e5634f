"""Rollback: one more commit on deploy with the content of an older night, and what it bars from now on.

`choose` finds the night and names what is taken back, `decide` the commits and refs, as a promotion's does; the
push is the promotion's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from patchstack.errors import UsageError
from patchstack.model import Action, Bar, Barring
from patchstack.release.ledger import Entry, History, entry_id, is_one_line, repeat_line
from patchstack.release.promote import Decision, Source, land
from patchstack.release.remote import RemoteState

_MANY = 5
"""How many names a message lists before it counts the rest."""


@dataclass(frozen=True)
class Rollback:
    """What a rollback goes back to, and what it takes back and bars; nothing is written yet."""

    to: Entry
    taken_back: tuple[Entry, ...]
    """What stands above it, newest first: none where only commits by hand are taken back."""
    bars: tuple[Bar, ...]
    foreign: int
    """Commits on top that no promotion made: they are taken back as well."""


def choose(history: History, *, to: str | None = None, because: Sequence[str] = ()) -> Rollback:
    """The night ``to`` (its id or its dated tag; None: the next below with another tree), and what is barred with it.

    ``because`` are names of topics as the ledger has them: their heads are barred. So is the plan of every night that
    is taken back, unless it is the target's own. Pure. Raises `UsageError` with what can be gone back to where ``to``
    is nothing that stands, and where a topic of ``because`` is not in what is deployed, or would be deployed still.
    """
    standing = history.standing
    if not standing:
        raise UsageError("no night is deployed, so there is none to go back to; run `patchstack nightly`")
    at = _place_of(history, to)
    target, taken_back = standing[at], standing[:at]
    names = tuple(dict.fromkeys(because))
    plans = {entry.line.fingerprint: entry.content for entry in reversed(taken_back)}
    plans.pop(target.line.fingerprint, None)
    bars = [Bar(Barring.PLAN, night, plan) for plan, night in reversed(plans.items())]
    bars += [_head_of(name, standing, at) for name in names]
    return Rollback(target, taken_back, tuple(bars), history.foreign_on_top)


def _place_of(history: History, to: str | None) -> int:
    standing = history.standing
    if to is None:
        # One that was proven again, with nothing changed, is no way back from what is bad in it.
        other = next((at for at, one in enumerate(standing) if one.line.tree != standing[0].line.tree), None)
        if other is None:
            also = f"; --to {standing[0].content} takes back what is on top of it" if history.foreign_on_top else ""
            only = "is the only one that stands" if len(standing) == 1 else "has the tree of all nights that stand"
            raise UsageError(f"night {standing[0].content} {only}: nothing to go back to{also}")
        return other
    at = next((at for at, entry in enumerate(standing) if to in (entry.content, entry.line.tag)), None)
    if at is None:
        known = {night.line.night for night in history.nights} | {night.line.tag for night in history.nights}
        what = "was taken back already" if to in known else f"is no night of {standing[0].line.lane}"
        raise UsageError(f"--to {to!r} {what}; what can be gone back to: {_listed(standing[1:])}")
    if at == 0 and not history.foreign_on_top:
        raise UsageError(f"--to {to}: that is what is deployed; what can be gone back to: {_listed(standing[1:])}")
    return at


def _head_of(name: str, standing: Sequence[Entry], at: int) -> Bar:
    deployed = standing[0].line
    head = dict(deployed.included).get(name)
    if head is None:
        has = ", ".join(name for name, _ in deployed.included) or "nothing"
        raise UsageError(f"--because {name!r}: night {standing[0].content} has no such topic; it has: {has}")
    if dict(standing[at].line.included).get(name) == head:
        without = next((one for one in standing if dict(one.line.included).get(name) != head), None)
        out = f"go back to a night without it: --to {without.content}" if without else "no night that stands is without"
        raise UsageError(
            f"--because {name!r}: night {standing[at].content} has it too, at {head[:12]}, so going back there keeps "
            f"it; {out}"
        )
    return Bar(Barring.HEAD, name, head)


def _listed(standing: Sequence[Entry]) -> str:
    shown = [f"{entry.content} ({entry.line.tag})" for entry in standing[:_MANY]]
    more = f" and {len(standing) - _MANY} more" if len(standing) > _MANY else ""
    return f"{', '.join(shown)}{more}" if shown else "nothing"


def decide(
    chosen: Rollback, *, at: datetime, reason: str, remote: RemoteState, base: Source | None, stack: Source | None
) -> Decision:
    """The rollback's commit, lines and tag; pure.

    ``at`` is its moment in UTC, ``base`` and ``stack`` what the target's lines were made of.
    """
    line = repeat_line(
        chosen.to.line,
        Action.ROLLBACK,
        entry_id(remote.history, at),
        at,
        because=words_of(reason),
        to=chosen.to.content,
        bars=chosen.bars,
    )
    return land(line, remote, base=base, stack=stack)


def words_of(reason: str) -> str:
    """A reason as the ledger can have it; `UsageError` for more than one printable line."""
    text = " ".join(reason.split())
    if not is_one_line(text):
        raise UsageError(f"--reason {reason[:40]!r}...: write one printable line of at most 1,000 letters")
    return text
