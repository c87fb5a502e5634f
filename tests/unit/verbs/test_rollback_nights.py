"""Nights after a rollback, under a hold, and after their release: whole nights, on real repositories."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.unit.builders import Workshop
from tests.unit.verbs.night_bench import Fork
from tests.unit.verbs.test_mass_loss import deployed

from patchstack.errors import Incomplete, RemoteError
from patchstack.model import Action, NightReport, Promotion, Reason, Sha, Status
from patchstack.nightly import Part, Until
from patchstack.release.ledger import History, format_message
from patchstack.report.markdown import render_markdown
from patchstack.report.status import status_page
from patchstack.report.terminal import page_text
from patchstack.verbs.promote import promote, status
from patchstack.verbs.remote import open_remote
from patchstack.verbs.rollback import hold, release_hold, rollback

ONE, TWO, THREE = ({f"python/sglang/n{number}.py": f"N = {number}\n"} for number in (1, 2, 3))


@pytest.fixture
def fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fork:
    """A lane with a patch deployed, then #1, then the bad #2."""
    fork = Fork(tmp_path / "fork", monkeypatch)
    fork.patches.patch("kept", fork.base, {"python/sglang/kept.py": "KEPT = 1\n"})
    deployed(fork.night())
    fork.pull(1, ONE)
    assert deployed(fork.night()) == ["kept", "#1"]
    fork.pull(2, TWO)
    assert deployed(fork.night()) == ["kept", "#1", "#2"]
    return fork


def said(fork: Fork, verb: object, *args: object, **options: object) -> Promotion:
    """What an operator says, an hour after the night before."""
    fork.hour += 1
    fork.monkeypatch.setenv("PATCHSTACK_NOW", f"2026-11-21T{fork.hour:02}:00:00+00:00")
    done: Promotion = verb(fork.work, *args, **options).promotion  # type: ignore[operator]
    return done


def history(fork: Fork) -> History:
    return open_remote(fork.work).history


def left_out(report: NightReport) -> dict[str, Reason]:
    items = report.composition.left_out if report.composition else report.left_out
    return {item.name: item.reason for item in items}


def detail(report: NightReport, name: str) -> str:
    assert report.composition is not None
    (found,) = [item.detail for item in report.composition.left_out if item.name == name]
    return found


def stopped(fork: Fork, why: str) -> NightReport:
    """Tonight ends INCOMPLETE right after its plan, says why, and nothing has moved."""
    before = fork.refs()
    report = fork.night()
    assert (report.exit_code, report.headline, report.promotion) == (6, Status.INCOMPLETE, None), report.failure
    assert (report.composition, report.tests, report.timings[-1].stage) == (None, None, "plan")
    assert why in report.failure
    assert fork.refs() == before
    return report


def mended(fork: Fork, number: int, onto: Sha) -> Sha:
    """A new commit on top of ``onto``, pushed to the pull request."""
    return fork.pull(number, {f"python/sglang/n{number}.py": "N = 'mended'\n"}, onto=onto)


def head(fork: Fork, number: int) -> Sha:
    found = fork.remote.resolve(f"refs/pull/{number}/head")
    assert found is not None
    return found


# --- the barred head ---


def test_a_barred_pull_request_stays_out_and_the_rest_is_promoted(fork: Fork) -> None:
    said(fork, rollback, because=["2"], reason="it crashes")
    fork.pull(3, THREE)
    report = fork.night()
    assert deployed(report) == ["kept", "#1", "#3"]
    assert left_out(report) == {"#2": Reason.BARRED}
    assert detail(report, "#2") == (
        "rollback 20261121T040000Z (it crashes) barred this head: have a mended one admitted, or `patchstack "
        "release-hold '#2'`"
    )
    assert [(rollback, bar.name) for rollback, bar in report.bars] == [
        ("20261121T040000Z", "20261121T030000Z"),
        ("20261121T040000Z", "#2"),
    ]
    page = render_markdown(report)
    assert "barred by a rollback" in page
    assert "## Barred" in page
    again = fork.night()
    assert (again.exit_code, again.nothing_to_do) == (0, True)


def test_a_newer_head_comes_in_though_it_has_the_barred_commits(fork: Fork) -> None:
    bad = head(fork, 2)
    said(fork, rollback, because=["2"])
    assert deployed(fork.night()) == ["kept", "#1"]
    mended(fork, 2, onto=bad)
    report = fork.night()
    assert deployed(report) == ["kept", "#1", "#2"]
    assert report.composition is not None
    assert {topic.name: topic.head for topic in report.composition.included}["#2"] == head(fork, 2) != bad


