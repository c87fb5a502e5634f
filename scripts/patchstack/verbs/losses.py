"""What of the deployed night a run's composition lacks: written into the run by a night, judged again by `promote`."""

from __future__ import annotations

from dataclasses import replace

from patchstack.losses import Losses
from patchstack.model import Composition
from patchstack.release.ledger import History
from patchstack.release.loss import find_losses
from patchstack.store import Run
from patchstack.workplace import Workplace


def read_losses(work: Workplace, run: Run, composition: Composition, history: History) -> Losses:
    """What ``composition`` lacks of what ``history`` has deployed.

    What somebody accepted for this run holds as long as that same night is deployed.
    """
    found = _find(work, composition, history)
    told = run.read(Losses) if run.has(Losses) else None
    return replace(found, accepted=told is not None and told.accepted and told.since == found.since)


def write_losses(
    work: Workplace, run: Run, composition: Composition, history: History, *, accept: bool = False
) -> Losses:
    """The same, written into ``run``; ``accept``: the night may go on whatever they are."""
    found = _find(work, composition, history, accepted=accept)
    run.write(found)
    return found


def _find(work: Workplace, composition: Composition, history: History, *, accepted: bool = False) -> Losses:
    return find_losses(
        history.last.line if history.last else None,
        composition,
        upstream=work.upstream_words,
        most=work.config.max_lost,
        accepted=accepted,
    )
