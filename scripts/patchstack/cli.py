"""The command line: one verb a stage, and nothing in it but options, output and exit codes.

Each verb imports what it needs when it runs: `patchstack --help` and `validate` start without git, rich,
jinja or the stages behind them. Verbs that speak with GitHub are in `commands/`.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import click

from patchstack import __version__
from patchstack.actions import take_no_commands
from patchstack.commands.answer import answer
from patchstack.commands.bed import bed
from patchstack.commands.comment import comment
from patchstack.commands.explain import explain
from patchstack.commands.image import image
from patchstack.commands.image_check import image_check
from patchstack.commands.init import init
from patchstack.commands.job import job
from patchstack.commands.jobs import jobs
from patchstack.commands.ledger import ledger
from patchstack.commands.nightly import nightly
from patchstack.commands.patch_import import patch_import
from patchstack.commands.record import record
from patchstack.commands.registry import registry
from patchstack.commands.retire import retire
from patchstack.commands.review import review
from patchstack.commands.rollback import hold, release_hold, rollback
from patchstack.commands.status import status
from patchstack.commands.test import test
from patchstack.console import (
    Options,
    ReaderLeft,
    complain,
    emit,
    leave_output,
    show_night,
    speak_plainly,
    with_dry_run,
    with_jobs,
    with_json,
    with_rerun,
    with_run,
    with_without,
    workplace,
)
from patchstack.errors import EXIT_CODES, EXIT_INTERRUPTED, MachineError, PatchstackError, UsageError

PIPE_CLOSED = 141  # 128 + SIGPIPE, as a shell would say

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in sorted(EXIT_CODES.items()))


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="patchstack")
@click.option("--config", type=click.Path(path_type=Path), default=Path("deploy.yaml"), show_default=True)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="State folder. [default: .patchstack beside the configuration]",
)
@click.option("--lane", metavar="NAME", help="The lane. [default: the only one, or `production`]")
@click.option("--remote", metavar="URL", help="The remote, instead of fork.remote or the embedded one.")
@click.option("--local", is_flag=True, help="Ask no GitHub: candidates are the remote's refs/pull/*/head.")
@click.option("--offline", is_flag=True, help="Fetch nothing from a package index; use what the cache holds.")
@click.pass_context
def main_group(
    context: click.Context,
    config: Path,
    state: Path | None,
    lane: str | None,
    remote: str | None,
    local: bool,
    offline: bool,
) -> None:
    """Compose SGLang patches and pull requests on a pinned release, prove the result, promote it.

    A night is `plan`, `merge`, `image`, `test`, `promote`, `report` in this order; `nightly` runs them all. Without
    --run a verb runs the verbs before it in a new run.
    """
    context.obj = Options(config, state or config.parent / ".patchstack", lane, remote, local, offline)


@main_group.command()
@with_json
@click.option("--print-schema", is_flag=True, help="Print the JSON schema of deploy.yaml and end.")
@click.pass_obj
def validate(options: Options, as_json: bool, print_schema: bool) -> None:
    """Check deploy.yaml, the patches' front matter and what guards declare; name every problem at once."""
    from patchstack import config as configuration

    if print_schema:
        emit(configuration.schema_text())
        return
    from patchstack.verbs.author import validate as run_validate

    found = run_validate(options.config)
    if as_json:
        emit(json.dumps({"config": str(options.config), "lanes": found.lanes, "patches": found.patches}, indent=2))
    else:
        emit(f"{options.config}: lanes {', '.join(found.lanes)}; {len(found.patches)} patches: all in order")


@main_group.command()
@with_json
@click.pass_obj
def lint(options: Options, as_json: bool) -> None:
    """Check that every patch applies, is exported canonically, and that generated files are fresh."""
    from patchstack.verbs.author import lint as run_lint

    done = run_lint(workplace(options))
    emit(json.dumps({"checked": done}, indent=2) if as_json else "\n".join(done))


@main_group.command()
@with_without
@with_json
@click.pass_obj
def plan(options: Options, without: tuple[str, ...], as_json: bool) -> None:
    """Decide what is merged tonight, and what is not and why. Needs a 10 MB download, no torch."""
    from patchstack import store
    from patchstack.report.terminal import render_plan
    from patchstack.verbs.plan import plan as run_plan

    work = workplace(options)
    with work.locked(), work.open_run() as run:
        made = run_plan(work, run, without=without)
    emit(store.encode(made) if as_json else render_plan(made, run.id))


@main_group.command()
@with_run
@with_without
@click.option("--verify", is_flag=True, help="Compose again, step by step with nothing remembered, and compare.")
@with_json
@with_dry_run
@click.pass_obj
def merge(
    options: Options, run_id: str | None, without: tuple[str, ...], verify: bool, as_json: bool, dry_run: bool
) -> None:
    """Compose the plan into one octopus commit in the local store."""
    from patchstack import store
    from patchstack.report.terminal import render_composition, render_plan
    from patchstack.verbs import plan as stage

    work = workplace(options)
    with work.locked(), work.open_run(run_id, dry_run=dry_run) as run:
        planned = stage.planned(work, run, without=without)
        if dry_run:
            emit(store.encode(planned) if as_json else render_plan(planned, run.id))
            return
        made = stage.merge(work, run, again=verify)
    emit(store.encode(made) if as_json else render_composition(made, run.id))


main_group.add_command(test)