def test_what_has_barred_commits_stays_out_under_any_number(fork: Fork) -> None:
    bad = head(fork, 2)
    said(fork, rollback, because=["2"], reason="x")
    fork.pull(3, THREE, onto=bad)
    Workshop(fork.remote.folder).pull(4, bad)
    report = fork.night()
    assert deployed(report) == ["kept", "#1"]
    assert left_out(report) == {
        "#2": Reason.BARRED,
        "#3": Reason.CARRIES_BLOCKED,
        "#4": Reason.CARRIES_BLOCKED,
    }
    assert detail(report, "#3") == (
        f"it has commits of #2 at {bad[:12]}, which rollback 20261121T040000Z (x) barred: rebase it without them, or "
        "onto a mended #2; or `patchstack release-hold '#2'`"
    )
    # Closing the barred one lets nobody in by another door.
    fork.close(2)
    assert left_out(fork.night(force=True)) == {"#3": Reason.CARRIES_BLOCKED, "#4": Reason.CARRIES_BLOCKED}


def test_what_is_stacked_on_the_mended_head_comes_in_with_it(fork: Fork) -> None:
    bad = head(fork, 2)
    said(fork, rollback, because=["2"])
    good = mended(fork, 2, onto=bad)
    fork.pull(3, THREE, onto=good)
    fork.pull(4, {"python/sglang/n4.py": "N = 4\n"}, onto=bad)
    report = fork.night()
    assert deployed(report) == ["kept", "#1", "#3"]  # which carries the mended #2
    assert left_out(report) == {"#2": Reason.CONTAINED, "#4": Reason.CARRIES_BLOCKED}
    assert fork.remote.run("show", "refs/heads/deploy:python/sglang/n2.py") == "N = 'mended'"


def test_a_mended_head_that_was_rebased_comes_in_and_the_old_commits_stay_out(fork: Fork) -> None:
    bad = head(fork, 2)
    said(fork, rollback, because=["2"])
    fork.pull(2, {"python/sglang/n2.py": "N = 'again'\n"})
    fork.pull(3, THREE, onto=bad)
    report = fork.night()
    assert deployed(report) == ["kept", "#1", "#2"]
    assert left_out(report) == {"#3": Reason.CARRIES_BLOCKED}


def test_a_newer_head_counts_in_the_fingerprint_beside_the_barred_one(fork: Fork) -> None:
    bad = head(fork, 2)
    said(fork, rollback, because=["2"])
    fork.pull(3, THREE, onto=bad)  # so that the barred head matters to somebody
    first = mended(fork, 2, onto=bad)
    one = fork.night()
    mended(fork, 2, onto=first)
    two = fork.night()
    assert deployed(one) == deployed(two) == ["kept", "#1", "#2"]
    assert one.promotion is not None
    assert two.promotion is not None
    assert one.promotion.line.fingerprint != two.promotion.line.fingerprint
    assert fork.night().nothing_to_do


def test_a_released_head_comes_back(fork: Fork) -> None:
    said(fork, rollback, because=["2"])
    assert deployed(fork.night()) == ["kept", "#1"]
    said(fork, release_hold, ["#2"])
    report = stopped(fork, "this plan is that of night 20261121T030000Z")
    assert report.bars[0][1].name == "20261121T030000Z"
    said(fork, release_hold, ["20261121T030000Z"])
    report = fork.night()
    assert deployed(report) == ["kept", "#1", "#2"]
    assert report.bars == ()


def test_a_barred_head_is_barred_on_a_machine_that_knows_nothing(fork: Fork) -> None:
    said(fork, rollback, because=["2"])
    for name in ("store.git", "runs", "memo"):
        shutil.rmtree(fork.work.state.root / name, ignore_errors=True)
    assert deployed(fork.night()) == ["kept", "#1"]


# --- the barred plan ---


def test_a_barred_plan_ends_the_night_until_something_changes(fork: Fork) -> None:
    said(fork, rollback, reason="it crashes")
    stopped(
        fork,
        "this plan is that of night 20261121T030000Z, which rollback 20261121T040000Z (it crashes) took back: it does "
        "not come back as it is. Change what was wrong with it, or `patchstack release-hold 20261121T030000Z`",
    )
    assert fork.night(force=True).exit_code == 6
    fork.pull(3, THREE)
    assert deployed(fork.night()) == ["kept", "#1", "#2", "#3"]


