"""Where a lane stands: the night just promoted, its channels, its tags, and the last run on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from patchstack.errors import Incomplete
from patchstack.git import Repository
from patchstack.model import Bar, LaneRuns, LedgerLine, NightReport, Sha, Status, Verdict
from patchstack.release.ledger import History
from patchstack.release.promote import NIGHTLY
from patchstack.release.remote import RemoteState, read_remote
from patchstack.release.tags import TagFault, tag_faults


@dataclass(frozen=True)
class ChannelStatus:
    name: str
    night: str | None
    """The newest night that moved it and stands; None: there is none."""
    tag: str | None
    current: bool
    """That night is the one that is deployed."""
    why_not: tuple[str, ...]
    """What kept it from moving in the last run, as far as this machine knows."""
    taken_back: str | None = None
    """The night that moved it last, where a rollback took that one back."""


@dataclass(frozen=True)
class LastRun:
    """The newest run on this machine, promoted or not."""

    night: str
    status: Status
    nothing_to_do: bool
    failure: str
    exit_code: int
    lanes: LaneRuns | None = None
    """What other lanes than `cpu` said in it."""


@dataclass(frozen=True)
class Settled:
    """A night that found nothing to do: the remote does not show it, so it is remembered."""

    lane: str
    night: str
    at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True)
class Sign:
    """A night that came to an end which counts, as far as remote and this machine know."""

    what: str
    """``promoted``, ``tested`` or ``found nothing to do``."""
    night: str
    at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True)
class ImageTagStatus:
    """A moving image tag that is not where the ledger says."""

    name: str
    wanted: str
    found: str | None
    """None: there is no such tag."""


@dataclass(frozen=True)
class StatusReport:
    lane: str
    branch: str
    remote: str
    tip: Sha | None
    """The branch's tip on the remote; None: there is no such branch yet."""
    night: LedgerLine | None
    """What is deployed: the night just promoted, or a rollback; None: no night was ever promoted here."""
    night_commit: Sha | None
    age_s: int | None
    """Seconds since that was put there."""
    nights: int
    """How many were promoted, also those that were taken back."""
    foreign_on_top: int
    """Commits on the branch above what is deployed that patchstack did not make."""
    channels: tuple[ChannelStatus, ...]
    tags_missing: tuple[str, ...]
    tags_elsewhere: tuple[TagFault, ...]
    last_run: LastRun | None
    image_night: str | None = None
    """The newest night that has an image; None: no night has one."""
    image_tags_lag: tuple[ImageTagStatus, ...] = ()
    registry_problem: str = ""
    """Why the registry could not be asked; empty where it answered, or there was nothing to ask."""
    newest: Sign | None = None
    """The newest night that was promoted, tested, or found nothing to do."""
    held: LedgerLine | None = None
    """The hold in force."""
    bars: tuple[tuple[str, Bar], ...] = ()
    """What is barred, each with the id of the rollback, or of the night, that barred it."""
    overdue: str = ""
    """With an age that was asked about: one sentence, if no night is as young; else empty."""

    def raise_if_overdue(self) -> None:
        if self.overdue:
            raise Incomplete(self.overdue)


def read_status(
    store: Repository,
    url: str | None,
    *,
    lane: str,
    branch: str,
    now: datetime,
    channels: Sequence[str] = (NIGHTLY,),
    latest: NightReport | None = None,
    verdicts: Sequence[Verdict] | None = None,
    reports: Sequence[NightReport] = (),
    settled: Settled | None = None,
    max_age: timedelta | None = None,
) -> StatusReport:
    """Ask the remote, and say where the lane stands; changes nothing on the remote.

    ``url`` is None for an embedded remote that no night has made yet. ``channels`` are the configured ones,
    ``latest`` the newest report on this machine (another lane's is passed over), ``verdicts`` the newest verdicts
    on it: a night with nothing to do has none, and the reasons of the night before still hold. None: those of
    ``latest``. ``reports`` and ``settled`` are nights that this machine knows of, and ``max_age`` how old the
    newest may be. Raises `RemoteError` when the remote cannot be asked.
    """
    state = read_remote(store, url, lane=lane, branch=branch) if url is not None else None
    if latest is not None and latest.lane != lane:
        latest = None
    judged = verdicts if verdicts is not None else latest.verdicts if latest else ()
    found = describe(
        state, url or "", lane=lane, branch=branch, now=now, channels=channels, latest=latest, verdicts=judged
    )
    promoted = state.history.nights if state else ()
    signs = signs_of(
        promoted[0].line if promoted else None, [report for report in reports if report.lane == lane], settled
    )
    # Machines' clocks differ: what is in the future is believed as far as an old night would be.
    believed = [sign for sign in signs if max_age is None or datetime.fromisoformat(sign.at) - now <= max_age]
    newest = max(believed, key=lambda sign: datetime.fromisoformat(sign.at), default=None)
    return replace(found, newest=newest, overdue=overdue(newest, lane, now, max_age) if max_age else "")


