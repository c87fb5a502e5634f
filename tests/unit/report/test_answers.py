"""What is done with issues and comments that are there already; and that hostile text does nothing in any of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from patchstack.github import COMMENT_LIMIT, Comment, Issue
from patchstack.model import LeftOut, NightReport, Outcome, Reason, Refusal, Topic
from patchstack.report.answers import (
    Act,
    Answers,
    IssueStep,
    NotWritten,
    answers_line,
    last_state,
    not_written,
    plan_issues,
    render_answers,
)
from patchstack.report.marker import PullMarker, SignalMarker
from patchstack.report.place import Place
from patchstack.report.remarks import Remark, remarks
from patchstack.report.signals import Signal, signals

from . import fixed_night, hostile
from .test_inert import ALLOWED, GITHUB_ACTS, _hidden

PLACE = Place("acme/sglang", "https://github.com", "https://github.com/acme/sglang/actions/runs/7")
BOT = "github-actions[bot]"
LANE = "production"


def body(key: str, text: str = "text", lane: str = LANE) -> str:
    return f"{SignalMarker(lane, key)}\n\n{text}\n"


RED = Signal("red-night", "the night is FAIL", body("red-night"))


def issue(
    number: int, text: str = RED.body, *, title: str = RED.title, author: str = BOT, closed: bool = False
) -> Issue:
    return Issue(number, title, text, not closed, author)


def plan(*found: Issue, wanted: tuple[Signal, ...] = (RED,), gone: str | None = None) -> list[tuple[str, int | None]]:
    made = plan_issues(found, wanted, lambda _: gone, login=BOT, lane=LANE)
    return [
        *((step.act.value, step.number) for step in made.steps),
        *(("as it is", number) for number in made.unchanged),
    ]


@pytest.mark.parametrize(
    ("found", "done"),
    [
        ((), [("open", None)]),
        ((issue(7),), [("as it is", 7)]),
        ((issue(7, RED.body.replace("\n", "\r\n") + "\n"),), [("as it is", 7)]),
        ((issue(7, body("red-night", "other")),), [("edit", 7)]),
        ((issue(7, title="other"),), [("edit", 7)]),
        ((issue(7, closed=True),), [("reopen", 7)]),
        ((issue(9), issue(7), issue(8)), [("close", 8), ("close", 9), ("as it is", 7)]),
        ((issue(9), issue(7, closed=True)), [("reopen", 7), ("close", 9)]),
        ((issue(9, closed=True), issue(7)), [("as it is", 7)]),
        ((issue(7, author="mallory"),), [("open", None)]),
        ((issue(7, body("red-night", lane="edge")),), [("open", None)]),
        ((issue(7, f"look:\n{RED.body}"),), [("open", None)]),
        ((issue(7, body("no-night")),), [("open", None), ("as it is", 7)]),
    ],
    ids=[
        *("nothing", "the same", "line ends", "other text", "other title", "closed", "three", "the oldest is closed"),
        *("a closed twin", "forged", "other lane", "quoted", "other key"),
    ],
)
def test_a_signal_that_is_there(found: tuple[Issue, ...], done: list[tuple[str, int | None]]) -> None:
    assert plan(*found) == done


@pytest.mark.parametrize(
    ("found", "gone", "done"),
    [
        ((issue(7),), "Gone.", [("close", 7)]),
        ((issue(7),), None, [("as it is", 7)]),
        ((issue(7, closed=True),), "Gone.", []),
        ((issue(7), issue(8)), "Gone.", [("close", 8), ("close", 7)]),
        ((issue(7), issue(8)), None, [("close", 8), ("as it is", 7)]),
        ((issue(7, closed=True), issue(8)), None, [("as it is", 8)]),
        ((issue(7, author="mallory"),), "Gone.", []),
        ((issue(7, "no marker"),), "Gone.", []),
    ],
    ids=["gone", "not known", "closed", "two gone", "two", "one closed", "forged", "none"],
)
def test_a_signal_that_is_not_there(
    found: tuple[Issue, ...], gone: str | None, done: list[tuple[str, int | None]]
) -> None:
    assert plan(*found, wanted=(), gone=gone) == done


def test_the_last_line_says_when_it_has_gone() -> None:
    made = plan_issues([issue(7)], (), lambda marker: f"Gone: {marker.key}.", login=BOT, lane=LANE)

    assert made.steps == (IssueStep(Act.CLOSE, 7, "red-night", RED.title, f"{RED.body}\nGone: red-night.\n"),)


def test_a_twin_is_closed_with_the_older_ones_number() -> None:
    made = plan_issues([issue(7), issue(8)], (RED,), lambda _: None, login=BOT, lane=LANE)

    assert made.steps[0].body == f"{RED.body}\nClosed: #7 tells of the same, and is older.\n"


def test_an_issue_is_closed_however_much_was_written_into_it() -> None:
    full = issue(7, RED.body + "x" * (COMMENT_LIMIT - len(RED.body)))
    made = plan_issues([full], (), lambda _: "Gone.", login=BOT, lane=LANE)

    assert made.steps[0].body == f"{SignalMarker(LANE, 'red-night')}\n\nGone.\n"


def test_the_state_of_a_pull_request_is_that_of_our_last_comment() -> None:
    comments = [
        Comment(1, f"{PullMarker(LANE, 'a')}\n", BOT),
        Comment(2, f"{PullMarker(LANE, 'b')}\n", BOT),
        Comment(3, f"{PullMarker('edge', 'c')}\n", BOT),
        Comment(4, f"{PullMarker(LANE, 'd')}\n", "mallory"),
        Comment(5, f"> {PullMarker(LANE, 'e')}\n", BOT),
        Comment(6, "thanks", "ann"),
    ]

    assert last_state(comments, login=BOT, lane=LANE) == "b"
    assert last_state(comments[2:], login=BOT, lane=LANE) is None


# --- for a reader ---

STEP = IssueStep(Act.OPEN, None, "red-night", "the `night`", "<!-- m -->\n\ntext\n")
ANSWERS = Answers(
    night="20261121T020000Z",
    lane=LANE,
    dry_run=False,
    issues=(STEP, replace(STEP, act=Act.CLOSE, number=7)),
    comments=(Remark(41, "s", "<!-- p -->\n\nin\n"),),
    issues_unchanged=(3, 4),
    comments_unchanged=5,
    not_written=(NotWritten("the comment on #42", "it answered\x1b[31m 502"),),
    calls=9,
)


def test_every_text_with_what_was_done() -> None:
    assert render_answers(ANSWERS) == (
        "night 20261121T020000Z, lane production: issues: 1 opened, 0 edited, 0 opened again, 1 closed, 2 as they are; "
        "comments: 1 new, 5 pull requests as they were; 9 requests\n"
        "\n== opened issue: the `night`\n\n<!-- m -->\n\ntext\n"
        "\n== closed issue #7: the `night`\n\n<!-- m -->\n\ntext\n"
        "\n== commented on #41\n\n<!-- p -->\n\nin\n"
        "\nnot written: the comment on #42: it answered\\x1b[31m 502\n"
    )


def test_a_dry_run_says_what_it_would_do() -> None:
    text = render_answers(replace(ANSWERS, dry_run=True, night="", not_written=()))

    assert text.startswith("lane production: issues: 1 opened,")
    assert "; 9 requests; nothing is written\n" in text
    assert [line for line in text.splitlines() if line.startswith("== ")] == [
        "== opens issue: the `night`",
        "== closes issue #7: the `night`",
        "== comments on #41",
    ]


def test_what_was_not_written_is_named_whole() -> None:
    assert not_written([NotWritten("a", "b"), NotWritten("c", "d")]) == (
        "2 of the night's answers are not written; `patchstack answer` writes what is missing when it is run again:\n"
        "a: b\nc: d"
    )
    assert not_written([NotWritten("a", "b")]).startswith("one of the night's answers is not written; ")
    assert answers_line(ANSWERS).endswith("9 requests")


# --- hostile text ---

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def hostile_nights(text: str) -> list[NightReport]:
    """The fixed nights with ``text`` wherever somebody from outside can write."""
    promoted = hostile.night(text)
    red = replace(promoted, promotion=None, failure=f"{text}\nx {text}", exit_code=1)
    stopped = replace(fixed_night.STOPPED, failure=f"x {text}\n{text}", refused=Refusal("x", (text, "a")))
    return [promoted, red, stopped]


def texts(report: NightReport) -> list[str]:
    return [
        *(part for signal in signals(report, PLACE) for part in (signal.title, signal.body)),
        *(remark.body for remark in remarks(report, PLACE)),
    ]


def read(markdown: str) -> tuple[list[str], str, list[str]]:
    """The blocks, the text that is not code, and the addresses of the links."""
    blocks, outside, links = [], [], []
    for token in PARSER.parse(markdown):
        if token.type == "html_block":
            assert token.content.count("\n") == 1
            assert token.content.startswith("<!-- patchstack:")
            assert token.content.endswith("-->\n")
            continue
        blocks.append(f"{token.type} {token.tag} {token.level}")
        within = False
        for child in token.children or []:
            if child.type == "link_open":
                links.append(str(child.attrs["href"]))
            assert child.type in {*ALLOWED, "link_open", "link_close"}, f"{child.type} {child.content!r}"
            if child.type == "html_inline":
                assert child.content in {"<code>", "</code>"}
                within = child.content == "<code>"
            elif child.type == "text" and not within:
                outside.append(child.content)
    return blocks, "\n".join(outside), links


@pytest.mark.parametrize("text", [text for text in hostile.TEXTS if text.strip()], ids=ascii)
def test_hostile_text_mentions_nobody_marks_nothing_and_hides_nothing(text: str) -> None:
    for number, report in enumerate(hostile_nights(text)):
        plain = texts(hostile_nights("plain")[number])
        found = texts(report)
        assert len(found) == len(plain)
        for one, like in zip(found, plain, strict=True):
            blocks, outside, links = read(one)
            expected, _, expected_links = read(like)
            if report.refused is None and not report.exit_code:  # a failure has as many lines as it has
                assert blocks == expected, one
            assert {*links} - {f"{PLACE.server}/{PLACE.repo}/pull/1"} == {*expected_links}  # a twin may be `#1`
            assert GITHUB_ACTS.search(outside.replace("All of it: ", "")) is None, one
            assert one.count("<!--") == like.count("<!--") <= 1
            assert _hidden(one) == set()


def test_the_reading_would_notice_a_second_marker() -> None:
    with pytest.raises(AssertionError):
        read(f"{RED.body}<!-- hidden -->\n")


LONG = "|" * 5000
MANY = tuple(f"{LONG}{number}" for number in range(60))


def long_night(text: str) -> list[NightReport]:
    item = replace(
        fixed_night.LEFT_OUT[0],
        outcome=Outcome.EXCLUDED,
        reason=Reason.CONFLICT,
        title=text,
        author=text,
        detail=text,
        twins=tuple(f"#{number}" for number in range(100, 102)),
        files=MANY,
    )
    included: tuple[Topic, ...] = tuple(
        fixed_night.topic(f"#{number}", text, author=text, not_carried=MANY, requires=MANY)
        for number in range(100, 102)
    )
    left: tuple[LeftOut, ...] = (item,)
    composition = replace(fixed_night.COMPOSITION, included=included, left_out=left)
    red = replace(
        hostile.night(text),
        composition=composition,
        promotion=None,
        exit_code=1,
        failure="\n".join(MANY),
        verdicts=tuple(replace(fixed_night.RED.verdicts[0], reasons=MANY) for _ in range(35)),
    )
    return [red, replace(red, promotion=fixed_night.PROMOTION), replace(red, exit_code=4, refused=Refusal("x", MANY))]


@pytest.mark.parametrize("text", [LONG, "\U000e0041|" * 2500, "日本" * 5000], ids=["bars", "hidden, and a bar", "wide"])
def test_github_takes_every_text_however_long_the_night(text: str) -> None:
    for report in long_night(text):
        found = texts(report)
        assert found
        for one in found:
            assert len(one.encode()) <= COMMENT_LIMIT - 1000
        assert all(len(signal.title) <= 256 for signal in signals(report, PLACE))
        assert any("more in the report" in one for one in found)


def test_of_a_long_list_as_much_is_shown_as_fits() -> None:
    red = replace(fixed_night.RED, failure="\n".join(f"{number} {'|' * 900}" for number in range(40)), verdicts=())
    body = signals(red, PLACE)[-1].body

    assert [f"\n- {number} <code>" in body for number in (0, 9, 10)] == [True, True, False]
    assert "\n30 more in the report\n" in body