def test_a_run_that_has_a_barred_plan_is_not_promoted_by_the_verb(fork: Fork) -> None:
    fork.pull(3, THREE)
    night = fork.night()
    assert deployed(night) == ["kept", "#1", "#2", "#3"]
    said(fork, rollback, because=["3"])
    # The same inputs in a run of after the rollback, as a machine would make it that does not ask for bars.
    run = fork.run(night)
    newer = run.folder.rename(run.folder.with_name("20261121T230000Z"))
    run = fork.work.state.run(newer.name)
    run.path(Promotion).unlink()
    before = fork.refs()
    with pytest.raises(Incomplete, match="this plan is that of night 20261121T040000Z, which rollback"):
        promote(fork.work, run)
    said(fork, release_hold, ["20261121T040000Z"])
    with pytest.raises(
        Incomplete, match=r"#3 is in this plan at .* barred: mend it, or `patchstack release-hold '#3'`"
    ):
        promote(fork.work, run)
    said(fork, hold, reason="wait")
    with pytest.raises(Incomplete, match=r"promotion is on hold since .* \(wait\), nothing was moved"):
        promote(fork.work, run)
    assert {**fork.refs(), "refs/heads/deploy": ""} == {**before, "refs/heads/deploy": ""}


def test_after_a_rollback_the_next_night_is_made_though_it_has_the_deployed_inputs(fork: Fork) -> None:
    said(fork, rollback, because=["2"])
    fork.close(2)
    report = fork.night()
    assert deployed(report) == ["kept", "#1"]
    assert not report.nothing_to_do
    assert [entry.line.action for entry in history(fork).standing][:2] == [Action.NIGHT, Action.ROLLBACK]
    assert fork.night().nothing_to_do


# --- patches ---


def test_a_barred_optional_patch_is_left_out_and_a_required_one_ends_the_night(fork: Fork) -> None:
    files = {"python/sglang/extra.py": "EXTRA = 1\n"}
    fork.patches.patch("extra", fork.base, files, optional=True, title="pd: extra")
    fork.patches.patch("needed", fork.base, {"python/sglang/needed.py": "NEEDED = 1\n"}, title="pd: needed")
    config = (fork.folder / "deploy.yaml").read_text()
    fork.configure(config.replace("    branch: deploy\n", "    branch: deploy\n    optional: [extra]\n"))
    assert deployed(fork.night()) == ["kept", "extra", "needed", "#1", "#2"]
    said(fork, rollback, because=["extra", "needed"])
    report = stopped(fork, "needed is in this plan at ")
    assert "`patchstack release-hold 'needed'`" in report.failure
    assert left_out(report)["extra"] is Reason.BARRED
    said(fork, release_hold, ["needed"])
    report = fork.night()
    assert deployed(report) == ["kept", "needed", "#1", "#2"]
    fork.patches.patch("extra", fork.base, {"python/sglang/extra.py": "EXTRA = 2\n"}, optional=True, title="pd: extra")
    assert deployed(fork.night()) == ["kept", "needed", "extra", "#1", "#2"]


# --- hold ---


def test_under_a_hold_nights_are_tested_and_not_promoted(fork: Fork) -> None:
    said(fork, hold, reason="a release")
    assert fork.night().nothing_to_do  # what is deployed has not changed
    fork.pull(3, THREE)
    before = fork.refs()
    for _ in range(2):
        report = fork.night()
        assert (report.exit_code, report.headline, report.promotion) == (0, Status.PASS, None), report.failure
        assert report.tests is not None
        assert report.verdicts[0].status is Status.PASS
        assert report.held is not None
        assert (report.held.at, report.held.because) == ("2026-11-21T04:00:00Z", "a release")
    assert fork.refs() == before
    page = render_markdown(report)
    assert "**on hold** since `2026-11-21T04:00:00Z` (a release): nights are tested and not promoted" in page
    said(fork, release_hold)
    report = fork.night()
    assert deployed(report) == ["kept", "#1", "#2", "#3"]
    assert report.held is None


def test_a_hold_in_the_middle_of_a_night_in_parts_is_heard_by_the_last_one(fork: Fork, tmp_path: Path) -> None:
    fork.pull(3, THREE)
    pack = tmp_path / "night.tar"
    fork.night(Part(until=Until.TEST, pack=pack))
    said(fork, hold)
    report = fork.night(Part(unpack=pack))
    assert (report.exit_code, report.promotion, report.held is not None) == (0, None, True), report.failure


