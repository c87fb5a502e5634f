"""`patchstack record`: a run on real GPUs, kept in the repository."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from patchstack.console import Options, emit, with_dry_run, with_json, workplace


@click.command()
@click.option("--run", "run_id", metavar="ID", help="The run. [default: the newest that asked another lane than cpu]")
@click.option("--lane", "lanes", multiple=True, metavar="NAME", help="Only this test lane. May be repeated.")
@with_json
@with_dry_run
@click.pass_obj
def record(options: Options, run_id: str | None, lanes: tuple[str, ...], as_json: bool, dry_run: bool) -> None:
    """Keep what a run's lanes said on their own machines in records/, to be committed; never a rehearsal."""
    from patchstack.report.lane_words import render_recorded
    from patchstack.verbs.record import record as run_record

    work = workplace(options)
    with work.locked():
        made = run_record(work, run_id, lanes, dry_run=dry_run)
    if as_json:
        emit(json.dumps({**asdict(made), "dry_run": dry_run}, indent=2))
    else:
        emit(render_recorded(made.written, made.there, made.refused, dry_run=dry_run))
