from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from patchstack.errors import RemoteError
from patchstack.model import LaneRuns, NightReport, Sha, Status, Verdict
from patchstack.release.status import ChannelStatus, LastRun, Sign, StatusReport, read_status
from patchstack.release.tags import TagFault
from patchstack.store import decode, encode

from .release_bench import BRANCH, FIRST, IMAGE, LANE, Bench


def _status(bench: Bench, hours: int = 0, latest: NightReport | None = None) -> StatusReport:
    return read_status(
        bench.store,
        bench.url,
        lane=LANE,
        branch=BRANCH,
        now=FIRST + timedelta(hours=hours),
        channels=("nightly", "stable"),
        latest=latest,
    )


def _report(status: Status, *verdicts: Verdict, failure: str = "", exit_code: int = 0) -> NightReport:
    return NightReport(
        night="20261122T020000Z",
        at="2026-11-22T02:00:00Z",
        lane=LANE,
        remote="r",
        headline=status,
        nothing_to_do=False,
        composition=None,
        tests=None,
        verdicts=verdicts,
        promotion=None,
        previous=None,
        range_diffs=(),
        timings=(),
        notes=(),
        failure=failure,
        exit_code=exit_code,
    )


def test_no_run_at_all_is_a_plain_answer(bench: Bench) -> None:
    nothing = StatusReport(
        lane=LANE,
        branch=BRANCH,
        remote=bench.url,
        tip=None,
        night=None,
        night_commit=None,
        age_s=None,
        nights=0,
        foreign_on_top=0,
        channels=(ChannelStatus("nightly", None, None, False, ()), ChannelStatus("stable", None, None, False, ())),
        tags_missing=(),
        tags_elsewhere=(),
        last_run=None,
    )
    assert _status(bench) == nothing


def test_without_an_embedded_remote_nothing_is_asked_or_made(bench: Bench) -> None:
    found = read_status(bench.store, None, lane=LANE, branch=BRANCH, now=FIRST)

    assert (found.tip, found.night, found.remote) == (None, None, "")
    assert found.channels == (ChannelStatus("nightly", None, None, False, ()),)


def test_the_night_just_promoted(bench: Bench) -> None:
    bench.night(bench.compose("a"))
    made = bench.night(bench.compose("b"), day=1)
    stable = Verdict("stable", Status.INCOMPLETE, ("it needs image, which did not run",))
    latest = _report(Status.PASS, Verdict("nightly", Status.PASS, ()), stable)

    assert _status(bench, hours=26, latest=latest) == StatusReport(
        lane=LANE,
        branch=BRANCH,
        remote=bench.url,
        tip=made.commit,
        night=made.line,
        night_commit=made.commit,
        age_s=7200,
        nights=2,
        foreign_on_top=0,
        channels=(
            ChannelStatus("nightly", "20261122T020000Z", made.line.tag, True, ()),
            ChannelStatus("stable", None, None, False, ("it needs image, which did not run",)),
        ),
        tags_missing=(),
        tags_elsewhere=(),
        last_run=LastRun("20261122T020000Z", Status.PASS, False, "", 0),
        newest=Sign("promoted", made.line.night, made.line.at),
    )


def test_the_newest_image_may_be_of_an_older_night(bench: Bench) -> None:
    made = bench.night(bench.compose("a"), image=IMAGE)
    bench.night(bench.compose("b"), day=1)

    found = _status(bench, hours=26)

    assert found.night is not None
    assert (found.night.image, found.image_night) == (None, made.line.night)


def test_a_red_run_after_it(bench: Bench) -> None:
    made = bench.night(bench.compose())
    red = _report(Status.FAIL, Verdict("nightly", Status.FAIL, ("x: fail",)), failure="the gate says FAIL", exit_code=1)

    found = _status(bench, latest=red)

    assert found.night == made.line
    assert found.channels[0] == ChannelStatus("nightly", "20261121T020000Z", made.line.tag, True, ("x: fail",))
    assert found.last_run == LastRun("20261122T020000Z", Status.FAIL, False, "the gate says FAIL", 1)


def test_what_other_lanes_said_is_that_of_the_last_run(bench: Bench) -> None:
    lanes = LaneRuns(Sha("a" * 40), ())

    found = _status(bench, latest=replace(_report(Status.PASS), lanes=lanes))

    assert found.last_run == LastRun("20261122T020000Z", Status.PASS, False, "", 0, lanes)


def test_after_a_night_with_nothing_to_do_the_reasons_are_those_of_the_last_verdicts(bench: Bench) -> None:
    made = bench.night(bench.compose())
    nothing = replace(_report(Status.PASS), nothing_to_do=True)

    found = read_status(
        bench.store,
        bench.url,
        lane=LANE,
        branch=BRANCH,
        now=FIRST,
        channels=("stable",),
        latest=nothing,
        verdicts=(Verdict("stable", Status.INCOMPLETE, ("it needs image",)),),
    )

    assert found.channels == (
        ChannelStatus("stable", None, None, False, ("it needs image",)),
        ChannelStatus("nightly", "20261121T020000Z", made.line.tag, True, ()),
    )
    assert found.last_run == LastRun("20261122T020000Z", Status.PASS, True, "", 0)


def test_another_lanes_report_says_nothing_of_this_one(bench: Bench) -> None:
    edge = replace(_report(Status.FAIL, Verdict("stable", Status.FAIL, ("x",))), lane="edge")

    found = _status(bench, latest=edge)

    assert found.last_run is None
    assert [channel.why_not for channel in found.channels] == [(), ()]


def test_tags_that_lag_and_commits_by_hand(bench: Bench) -> None:
    first, second = bench.night(bench.compose("a")), bench.night(bench.compose("b"), day=1)
    bench.store.push(bench.url, {"refs/heads/deploy": (by_hand := bench.foreign(second.commit))})
    bench.remote.set_refs({f"refs/tags/{first.line.tag}": by_hand, f"refs/tags/{second.line.tag}": None})

    found = _status(bench)

    assert found.tip == by_hand
    assert found.night_commit == second.commit
    assert found.foreign_on_top == 1
    assert found.tags_missing == (second.line.tag,)
    assert found.tags_elsewhere == (TagFault(first.line.tag, first.commit, by_hand),)


def test_it_changes_nothing_on_the_remote(bench: Bench) -> None:
    made = bench.night(bench.compose())
    bench.remote.set_refs({f"refs/tags/{made.line.tag}": None})
    before = bench.refs()

    _status(bench)

    assert bench.refs() == before


def test_it_goes_through_json(bench: Bench) -> None:
    bench.night(bench.compose())
    found = _status(bench)

    assert decode(StatusReport, encode(found), "status") == found


def test_a_remote_that_cannot_be_asked_is_no_empty_status(bench: Bench) -> None:
    with pytest.raises(RemoteError, match="cannot be read"):
        read_status(bench.store, bench.url + "-gone", lane=LANE, branch=BRANCH, now=FIRST)
