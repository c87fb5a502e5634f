"""Whether nights still run: what counts as one, and how old the newest may be."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from patchstack.errors import Incomplete
from patchstack.model import NightReport, Status, Verdict
from patchstack.release.status import Settled, Sign, StatusReport, read_status

from .release_bench import BRANCH, FIRST, LANE, Bench
from .test_standing import _report

HOURS_36 = timedelta(hours=36)
NOTHING = "no night of lane {} was promoted, tested or found to have nothing to do"


def ask(
    bench: Bench, hours: float, *reports: NightReport, settled: Settled | None = None, most: timedelta = HOURS_36
) -> StatusReport:
    return read_status(
        bench.store,
        bench.url,
        lane=LANE,
        branch=BRANCH,
        now=FIRST + timedelta(hours=hours),
        reports=reports,
        settled=settled,
        max_age=most,
    )


def at(hours: float) -> str:
    return (FIRST + timedelta(hours=hours)).isoformat()


def judged(hours: float, **more: object) -> NightReport:
    found = replace(_report(Status.FAIL, Verdict("nightly", Status.FAIL, ("x",)), exit_code=1), at=at(hours))
    return replace(found, **more)  # type: ignore[arg-type]


def test_a_promoted_night_counts_until_it_is_too_old(bench: Bench) -> None:
    line = bench.night(bench.compose()).line
    young = ask(bench, 36)
    assert (young.newest, young.overdue) == (Sign("promoted", line.night, line.at), "")
    young.raise_if_overdue()
    old = ask(bench, 36.5)
    assert old.overdue == (
        f"{NOTHING.format(LANE)} for 36 h: the newest was {line.night}, promoted 36.5 h ago; find out why nothing ran, "
        "or run `patchstack nightly`"
    )
    with pytest.raises(Incomplete, match=r"36\.5 h ago") as said:
        old.raise_if_overdue()
    assert said.value.exit_code == 6


def test_without_any_night_it_is_overdue_from_the_first_day(bench: Bench) -> None:
    found = ask(bench, 0)
    assert found.newest is None
    assert found.overdue.startswith(f"{NOTHING.format(LANE)}, ever, as far as its remote and this machine know")


def test_a_night_that_was_judged_counts_whatever_was_said(bench: Bench) -> None:
    bench.night(bench.compose())
    found = ask(bench, 60, judged(30))
    assert (found.overdue, found.newest) == ("", Sign("tested", "20261122T020000Z", at(30)))
    assert ask(bench, 70, judged(30)).overdue != ""


@pytest.mark.parametrize(
    "report",
    [
        judged(30, verdicts=(), exit_code=8),  # it could not even read the remote
        judged(30, verdicts=(), headline=Status.INCOMPLETE, exit_code=0),  # composed, and then nobody went on
        judged(30, lane="edge"),
    ],
)
def test_a_night_that_found_nothing_out_is_none(bench: Bench, report: NightReport) -> None:
    assert ask(bench, 31, report).newest is None


def test_a_night_with_nothing_to_do_counts(bench: Bench) -> None:
    bench.night(bench.compose())
    nothing = judged(48, verdicts=(), nothing_to_do=True, exit_code=0)
    for found in (ask(bench, 80, nothing), ask(bench, 80, settled=Settled(LANE, nothing.night, at(48)))):
        assert (found.overdue, found.newest) == ("", Sign("found nothing to do", nothing.night, at(48)))


def test_the_newest_counts_wherever_it_is_known_from(bench: Bench) -> None:
    bench.night(bench.compose())
    found = ask(bench, 50, judged(20), judged(40), judged(30), settled=Settled(LANE, "n", at(10)))
    assert found.newest == Sign("tested", "20261122T020000Z", at(40))


def test_a_clock_that_is_wrong_keeps_nobody_quiet(bench: Bench) -> None:
    assert ask(bench, 0, judged(1)).overdue == ""
    assert ask(bench, 0, judged(24 * 365)).newest is None


def test_without_an_age_nothing_is_asked(bench: Bench) -> None:
    bench.night(bench.compose())
    found = read_status(bench.store, bench.url, lane=LANE, branch=BRANCH, now=FIRST + timedelta(days=900))
    assert (found.overdue, found.newest and found.newest.what) == ("", "promoted")