def test_a_rollback_in_the_middle_of_a_night_in_parts_stops_it(fork: Fork, tmp_path: Path) -> None:
    fork.pull(3, THREE)
    pack = tmp_path / "night.tar"
    fork.night(Part(until=Until.TEST, pack=pack))
    said(fork, rollback, because=["2"])
    before = fork.refs()
    report = fork.night(Part(unpack=pack))
    assert (report.exit_code, report.promotion) == (6, None)
    assert "#2 is in this plan at" in report.failure
    assert fork.refs() == before


def test_a_rollback_by_a_clock_that_is_behind_stops_a_night_that_began_before_it(fork: Fork, tmp_path: Path) -> None:
    fork.pull(3, THREE)
    pack = tmp_path / "night.tar"
    run = fork.run(fork.night(Part(until=Until.TEST, pack=pack)))
    fork.monkeypatch.setenv("PATCHSTACK_NOW", f"2026-11-21T{fork.hour - 1:02}:58:00+00:00")
    rollback(fork.work)
    before = fork.refs()
    report = fork.night(Part(unpack=pack))
    assert (report.exit_code, report.promotion) == (8, None)
    assert f"rollback 20261121T035800Z moved deploy at 2026-11-21T03:58:00Z, after run {run.id} had" in report.failure
    with pytest.raises(RemoteError, match="promoting it now would take that back"):
        promote(fork.work, run)
    assert fork.refs() == before


def test_the_run_that_was_gone_back_to_counts_as_promoted(fork: Fork) -> None:
    back = said(fork, rollback)
    run = fork.work.state.run(back.line.to)
    assert promote(fork.work, run).notes[0].startswith(f"run {run.id} is promoted already")


def test_a_rollback_under_a_hold_is_done_and_the_hold_stays(fork: Fork) -> None:
    said(fork, hold)
    said(fork, rollback, because=["2"])
    assert history(fork).hold is not None
    report = fork.night()
    assert (report.exit_code, report.promotion) == (0, None)
    assert left_out(report) == {"#2": Reason.BARRED}


def test_a_line_by_hand_with_a_base_that_is_nowhere_stops_no_night(fork: Fork) -> None:
    last = history(fork).standing[0]
    line = replace(last.line, night="by-hand", base_commit=Sha("1" * 40))
    forged = fork.remote.commit(line.tree, (last.commit, line.composition), format_message(line))
    fork.remote.set_refs({"refs/heads/deploy": forged})
    said(fork, hold)
    assert fork.night().exit_code == 0
    said(fork, release_hold)
    assert said(fork, rollback, to=last.line.night).line.to == last.line.night


# --- status ---


def told(fork: Fork, hours: int = 0) -> str:
    now = datetime(2026, 11, 21, tzinfo=UTC) + timedelta(hours=fork.hour + hours)
    fork.monkeypatch.setenv("PATCHSTACK_NOW", now.isoformat())
    return page_text(status_page(status(fork.work)))


def test_status_says_what_is_deployed_held_and_barred(fork: Fork) -> None:
    said(fork, rollback, because=["2"], reason="it crashes")
    said(fork, hold, reason="wait")
    lines, by = told(fork, hours=2).splitlines(), "since rollback 20261121T040000Z"
    until = "nights are tested and not promoted; patchstack release-hold ends it."
    assert lines[1:4] == [
        "deploy holds night 20261121T020000Z again, since rollback 20261121T040000Z 3 h ago at 2026-11-21T04:00:00Z.",
        "Because: it crashes",
        f"on hold since 2026-11-21T05:00:00Z (wait): {until}",
    ]
    assert (
        "  - nightly went back with this rollback: night 20261121T030000Z, which had moved it, was taken back" in lines
    )
    assert lines[lines.index("Barred") + 1 :][:2] == [
        f"  - the plan of night 20261121T030000Z, until it changes or patchstack release-hold 20261121T030000Z; {by}",
        f"  - #2 at {head(fork, 2)[:12]}, until it changes or patchstack release-hold '#2'; {by}",
    ]


def test_a_rollback_and_a_hold_are_no_night_and_what_is_tested_under_a_hold_is_one(fork: Fork) -> None:
    def overdue(hours: int) -> bool:
        fork.monkeypatch.setenv(
            "PATCHSTACK_NOW", (datetime(2026, 11, 21, tzinfo=UTC) + timedelta(hours=hours)).isoformat()
        )
        return status(fork.work, max_age=timedelta(hours=2)).overdue != ""

    assert [overdue(5), overdue(6)] == [False, True]  # the newest night began at 3
    said(fork, rollback, because=["2"])
    said(fork, hold)
    assert [overdue(5), overdue(6)] == [False, True]
    fork.night()
    assert [overdue(8), overdue(9)] == [False, True]
