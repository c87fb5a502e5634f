"""What every verb of the command line shares: its common options, where it works, and how it speaks.

Standard output is a verb's result and nothing else; what went wrong goes to standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from patchstack.model import NightReport
    from patchstack.workplace import Workplace

Verb = TypeVar("Verb", bound=Callable[..., Any])


@dataclass(frozen=True)
class Options:
    """The options that stand before the verb."""

    config: Path
    state: Path
    lane: str | None
    remote: str | None
    local: bool
    offline: bool


def with_json(verb: Verb) -> Verb:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")(verb)


def with_dry_run(verb: Verb) -> Verb:
    text = "Decide and print the decision; keep no run, publish nothing, change no file of yours."
    return click.option("--dry-run", is_flag=True, help=text)(verb)


def with_run(verb: Verb) -> Verb:
    text = "Start from the files of this run (its folder's name) instead of making a new run."
    return click.option("--run", "run_id", metavar="ID", help=text)(verb)


def with_without(verb: Verb) -> Verb:
    text = "Leave out this patch, and by name what requires it. May be repeated."
    return click.option("--without", "without", multiple=True, metavar="SLUG", help=text)(verb)


def with_jobs(verb: Verb) -> Verb:
    text = "How many suites run at a time, each in a process of its own. [default: the cores and one, at most 4]"
    kind = click.IntRange(min=1)
    return click.option("--jobs", type=kind, metavar="N", envvar="PATCHSTACK_JOBS", show_envvar=True, help=text)(verb)


def with_deadline(verb: Verb) -> Verb:
    text = "Minutes after which guards are stopped; what has no answer then is missing, and the verdict INCOMPLETE."
    kind = click.IntRange(min=1)
    return click.option("--deadline-min", type=kind, metavar="N", help=text)(verb)


def with_rerun(verb: Verb) -> Verb:
    text = "Which kept results to make again: none, today's share of a week, all (with --lane also if it is not said)."
    kind = click.Choice(["none", "due", "all"])
    return click.option("--rerun", type=kind, default="due", show_default=True, help=text)(verb)


def workplace(options: Options, *, local: bool | None = None) -> Workplace:
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


class ReaderLeft(Exception):
    """Nobody reads standard output any more. Not a `BrokenPipeError`: for that click ends with 1, a gate's FAIL."""


@contextlib.contextmanager
def to_the_reader() -> Iterator[None]:
    """Write to standard output in the block, and be done with it there."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:  # rich ends the program where its reader left
        raise ReaderLeft from error


def emit(text: str) -> None:
    with to_the_reader():
        click.echo(text, nl=not text.endswith("\n"))


def complain(text: str) -> None:
    """Say on standard error what went wrong; the words may be a remote's or an author's."""
    from patchstack.report.inert import visible

    with contextlib.suppress(OSError):  # where nobody listens, the exit code still speaks
        for line in text.splitlines():
            click.echo(f"patchstack: {visible(line)}", err=True)


def show_night(night: NightReport, as_json: bool) -> None:
    from patchstack import store
    from patchstack.report.terminal import render_terminal

    if as_json:
        emit(store.encode(night))
    else:
        with to_the_reader():
            render_terminal(night)


def speak_plainly() -> None:
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


def leave_output() -> None:
    """Point standard output elsewhere, so that the exit's flush of what is left cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
