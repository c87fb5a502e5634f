"""`patchstack registry`: this machine's own registry, for as long as it is asked for."""

from __future__ import annotations

import contextlib
import json
import threading

import click

from patchstack.console import Options, emit, with_json, workplace


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="The port on loopback. [default: a free one]")
@with_json
@click.pass_obj
def registry(options: Options, port: int | None, as_json: bool) -> None:
    """Serve the images of local nights on loopback until Ctrl-C, and say how they are pulled."""
    from patchstack.image.embedded import serve
    from patchstack.image.registry import Registry
    from patchstack.image.retention import is_worth_pulling
    from patchstack.report.image_verbs import how_to_pull
    from patchstack.verbs.image import registry_folder

    with serve(registry_folder(workplace(options)), port=port or 0) as place:
        with Registry.at(place) as held:
            tags = [tag for tag in held.tags() if is_worth_pulling(tag)]
        emit(json.dumps({"repository": place.name, "tags": tags}) if as_json else how_to_pull(place.name, tags))
        with contextlib.suppress(KeyboardInterrupt):  # this is how it ends
            threading.Event().wait()
