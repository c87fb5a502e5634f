"""`patchstack ledger`: the last promoted nights of a lane, as its deploy branch tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchstack.git import without_secret
from patchstack.model import LedgerLine
from patchstack.release.remote import read_remote
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


def ledger(work: Workplace, last: int) -> Ledger:
    """The ``last`` nights on the deploy branch; none where no night has made it yet. Nothing is written there."""
    made = not work.embedded or (Path(work.remote) / "HEAD").is_file()
    nights: tuple[LedgerLine, ...] = ()
    if made:
        with naming_the_way_out(work):
            state = read_remote(work.store(), work.remote, lane=work.lane_name, branch=work.lane.branch)
        nights = tuple(night.line for night in state.history.nights)
    remote = "the embedded remote" if work.embedded else without_secret(work.remote)
    return Ledger(work.lane_name, work.lane.branch, remote, nights[:last], len(nights))
