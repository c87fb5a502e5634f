"""`patchstack ledger`: the last promoted nights of a lane, as its deploy branch tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchstack.git import without_secret
from patchstack.model import Action, Bar, LedgerLine
from patchstack.release.ledger import History
from patchstack.release.remote import read_remote
from patchstack.verbs.barred import bars_in_force
from patchstack.verbs.remote import naming_the_way_out
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class Ledger:
    lane: str
    branch: str
    remote: str
    nights: tuple[LedgerLine, ...]
    """The newest ones, newest first."""
    promoted: int
    """How many there are in all."""
    taken_back: tuple[str, ...] = ()
    """Those of ``nights`` that a rollback took back, by id."""
    said: tuple[LedgerLine, ...] = ()
    """Rollbacks, holds and releases since the oldest of ``nights``, newest first."""
    held: LedgerLine | None = None
    """The hold in force."""
    bars: tuple[tuple[str, Bar], ...] = ()
    """What is barred, each with the id of the rollback, or of the night, that barred it."""


def ledger(work: Workplace, last: int) -> Ledger:
    """The ``last`` nights on the deploy branch; none where no night has made it yet. Nothing is written there."""
    made = not work.embedded or (Path(work.remote) / "HEAD").is_file()
    history = History(())
    if made:
        with naming_the_way_out(work):
            history = read_remote(work.store(), work.remote, lane=work.lane_name, branch=work.lane.branch).history
    remote = "the embedded remote" if work.embedded else without_secret(work.remote)
    shown = history.nights[:last]
    since = history.entries[: history.entries.index(shown[-1])] if shown else ()
    stands = {entry.content for entry in history.standing}
    return Ledger(
        lane=work.lane_name,
        branch=work.lane.branch,
        remote=remote,
        nights=tuple(night.line for night in shown),
        promoted=len(history.nights),
        taken_back=tuple(night.line.night for night in shown if night.content not in stands),
        said=tuple(entry.line for entry in since if entry.line.action is not Action.NIGHT),
        held=history.hold.line if history.hold else None,
        bars=bars_in_force(history),
    )
