"""What follows from deploy, put right: published lines and dated tags that a killed push left behind.

A push to several refs is one transaction for its client, and not for a server that is killed within it: some refs
have moved then (https://git-scm.com/docs/git-push, ``--atomic``). Only ``deploy`` counts. The newest ledger line says
where the others belong, and they go there: lines by one more commit, tags by being made. Nothing is moved back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from patchstack.errors import MachineError, RemoteError
from patchstack.git import Repository
from patchstack.model import Promotion, Sha
from patchstack.release.ledger import Entry, History, moment_of
from patchstack.release.promote import GENESIS, Draft, Source, next_of_line
from patchstack.release.remote import RemoteState, published_refs, read_remote
from patchstack.release.tags import TagFault, tag_faults
from patchstack.store import CLOCKS_DIFFER_MOST


@dataclass(frozen=True)
class Repair:
    """What was behind, or is elsewhere."""

    lines: tuple[str, ...] = ()
    """Published branches that were moved on."""
    tags: tuple[str, ...] = ()
    """Tags that were made."""
    elsewhere: tuple[TagFault, ...] = ()
    """Names that something else holds: reported, not moved."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a night is told."""
        return (
            *(f"branch {name} was not where the ledger has it and is moved on" for name in self.lines),
            *(f"tag {name} was missing and is made again" for name in self.tags),
            *(f"tag {fault.name} holds something else than its night: not moved" for fault in self.elsewhere),
        )


@dataclass(frozen=True)
class RepairPlan:
    """What a repair would do; nothing has been written."""

    repair: Repair
    drafts: tuple[Draft, ...]
    """Commits to write."""
    pushed: Mapping[str, Sha]


def decide_repair(state: RemoteState, *, base: Source | None, stack: Source | None) -> RepairPlan:
    """Decide what to move so that the remote holds what its newest ledger line says; pure.

    ``base`` and ``stack`` are what the published lines are to hold; None: that is not known, and the line stays. The
    commits are dated as the ledger line, so that two machines which repair at once write the same ones.
    """
    drafts: list[Draft] = []
    pushed: dict[str, Sha] = {}
    lines: list[str] = []
    if state.history.entries:
        newest = state.history.entries[0]
        seconds = int(datetime.fromisoformat(newest.line.at).timestamp())
        _, base_ref, stack_ref = published_refs(state.lane, state.branch)
        for ref, published, source in ((base_ref, state.base, base), (stack_ref, state.stack, stack)):
            moved = next_of_line(ref, published, source, seconds) if source else None
            if moved is None:
                continue
            if isinstance(moved, Draft):
                drafts.append(moved)
            pushed[ref] = moved.sha if isinstance(moved, Draft) else moved
            lines.append(ref.removeprefix("refs/heads/"))
    faults = tag_faults(state.history.entries, state.tags)
    missing = [fault for fault in faults if fault.found is None]
    pushed |= {f"refs/tags/{fault.name}": fault.expected for fault in missing}
    elsewhere = tuple(fault for fault in faults if fault.found is not None)
    return RepairPlan(Repair(tuple(lines), tuple(fault.name for fault in missing), elsewhere), tuple(drafts), pushed)


def repair(store: Repository, url: str, state: RemoteState, *, base: Source | None, stack: Source | None) -> Repair:
    """Put right what `decide_repair` finds in ``state``, which was just read, in one plain atomic push.

    Raises `RemoteError` when the remote refuses; that another machine did the same meanwhile is no error.
    """
    plan = decide_repair(state, base=base, stack=stack)
    if not plan.pushed:
        return plan.repair
    for draft in plan.drafts:
        draft.write(store)
    try:
        store.push(url, plan.pushed)
    except RemoteError as error:
        now = read_remote(store, url, lane=state.lane, branch=state.branch)
        left = decide_repair(now, base=base, stack=stack)
        if left.pushed:
            raise RemoteError(
                f"{error}; deploy is whole, but what follows from it could not be put right "
                f"({', '.join(name.removeprefix('refs/') for name in left.pushed)}): mend the remote and run again"
            ) from error
        return left.repair
    return plan.repair


def promotion_of(entry: Entry, lane: str, branch: str) -> Promotion:
    """What is known of a promotion that nobody wrote down but deploy itself: its other refs are not listed."""
    previous = None if entry.previous == GENESIS.sha else entry.previous
    return Promotion(lane, branch, previous, entry.commit, entry.line, ((f"refs/heads/{branch}", entry.commit),))


def next_moment(history: History, now: datetime) -> datetime:
    """The moment of the next ledger line: ``now``, or that of the newest line where this clock is a little behind.

    Raises `MachineError` where it is more than that: then either clock is wrong.
    """
    if not history.entries:
        return now
    line = history.entries[0].line
    newest = datetime.fromisoformat(line.at)
    if newest - now > CLOCKS_DIFFER_MOST:
        raise MachineError(
            f"deploy was moved by {line.night} at {line.at}, and this machine's clock says {moment_of(now)}: set it "
            "right, or wait for that moment if the other machine's was ahead; nothing was moved"
        )
    return max(now, newest)
