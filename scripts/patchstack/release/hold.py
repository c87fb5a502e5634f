"""Hold and release: commits on deploy that change nothing of what is deployed, only what nights may do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from patchstack.errors import Incomplete, UsageError
from patchstack.model import Action, Fingerprint, LedgerLine, Topic
from patchstack.release.ledger import Entry, History, dated_tag, entry_id, repeat_line
from patchstack.release.promote import Decision, decision_of, deploy_drafts
from patchstack.release.remote import RemoteState, published_refs
from patchstack.release.rollback import words_of

NOT_HELD = "there is no hold in force"


def hold(remote: RemoteState, *, at: datetime, reason: str) -> Decision:
    """Freeze promotion; pure. `UsageError` where it is frozen, or nothing is deployed yet."""
    held = remote.history.hold
    if held is not None:
        raise UsageError(f"{since(held)} already: `patchstack release-hold` ends it")
    return _land(remote, Action.HOLD, at, reason=reason)


def release(remote: RemoteState, *, at: datetime, names: Sequence[str] = (), reason: str = "") -> Decision:
    """End the hold, or what is barred under ``names``; pure. `UsageError` where that is not in force."""
    history = remote.history
    barred = tuple(dict.fromkeys(bar.name for _, bar in history.bars))
    known = f"barred are: {', '.join(barred)}" if barred else "nothing is barred"
    if not names and history.hold is None:
        raise UsageError(f"{NOT_HELD}; {known}: name what to release")
    unknown = [name for name in names if name not in barred]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not barred; {known}")
    return _land(remote, Action.RELEASE, at, reason=reason, names=tuple(dict.fromkeys(names)))


def _land(remote: RemoteState, action: Action, at: datetime, *, reason: str, names: Sequence[str] = ()) -> Decision:
    """One commit with the tree that is there, also where somebody has committed on top of what is deployed."""
    last, tip = remote.history.last, remote.deploy
    if last is None or tip is None:
        raise UsageError(f"no night was ever promoted to {remote.branch}: there is nothing to {action.value} yet")
    line = repeat_line(
        last.line, action, entry_id(remote.history, at), at, because=words_of(reason), releases=tuple(names)
    )
    line = replace(line, tree=tip.tree, tag=dated_tag(line.lane, line.at, tip.tree))
    drafts = deploy_drafts(line, remote)
    return decision_of(line, remote, drafts, [(published_refs(remote.lane, remote.branch)[0], drafts[-1].sha)])


def since(held: Entry) -> str:
    """One sentence's beginning: since when, and why."""
    return f"promotion is on hold since {held.line.at}{because(held.line)}"


def because(line: LedgerLine) -> str:
    return f" ({line.because})" if line.because else ""


def require_promotable(history: History, fingerprint: Fingerprint, topics: Sequence[Topic]) -> None:
    """`Incomplete` while promotion is on hold, or where this plan or one of its heads is barred."""
    if history.hold is not None:
        raise Incomplete(f"{since(history.hold)}, nothing was moved; `patchstack release-hold` ends it")
    require_unbarred(history, fingerprint, topics)


def require_unbarred(history: History, fingerprint: Fingerprint, topics: Sequence[Topic]) -> None:
    """`Incomplete`, with the ways out, where a rollback or a red night barred this plan, or a head that is in it."""
    held = {(bar.name, bar.value): entry for entry, bar in history.bars}
    plan = next(((bar, entry) for entry, bar in history.bars if bar.value == fingerprint.digest), None)
    if plan is not None:
        bar, entry = plan
        raise Incomplete(
            f"this plan is that of night {bar.name}, which {barrer(entry)} took back: it does not come back as it "
            f"is. Change what was wrong with it, or `patchstack release-hold {bar.name}`"
        )
    for topic in topics:
        entry_of = held.get((topic.name, topic.head))
        if entry_of is not None:
            raise Incomplete(
                f"{topic.name} is in this plan at {topic.head[:12]}, which {barrer(entry_of)} barred: mend it, or "
                f"`patchstack release-hold '{topic.name}'`"
            )


def barrer(entry: Entry) -> str:
    """Who barred something: a rollback, with what its operator said, or the night that found somebody guilty."""
    return f"{entry.line.action.value} {entry.line.night}{because(entry.line)}"