@main_group.command()
@click.argument("slug")
@with_rerun
@with_jobs
@with_json
@with_dry_run
@click.pass_obj
def prove(options: Options, slug: str, rerun: str, jobs: int | None, as_json: bool, dry_run: bool) -> None:
    """Prove patch SLUG alone: on what it requires, without it, with it, and with each of its mutants."""
    from patchstack import store
    from patchstack.report.terminal import render_proof
    from patchstack.verbs import prove as stage

    work = workplace(options)
    with work.locked(), work.open_run(dry_run=dry_run) as run:
        if dry_run:
            decided = stage.decided(work, slug)
            emit(json.dumps({"would_run": decided}, indent=2) if as_json else "\n".join(decided))
            return
        report = stage.prove(work, run, slug, rerun=rerun, jobs=jobs)
    emit(store.encode(report) if as_json else render_proof(report))
    stage.raise_for(report)


@main_group.command()
@with_run
@with_json
@with_dry_run
@click.pass_obj
def promote(options: Options, run_id: str | None, as_json: bool, dry_run: bool) -> None:
    """Move the deploy branch to a run that passed its gate. [default: the newest run with a verdict]"""
    from patchstack import store
    from patchstack.report.terminal import render_promotion
    from patchstack.verbs.image_tags import follow_ledger
    from patchstack.verbs.promote import promote as run_promote
    from patchstack.verbs.remote import open_remote

    work = workplace(options)
    with work.locked():
        made = run_promote(work, work.judged_run(run_id), dry_run=dry_run)
        followed = () if dry_run else follow_ledger(work, open_remote(work).history).notes
    for note in (*made.notes, *followed):
        work.progress(note)
    emit(store.encode(made.promotion) if as_json else render_promotion(made.promotion, dry_run))


@main_group.command()
@with_run
@with_json
@click.pass_obj
def report(options: Options, run_id: str | None, as_json: bool) -> None:
    """Show a night's report again. [default: the newest night]"""
    from patchstack.nightly import read_report

    show_night(read_report(workplace(options), run_id), as_json)


@main_group.group()
def patch() -> None:
    """Work on one patch of the stack."""


@patch.command(name="edit")
@click.argument("slug")
@click.argument("folder", type=click.Path(path_type=Path))
@with_json
@with_dry_run
@click.pass_obj
def patch_edit(options: Options, slug: str, folder: Path, as_json: bool, dry_run: bool) -> None:
    """Make FOLDER a work tree with the stack as commits up to patch SLUG, to change with ordinary git."""
    from patchstack.verbs import author

    made = author.edit_patch(workplace(options), slug, folder, dry_run=dry_run)
    if as_json:
        body = {"folder": str(made.folder), "branch": made.branch, "below": made.below, "note": made.note}
        emit(json.dumps({"slug": slug, **body, "dry_run": dry_run}, indent=2))
    else:
        emit(f"would make {made.folder}: branch {made.branch}" if dry_run else author.what_to_do(made, slug, folder))


@patch.command(name="export")
@click.argument("slug")
@click.option("--from", "folder", type=click.Path(path_type=Path), help="The work tree that `patch edit` made.")
@with_json
@with_dry_run
@click.pass_obj
def patch_export(options: Options, slug: str, folder: Path | None, as_json: bool, dry_run: bool) -> None:
    """Write patch SLUG back in canonical form, from its work tree or as it stands."""
    from patchstack.verbs import author

    written = author.export_patch(workplace(options), slug, folder, dry_run=dry_run)
    if as_json:
        emit(json.dumps({"slug": slug, "files": written, "dry_run": dry_run}, indent=2))
    else:
        verb = "would be written" if dry_run else "written"
        emit("\n".join(f"{path}: {verb}" for path in written) or f"{slug}: canonical already, nothing to write")


main_group.add_command(init)
patch.add_command(patch_import)


@main_group.command()
@with_json
@with_dry_run
@click.pass_obj
def generate(options: Options, as_json: bool, dry_run: bool) -> None:
    """Write the generated files again: deploy.yaml's JSON schema and the tables of README and docs/gpu.md."""
    from patchstack.config import load
    from patchstack.verbs import generated

    root, config = options.config.absolute().parent, load(options.config)
    stale = generated.stale_files(root, config) if dry_run else generated.write_generated(root, config)
    if as_json:
        emit(json.dumps({"stale": stale, "dry_run": dry_run}, indent=2))
    else:
        emit("\n".join(f"{name}: {'stale' if dry_run else 'written'}" for name in stale) or "all fresh")


for verb in (review, comment):
    main_group.add_command(verb)


main_group.add_command(answer)


main_group.add_command(nightly)
for verb in (rollback, hold, release_hold):
    main_group.add_command(verb)
main_group.add_command(status)
main_group.add_command(explain)
main_group.add_command(ledger)
main_group.add_command(bed)
for verb in (jobs, job, record):
    main_group.add_command(verb)
for verb in (image, image_check, registry, retire):
    main_group.add_command(verb)


def main() -> NoReturn:
    """Run a verb; the only place where an exception becomes a message and an exit code."""
    speak_plainly()
    try:
        take_no_commands()
        # A stop by the system ends the children and the run's report as Ctrl-C does.
        for stop in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(stop) is signal.SIG_DFL:
                signal.signal(stop, signal.default_int_handler)
        ended = main_group.main(standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except PatchstackError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except (ReaderLeft, BrokenPipeError):
        leave_output()  # its reader has gone (`| head`)
        sys.exit(PIPE_CLOSED)
    except OSError as error:
        leave_output()  # it may be what cannot be written
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}: this machine does not allow it; make room, or mend the path")
        sys.exit(MachineError.exit_code)
    except Exception:
        traceback.print_exc()
        click.echo("patchstack: this is a bug; please report it with the lines above", err=True)
        sys.exit(PatchstackError.exit_code)
    sys.exit(ended or 0)  # a verb that said all it has to say ends with `context.exit(code)`
