"""`patchstack promote` and `patchstack status`: the deploy branch, moved and read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchstack.model import Composition, NightReport, Promotion, Verdicts
from patchstack.release.promote import Source, decide
from patchstack.release.promote import promote as push_promotion
from patchstack.release.remote import RemoteState, ensure_embedded_remote, read_remote
from patchstack.release.status import StatusReport, read_status
from patchstack.release.tags import TagRepair, push_missing_tags
from patchstack.store import Run, now_utc
from patchstack.verbs.plan import stack_of
from patchstack.workplace import Workplace


def open_remote(work: Workplace) -> RemoteState:
    """What the remote holds now; the embedded one is made on first use."""
    if work.embedded:
        ensure_embedded_remote(Path(work.remote), work.lane.branch)
    return read_remote(work.store(), work.remote, lane=work.lane_name, branch=work.lane.branch)


def repair(work: Workplace, state: RemoteState) -> TagRepair:
    """Derived tags that a killed night did not make."""
    return push_missing_tags(work.store(), work.remote, state)


@dataclass(frozen=True)
class Promoted:
    promotion: Promotion
    notes: tuple[str, ...]
    """What a reader must know and what stops nothing."""


def promote(work: Workplace, run: Run, *, dry_run: bool = False) -> Promoted:
    """Move the deploy branch to ``run``'s composition if its gate passed; ``dry_run``: only say what would move."""
    composition, verdicts = run.read(Composition), run.read(Verdicts)
    store = work.store()
    decision = decide(
        night=run.id,
        at=now_utc(),
        composition=composition,
        stack=Source(*stack_of(work, composition)),
        verdicts=verdicts.verdicts,
        remote=open_remote(work),
    )
    if dry_run:
        return Promoted(decision.promotion, decision.notes)
    promotion = push_promotion(store, work.remote, decision)
    run.write(promotion)
    return Promoted(promotion, decision.notes)


def status(work: Workplace) -> StatusReport:
    """Where the lane stands, as the remote says; a remote that no night has made yet is a plain answer."""
    missing = work.embedded and not (Path(work.remote) / "HEAD").is_file()
    latest, judged = work.state.latest_run(having=NightReport), work.state.latest_run(having=Verdicts)
    return read_status(
        work.store(),
        None if missing else work.remote,
        lane=work.lane_name,
        branch=work.lane.branch,
        now=now_utc(),
        channels=tuple(work.config.channels),
        latest=latest.read(NightReport) if latest else None,
        verdicts=judged.read(Verdicts).verdicts if judged else None,
    )
