"""`patchstack promote` and `patchstack status`: the deploy branch, moved and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from patchstack.compose.without import as_if_never_opened
from patchstack.errors import ImageError, RemoteError, UsageError
from patchstack.leftovers import clear
from patchstack.losses import Losses
from patchstack.model import Composition, GuardReport, LedgerImage, Promotion, Verdicts
from patchstack.regress.gate import image_to_promote
from patchstack.release.hold import require_promotable, require_unbarred
from patchstack.release.ledger import Entry
from patchstack.release.loss import require_few
from patchstack.release.promote import Source, decide
from patchstack.release.promote import promote as push_promotion
from patchstack.release.remote import RemoteState
from patchstack.release.repair import next_moment, promotion_of
from patchstack.release.status import ImageTagStatus, StatusReport, read_status
from patchstack.store import Run, now_utc
from patchstack.verbs.barred import new_bars
from patchstack.verbs.history import past_of
from patchstack.verbs.hotfix import require_onto_deployed
from patchstack.verbs.image import lane_image, open_registry
from patchstack.verbs.image_tags import lagging_tags, ledger_image, require_pullable
from patchstack.verbs.inputs import require_as_planned
from patchstack.verbs.losses import read_losses
from patchstack.verbs.plan import read_composition, stack_of
from patchstack.verbs.remote import naming_the_way_out, open_remote
from patchstack.verbs.repair import promoted_as, repair, write_promotion
from patchstack.verbs.settled import known_reports, last_settled
from patchstack.verbs.test import image_said, lanes_said, verdicts_on
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class Promoted:
    promotion: Promotion
    notes: tuple[str, ...]
    """What a reader must know and what stops nothing."""


def promote(work: Workplace, run: Run, *, dry_run: bool = False) -> Promoted:
    """Move the deploy branch to ``run``'s composition if its gate passed; ``dry_run``: only say what would move.

    A run that is on the branch already counts as promoted, and nothing is pushed.

    Raises `UsageError` when the verdict is not on this composition, or the run was taken back, `Incomplete` while
    promotion is on hold, when a rollback barred this plan or a head in it, when more of what is deployed is missing
    than may be, or what decides the night has changed since its plan,
    `RemoteError` when another night was promoted since the run began, and `ImageError` when the registry has not the
    image that was tested.
    """
    composition = read_composition(work, run)
    store, remote = work.store(), open_remote(work)
    known = promoted_as(run, composition, remote)
    if known is not None:
        return _promoted_before(work, run, known, remote, dry_run=dry_run)
    verdicts = run.read(Verdicts)
    said = (run.read(GuardReport), *image_said(run), past_of(run), lanes_said(run))
    if verdicts != verdicts_on(work, composition, *said):
        raise UsageError(
            f"the verdict of run {run.id} does not follow from its composition, its tests and deploy.yaml as they are "
            f"now; nothing was moved: run `patchstack test --run {run.id}`"
        )
    require_promotable(remote.history, composition.fingerprint, composition.included)
    bars = new_bars(composition, remote.history)
    before = as_if_never_opened(composition.fingerprint, [(bar.name, bar.value) for bar in bars])
    require_unbarred(remote.history, before, ())
    _require_next(run, remote)
    require_onto_deployed(composition.hotfix, remote.history)
    losses = read_losses(work, run, composition, remote.history)
    require_few(losses)
    image = _image_to_promote(work, run, composition)
    decision = decide(
        night=run.id,
        at=next_moment(remote.history, now_utc()),
        composition=composition,
        stack=Source(*stack_of(work, composition)),
        verdicts=verdicts.verdicts,
        remote=remote,
        image=image,
        upstream=work.upstream_words,
        lost=[(item.name, item.reason) for item in losses.items],
        bars=bars,
    )
    require_as_planned(work, composition)
    if dry_run:
        return Promoted(decision.promotion, decision.notes)
    notes = list(decision.notes)
    promotion = push_promotion(store, work.remote, decision, tell=notes.append)
    run.write(promotion)
    if len(notes) > len(decision.notes):  # it broke off, and may have done so half-way
        notes += clear(work.state.remote_git) if work.embedded else ()
        notes += repair(work, open_remote(work))
    return Promoted(promotion, tuple(notes))


def _promoted_before(work: Workplace, run: Run, entry: Entry, remote: RemoteState, *, dry_run: bool) -> Promoted:
    """A run that is on deploy counts as promoted, whoever put it there: it may have been killed right after that."""
    if entry.content not in {one.content for one in remote.history.standing}:
        raise UsageError(
            f"run {run.id} was promoted at {entry.line.at} and taken back since: it is not promoted again; nothing was "
            "moved: run `patchstack nightly`"
        )
    said = f"run {run.id} is promoted already, as {entry.commit[:12]} at {entry.line.at}: nothing is moved"
    if dry_run:
        return Promoted(promotion_of(entry, remote.lane, remote.branch), (said,))
    return Promoted(write_promotion(run, entry, remote), (said, *repair(work, remote)))


def _image_to_promote(work: Workplace, run: Run, composition: Composition) -> LedgerImage | None:
    """Tonight's image, green and still in its registry; None where the night has none that is green."""
    tested = image_to_promote(composition, *image_said(run))
    if tested is None:
        return None
    image, settings = ledger_image(tested), lane_image(work)
    if settings is None or (image.repository, image.runtime) != (settings.repository, settings.runtime):
        here = f"the {settings.runtime} one of {settings.repository}" if settings else "none"
        raise UsageError(
            f"run {run.id} has the {image.runtime} image of {image.repository}, and by deploy.yaml the lane's is "
            f"{here}; nothing was moved: run `patchstack nightly`"
        )
    with open_registry(work) as registry:
        if registry is None:
            raise ImageError(f"the registry of {image.repository} is not at hand any more; nothing was moved")
        require_pullable(registry, image)
    return image