def signs_of(night: LedgerLine | None, reports: Sequence[NightReport], settled: Settled | None) -> list[Sign]:
    """Every night that counts as a sign that nights still run; a red one does, for it says so itself.

    ``night`` is the newest that was promoted, also when it was taken back: a rollback is no night.
    """
    found = [Sign("promoted", night.night, night.at)] if night else []
    found += [Sign("found nothing to do", settled.night, settled.at)] if settled else []
    for report in reports:
        if report.nothing_to_do or report.verdicts:
            what = "found nothing to do" if report.nothing_to_do else "tested"
            found.append(Sign(what, report.night, report.at))
    return found


def overdue(newest: Sign | None, lane: str, now: datetime, max_age: timedelta) -> str:
    """One sentence when ``newest`` is older than ``max_age``, or there is none; else empty."""
    limit = f"{max_age / timedelta(hours=1):g} h"
    what = f"no night of lane {lane} was promoted, tested or found to have nothing to do"
    then = "find out why nothing ran, or run `patchstack nightly`"
    if newest is None:
        return f"{what}, ever, as far as its remote and this machine know: {then}"
    age = now - datetime.fromisoformat(newest.at)
    if age <= max_age:
        return ""
    hours = age / timedelta(hours=1)
    return f"{what} for {limit}: the newest was {newest.night}, {newest.what} {hours:.1f} h ago; {then}"


def describe(
    state: RemoteState | None,
    url: str,
    *,
    lane: str,
    branch: str,
    now: datetime,
    channels: Sequence[str],
    latest: NightReport | None,
    verdicts: Sequence[Verdict],
) -> StatusReport:
    """`read_status` without the remote; pure."""
    history = state.history if state else History(())
    nights, standing, last, hold = history.nights, history.standing, history.last, history.hold
    faults = tag_faults(history.entries, state.tags) if state else ()
    moved = tuple(name for night in nights for name in night.line.channels)
    names = dict.fromkeys((*channels, *moved))
    return StatusReport(
        lane=lane,
        branch=branch,
        remote=url,
        tip=state.deploy.commit if state and state.deploy else None,
        night=last.line if last else None,
        night_commit=last.commit if last else None,
        age_s=int((now - datetime.fromisoformat(last.line.at)).total_seconds()) if last else None,
        nights=len(nights),
        foreign_on_top=history.foreign_on_top,
        channels=tuple(_channel(name, history, verdicts) for name in names),
        tags_missing=tuple(fault.name for fault in faults if fault.found is None),
        tags_elsewhere=tuple(fault for fault in faults if fault.found is not None),
        last_run=_last_run(latest),
        image_night=next((entry.content for entry in standing if entry.line.image), None),
        held=hold.line if hold else None,
        bars=tuple((entry.line.night, bar) for entry, bar in history.bars),
    )


def _channel(name: str, history: History, verdicts: Sequence[Verdict]) -> ChannelStatus:
    mover = next((entry for entry in history.standing if name in entry.line.channels), None)
    newest = next((night for night in history.nights if name in night.line.channels), None)
    stands = {entry.content for entry in history.standing}
    red = [verdict for verdict in verdicts if verdict.channel == name and verdict.status is not Status.PASS]
    why_not = tuple(reason for verdict in red for reason in verdict.reasons)
    return ChannelStatus(
        name=name,
        night=mover.content if mover else None,
        tag=mover.line.tag if mover else None,
        current=mover is not None and mover is history.last,
        why_not=why_not,
        taken_back=newest.content if newest is not None and newest.content not in stands else None,
    )


def _last_run(latest: NightReport | None) -> LastRun | None:
    if latest is None:
        return None
    return LastRun(latest.night, latest.headline, latest.nothing_to_do, latest.failure, latest.exit_code, latest.lanes)
