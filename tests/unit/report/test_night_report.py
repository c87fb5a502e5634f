"""Whole reports, as a reader gets them: the files below `golden/`."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from patchstack.model import GuardOutcome, ImageResult, NightReport, RangeDiff, Status, TreeRun
from patchstack.report.markdown import render_markdown
from patchstack.report.terminal import make_console, render_terminal
from patchstack.store import decode, encode

from . import fixed_blame, fixed_lanes, fixed_night

GOLDEN = Path(__file__).with_name("golden")
TOO_MUCH = "2 of what night 20261120T020000Z had are missing, and max_lost in deploy.yaml allows 1; nothing was moved:"
NIGHTS = {
    "promoted": fixed_night.NIGHT,
    "nothing_to_do": fixed_night.NOTHING_TO_DO,
    "red": fixed_night.RED,
    "stopped": fixed_night.STOPPED,
    "imaged": replace(
        fixed_night.NIGHT,
        image=ImageResult(fixed_night.IMAGE),
        image_tests=replace(fixed_night.IMAGE_TESTS, checks=fixed_night.IMAGE_TESTS.checks[:1]),
    ),
    "lost": replace(
        fixed_night.NIGHT,
        headline=Status.INCOMPLETE,
        exit_code=6,
        failure=TOO_MUCH,
        losses=fixed_night.LOSSES,
        promotion=None,
        tests=None,
        verdicts=(),
        range_diffs=(),
    ),
    "shipped": fixed_blame.SHIPPED,
    "blamed": fixed_blame.RED,
    "lanes": fixed_lanes.NIGHT,
    "first": replace(
        fixed_night.NIGHT,
        previous=None,
        promotion=replace(fixed_night.PROMOTION, previous=None),
        range_diffs=tuple(RangeDiff(topic.name, "new") for topic in fixed_night.TOPICS),
    ),
}


def _terminal(report: NightReport) -> str:
    stream = io.StringIO()
    render_terminal(report, make_console(stream))
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


@pytest.mark.parametrize("name", NIGHTS)
def test_markdown(name: str) -> None:
    assert render_markdown(NIGHTS[name]) == (GOLDEN / f"{name}.md").read_text()


@pytest.mark.parametrize("name", NIGHTS)
def test_terminal(name: str) -> None:
    assert _terminal(NIGHTS[name]) == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", ["promoted", "lanes"])
def test_the_same_report_read_back_from_its_json_renders_the_same(name: str) -> None:
    again = decode(NightReport, encode(NIGHTS[name]), "report.json")

    assert render_markdown(again) == render_markdown(NIGHTS[name])


def test_a_report_goes_to_standard_output_where_no_console_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    render_terminal(fixed_night.NIGHT)

    out, err = capsys.readouterr()
    assert out.startswith("Night 20261121T020000Z, lane production: PASS\n")
    assert err == ""


def _long_night() -> NightReport:
    """Forty of everything, and a diff of a hundred lines."""
    topics = tuple(fixed_night.topic(f"#{number}", "t") for number in range(100, 140))
    left_out = tuple(replace(fixed_night.LEFT_OUT[0], name=f"#{number}") for number in range(200, 240))
    results = tuple(
        replace(fixed_night.GUARD, test=f"t.py::test_{number}", outcome=GuardOutcome.FAIL) for number in range(40)
    )
    return replace(
        fixed_night.NIGHT,
        composition=replace(fixed_night.COMPOSITION, included=topics, left_out=left_out),
        tests=replace(
            fixed_night.TESTS,
            runs=(TreeRun("composed", True, fixed_night.sha("e"), results),),
            proofs=tuple(replace(fixed_night.TESTS.proofs[0], slug=f"p{number}") for number in range(40)),
        ),
        range_diffs=tuple(RangeDiff(f"#{number}", "changed", "line\n" * 100) for number in range(100, 140)),
        notes=tuple(f"note {number}" for number in range(40)),
    )


@pytest.mark.parametrize("render", [render_markdown, _terminal])
def test_what_is_long_is_cut_and_says_where_the_rest_is(render) -> None:  # type: ignore[no-untyped-def]
    text = render(_long_night())

    lines = [line.strip() for line in text.splitlines()]
    # Included, excluded, proofs, guards, range-diff, notes: one a section.
    assert lines.count("10 more in report.json") == 6
    assert lines.count("40 more lines in report.json") == 30
    assert lines.count("line") == 30 * 60
    assert all(f"#{number}" in text for number in (100, 129, 200, 229))
    assert not any(f"#{number}" in text for number in (130, 139, 230, 239))


def test_many_names_on_one_line_are_counted() -> None:
    item = replace(fixed_night.LEFT_OUT[0], files=tuple(f"f{number}.py" for number in range(9)))
    night = replace(fixed_night.NIGHT, composition=replace(fixed_night.COMPOSITION, left_out=(item,)))

    assert " in f0.py, f1.py, f2.py, f3.py, f4.py and 4 more. Rebase it" in _terminal(night)


@pytest.mark.parametrize("render", [render_markdown, _terminal])
def test_what_checks_of_an_image_are_called_and_say_is_made_inert(render: Callable[[NightReport], str]) -> None:
    text = "@acme <img src=x> [a](https://b.example)\x1b[31m\n\n::error::# x"
    checks = tuple(replace(check, name=text, detail=text) for check in fixed_night.IMAGE_TESTS.checks)
    tests = replace(fixed_night.IMAGE_TESTS, checks=checks)
    shown = render(replace(NIGHTS["imaged"], image_tests=tests))

    assert "\x1b" not in shown
    assert not any(line.strip().startswith(("::", "#  x", "# x")) for line in shown.splitlines())
    assert "<img src=x>" not in render_markdown(replace(NIGHTS["imaged"], image_tests=tests))
