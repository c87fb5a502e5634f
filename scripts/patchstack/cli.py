"""The command line: one verb a stage, and nothing in it but options, output and exit codes.

Each verb imports what it needs when it runs: `patchstack --help` and `validate` start without git, rich,
jinja or the stages behind them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from patchstack import __version__
from patchstack.errors import EXIT_CODES, EXIT_INTERRUPTED, MachineError, PatchstackError, UsageError

if TYPE_CHECKING:
    from patchstack.model import NightReport
    from patchstack.workplace import Workplace

Verb = TypeVar("Verb", bound=Callable[..., Any])

PIPE_CLOSED = 141  # 128 + SIGPIPE, as a shell would say

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in sorted(EXIT_CODES.items()))


@dataclass(frozen=True)
class Options:
    """The options that stand before the verb."""

    config: Path
    state: Path
    lane: str | None
    remote: str | None
    local: bool
    offline: bool


def _with_json(verb: Verb) -> Verb:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")(verb)


def _with_dry_run(verb: Verb) -> Verb:
    text = "Decide and print the decision; keep no run, publish nothing, change no file of yours."
    return click.option("--dry-run", is_flag=True, help=text)(verb)


def _with_run(verb: Verb) -> Verb:
    text = "Start from the files of this run (its folder's name) instead of making a new run."
    return click.option("--run", "run_id", metavar="ID", help=text)(verb)


def _with_without(verb: Verb) -> Verb:
    text = "Leave out this patch, and by name what requires it. May be repeated."
    return click.option("--without", "without", multiple=True, metavar="SLUG", help=text)(verb)


def _with_jobs(verb: Verb) -> Verb:
    text = "How many suites run at a time, each in a process of its own. [default: the cores and one, at most 4]"
    kind = click.IntRange(min=1)
    return click.option("--jobs", type=kind, metavar="N", envvar="PATCHSTACK_JOBS", show_envvar=True, help=text)(verb)


def _with_rerun(verb: Verb) -> Verb:
    text = "Which kept results to make again: none, today's share of a week, all."
    kind = click.Choice(["none", "due", "all"])
    return click.option("--rerun", type=kind, default="due", show_default=True, help=text)(verb)


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

    A night is `plan`, `merge`, `test`, `promote`, `report` in this order; `nightly` runs them all. Without
    --run a verb runs the verbs before it in a new run.
    """
    context.obj = Options(config, state or config.parent / ".patchstack", lane, remote, local, offline)


def _workplace(options: Options, *, local: bool | None = None) -> Workplace:
    from patchstack.report.terminal import Progress
    from patchstack.workplace import open_workplace

    return open_workplace(
        config_path=options.config,
        state_folder=options.state,
        lane=options.lane,
        remote=options.remote,
        local=options.local if local is None else local,
        offline=options.offline,
        progress=Progress(),
    )


class _ReaderLeft(Exception):
    """Nobody reads standard output any more. Not a `BrokenPipeError`: for that click ends with 1, a gate's FAIL."""


@contextlib.contextmanager
def _to_the_reader() -> Iterator[None]:
    """Write to standard output in the block, and be done with it there."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:  # rich ends the program where its reader left
        raise _ReaderLeft from error


def _emit(text: str) -> None:
    with _to_the_reader():
        click.echo(text, nl=not text.endswith("\n"))


def _complain(text: str) -> None:
    """Say on standard error what went wrong; the words may be a remote's or an author's."""
    from patchstack.report.inert import visible

    with contextlib.suppress(OSError):  # where nobody listens, the exit code still speaks
        for line in text.splitlines():
            click.echo(f"patchstack: {visible(line)}", err=True)


@main_group.command()
@_with_json
@click.option("--print-schema", is_flag=True, help="Print the JSON schema of deploy.yaml and end.")
@click.pass_obj
def validate(options: Options, as_json: bool, print_schema: bool) -> None:
    """Check deploy.yaml and the patches' front matter; name every problem at once."""
    from patchstack import config as configuration

    if print_schema:
        _emit(configuration.schema_text())
        return
    from patchstack.verbs.author import validate as run_validate

    found = run_validate(options.config)
    if as_json:
        _emit(json.dumps({"config": str(options.config), "lanes": found.lanes, "patches": found.patches}, indent=2))
    else:
        _emit(f"{options.config}: lanes {', '.join(found.lanes)}; {len(found.patches)} patches: all in order")


@main_group.command()
@_with_json
@click.pass_obj
def lint(options: Options, as_json: bool) -> None:
    """Check that every patch applies, is exported canonically, and that generated files are fresh."""
    from patchstack.verbs.author import lint as run_lint

    done = run_lint(_workplace(options))
    _emit(json.dumps({"checked": done}, indent=2) if as_json else "\n".join(done))


