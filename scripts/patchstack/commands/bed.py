"""`patchstack bed`: what tests need, made beforehand, where no code under test runs."""

from __future__ import annotations

import json

import click

from patchstack.console import Options, emit, with_json, workplace


@click.command()
@with_json
@click.pass_obj
def bed(options: Options, as_json: bool) -> None:
    """Make the lane's test bed and fetch the releases that it reads, so that a cache can keep them."""
    from patchstack.verbs.bed import make_bed

    work = workplace(options)
    with work.locked():
        made = make_bed(work)
    if as_json:
        emit(json.dumps({"lane": work.lane_name, **made}, indent=2))
    else:
        emit(f"{made['python']}: the test bed of {made['base']}, torch {made['torch']}")
        emit(f"releases in the cache: {', '.join(made['releases'])}")
