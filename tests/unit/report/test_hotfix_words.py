"""What a hotfix says of itself, and that it says nothing of what it was not asked for."""

from __future__ import annotations

from dataclasses import replace

from patchstack.model import Hotfix, MergePlan, NightReport, Outcome, Reason
from patchstack.report.hotfix import hotfix_notes
from patchstack.report.markdown import render_markdown
from patchstack.report.marker import SignalMarker
from patchstack.report.place import Place
from patchstack.report.remarks import remarks
from patchstack.report.signals import gone
from patchstack.report.terminal import render_composition, render_plan

from . import fixed_night
from .fixed_night import left_out, sha, topic

PLACE = Place("acme/sglang", "https://github.com", "")
HOTFIX = Hotfix("20261120T020000Z", sha("9"), ("#41", "sgl-project/sglang#7"), (("#41", sha("8")),))
LEAD = (
    "Hotfix: what is deployed, night 20261120T020000Z, with #41, sgl-project/sglang#7. Nothing else was taken.",
    "#41 was deployed at 888888888888.",
)


def hotfix(report: NightReport = fixed_night.NIGHT, **more: object) -> NightReport:
    return replace(report, hotfix=HOTFIX, **more)  # type: ignore[arg-type]


def test_a_report_a_plan_and_a_composition_say_onto_which_night_and_what_was_replaced() -> None:
    composition = replace(fixed_night.COMPOSITION, hotfix=HOTFIX)
    plan = MergePlan("production", composition.base, (), (), composition.fingerprint, HOTFIX)
    for text in (
        render_markdown(hotfix()).replace("`", ""),
        render_markdown(hotfix(fixed_night.STOPPED)).replace("`", ""),  # also where it ended before its merge
        render_composition(composition, "r"),
        render_plan(plan, "r"),
    ):
        lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
        assert [line for line in lines if line in LEAD] == list(LEAD), text
    for text in (render_markdown(fixed_night.NIGHT), render_plan(replace(plan, hotfix=None), "r")):
        assert "Hotfix" not in text


def test_what_no_promotion_made_is_counted() -> None:
    assert hotfix_notes(0, "deploy") == []
    assert [note.partition(" came")[0] for n in (1, 2) for note in hotfix_notes(n, "deploy")] == [
        "1 commit on top of deploy",
        "2 commits on top of deploy",
    ]


def test_a_comment_is_for_those_alone_that_were_asked_for() -> None:
    """#43 was deployed before, and its newer head is no matter of this night; #44 is carried by what was asked for."""
    items = (topic("#41", "t"), topic("#43", "t"), topic("sgl-project/sglang#7", "t"))
    carried = left_out("#44", Outcome.CARRIED, Reason.CONTAINED, "d", twins=("#41",))
    composition = replace(fixed_night.COMPOSITION, included=items, left_out=(carried,))
    assert [one.number for one in remarks(replace(fixed_night.NIGHT, composition=composition), PLACE)] == [41, 43, 44]
    assert [one.number for one in remarks(hotfix(composition=composition), PLACE)] == [41]
    before = dict.fromkeys(("previous",), replace(fixed_night.PREVIOUS, included=(("#43", items[1].head),)))
    stopped = replace(fixed_night.STOPPED, planned=items, left_out=(), **before)  # type: ignore[arg-type]
    assert [one.number for one in remarks(stopped, PLACE)] == [43]
    assert remarks(hotfix(stopped), PLACE) == ()


def test_a_hotfix_closes_no_conflict_that_it_did_not_look_for() -> None:
    conflict = SignalMarker("production", "conflict:#50:#51")
    ordinary = gone(fixed_night.NIGHT, conflict)
    assert ordinary is not None
    assert ordinary.endswith("merged what there is without this conflict.")
    assert gone(hotfix(), conflict) is None
    assert gone(hotfix(), SignalMarker("production", "red-night")) is not None