@main_group.command()
@_with_without
@_with_json
@click.pass_obj
def plan(options: Options, without: tuple[str, ...], as_json: bool) -> None:
    """Decide what is merged tonight, and what is not and why. Needs a 10 MB download, no torch."""
    from patchstack import store
    from patchstack.report.terminal import render_plan
    from patchstack.verbs.plan import plan as run_plan

    work = _workplace(options)
    with work.locked(), work.open_run() as run:
        made = run_plan(work, run, without=without)
    _emit(store.encode(made) if as_json else render_plan(made, run.id))


@main_group.command()
@_with_run
@_with_without
@click.option("--verify", is_flag=True, help="Compose again without anything remembered, and compare.")
@_with_json
@_with_dry_run
@click.pass_obj
def merge(
    options: Options, run_id: str | None, without: tuple[str, ...], verify: bool, as_json: bool, dry_run: bool
) -> None:
    """Compose the plan into one octopus commit in the local store."""
    from patchstack import store
    from patchstack.report.terminal import render_composition, render_plan
    from patchstack.verbs import plan as stage

    work = _workplace(options)
    with work.locked(), work.open_run(run_id, dry_run=dry_run) as run:
        planned = stage.planned(work, run, without=without)
        if dry_run:
            _emit(store.encode(planned) if as_json else render_plan(planned, run.id))
            return
        made = stage.merge(work, run, again=verify)
    _emit(store.encode(made) if as_json else render_composition(made, run.id))


