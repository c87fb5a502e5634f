"""What of the deployed night a run's composition lacks: written into the run by a night, judged again by `promote`."""

from __future__ import annotations

from dataclasses import replace

from patchstack.losses import Losses
from patchstack.model import Composition, LedgerLine
from patchstack.release.ledger import History
from patchstack.release.loss import find_losses
from patchstack.store import Run
from patchstack.workplace import Workplace


def read_losses(work: Workplace, run: Run, composition: Composition, history: History) -> Losses:
    """What ``composition`` lacks of what ``history`` has deployed.

    What somebody accepted for this run holds as long as that same night is deployed.
    """
    found = _find(work, composition, _deployed(history))
    told = run.read(Losses) if run.has(Losses) else None
    return replace(found, accepted=told is not None and told.accepted and told.since == found.since)


def write_losses(
    work: Workplace, run: Run, composition: Composition, history: History, *, accept: bool = False
) -> Losses:
    """The same, written into ``run``; ``accept``: the night may go on whatever they are."""
    found = _find(work, composition, _deployed(history), accepted=accept)
    run.write(found)
    return found


def write_losses_again(work: Workplace, run: Run, rest: Composition, last: LedgerLine | None) -> Losses:
    """The same of what is left of a night; what somebody accepted for it holds for that, too."""
    accepted = run.has(Losses) and run.read(Losses).accepted
    found = _find(work, rest, last, accepted=accepted)
    run.write(found)
    return found


def _deployed(history: History) -> LedgerLine | None:
    return history.last.line if history.last else None


def _find(work: Workplace, composition: Composition, last: LedgerLine | None, *, accepted: bool = False) -> Losses:
    return find_losses(
        last,
        composition,
        upstream=work.upstream_words,
        most=work.config.max_lost,
        accepted=accepted,
    )
