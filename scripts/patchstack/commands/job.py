"""`patchstack job`: what an executor begins on a machine."""

from __future__ import annotations

from pathlib import Path

import click

from patchstack.console import Options, emit, with_json, workplace


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@with_json
@click.pass_obj
def job(options: Options, folder: Path, as_json: bool) -> None:
    """Run the shard of a lane that FOLDER asks for, below runs/ID/lanes, and leave its answer there.

    Executors begin it. It ends with 0 wherever an answer was written, whatever the tests said.
    """
    from patchstack import store
    from patchstack.report.lane_lines import answer_page
    from patchstack.report.terminal import page_text
    from patchstack.verbs.job import run_job

    answer = run_job(workplace(options), folder)
    emit(store.encode(answer) if as_json else page_text(answer_page(answer)))
