"""Ledger lines that somebody wrote by hand: what is no line of ours is never shown, followed or obeyed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from patchstack.model import Action, Bar, Barring, LedgerLine, Sha
from patchstack.release.ledger import LONGEST_NAME, LONGEST_WORDS, parse_trailer, repeat_line

from .release_bench import FIRST
from .test_history import night, sha

PLAIN = replace(
    night("20261121T020000Z", FIRST), stack=sha("stack"), optional=("fix",), upstream="sglang==1.0", onto="n"
)
ROLLBACK = repeat_line(
    PLAIN,
    Action.ROLLBACK,
    "20261122T030000Z",
    FIRST,
    to=PLAIN.night,
    because="it crashes: “at once”",
    bars=(Bar(Barring.PLAN, "20261122T020000Z", "f" * 64), Bar(Barring.HEAD, "acme/other#41", sha("head"))),
)
HOLD = repeat_line(PLAIN, Action.HOLD, "h", FIRST, because="a release")
RELEASE = repeat_line(PLAIN, Action.RELEASE, "r", FIRST, releases=("#41", "20261122T020000Z"))
LINES = {line.action.value: line for line in (PLAIN, ROLLBACK, HOLD, RELEASE)}


def written(line: LedgerLine) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(json.dumps({"schema_version": 1, **asdict(line)}))
    return body


@pytest.mark.parametrize("kind", LINES)
def test_every_action_reads_as_it_was_written(kind: str) -> None:
    assert parse_trailer(json.dumps(written(LINES[kind])), "c") == LINES[kind]


def set_to(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def damage(body: Any) -> None:
        for step in path[:-1]:
            body = body[step]
        body[path[-1]] = value

    return damage


ODD = (
    "",
    "a\nb",
    "a\rb",
    "\x1b[31mred",
    "a\x00",
    "right \u202e left",
    "\ud800",
    "x" * (LONGEST_NAME + 1),
    41,
    None,
    ["a"],
)
"""What is no name: nothing, several lines, what a terminal obeys, half a letter, too long, or no text."""

NAMES: tuple[tuple[str, tuple[str | int, ...]], ...] = (
    ("night", ("night",)),
    ("night", ("lane",)),
    ("night", ("base",)),
    ("night", ("fingerprint",)),
    ("night", ("included", 0, 0)),
    ("night", ("lost", 0, 0)),
    ("night", ("channels", 0)),
    ("night", ("optional", 0)),
    ("night", ("onto",)),
    ("rollback", ("to",)),
    ("rollback", ("bars", 0, "name")),
    ("rollback", ("bars", 0, "value")),
    ("rollback", ("bars", 1, "name")),
    ("release", ("releases", 0)),
)


CASES = [(kind, path, odd) for kind, path in NAMES for odd in ODD if (path, odd) != (("onto",), "")]
"""A night that is no hotfix says so with no name."""


@pytest.mark.parametrize(("kind", "path", "odd"), CASES, ids=lambda value: ascii(value)[:24])
def test_what_is_no_name_is_no_line(kind: str, path: tuple[str | int, ...], odd: object) -> None:
    body = written(LINES[kind])
    set_to(*path, value=odd)(body)
    assert parse_trailer(json.dumps(body), "c") is None


@pytest.mark.parametrize("odd", ["a\nb", "\x1b[31m", "\u202e", "x" * (LONGEST_WORDS + 1), 3])
@pytest.mark.parametrize(
    ("kind", "path"), [("hold", ("because",)), ("night", ("upstream",)), ("night", ("lost", 0, 1))]
)
def test_words_are_one_printable_line(kind: str, path: tuple[str | int, ...], odd: object) -> None:
    body = written(LINES[kind])
    set_to(*path, value=odd)(body)
    assert parse_trailer(json.dumps(body), "c") is None


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("night", set_to("stack", value="HEAD")),
        ("night", set_to("stack", value="")),
        ("night", set_to("included", 0, 1, value="--all")),
        ("night", set_to("at", value="2026-11-21\n02:00:00+00:00")),
        ("night", set_to("optional", value=["not included"])),
        ("night", set_to("schema_version", value=True)),
        ("night", set_to("schema_version", value="1")),
        ("night", set_to("action", value="reboot")),
        ("rollback", set_to("bars", 1, "value", value="f" * 64)),
        ("rollback", set_to("bars", 1, "value", value="refs/heads/main")),
        ("rollback", set_to("bars", 0, "kind", value="all")),
        ("rollback", set_to("bars", value="all")),
    ],
)
def test_what_is_no_id_is_no_line(kind: str, damage: Callable[[dict[str, Any]], None]) -> None:
    body = written(LINES[kind])
    damage(body)
    assert parse_trailer(json.dumps(body), "c") is None


BARS = written(ROLLBACK)["bars"]


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        *(("night", *said) for said in (("to", "n"), ("bars", BARS), ("releases", ["#41"]), ("because", "x"))),
        *(("rollback", *said) for said in (("to", ""), ("releases", ["#41"]), ("lost", [["#41", "x"]]), ("onto", "n"))),
        *(("hold", *said) for said in (("to", "n"), ("bars", BARS), ("releases", ["#41"]), ("lost", [["#41", "x"]]))),
        *(("release", *said) for said in (("to", "n"), ("bars", BARS), ("lost", [["#41", "x"]]))),
    ],
)
def test_an_action_says_what_is_its_own_alone(kind: str, field: str, value: object) -> None:
    body = written(LINES[kind])
    body[field] = value
    assert parse_trailer(json.dumps(body), "c") is None


def test_no_depth_of_brackets_ends_the_reader() -> None:
    assert parse_trailer("[" * 100_000, "c") is None
    assert parse_trailer('{"schema_version": 1, "included": ' + "[" * 100_000, "c") is None


def test_a_line_from_before_there_were_actions_is_a_night() -> None:
    body = written(PLAIN)
    for later in ("action", "upstream", "stack", "optional", "lost", "onto", "to", "because", "bars", "releases"):
        del body[later]
    found = parse_trailer(json.dumps(body), "c")
    assert found == replace(PLAIN, upstream="", stack=None, optional=(), lost=(), onto="")
    assert found.action is Action.NIGHT
    assert Sha(found.tree) == PLAIN.tree
