"""What a night with GitHub tells besides: who waits, who is gone, newer heads, and what was asked."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from patchstack.model import Asked, LeftOut, NightReport, Outcome, Reason
from patchstack.report import words
from patchstack.report.markdown import render_markdown
from patchstack.report.page import Quoted
from patchstack.report.terminal import make_console, render_terminal

from . import fixed_night
from .fixed_night import COMPOSITION, NIGHT, TOPICS, left_out, sha

UPSTREAM = "sgl-project/sglang"
ASKED = (Asked("acme/sglang", 120, 0, 9), Asked(UPSTREAM, 1200, 1193, 12))


def shown(report: NightReport) -> list[str]:
    stream = io.StringIO()
    render_terminal(report, make_console(stream))
    return [line.strip() for line in stream.getvalue().splitlines()]


def section(lines: list[str], title: str) -> list[str]:
    begin = lines.index(title)
    end = next((number for number, line in enumerate(lines) if number > begin and not line), len(lines))
    return lines[begin + 1 : end]


def night(*items: LeftOut) -> NightReport:
    return replace(NIGHT, composition=replace(COMPOSITION, left_out=items))


def test_who_waits_and_who_is_gone_has_a_section_of_its_own() -> None:
    lines = shown(
        night(
            left_out("#50", Outcome.WAITING, Reason.NEEDS_ADMISSION, "put the label `deploy` on it, or approve it"),
            left_out("#51", Outcome.WAITING, Reason.DRAFT, "mark it as ready"),
            left_out(f"{UPSTREAM}#7", Outcome.GONE, Reason.MERGED, "it is in main there"),
            left_out("#40", Outcome.GONE, Reason.NO_LONGER_LISTED, "its target is another one now", head=None),
        )
    )

    assert section(lines, "Waiting") == [
        "These are not in the night until somebody says so.",
        ("- #50 title of #50 by mallory at 444444444444: needs admission. put the label `deploy` on it, or approve it"),
        "- #51 title of #51 by mallory at 444444444444: draft. mark it as ready",
    ]
    assert section(lines, "Gone") == [
        "They were there in the last promoted night, and are listed no more.",
        f"- {UPSTREAM}#7 title of {UPSTREAM}#7 by mallory at 444444444444: merged. it is in main there",
        "- #40 title of #40 by mallory: no longer listed. its target is another one now",
    ]


def test_who_carries_a_blocked_one_is_told_which() -> None:
    barred = left_out("#52", Outcome.EXCLUDED, Reason.CARRIES_BLOCKED, "rebase it", twins=("#50", "#51"))
    assert section(shown(night(barred)), "Excluded")[-1] == (
        "- #52 title of #52 by mallory at 444444444444: carries commits of the blocked #50, #51. rebase it"
    )


def test_a_newer_head_waits_whether_the_admitted_one_is_merged_or_not() -> None:
    merged = replace(TOPICS[2], newer_head=sha("8"), requires=("ib-device-map",), replayed=False, not_carried=())
    alone = replace(merged, name="#42", requires=())
    conflict = replace(fixed_night.LEFT_OUT[0], newer_head=sha("9"))
    report = replace(NIGHT, composition=replace(COMPOSITION, included=(merged, alone), left_out=(conflict,)))

    lines = shown(report)

    waits = "only what was admitted counts: its newer head 888888888888 waits for an admission of its own"
    assert [line.partition("333333333333")[2].strip() for line in section(lines, "Included")[1:]] == [
        f"on ib-device-map; {waits}",
        waits,
    ]
    (told,) = section(lines, "Excluded")[1:]
    assert (
        "in python/sglang/srt/a.py, python/sglang/srt/b.py; only what was admitted counts: its newer head "
        "999999999999 waits for an admission of its own. Rebase it"
    ) in told


def test_what_github_was_asked_is_counted_pages_apart_from_the_rest() -> None:
    assert section(shown(replace(NIGHT, asked=ASKED)), "GitHub") == [
        "GitHub was asked 21 times: for 16 pages of pull requests, and 5 times besides.",
        "- acme/sglang: 120 open pull requests.",
        (
            f"- {UPSTREAM}: 1200 open pull requests, 1193 of them from owners that deploy.yaml does not list: "
            "these are not named."
        ),
    ]


def test_an_unchanged_night_says_what_it_asked_and_a_local_one_asked_nothing() -> None:
    settled = replace(fixed_night.NOTHING_TO_DO, asked=(Asked("acme/sglang", 1, 0, 1),))
    assert section(shown(settled), "GitHub") == [
        "GitHub was asked 1 time: for 1 page of pull requests, and 0 times besides.",
        "- acme/sglang: 1 open pull request.",
    ]
    assert "GitHub" not in shown(NIGHT)


@pytest.mark.parametrize(("open_pulls", "pages"), [(0, 1), (1, 1), (100, 1), (101, 2), (1200, 14)])
def test_pages_overlap_and_an_empty_repository_has_one(open_pulls: int, pages: int) -> None:
    (line,) = words.asked((Asked("acme/sglang", open_pulls, 0, pages + 3),))
    assert f"for {words.count(pages, 'page', 'pages')} of pull requests, and 3 times besides." in line


def test_many_repositories_are_cut_like_everything_else() -> None:
    many = tuple(Asked(f"owner-{number}/sglang", 1, 0, 1) for number in range(40))
    lines = section(shown(replace(NIGHT, asked=many)), "GitHub")
    assert (len(lines), lines[0][:24], lines[-1]) == (32, "GitHub was asked 40 time", "10 more in report.json")


def test_in_markdown_names_of_other_repositories_are_code() -> None:
    text = render_markdown(
        replace(night(left_out(f"{UPSTREAM}#7", Outcome.GONE, Reason.CLOSED, f"ask on {UPSTREAM}#7")), asked=ASKED)
    )
    assert f"- `{UPSTREAM}#7` `title of {UPSTREAM}#7`" in text
    assert f"ask on `{UPSTREAM}#7`" in text
    assert f"- `{UPSTREAM}`: 1200 open pull requests" in text


def test_the_name_of_a_repository_is_no_word_of_ours() -> None:
    assert words.asked_of(ASKED[0])[0] == Quoted("acme/sglang")
