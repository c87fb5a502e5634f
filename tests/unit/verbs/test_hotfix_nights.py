"""Hotfixes among rollbacks, holds and ordinary nights: whole nights, on real repositories, by their own ledger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.verbs.night_bench import Fork
from tests.unit.verbs.test_mass_loss import deployed
from tests.unit.verbs.test_promote_verb import Desk
from tests.unit.verbs.test_rollback_nights import ONE, THREE, TWO, head, history, mended, said

from patchstack.errors import RemoteError, UsageError
from patchstack.model import Action, Hotfix, NightReport, Sha, Status
from patchstack.nightly import Part, Until
from patchstack.report.ledger import render_ledger
from patchstack.report.status import status_page
from patchstack.report.terminal import page_text
from patchstack.verbs.ledger import ledger
from patchstack.verbs.promote import promote, status
from patchstack.verbs.rollback import hold, release_hold, rollback

SECOND, THIRD = "20261121T020000Z", "20261121T030000Z"


@pytest.fixture
def fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fork:
    """A lane with a patch deployed, then #1, then #2; nothing may be lost."""
    fork = Fork(tmp_path / "fork", monkeypatch, most=0)
    fork.patches.patch("kept", fork.base, {"python/sglang/kept.py": "KEPT = 1\n"})
    deployed(fork.night())
    fork.pull(1, ONE)
    deployed(fork.night())
    fork.pull(2, TWO)
    assert deployed(fork.night()) == ["kept", "#1", "#2"]
    return fork


def hotfix(fork: Fork, *only: int, part: Part | None = None) -> NightReport:
    return fork.night(part or Part(), only=tuple(f"#{number}" for number in only))  # type: ignore[arg-type]


def refused(fork: Fork, *only: int, part: Part | None = None) -> tuple[int, str]:
    """The hotfix's exit code and failure; nothing has moved."""
    before = fork.refs()
    report = hotfix(fork, *only, part=part)
    assert (report.promotion, report.headline, fork.refs()) == (None, Status.INCOMPLETE, before)
    return report.exit_code, report.failure


def line_of_deploy(fork: Fork) -> tuple[str, str, list[str]]:
    line = history(fork).entries[0].line
    return line.action.value, line.onto, [name for name, _ in line.included]


def test_what_is_neither_merged_nor_deployed_stays_where_it_is(fork: Fork) -> None:
    """#1 moved on and #2 is gone: that is no loss, and the ordinary night after it counts from the hotfix."""
    one = head(fork, 1)
    mended(fork, 1, onto=one)
    fork.close(2)
    fork.pull(3, THREE)
    report = hotfix(fork, 3)
    assert deployed(report) == ["kept", "#1", "#2", "#3"]
    assert report.losses is not None
    assert report.losses.items == ()
    assert line_of_deploy(fork) == ("night", THIRD, ["kept", "#1", "#2", "#3"])
    assert f"\nIt is a hotfix onto night {THIRD}.\n" in page_text(status_page(status(fork.work)))
    rows = [line.split()[:2] for line in render_ledger(ledger(fork.work, last=2)).splitlines()]
    assert [row for row in rows if row[:1] in ([report.night], [THIRD])] == [
        [report.night, "hotfix"],
        [THIRD, "2026-11-21T03:00:00Z"],
    ]
    assert dict(history(fork).entries[0].line.included)["#1"] == one

    ordinary = fork.night()
    assert (ordinary.exit_code, ordinary.hotfix) == (6, None)
    assert "#2 at " in ordinary.failure
    again = fork.night(accept_lost=True)
    assert deployed(again) == ["kept", "#1", "#3"]
    assert dict(history(fork).entries[0].line.included)["#1"] == head(fork, 1)
    assert fork.night().nothing_to_do
    assert "hotfix" not in page_text(status_page(status(fork.work)))


def test_after_a_rollback_it_goes_onto_what_was_gone_back_to(fork: Fork) -> None:
    bad = head(fork, 2)
    said(fork, rollback, because=["2"], reason="it crashes")
    fork.pull(3, THREE)
    code, why = refused(fork, 2)
    assert code == 6
    assert why.startswith(f"a hotfix onto night {SECOND} would lack what it is for: #2: barred by a rollback: ")
    # #3 has the barred commits, and is refused with them; the mended #2 has them as well, and may.
    fork.pull(4, {"python/sglang/n4.py": "N = 4\n"}, onto=bad)
    assert "#4: carries commits of a blocked one with #2" in refused(fork, 4)[1]

    mended(fork, 2, onto=bad)
    report = hotfix(fork, 2)
    assert deployed(report) == ["kept", "#1", "#2"]
    assert report.hotfix is not None
    assert (report.hotfix.onto, report.hotfix.replaced) == (SECOND, ())
    assert line_of_deploy(fork) == ("night", SECOND, ["kept", "#1", "#2"])


