"""`patchstack init`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from patchstack.console import Options, complain, emit, with_dry_run, with_json

if TYPE_CHECKING:
    from patchstack.adoption.telling import Adoption


@click.command(name="init")
@click.option("--from", "source", metavar="REPO", required=True, help="owner/name; with --local a git URL or folder.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write. [default: the folder of the configuration]",
)
@click.option("--base", metavar="sglang==X", help="The release that the fork is on. [default: found out]")
@click.option("--deploy-branch", metavar="NAME", help="The branch that is deployed. [default: guessed by its name]")
@click.option("--main", metavar="NAME", help="The branch for patches and workflows. [default: patchstack]")
@with_json
@with_dry_run
@click.pass_obj
def init(
    options: Options,
    source: str,
    folder: Path | None,
    base: str | None,
    deploy_branch: str | None,
    main: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Read an existing fork without changing it, and write what its nights need: deploy.yaml and the workflows."""
    from patchstack.report.terminal import Progress
    from patchstack.verbs.adopt import Asked, adopt

    beside = options.config.parent
    home = folder or beside
    state = home / ".patchstack" if options.state == beside / ".patchstack" else options.state
    asked = Asked(source, home, state, options.local, options.offline, base, deploy_branch, main, dry_run)
    found = adopt(asked, Progress())
    emit(json.dumps(_as_json(found), indent=2) if as_json else _told(found))
    if found.exit_code:
        complain(found.failure)
        raise click.exceptions.Exit(found.exit_code)


def _as_json(found: Adoption) -> dict[str, object]:
    from pydantic import TypeAdapter

    body: dict[str, object] = TypeAdapter(type(found)).dump_python(
        found, mode="json", exclude={"files": {"__all__": {"data"}}}
    )
    return body


def _told(found: Adoption) -> str:
    from patchstack.adoption.telling import lines
    from patchstack.report.inert import visible

    return "\n".join(map(visible, lines(found)))
