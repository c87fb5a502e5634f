"""`comment`: a verdict that a pull request's own code wrote, told on the pull request by ours."""

from __future__ import annotations

import json
from pathlib import Path

import click

from patchstack.console import Options, emit, with_dry_run, with_json


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--head-sha", metavar="SHA", required=True, help="The head that was reviewed, as the event says and not the file."
)
@with_json
@with_dry_run
@click.pass_obj
def comment(options: Options, file: Path, head_sha: str, as_json: bool, dry_run: bool) -> None:
    """Tell the verdict in FILE on the pull request that it is about, in one comment that is kept up to date.

    FILE comes from a stranger: it must be of the verdict's form and size, and about an open pull request into
    main whose head is SHA. Else nothing is written.
    """
    from patchstack import config as configuration
    from patchstack.github import connect
    from patchstack.report.review import posted
    from patchstack.verbs.comment import comment as run_comment

    fork = configuration.load(options.config).fork
    done = run_comment(connect(), fork, file, head_sha=head_sha, dry_run=dry_run)
    if as_json:
        body = {"number": done.number, "did": done.did.value, "body": done.body, "dry_run": dry_run}
        emit(json.dumps(body, indent=2))
    else:
        emit(done.body if dry_run else posted(fork.repo, done.number, done.did.value))