def test_a_hotfix_that_was_taken_back_does_not_come_back_as_it_is(fork: Fork) -> None:
    fork.pull(3, THREE)
    fix = hotfix(fork, 3)
    assert deployed(fix) == ["kept", "#1", "#2", "#3"]
    said(fork, rollback)
    assert line_of_deploy(fork) == ("rollback", "", ["kept", "#1", "#2"])
    code, why = refused(fork, 3)
    assert code == 6
    assert f"this plan is that of night {fix.night}" in why
    said(fork, release_hold, [fix.night])
    assert deployed(hotfix(fork, 3)) == ["kept", "#1", "#2", "#3"]
    assert line_of_deploy(fork)[:2] == ("night", THIRD)


def test_under_a_hold_it_is_tested_and_promoted_once_that_is_over(fork: Fork) -> None:
    fork.pull(3, THREE)
    said(fork, hold, reason="a demo")
    before = fork.refs()
    report = hotfix(fork, 3)
    assert (report.headline, report.exit_code, report.promotion, fork.refs()) == (Status.PASS, 0, None, before)
    said(fork, release_hold)
    done = promote(fork.work, fork.run(report)).promotion.line
    assert (done.action, done.onto, [name for name, _ in done.included][-1]) == (Action.NIGHT, THIRD, "#3")


def test_what_was_packed_before_a_rollback_is_not_promoted_after_it(fork: Fork, tmp_path: Path) -> None:
    fork.pull(3, THREE)
    pack = tmp_path / "night.tar"
    composed = hotfix(fork, 3, part=Part(Until.MERGE, pack=pack))
    assert (composed.exit_code, composed.hotfix) == (
        0,
        Hotfix(THIRD, history(fork).entries[0].line.composition, ("#3",)),
    )
    said(fork, rollback)
    code, why = refused(fork, part=Part(unpack=pack))
    assert (code, "nothing was moved" in why) == (8, True)
    assert line_of_deploy(fork) == ("rollback", "", ["kept", "#1"])


def test_no_two_hotfixes_onto_one_night(fork: Fork, tmp_path: Path) -> None:
    fork.pull(3, THREE)
    fork.pull(4, {"python/sglang/n4.py": "N = 4\n"})
    pack = tmp_path / "night.tar"
    hotfix(fork, 3, part=Part(Until.MERGE, pack=pack))
    assert deployed(hotfix(fork, 4)) == ["kept", "#1", "#2", "#4"]
    assert refused(fork, part=Part(unpack=pack))[0] == 8
    assert deployed(hotfix(fork, 3)) == ["kept", "#1", "#2", "#4", "#3"]


def test_patches_that_have_changed_since_need_an_ordinary_night(fork: Fork) -> None:
    fork.pull(3, THREE)
    runs = fork.work.state.all_runs()
    fork.patches.patch("fresh", fork.base, {"python/sglang/fresh.py": "FRESH = 1\n"})
    with pytest.raises(UsageError) as caught:
        hotfix(fork, 3)
    assert str(caught.value) == (
        f"patches/ is not what night {THIRD} had, and guards belong to their patches: fresh (new); check out main as "
        "it was at 2026-11-21T03:00:00Z, or run an ordinary night"
    )
    assert fork.work.state.all_runs() == runs
    said(fork, rollback)  # the moment that is meant is the night's, and not the rollback's
    with pytest.raises(UsageError, match=r"check out main as it was at 2026-11-21T02:00:00Z, or run"):
        hotfix(fork, 3)


def test_the_verb_promote_looks_onto_what_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no clock tells: both are of one second."""
    desk = Desk(tmp_path, monkeypatch)
    first = desk.run(desk.compose("first"))
    onto = promote(desk.work(), first).promotion.line
    right = replace(desk.compose("right"), hotfix=Hotfix(first.id, onto.composition, ("#9",)))
    wrong = replace(right, hotfix=Hotfix(first.id, Sha("d" * 40), ("#9",)))
    said_so = rf"this is a hotfix onto night {first.id}, and night {first.id} is deployed by now: nothing was moved"
    desk.refused(desk.run(wrong), RemoteError, said_so)
    assert promote(desk.work(), desk.run(right)).promotion.line.onto == first.id
