"""`patchstack status`: where a lane stands, and whether nights still run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from patchstack.console import Options, emit, with_json, workplace
from patchstack.errors import UsageError

UNITS = {"m": "minutes", "h": "hours", "d": "days"}
LONGEST = timedelta(days=3650)


class Age(click.ParamType[timedelta]):
    """``90m``, ``36h`` or ``7d``."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        text = str(value)
        number, unit = text[:-1], UNITS.get(text[-1:])
        if unit is None or not number.isascii() or not number.isdigit() or len(number) > 9 or int(number) == 0:
            self.fail(f"{text!r} is no age: write minutes, hours or days as 90m, 36h or 7d", param, ctx)
        age = timedelta(**{unit: int(number)})
        if age > LONGEST:
            self.fail(f"{text!r} is longer than ten years", param, ctx)
        return age


@click.command()
@click.option("--max-age", type=Age(), metavar="AGE", help="End with 6 if no night is as young: 90m, 36h, 7d.")
@click.option(
    "--unpack",
    "packs",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="With --max-age: count the night in this pack too. May be repeated.",
)
@with_json
@click.pass_obj
def status(options: Options, max_age: timedelta | None, packs: tuple[Path, ...], as_json: bool) -> None:
    """Say which night is deployed, how old it is, and what lags behind."""
    if packs and max_age is None:
        raise UsageError("--unpack is for --max-age: say how old the newest night may be")
    from patchstack import store
    from patchstack.report.terminal import render_status
    from patchstack.verbs.promote import status as run_status

    found = run_status(workplace(options), max_age=max_age, packs=packs)
    emit(store.encode(found) if as_json else render_status(found))
    found.raise_if_overdue()
