"""`review`: what a patch pull request makes of the stack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from patchstack.console import Options, emit, with_json, workplace


@click.command()
@click.option(
    "--against", metavar="REV", required=True, help="main's commit; in a merge that GitHub made of both, HEAD^1."
)
@click.option("--pr", "number", type=click.IntRange(1, 2**31 - 1), metavar="N", help="The pull request's number.")
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the verdict there too, as JSON, for `comment`.",
)
@with_json
@click.pass_context
def review(context: click.Context, against: str, number: int | None, target: Path | None, as_json: bool) -> None:
    """Say what this checkout makes of the patches at REV: does it compose, what has changed, what it breaks.

    Both stacks are composed on their real bases; nothing is pushed and no guard runs. Ends with 4 if a patch
    does not compose, 3 if lint has a problem, 7 if a file is stale.
    """
    from patchstack import verdict
    from patchstack.lock import night_lock
    from patchstack.report.review import render_review
    from patchstack.store import State, write_whole
    from patchstack.verbs.review import review as run_review
    from patchstack.workplace import Workplace

    options: Options = context.obj

    def open_side(config: Path, lane: str) -> Workplace:
        return workplace(replace(options, config=config, lane=lane))

    with night_lock(State(options.state.absolute()).lock):
        found = run_review(open_side, options.config, against=against, number=number, lane=options.lane)
    text = verdict.encode(found)
    if target is not None:
        write_whole(target, text)
    emit(text if as_json else render_review(found))
    context.exit(found.exit_code)
