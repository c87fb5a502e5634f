"""`patchstack jobs`: what a workflow gives to GitHub's runners."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from pathlib import Path

import click

from patchstack.console import Options, emit, with_json, workplace

KEY_BYTES = 16


@click.command()
@click.option(
    "--unpack",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    required=True,
    help="The night, as `nightly --until test --pack` wrote it.",
)
@click.option("--rehearse", is_flag=True, help="As rehearsals on a CPU, which need no image and prove nothing.")
@with_json
@click.pass_obj
def jobs(options: Options, unpack: Path, rehearse: bool, as_json: bool) -> None:
    """The jobs of lanes with `executor: github`, one a shard, each with the labels of its runner.

    None where the night is red, or where there is no image that they could run inside. In a workflow it hands on
    `jobs`, the list for a matrix, and `key`, for names that nobody can know beforehand.
    """
    from patchstack.actions import write_outputs
    from patchstack.verbs.jobs import jobs_of

    work = workplace(options)
    with work.locked():
        found = jobs_of(work, unpack, rehearse=rehearse)
    entries = [asdict(entry) for entry in found.jobs]
    write_outputs({"jobs": json.dumps(entries), "key": secrets.token_hex(KEY_BYTES)})
    if as_json:
        emit(json.dumps({"jobs": entries, "not_run": dict(found.not_run)}, indent=2))
        return
    lines = [f"{entry.lane} {entry.shard}: on {', '.join(entry.labels)}" for entry in found.jobs]
    lines += [f"{lane}: no job: {why}" for lane, why in found.not_run]
    emit("\n".join(lines) or "no lane has `executor: github`")
