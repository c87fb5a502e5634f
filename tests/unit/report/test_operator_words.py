"""What readers are told of a rollback, a hold and what is barred: reports, issues, ledger and status."""

from __future__ import annotations

from dataclasses import replace

from patchstack.model import Action, Bar, Barring, NightReport
from patchstack.report import words
from patchstack.report.ledger import render_ledger
from patchstack.report.marker import SignalMarker, signal_of
from patchstack.report.operator import operation_page
from patchstack.report.page import Line, Quoted
from patchstack.report.place import Place
from patchstack.report.signals import finished, gone, signals
from patchstack.report.terminal import page_text

from . import fixed_night
from .test_ledger_page import WITH_IMAGE, _Ledger

PLACE = Place("acme/sglang", "https://github.com", "https://github.com/acme/sglang/actions/runs/7")
HOLD = replace(
    fixed_night.PREVIOUS, action=Action.HOLD, night="h", at="2026-11-20T12:00:00Z", because="*a* customer's demo"
)
BARS = (Bar(Barring.PLAN, "20261122T020000Z", "f" * 64), Bar(Barring.HEAD, "#41", "a" * 40))
ROLLBACK = replace(
    fixed_night.PREVIOUS, action=Action.ROLLBACK, night="r", to="20261121T020000Z", because="it hangs", bars=BARS
)
HELD = replace(fixed_night.NIGHT, promotion=None, held=HOLD)
RED = SignalMarker("production", "red-night", "other")
ON_HOLD = SignalMarker("production", "hold")


def plain(line: Line) -> str:
    return "".join(part if isinstance(part, str) else part.text for part in line)


def keys(report: NightReport) -> list[str]:
    return [signal.key for signal in signals(report, PLACE) if not signal.key.startswith("conflict:")]


def test_a_hold_is_an_issue_as_long_as_it_is_in_force() -> None:
    assert keys(HELD) == ["hold"]
    assert keys(replace(fixed_night.RED, held=HOLD)) == ["red-night", "hold"]
    (signal,) = [signal for signal in signals(HELD, PLACE) if signal.key == "hold"]
    assert signal.title == "Lane `production`: promotion is on hold"
    assert signal_of(signal.body) == ON_HOLD
    assert "since `2026-11-20T12:00:00Z` (`*a*` customer's demo): nights are tested and not promoted" in signal.body
    released = gone(fixed_night.NIGHT, ON_HOLD)
    assert released is not None
    assert released.endswith("found no hold.")
    # What failed may not have read of it; what was held back has.
    assert (gone(fixed_night.RED, ON_HOLD), gone(HELD, ON_HOLD)) == (None, None)


def test_a_night_that_is_held_back_is_over_and_green() -> None:
    assert finished(HELD)
    assert not finished(replace(HELD, held=None))
    said = gone(HELD, RED)
    assert said is not None
    assert said.endswith("is green; promotion is on hold.")
    assert gone(replace(HELD, held=None), RED) is None


def test_a_rollback_says_what_is_barred_and_how_it_is_released() -> None:
    promotion = replace(fixed_night.NIGHT.promotion, line=ROLLBACK)  # type: ignore[type-var]
    assert promotion is not None
    lines = page_text(operation_page(promotion, dry_run=False)).splitlines()
    assert lines[:3] == [
        "Rollback, lane production",
        f"Back to night 20261121T020000Z, tree {ROLLBACK.tree[:12]}, tag {ROLLBACK.tag}.",
        "Because: it hangs",
    ]
    assert lines[5:8] == [
        "Barred",
        "  - the plan of night 20261122T020000Z, until it changes or patchstack release-hold 20261122T020000Z",
        "  - #41 at aaaaaaaaaaaa, until it changes or patchstack release-hold '#41'",
    ]


def test_after_a_rollback_the_night_that_is_deployed_is_named_and_not_the_rollback() -> None:
    assert plain(words.since(ROLLBACK, 1, 0, 0, 2)).startswith("Since night 20261121T020000Z, which r went back to: ")
    assert plain(words.nothing_to_do(ROLLBACK)).startswith("Nothing to do: night 20261121T020000Z had")
    assert plain(words.deployed(ROLLBACK, "deploy", 60)).startswith("deploy holds night 20261121T020000Z again, since")
    behind = words.channel_behind("stable", None, None, (), "20261122T020000Z")
    assert (
        plain(behind) == "stable has no night that stands: night 20261122T020000Z, which had moved it, was taken back"
    )


def test_the_ledger_tells_what_was_taken_back_and_what_operators_said() -> None:
    text = render_ledger(
        _Ledger(
            (replace(WITH_IMAGE, night="20261122T020000Z"), WITH_IMAGE),
            taken_back=("20261122T020000Z",),
            said=(HOLD, ROLLBACK),
            held=HOLD,
            bars=(("r", BARS[1]), ("r", BARS[0]), ("n", replace(BARS[1], name="#42"))),
        )
    )
    assert "20261122T020000Z taken back" in " ".join(text.split())
    assert "on hold since 2026-11-20T12:00:00Z" in text
    assert f"{ROLLBACK.at} rollback r: Back to night 20261121T020000Z" in text
    assert "  - #41 at aaaaaaaaaaaa, until it changes or patchstack release-hold '#41'; since rollback r" in text
    # Only a rollback bars plans; of what bars a head alone, the page does not know what it was.
    assert "  - #42 at aaaaaaaaaaaa, until it changes or patchstack release-hold '#42'; since n" in text


def test_names_of_others_are_shown_letter_by_letter() -> None:
    bar = Bar(Barring.HEAD, "evil/`x`#1", "a" * 40)
    page = operation_page(
        replace(fixed_night.NIGHT.promotion, line=replace(ROLLBACK, bars=(bar,))),  # type: ignore[type-var]
        dry_run=True,
    )
    assert Quoted("evil/`x`#1") in page.sections[0].items[0]
