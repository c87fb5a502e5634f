"""`patchstack explain`: what is inside an image, and what differs between two."""

from __future__ import annotations

from pathlib import Path

import click

from patchstack.console import Options, emit, with_json, workplace


@click.command()
@click.argument("image", metavar="IMAGE|A..B")
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The public key (PEM) that must have signed it. [default: public_key of the lane in deploy.yaml]",
)
@with_json
@click.pass_obj
def explain(options: Options, image: str, key: Path | None, as_json: bool) -> None:
    """Say what is inside IMAGE and why, and how far that is verified; or what changed from image A to image B.

    An image is `repository:tag`, `repository@sha256:...`, or a tag or digest alone for the lane's own repository (with
    --local: that of this machine). Only its small layers are read. An image whose parts do not fit together ends with
    5, and so does one that is not signed by the key, where there is a key.
    """
    from patchstack import store
    from patchstack.report.explain import render_difference, render_explained
    from patchstack.verbs import explain as verb

    two = verb.two_names(image)
    work = workplace(options)
    if two is None:
        found = verb.explain(work, image, key)
        emit(store.encode(found) if as_json else render_explained(found))
    else:
        differs = verb.difference(work, *two, key)
        emit(store.encode(differs) if as_json else render_difference(differs))
