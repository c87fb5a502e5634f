"""`patchstack rollback`, `hold` and `release-hold`: an operator's word, which the next nights obey."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from patchstack.console import Options, emit, with_dry_run, with_json, workplace

if TYPE_CHECKING:
    from patchstack.verbs.promote import Promoted
    from patchstack.workplace import Workplace

with_reason = click.option(
    "--reason", metavar="TEXT", default="", help="Why: one line, for the ledger and its readers."
)


@click.command()
@click.option(
    "--to", metavar="NIGHT", help="The night to go back to: its id or its dated tag. [default: the one below]"
)
@click.option(
    "--because",
    multiple=True,
    metavar="PR|SLUG",
    help="Bar the head that is deployed of it: #41, 41, owner/name#41, or a patch. May be repeated.",
)
@with_reason
@with_dry_run
@with_json
@click.pass_obj
def rollback(
    options: Options, to: str | None, because: tuple[str, ...], reason: str, dry_run: bool, as_json: bool
) -> None:
    """Go back to an older night: one more commit on the deploy branch, and the image tags follow.

    What is taken back does not come back as it is: the plan of each such night is barred, and with --because a head,
    until it changes or `patchstack release-hold` releases it.
    """
    from patchstack.verbs.image_tags import follow_ledger
    from patchstack.verbs.remote import open_remote
    from patchstack.verbs.rollback import rollback as run_rollback

    work = workplace(options)
    with work.locked():
        done = run_rollback(work, to=to, because=because, reason=reason, dry_run=dry_run)
        _show(work, done, as_json=as_json, dry_run=dry_run)
        # deploy has moved, whatever the registry says now: the next night moves the tags that it did not take.
        followed = () if dry_run else follow_ledger(work, open_remote(work).history).notes
    for note in followed:
        work.progress(note)


@click.command()
@with_reason
@with_dry_run
@with_json
@click.pass_obj
def hold(options: Options, reason: str, dry_run: bool, as_json: bool) -> None:
    """Freeze the deploy branch: nights go on composing and testing, and promote nothing."""
    from patchstack.verbs.rollback import hold as run_hold

    work = workplace(options)
    with work.locked():
        _show(work, run_hold(work, reason=reason, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@click.command(name="release-hold")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@with_reason
@with_dry_run
@with_json
@click.pass_obj
def release_hold(options: Options, names: tuple[str, ...], reason: str, dry_run: bool, as_json: bool) -> None:
    """End the hold; or, with names, release what rollbacks and red nights have barred: a night, #41, a patch's slug."""
    from patchstack.verbs.rollback import release_hold as run_release

    work = workplace(options)
    with work.locked():
        _show(work, run_release(work, names, reason=reason, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def _show(work: Workplace, done: Promoted, *, as_json: bool, dry_run: bool) -> None:
    from patchstack import store
    from patchstack.report.terminal import render_operation

    for note in done.notes:
        work.progress(note)
    emit(store.encode(done.promotion) if as_json else render_operation(done.promotion, dry_run))
