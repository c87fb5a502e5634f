"""`patchstack retire`: what no night and nobody needs goes from the registry."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from patchstack.console import Options, emit, with_dry_run, with_json, workplace


@click.command()
@with_json
@with_dry_run
@click.pass_obj
def retire(options: Options, as_json: bool, dry_run: bool) -> None:
    """Delete images that are old and were never promoted; never what the ledger or a name of yours keeps."""
    from patchstack.report.image_verbs import render_retired
    from patchstack.verbs.retire import retire_images

    work = workplace(options)
    with work.locked():
        gone = retire_images(work, dry_run=dry_run)
    if as_json:
        emit(json.dumps({**asdict(gone), "dry_run": dry_run}, indent=2))
    else:
        emit(render_retired([(item.tags, item.why) for item in gone.all], dry_run=dry_run))
