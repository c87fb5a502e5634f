"""`patchstack nightly`: a whole night, or one part of it."""

from __future__ import annotations

from pathlib import Path

import click

from patchstack.console import (
    Options,
    ReaderLeft,
    complain,
    emit,
    leave_output,
    show_night,
    with_deadline,
    with_dry_run,
    with_jobs,
    with_json,
    workplace,
)
from patchstack.errors import UsageError

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
STAGES = ("merge", "image", "test", "promote")


@click.command(name="nightly")
@click.option("--local", "local_night", is_flag=True, help="As before the verb: no GitHub, the remote's refs.")
@click.option("--force", is_flag=True, help="Do not stop at an unchanged plan; the gate is never skipped.")
@click.option(
    "--accept-lost",
    is_flag=True,
    help="Go on although the deployed night had more, or another base, and nothing says why; once you have read what.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="PR",
    help="A hotfix: #41, 41 or owner/name#41 on top of what --onto names, and nothing else. May be repeated.",
)
@click.option("--onto", type=click.Choice(["previous"]), help="What --only goes onto: the night that is deployed.")
@click.option(
    "--until", type=click.Choice(STAGES), default=STAGES[-1], show_default=True, help="The last stage that is done."
)
@click.option("--pack", type=FILE, metavar="FILE", help="Write the run to FILE, for the next part, however it ends.")
@click.option("--unpack", type=FILE, metavar="FILE", help="Go on with the night that FILE holds.")
@click.option("--tests", type=FILE, metavar="FILE", help="What the guards said, from the pack FILE; judged again here.")
@click.option(
    "--lanes",
    type=FOLDER,
    metavar="FOLDER",
    multiple=True,
    help="With --tests: what GitHub's runners said, each an answer.json in FOLDER or one below it. May be repeated.",
)
@click.option("--rehearsed", is_flag=True, help="With --tests: those jobs were rehearsals on a CPU.")
@with_jobs
@with_deadline
@with_json
@with_dry_run
@click.pass_obj
def nightly(
    options: Options,
    local_night: bool,
    force: bool,
    accept_lost: bool,
    only: tuple[str, ...],
    onto: str | None,
    until: str,
    pack: Path | None,
    unpack: Path | None,
    tests: Path | None,
    lanes: tuple[Path, ...],
    rehearsed: bool,
    jobs: int | None,
    deadline_min: int | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """A whole night: the verbs in order, under one lock, with a report whatever happens.

    In parts, on several machines: `--until merge --pack night.tar`, then `--unpack night.tar --until image --pack
    image.tar`, then `--unpack image.tar --until test --pack tests.tar`, then `--unpack image.tar --tests tests.tar`.
    Only the last part writes to the git remote; the second and the last write to the registry.
    """
    _require_one_part(force, accept_lost, until, pack, unpack, tests, dry_run)
    _require_hotfix(only, onto, unpack)
    if (lanes or rehearsed) and tests is None:
        raise UsageError("--lanes and --rehearsed are for the part that promotes: name what the guards said by --tests")
    from patchstack import store
    from patchstack.actions import write_outputs, write_summary
    from patchstack.nightly import Part, Until, night
    from patchstack.report.markdown import render_markdown
    from patchstack.report.terminal import render_plan
    from patchstack.verbs.handed_answers import Answers
    from patchstack.verbs.hotfix import pull_names
    from patchstack.verbs.jobs import lanes_of_github
    from patchstack.verbs.plan import plan as run_plan

    work = workplace(options, local=options.local or local_night)
    named = pull_names(work, only)
    with work.locked() as notes:
        if dry_run:
            with work.open_run(dry_run=True) as run:
                planned = run_plan(work, run, only=named)
            emit(store.encode(planned) if as_json else render_plan(planned, run.id))
            return
        part = Part(Until(until), unpack, tests, pack, Answers(lanes, rehearsed))
        report = night(
            work,
            force=force,
            accept_lost=accept_lost,
            only=named,
            jobs=jobs,
            part=part,
            deadline_min=deadline_min,
            notes=notes,
        )
    handed_on = {"settled": report.nothing_to_do, "lanes": bool(lanes_of_github(work))}
    write_outputs({**{name: str(value).lower() for name, value in handed_on.items()}, "run": report.night})
    write_summary(render_markdown(report))
    try:
        show_night(report, as_json)
    except ReaderLeft:  # how the night ended is what counts
        leave_output()
    complain(report.failure)
    raise click.exceptions.Exit(report.exit_code)


def _require_one_part(
    force: bool,
    accept_lost: bool,
    until: str,
    pack: Path | None,
    unpack: Path | None,
    tests: Path | None,
    dry_run: bool,
) -> None:
    """`UsageError` for options that belong to different parts."""
    if dry_run and (pack or unpack or until != STAGES[-1]):
        raise UsageError("--dry-run decides a whole night and packs nothing: leave out --until, --pack and --unpack")
    if tests is not None and (unpack is None or until != STAGES[-1]):
        raise UsageError("--tests is for the part that promotes: name the night with --unpack, and no other --until")
    if unpack is not None and until == STAGES[0]:
        raise UsageError("what --unpack holds is merged already: go on with --until test, or without --until")
    if accept_lost and (dry_run or unpack is not None):
        what = "--dry-run ends before it" if dry_run else "what --unpack holds is merged, and judged, already"
        raise UsageError(f"--accept-lost belongs to the part that merges: {what}")
    if unpack is not None and force:
        raise UsageError("--force belongs to the part that plans: what --unpack holds goes on in any case")
    if pack is not None and not pack.absolute().parent.is_dir():
        raise UsageError(f"--pack {pack}: its folder is not there; make it first")
    for given, name in ((unpack, "--unpack"), (tests, "--tests")):
        if given is not None and pack is not None and given.absolute() == pack.absolute():
            raise UsageError(f"--pack and {name} name the same file: give the new pack a name of its own")


def _require_hotfix(only: tuple[str, ...], onto: str | None, unpack: Path | None) -> None:
    """`UsageError` for a hotfix that does not say what is meant, or is planned already."""
    if only and onto is None:
        raise UsageError("--only takes pull requests onto what is deployed: say so with --onto previous")
    if onto is not None and not only:
        raise UsageError(f"--onto {onto} needs the pull requests that are to go there: --only PR")
    if only and unpack is not None:
        raise UsageError("--only belongs to the part that plans: what --unpack holds is planned already")
