"""What a killed night left undone, done at the start of the next one: whatever follows from deploy."""

from __future__ import annotations

from contextlib import suppress

from patchstack.compose.octopus import write_stack
from patchstack.errors import UsageError
from patchstack.git import Repository
from patchstack.model import Base, Composition, Kind, LedgerLine, Promotion, Sha, Topic
from patchstack.release.ledger import Entry
from patchstack.release.promote import Source
from patchstack.release.remote import RemoteState
from patchstack.release.repair import promotion_of
from patchstack.release.repair import repair as repair_remote
from patchstack.store import Run
from patchstack.workplace import Workplace


def repair(work: Workplace, state: RemoteState) -> tuple[str, ...]:
    """Put right what follows from the deploy branch in ``state``, just read, and say what was.

    On the remote `base/LANE`, `stack/LANE` and the dated tags; here the folders of runs that were promoted and
    killed before they had it in writing. Raises `RemoteError` when the remote refuses.
    """
    store = work.store()
    base = stack = None
    if state.history.entries:
        line = state.history.entries[0].line
        base, stack = base_then(store, line), stack_then(store, line)
    done = repair_remote(store, work.remote, state, base=base, stack=stack)
    return (*done.notes, *_write_promotions(work, state))


def base_then(store: Repository, line: LedgerLine) -> Source | None:
    """What ``base/LANE`` is made of for ``line``; None where there is no such commit: somebody wrote it by hand."""
    known = store.has(f"{line.base_commit}^{{commit}}")
    return Source(line.base_commit, store.tree_of(line.base_commit)) if known else None


def stack_then(store: Repository, line: LedgerLine) -> Source | None:
    """What ``stack/LANE`` was made of for ``line``; made again if it is not at hand, None where nobody knows.

    The stack follows from the patches of the line, which are parents of its octopus; the ledger has its id, so that
    what is made again is compared. Lines of before November 2026 do not name it.
    """
    if line.stack is None:
        return None
    if not store.has(f"{line.stack}^{{commit}}"):
        below, parents = base_then(store, line), store.parents(line.composition)[1:]
        if below is None or len(parents) != len(line.included):
            return None
        base = Base(line.base, "", below.commit, below.tree)
        merged = zip(line.included, parents, strict=True)
        # A pull request's name has a number sign, and a patch's, a slug, has none.
        wanted = [(name, head, at) for (name, head), at in merged if "#" not in name and name not in line.optional]
        made, _ = write_stack(store, base, [_patch(name, head, at, base.commit) for name, head, at in wanted])
        if made != line.stack:
            return None
    return Source(line.stack, store.tree_of(line.stack))


def _patch(name: str, head: Sha, commit: Sha, base: Sha) -> Topic:
    return Topic(name, Kind.PATCH, "", "", head, commit, base, commit, "", (), required=True)


def promoted_as(run: Run, composition: Composition, state: RemoteState) -> Entry | None:
    """The commit by which ``run`` is on deploy; None where it is not."""
    told = (run.id, composition.commit)
    return next((entry for entry in state.history.nights if (entry.line.night, entry.line.composition) == told), None)


def write_promotion(run: Run, entry: Entry, state: RemoteState) -> Promotion:
    """The promotion of a run that is on deploy as ``entry``: what its folder says of it, or else what deploy says."""
    if run.has(Promotion):
        with suppress(UsageError):  # damaged, or another version's
            kept = run.read(Promotion)
            if kept.commit == entry.commit:
                return kept
    found = promotion_of(entry, state.lane, state.branch)
    run.write(found)
    return found


def _write_promotions(work: Workplace, state: RemoteState) -> tuple[str, ...]:
    notes = []
    nights = {entry.line.night for entry in state.history.nights}
    for run in work.state.all_runs():
        if run.id not in nights or run.has(Promotion) or not run.has(Composition):
            continue
        with suppress(UsageError):  # damaged, or another version's: nobody promotes it either
            entry = promoted_as(run, run.read(Composition), state)
            if entry is not None:
                write_promotion(run, entry, state)
                notes.append(f"run {run.id} was promoted, and that was not written down here: it is now")
    return tuple(notes)
