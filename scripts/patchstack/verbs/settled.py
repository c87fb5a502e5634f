"""Nights that the remote does not show: those of this machine, and the last one that found nothing to do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from patchstack.errors import UsageError
from patchstack.model import NightReport
from patchstack.pack import read_value
from patchstack.release.status import Settled
from patchstack.store import decode, encode, write_whole
from patchstack.workplace import Workplace


def remember_settled(work: Workplace, report: NightReport) -> None:
    """Remember a night that found nothing to do, for whoever asks how old the newest night is."""
    write_whole(_file(work), encode(Settled(report.lane, report.night, report.at)))


def last_settled(work: Workplace) -> Settled | None:
    """What `remember_settled` wrote last; None where that is damaged, or not there."""
    path = _file(work)
    with suppress(OSError, ValueError, UsageError):
        found = decode(Settled, path.read_text(), str(path))
        return found if found.lane == work.lane_name and datetime.fromisoformat(found.at).tzinfo else None
    return None


def known_reports(work: Workplace, packs: Sequence[Path]) -> list[NightReport]:
    """The reports of this machine's runs, of any lane, and of ``packs``; a damaged run tells of no night.

    Raises `UsageError` for a pack that cannot be read.
    """
    found = [read_value(pack, NightReport) for pack in packs]
    for run in work.state.all_runs():
        with suppress(UsageError):
            found.append(run.read(NightReport))
    return found


def _file(work: Workplace) -> Path:
    return work.state.memo / f"settled-{work.lane_name}.json"
