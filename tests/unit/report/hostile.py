"""Text that people have put into titles, and what it must not do."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from patchstack.culprits import Blame
from patchstack.losses import MovedBase
from patchstack.measures import Measures
from patchstack.model import (
    Attempt,
    GuardOutcome,
    GuardReport,
    Hardware,
    JobState,
    LaneRun,
    NightReport,
    Quarantined,
    RangeDiff,
    Scenario,
    Verdict,
)

from . import fixed_blame, fixed_lanes, fixed_night

TEXTS = (
    "`", "``", "```", "a`b``c```d", "`@team`@team", "x` @team `y", "`a`` @team", "\\`@team\\`", "`unclosed @team",
    "|", "a|b", "\\|", "a\\|b", "|\n|---|", "`|` @team |", "x | <b>y</b> | @team",
    "<!-- patchstack:night -->", "-->", "<script>alert(1)</script>", "<img src=x onerror=y>", "</code>@team",
    "&lt;b&gt; &#64;team", "<https://evil.example>", "https://evil.example", "(www.evil.example)", "a@evil.example",
    "[x](https://evil.example)", "![x](y)", "[x]: y", "[ ] task", "\\[x](y)",
    "@team", "(@team)", "hi,@team!", "#1", "fixes #1", "acme/sglang#1", "GH-1", "(gh-1)",
    "# heading", "- item", "+ item", "1. item", "2) item", "===", "---", "***", "> quote", "    code", "\tcode", "~~~",
    "*a*", "_a_", "__a__", "~~a~~", "$x$", ":tada:", "{{ 7 * 7 }}", "{% raw %}",
    "line\nbreak", "line\r\nbreak", "a\n\n# heading", "a\u2028b", "a\u2029b", "a\x85b", "a\x0bb", "a\x0cb",
    "\x1b[31mred\x1b[0m", "\x1b]8;;https://evil.example\x07x\x1b]8;;\x07", "\x9b31m", "\x07", "\x08\x08\x08", "\x00",
    "\u202egnp.exe", "\u2066a\u2069", "\u200b", "\u200e", "\ufeff", "\U000e0041", "\ue000", "\udcff", "\ud800",
    "[red]x[/red]", "[link=https://evil.example]x[/link]", "[/]", ":smile:", "", " ", "  a  ", "x" * 5000,
)  # fmt: skip


def random_texts(number: int) -> Iterator[str]:
    """Texts of the signs above in any order; the same ones each time."""
    chance = random.Random(20261121)
    signs = ["`", "``", "|", "\\", "@team", "#1", "<", ">", "<!--", "-->", "[", "]", "(", ")", "*", "_", "&", ";", ":"]
    signs += [" ", "\n", "\t", "\x1b[", "\u202e", "a", "b.py", "www.", "gh-1", "http://", "~", "$", "-", "1.", "!", "="]
    for _ in range(number):
        yield "".join(chance.choice(signs) for _ in range(chance.randrange(1, 12)))


def night(text: str) -> NightReport:
    """The fixed night with ``text`` wherever somebody from outside can write."""
    composition = fixed_night.COMPOSITION
    attempts = (Attempt(GuardOutcome.CRASH, text, 1.0),)
    runs = tuple(
        replace(run, results=tuple(replace(result, test=text + result.test, reason=text) for result in run.results))
        for run in (*fixed_night.RED_TESTS.runs, replace(fixed_blame.TESTS.runs[0], label=text))
    )
    runs = tuple(
        replace(run, results=tuple(replace(result, attempts=attempts) for result in run.results)) for run in runs
    )
    guilty = tuple(
        replace(fixed_blame.guilty(name, fixed_night.sha("5")), title=text, author=text, detail=text, twins=(text,))
        for name in ("#51", "sgl-project/sglang#7")
    )
    return replace(
        fixed_night.NIGHT,
        composition=replace(
            composition,
            included=tuple(
                replace(topic, title=text, author=text, not_carried=(text, "b"), requires=(text,))
                for topic in composition.included
            ),
            left_out=tuple(
                replace(item, title=text, author=text, detail=text, twins=(text, "#41"), files=(text, text))
                for item in (*composition.left_out, *guilty)
            ),
        ),
        tests=GuardReport(
            "production",
            text,
            runs,
            tuple(replace(proof, detail=text, ground=text) for proof in fixed_night.RED_TESTS.proofs),
            (Scenario(text, text),),
            quarantine=(
                *(Quarantined(text + item.test, text, text, text, text, text) for item in fixed_blame.QUARANTINE),
                Quarantined(text, text, text, text, text, text, expired=True),
            ),
        ),
        verdicts=tuple(
            Verdict(item.channel, item.status, (text, text), (text,), (text, f"x {text}"))
            for item in fixed_night.VERDICTS
        ),
        range_diffs=(
            *(RangeDiff(name, "changed", f"1: a ! 1: b {text}\n{text}") for name in ("ib-device-map", "#41")),
            RangeDiff(text, "gone", text),
        ),
        losses=replace(
            fixed_night.LOSSES,
            since=text,
            items=tuple(
                replace(item, reason=text, detail=text, twins=(text, "#41"), files=(text,))
                for item in fixed_night.LOSSES.items
            ),
            base=MovedBase(text, text, text),
        ),
        notes=(text if text.strip() else "nothing", f"x {text}"),
        remote=text,
        blame=_blame(text),
        measures=Measures(
            text,
            fixed_night.sha("9"),
            tuple(
                replace(item, metric=text, unit=text, test=text, detail=text) for item in fixed_blame.MEASURES.measures
            ),
            ((text, text),),
        ),
        quarantined_green=((text, 3),),
        lanes=replace(fixed_lanes.LANES, runs=tuple(_lane(run, text) for run in fixed_lanes.LANES.runs)),
    )


def _lane(run: LaneRun, text: str) -> LaneRun:
    """A lane whose machines, jobs and tests say ``text`` wherever they can."""
    hardware = Hardware(text, text, 1, (text,), text, text, text, text, text, (text,))
    return replace(
        run,
        jobs=tuple(replace(end, state=JobState.LOST, detail=text, node=text) for end in run.jobs),
        answers=tuple(replace(answer, hardware=hardware) for answer in run.answers),
        results=tuple(replace(result, test=text, reason=text, outcome=GuardOutcome.FAIL) for result in run.results),
        measures=tuple(replace(measures, node=text) for measures in run.measures),
    )


def _blame(text: str) -> Blame:
    """Two rounds in which everything is called ``text``; but for one suspect, which is a pull request of the night."""
    first, second = fixed_blame.FIRST, fixed_blame.SECOND
    return replace(_renamed(second, text, text), before=_renamed(first, text, first.left_out[0]))


def _renamed(blame: Blame, text: str, suspected: str) -> Blame:
    head = fixed_night.sha("5") if suspected != text else text
    return replace(
        blame,
        tests=((text, GuardOutcome.FAIL), (f"x::{text}", GuardOutcome.CRASH)),
        findings=tuple(
            replace(
                finding,
                tests=(text, f"x::{text}"),
                suspects=tuple(replace(suspect, name=suspected, head=head) for suspect in finding.suspects),
                detail=text,
            )
            for finding in blame.findings
        ),
        probes=tuple(
            replace(
                probe,
                target=text,
                without=(text,),
                tree=text,
                outcomes=((text, GuardOutcome.PASS), (f"x::{text}", GuardOutcome.FAIL)),
                why=text,
            )
            for probe in blame.probes
        ),
        left_out=(text, "#51"),
    )