@main_group.command()
@_with_run
@_with_without
@click.option(
    "--suite",
    "suites",
    multiple=True,
    metavar="NAME",
    help="Only the guards of this patch, or of a group: `pd` is every `pd-...`. May be repeated.",
)
@_with_rerun
@_with_jobs
@_with_json
@_with_dry_run
@click.pass_obj
def test(
    options: Options,
    run_id: str | None,
    without: tuple[str, ...],
    suites: tuple[str, ...],
    rerun: str,
    jobs: int | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Run the guards on the composed tree and on what their patch stands on, and judge the channels."""
    from patchstack import store
    from patchstack.report.terminal import render_guards
    from patchstack.verbs import test as stage
    from patchstack.verbs.plan import composed

    work = _workplace(options)
    with work.locked(), work.open_run(run_id, dry_run=dry_run) as run:
        composition = composed(work, run, without=without)
        if dry_run:
            chosen = stage.selected(work, composition, suites)
            _emit(json.dumps({"would_run": chosen}, indent=2) if as_json else "\n".join(chosen))
            return
        report = stage.run_guards(work, run, composition, only=suites, rerun=rerun, jobs=jobs)
        verdicts = stage.gate(work, run, composition, report)
    _emit(store.encode(report) if as_json else render_guards(report, verdicts))
    stage.raise_for(verdicts, run.id)


@main_group.command()
@click.argument("slug")
@_with_rerun
@_with_jobs
@_with_json
@_with_dry_run
@click.pass_obj
def prove(options: Options, slug: str, rerun: str, jobs: int | None, as_json: bool, dry_run: bool) -> None:
    """Prove patch SLUG alone: on what it requires, without it, with it, and with each of its mutants."""
    from patchstack import store
    from patchstack.report.terminal import render_proof
    from patchstack.verbs import prove as stage

    work = _workplace(options)
    with work.locked(), work.open_run(dry_run=dry_run) as run:
        if dry_run:
            decided = stage.decided(work, slug)
            _emit(json.dumps({"would_run": decided}, indent=2) if as_json else "\n".join(decided))
            return
        report = stage.prove(work, run, slug, rerun=rerun, jobs=jobs)
    _emit(store.encode(report) if as_json else render_proof(report))
    stage.raise_for(report)


@main_group.command()
@_with_run
@_with_json
@_with_dry_run
@click.pass_obj
def promote(options: Options, run_id: str | None, as_json: bool, dry_run: bool) -> None:
    """Move the deploy branch to a run that passed its gate. [default: the newest run with a verdict]"""
    from patchstack import store
    from patchstack.report.terminal import render_promotion
    from patchstack.verbs.promote import promote as run_promote

    work = _workplace(options)
    with work.locked():
        made = run_promote(work, work.judged_run(run_id), dry_run=dry_run)
    for note in made.notes:
        work.progress(note)
    _emit(store.encode(made.promotion) if as_json else render_promotion(made.promotion, dry_run))


@main_group.command()
@_with_json
@click.pass_obj
def status(options: Options, as_json: bool) -> None:
    """Say which night is deployed, how old it is, and what lags behind."""
    from patchstack import store
    from patchstack.report.terminal import render_status
    from patchstack.verbs.promote import status as run_status

    found = run_status(_workplace(options))
    _emit(store.encode(found) if as_json else render_status(found))


@main_group.command()
@_with_run
@_with_json
@click.pass_obj
def report(options: Options, run_id: str | None, as_json: bool) -> None:
    """Show a night's report again. [default: the newest night]"""
    from patchstack import nightly

    _show_night(nightly.read_report(_workplace(options), run_id), as_json)


def _show_night(night: NightReport, as_json: bool) -> None:
    from patchstack import store
    from patchstack.report.terminal import render_terminal

    if as_json:
        _emit(store.encode(night))
    else:
        with _to_the_reader():
            render_terminal(night)


@main_group.command(name="nightly")
@click.option("--local", "local_night", is_flag=True, help="As before the verb: no GitHub, the remote's refs.")
@click.option("--force", is_flag=True, help="Do not stop at an unchanged plan; the gate is never skipped.")
@_with_jobs
@_with_json
@_with_dry_run
@click.pass_obj
def nightly_command(
    options: Options, local_night: bool, force: bool, jobs: int | None, as_json: bool, dry_run: bool
) -> None:
    """A whole night: the verbs in order, under one lock, with a report whatever happens."""
    from patchstack import nightly, store
    from patchstack.report.terminal import render_plan
    from patchstack.verbs.plan import plan as run_plan

    work = _workplace(options, local=options.local or local_night)
    with work.locked():
        if dry_run:
            with work.open_run(dry_run=True) as run:
                planned = run_plan(work, run)
            _emit(store.encode(planned) if as_json else render_plan(planned, run.id))
            return
        night = nightly.night(work, force=force, jobs=jobs)
    try:
        _show_night(night, as_json)
    except _ReaderLeft:  # how the night ended is what counts
        _leave_output()
    _complain(night.failure)
    sys.exit(night.exit_code)


@main_group.group()
def patch() -> None:
    """Work on one patch of the stack."""


@patch.command(name="edit")
@click.argument("slug")
@click.argument("folder", type=click.Path(path_type=Path))
@_with_json
@_with_dry_run
@click.pass_obj
def patch_edit(options: Options, slug: str, folder: Path, as_json: bool, dry_run: bool) -> None:
    """Make FOLDER a work tree with the stack as commits up to patch SLUG, to change with ordinary git."""
    from patchstack.verbs import author

    made = author.edit_patch(_workplace(options), slug, folder, dry_run=dry_run)
    if as_json:
        body = {"folder": str(made.folder), "branch": made.branch, "below": made.below, "note": made.note}
        _emit(json.dumps({"slug": slug, **body, "dry_run": dry_run}, indent=2))
    else:
        _emit(f"would make {made.folder}: branch {made.branch}" if dry_run else author.what_to_do(made, slug, folder))


@patch.command(name="export")
@click.argument("slug")
@click.option("--from", "folder", type=click.Path(path_type=Path), help="The work tree that `patch edit` made.")
@_with_json
@_with_dry_run
@click.pass_obj
def patch_export(options: Options, slug: str, folder: Path | None, as_json: bool, dry_run: bool) -> None:
    """Write patch SLUG back in canonical form, from its work tree or as it stands."""
    from patchstack.verbs import author

    written = author.export_patch(_workplace(options), slug, folder, dry_run=dry_run)
    if as_json:
        _emit(json.dumps({"slug": slug, "files": written, "dry_run": dry_run}, indent=2))
    else:
        verb = "would be written" if dry_run else "written"
        _emit("\n".join(f"{path}: {verb}" for path in written) or f"{slug}: canonical already, nothing to write")


@main_group.command()
@_with_json
@_with_dry_run
@click.pass_obj
def generate(options: Options, as_json: bool, dry_run: bool) -> None:
    """Write the generated files again: deploy.yaml's JSON schema and the README's tables."""
    from patchstack.verbs import author

    root = options.config.absolute().parent
    stale = author.stale_files(root) if dry_run else author.write_generated(root)
    if as_json:
        _emit(json.dumps({"stale": stale, "dry_run": dry_run}, indent=2))
    else:
        _emit("\n".join(f"{name}: {'stale' if dry_run else 'written'}" for name in stale) or "all fresh")


def _speak_plainly() -> None:
    """Write what the terminal's encoding lacks as an escape, and to nowhere what has been closed."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        elif stream is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != descriptor:  # nobody else may get the number of a standard stream
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(descriptor, "w"))


def _leave_output() -> None:
    """Point standard output elsewhere, so that the exit's flush of what is left cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """Run a verb; the only place where an exception becomes a message and an exit code."""
    _speak_plainly()
    try:
        # A stop by the system ends the children and the run's report as Ctrl-C does.
        for stop in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(stop) is signal.SIG_DFL:
                signal.signal(stop, signal.default_int_handler)
        main_group.main(standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except PatchstackError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except (_ReaderLeft, BrokenPipeError):
        _leave_output()  # its reader has gone (`| head`)
        sys.exit(PIPE_CLOSED)
    except OSError as error:
        _leave_output()  # it may be what cannot be written
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error}: this machine does not allow it; make room, or mend the path")
        sys.exit(MachineError.exit_code)
    except Exception:
        traceback.print_exc()
        click.echo("patchstack: this is a bug; please report it with the lines above", err=True)
        sys.exit(PatchstackError.exit_code)
    sys.exit(0)
