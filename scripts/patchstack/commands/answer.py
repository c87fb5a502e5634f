"""`answer`: what a night says on GitHub."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from patchstack.commands.status import Age
from patchstack.console import Options, emit, with_dry_run, with_json, workplace
from patchstack.errors import RemoteError, UsageError

if TYPE_CHECKING:
    from patchstack.github import GitHub
    from patchstack.report.answers import Answers
    from patchstack.workplace import Workplace

OVERDUE = "36h"
"""A night a day, and half a day for it to end."""


@click.command()
@click.option("--run", "run_id", metavar="ID", help="The night of this run. [default: the lane's newest]")
@click.option(
    "--unpack",
    "packs",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The night in these packs; the newest report counts. May be repeated.",
)
@click.argument("more", nargs=-1, type=click.Path(path_type=Path, dir_okay=False), metavar="[FILE]...")
@click.option("--no-night", metavar="URL", help="Say that the workflow's run at URL ended without a report.")
@click.option(
    "--overdue",
    is_flag=False,
    flag_value=OVERDUE,
    type=Age(),
    metavar="[AGE]",
    help=f"Say whether no night is as young as AGE, as `status --max-age` would. [default: {OVERDUE}]",
)
@with_json
@with_dry_run
@click.pass_obj
def answer(
    options: Options,
    run_id: str | None,
    packs: tuple[Path, ...],
    more: tuple[Path, ...],
    no_night: str | None,
    overdue: timedelta | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Write a night's answers to GitHub: an issue for each signal, a comment where a pull request's state changed.

    Only what is not there already is written, so it can be run again at any time. Ends with 8 if something
    could not be written, and names all of that.
    """
    from patchstack.github import connect
    from patchstack.report import answers as told

    if sum(given is not None for given in (run_id, packs or None, no_night, overdue)) > 1:
        raise UsageError("--run, --unpack, --no-night and --overdue each say what is answered: use one of them")
    if more and not packs:
        raise UsageError(f"{more[0]}: a pack is named with --unpack")
    if options.local:
        raise UsageError("answers are written to GitHub, and --local asks it nothing: leave that out")
    work = workplace(options)
    hub = connect()
    with work.locked():
        done = _answer(work, hub, run_id, (*packs, *more), no_night, overdue, dry_run)
    if as_json:
        emit(json.dumps(asdict(done), indent=2))
    else:
        emit(told.render_answers(done) if dry_run else f"{told.answers_line(done)}\n")
    if done.not_written:
        raise RemoteError(told.not_written(done.not_written))


def _answer(
    work: Workplace,
    hub: GitHub,
    run_id: str | None,
    packs: tuple[Path, ...],
    no_night: str | None,
    overdue: timedelta | None,
    dry_run: bool,
) -> Answers:
    from patchstack.verbs import answer as verb

    if no_night is not None:
        return verb.answer_no_night(work, hub, no_night, dry_run=dry_run)
    if overdue is not None:
        return verb.answer_overdue(work, hub, max_age=overdue, dry_run=dry_run)
    night = verb.night_of_packs(work, packs, dry_run=dry_run) if packs else verb.night_of_run(work, run_id)
    return verb.answer_night(work, hub, night, dry_run=dry_run)
