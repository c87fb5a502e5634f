"""`patchstack rollback`, `hold` and `release-hold`: what an operator says, as one commit each on the deploy branch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchstack.errors import RemoteError, UsageError
from patchstack.release import hold as holding
from patchstack.release.promote import Decision
from patchstack.release.promote import promote as push_decision
from patchstack.release.remote import RemoteState
from patchstack.release.repair import next_moment
from patchstack.release.rollback import choose
from patchstack.release.rollback import decide as decide_rollback
from patchstack.store import now_utc
from patchstack.verbs.hotfix import pull_name
from patchstack.verbs.image_tags import left_behind
from patchstack.verbs.promote import Promoted
from patchstack.verbs.remote import open_remote
from patchstack.verbs.repair import base_then, repair, stack_then
from patchstack.workplace import Workplace


def rollback(
    work: Workplace, *, to: str | None = None, because: Sequence[str] = (), reason: str = "", dry_run: bool = False
) -> Promoted:
    """Put the content of an older night onto the deploy branch; the caller holds the lock.

    ``to`` is a night's id or dated tag (None: the one below what is deployed), ``because`` pull requests and slugs
    whose heads are barred. Image tags are not moved here. Raises `UsageError`, with nothing written, for a night that
    does not stand, and `RemoteError` where another writer was faster.
    """
    store, remote = work.store(), _open(work)
    chosen = choose(remote.history, to=to, because=names_of(work, because))
    line = chosen.to.line
    decision = decide_rollback(
        chosen,
        at=next_moment(remote.history, now_utc()),
        reason=reason,
        remote=remote,
        base=base_then(store, line),
        stack=stack_then(store, line),
    )
    notes = [f"{chosen.foreign} commits on top that no promotion made are taken back as well"] if chosen.foreign else []
    barred = {(bar.name, bar.value) for _, bar in remote.history.bars}
    notes += [
        f"{name} is deployed again at {head[:12]}, which is barred: no night merges it like that"
        for name, head in line.included
        if (name, head) in barred
    ]
    done = _push(work, decision, dry_run=dry_run)
    return Promoted(done.promotion, (*notes, *left_behind(work, remote.history, chosen.to), *done.notes))


def hold(work: Workplace, *, reason: str = "", dry_run: bool = False) -> Promoted:
    """Freeze promotion: nights go on testing. `UsageError` where it is frozen, or nothing is deployed."""
    remote = _open(work)
    return _push(work, holding.hold(remote, at=next_moment(remote.history, now_utc()), reason=reason), dry_run=dry_run)


def release_hold(work: Workplace, names: Sequence[str] = (), *, reason: str = "", dry_run: bool = False) -> Promoted:
    """End the hold, or release what is barred under ``names``; `UsageError` where that is not in force."""
    remote = _open(work)
    at, known = next_moment(remote.history, now_utc()), names_of(work, names)
    return _push(work, holding.release(remote, at=at, names=known, reason=reason), dry_run=dry_run)


def names_of(work: Workplace, given: Sequence[str]) -> tuple[str, ...]:
    """Names as the ledger has them: ``41``, ``#41`` and the fork's ``owner/name#41`` are all ``#41``."""
    return tuple(dict.fromkeys(pull_name(work, text) or text for text in given))


def _open(work: Workplace) -> RemoteState:
    if work.embedded and not (Path(work.remote) / "HEAD").is_file():
        raise UsageError(f"no night has made {work.remote} yet: run `patchstack nightly`, or name a --remote")
    return open_remote(work)


def _push(work: Workplace, decision: Decision, *, dry_run: bool) -> Promoted:
    if dry_run:
        return Promoted(decision.promotion, decision.notes)
    notes = list(decision.notes)
    promotion = push_decision(work.store(), work.remote, decision, tell=notes.append)
    try:
        notes += repair(work, open_remote(work))
    except RemoteError as error:  # whoever takes that for the push's says it again, and goes back one more night
        line = promotion.line
        raise RemoteError(
            f"{line.action.value} {line.night} is on {promotion.branch}, do not say it again; what follows from it is "
            f"looked after by the next night, for now {error}"
        ) from error
    return Promoted(promotion, tuple(notes))
