"""`patchstack job`: what an executor begins on a machine."""

from __future__ import annotations

from pathlib import Path

import click

from patchstack.console import Options, emit, with_json, workplace
from patchstack.errors import UsageError


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--unpack",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Make FOLDER a job of the night in FILE, as `nightly --until test --pack` wrote it, with --lane and --shard.",
)
@click.option("--lane", metavar="NAME", help="With --unpack: the lane, one with `executor: github`.")
@click.option("--shard", metavar="I/N", help="With --unpack: which of the lane's jobs, as `patchstack jobs` names it.")
@click.option("--rehearse", is_flag=True, help="With --unpack: on a CPU, as `patchstack jobs --rehearse` asks it.")
@with_json
@click.pass_obj
def job(
    options: Options,
    folder: Path,
    unpack: Path | None,
    lane: str | None,
    shard: str | None,
    rehearse: bool,
    as_json: bool,
) -> None:
    """Run the shard of a lane that FOLDER asks for, below runs/ID/lanes, and leave its answer there.

    Executors begin it. It ends with 0 wherever an answer was written, whatever the tests said. With --unpack it is on
    a machine that has no more of the night than its pack, and makes FOLDER first.
    """
    if unpack is None and (lane is not None or shard is not None or rehearse):
        raise UsageError("--lane, --shard and --rehearse are for --unpack: else FOLDER says what is to be done")
    if unpack is not None and (lane is None or shard is None):
        raise UsageError("--unpack needs --lane and --shard: which job of the night it is")
    from patchstack import store
    from patchstack.report.lane_lines import answer_page
    from patchstack.report.terminal import page_text
    from patchstack.verbs.job import run_job

    work = workplace(options)
    if unpack is not None and lane is not None and shard is not None:
        from patchstack.verbs.jobs import unpack_job

        with work.locked():
            unpack_job(work, unpack, folder, lane=lane, shard=shard, rehearse=rehearse)
    answer = run_job(work, folder)
    emit(store.encode(answer) if as_json else page_text(answer_page(answer)))
