"""`patchstack image`: the image of a run's composition."""

from __future__ import annotations

import json

import click

from patchstack.console import Options, emit, with_dry_run, with_json, with_run, workplace
from patchstack.errors import Incomplete


@click.command()
@with_run
@with_json
@with_dry_run
@click.pass_obj
def image(options: Options, run_id: str | None, as_json: bool, dry_run: bool) -> None:
    """Make the image of the composed tree: one layer on the dependencies of its release, pushed and read back."""
    from patchstack import store
    from patchstack.report.image_verbs import render_image
    from patchstack.verbs.image import make_image, previous_image, would_make
    from patchstack.verbs.plan import composed

    work = workplace(options)
    with work.locked(), work.open_run(run_id, dry_run=dry_run) as run:
        composition = composed(work, run)
        if dry_run:
            said = would_make(work, composition)
            emit(json.dumps({"would": said}, indent=2) if as_json else said)
            return
        made = make_image(work, run, composition, previous_image(work))
    emit(store.encode(made) if as_json else render_image(made))
    if made.image is None:
        raise Incomplete(made.why_not)