def _require_next(run: Run, remote: RemoteState) -> None:
    """A run is promoted only onto the nights that it knew of: an older tree is a rollback.

    A night says what was deployed when it was merged. Of a run that the single verbs made, clocks decide what it could
    know.
    """
    last, began = remote.history.last, run.began
    if run.id in {entry.line.night for entry in remote.history.nights}:
        raise RemoteError(
            f"another night {run.id} is on {remote.branch}, of a machine that began in the same second by its clock: "
            "nothing was moved; run `patchstack nightly`"
        )
    if last is None:
        return
    if run.has(Losses):
        knew = run.read(Losses).since == last.content
    else:
        knew = began is not None and datetime.fromisoformat(last.line.at) <= began
    if not knew:
        raise RemoteError(
            f"{last.line.action.value} {last.line.night} moved deploy at {last.line.at}, after run {run.id} had begun: "
            "promoting it now would take that back, nothing was moved; run `patchstack nightly`"
        )


def status(work: Workplace, *, max_age: timedelta | None = None, packs: Sequence[Path] = ()) -> StatusReport:
    """Where the lane stands, as the remote says; a remote that no night has made yet is a plain answer.

    ``max_age``: how old the newest night may be. The reports in ``packs`` count as this machine's own.
    """
    missing = work.embedded and not (Path(work.remote) / "HEAD").is_file()
    judged = work.newest(Verdicts)
    with naming_the_way_out(work):
        found = read_status(
            work.store(),
            None if missing else work.remote,
            lane=work.lane_name,
            branch=work.lane.branch,
            now=now_utc(),
            channels=tuple(work.config.channels),
            latest=work.newest_report(),
            verdicts=judged.read(Verdicts).verdicts if judged else None,
            reports=known_reports(work, packs) if max_age is not None else (),
            settled=last_settled(work) if max_age is not None else None,
            max_age=max_age,
        )
    return _with_image_tags(work, found) if found.image_night else found


def _with_image_tags(work: Workplace, found: StatusReport) -> StatusReport:
    """A registry that does not answer is told of, like a tag that lags: it is no reason to say nothing of the rest."""
    try:
        lagging = lagging_tags(work, open_remote(work).history)
    except ImageError as error:
        return replace(found, registry_problem=str(error))
    return replace(found, image_tags_lag=tuple(ImageTagStatus(tag.name, tag.wanted, tag.found) for tag in lagging))
