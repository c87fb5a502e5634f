"""`patchstack ledger`: the promoted nights, and how to pull their images."""

from __future__ import annotations

import click

from patchstack.console import Options, emit, with_json, workplace


@click.command()
@click.option(
    "--last", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="How many nights to show."
)
@with_json
@click.pass_obj
def ledger(options: Options, last: int, as_json: bool) -> None:
    """List the last promoted nights, with `docker pull` by digest. In a workflow it goes to the run's page, too."""
    from patchstack import store
    from patchstack.actions import write_summary
    from patchstack.report.ledger import ledger_markdown, render_ledger
    from patchstack.verbs.ledger import ledger as run_ledger

    found = run_ledger(workplace(options), last)
    write_summary(ledger_markdown(found))
    emit(store.encode(found) if as_json else render_ledger(found))
