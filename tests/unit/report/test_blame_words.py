"""Who made a night red, as readers are told: the report, the issue, the comment on a guilty pull request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from patchstack.culprits import Blame, Certainty, Culprit, Finding, Probe, Suspect
from patchstack.github import Issue
from patchstack.model import GuardOutcome, Hotfix, NightReport, Status
from patchstack.report import blame_words
from patchstack.report.answers import Act, plan_issues
from patchstack.report.marker import SignalMarker, signal_of
from patchstack.report.page import Line, Link, Quoted
from patchstack.report.place import Place
from patchstack.report.remarks import Remark, remarks
from patchstack.report.signals import Signal, gone, signals

from . import fixed_blame, fixed_night
from .fixed_blame import FAIL, FIRST, HANG, PASS, RED, SHIPPED, guilty, probe
from .fixed_night import GUARD, sha

PLACE = Place("acme/sglang", "https://github.com")
OURS = "patchstack[bot]"


def plain(line: Line) -> str:
    return "".join(part if isinstance(part, str) else part.text for part in line)


def blame(*findings: Finding, probes: Sequence[Probe] = (), **more: object) -> Blame:
    tests = tuple(dict.fromkeys((test, FAIL) for finding in findings for test in finding.tests))
    made = Blame(sha("d"), sha("e"), tests, findings, tuple(probes))
    return replace(made, **more)  # type: ignore[arg-type]


def red(found: Blame | None) -> NightReport:
    return replace(fixed_night.RED, blame=found)


def told(finding: Finding, probes: Sequence[Probe] = ()) -> str:
    (line,) = blame_words.findings(red(None), blame(finding, probes=probes))
    return plain(line)


def suspects(number: int) -> tuple[Suspect, ...]:
    return tuple(Suspect(Culprit.PULL, f"#{100 + index}", sha("a")) for index in range(number))


# --- a finding ---


@pytest.mark.parametrize(
    ("certainty", "those", "said"),
    [
        (
            Certainty.CONFIRMED,
            (Suspect(Culprit.BASE, "sglang==0.5.13", sha("c")),),
            "CONFIRMED the base sglang==0.5.13 at cccccccccccc: t.py::a (fail). So it is. Probes 1, 2.",
        ),
        (
            Certainty.CONFIRMED,
            (Suspect(Culprit.PATCH, "ib-device-map", sha("1")), Suspect(Culprit.PULL, "#41", sha("3"))),
            (
                "CONFIRMED, only together, patch ib-device-map pd: rail map for --disaggregation-ib-device by Acme "
                "SGLang maintainers at 111111111111; pull request #41 fix/metrics by mallory at 333333333333: "
                "t.py::a (fail). So it is. Probes 1, 2."
            ),
        ),
        (
            Certainty.NARROWED,
            suspects(2),
            (
                "NARROWED to 2, pull request #100 at aaaaaaaaaaaa; pull request #101 at aaaaaaaaaaaa: t.py::a (fail). "
                "So it is. Probes 1, 2."
            ),
        ),
        (
            Certainty.NARROWED,
            suspects(1),
            "NARROWED pull request #100 at aaaaaaaaaaaa: t.py::a (fail). So it is. Probes 1, 2.",
        ),
        (Certainty.NARROWED, (), "NARROWED: t.py::a (fail). So it is. Probes 1, 2."),
        (Certainty.FLAKY, (), "FLAKY, nobody is blamed: t.py::a (fail). So it is. Probes 1, 2."),
        (Certainty.INFRA, (), "INFRA, nobody is blamed: t.py::a (fail). So it is. Probes 1, 2."),
    ],
)
def test_a_finding_says_how_certain_who_what_and_why(
    certainty: Certainty, those: tuple[Suspect, ...], said: str
) -> None:
    assert told(Finding(certainty, ("t.py::a",), those, "so it is", (1, 2))) == said


def test_what_is_many_is_counted() -> None:
    tests = tuple(f"t.py::t{number}" for number in range(7))
    text = told(Finding(Certainty.NARROWED, tests, suspects(12), "max_probes was reached.", (1,)))

    assert "NARROWED to 12, pull request #100 at" in text
    assert "#109 at aaaaaaaaaaaa; 2 more in report.json: t.py::t0 (fail)" in text
    assert text.endswith("t.py::t4 (fail) and 2 more. max_probes was reached. Probe 1.")


# --- the report ---


def test_rounds_are_told_from_the_first_and_no_more_than_there_can_be() -> None:
    chain = None
    for number in range(14):
        chain = blame(replace(FIRST.findings[0], detail=f"round {number}"), before=chain)
    sections = blame_words.sections(red(chain))

    assert [section.title for section in sections] == [f"Blame, round {number}" for number in range(1, 11)]
    assert [plain(section.items[0]).partition("(fail). ")[2][:8] for section in sections[:2]] == [
        "Round 4.",
        "Round 5.",
    ]
    assert [section.title for section in blame_words.sections(SHIPPED)] == [
        "Blame, round 1",
        "Probes, round 1",
        "Blame, round 2",
        "Probes, round 2",
    ]
    assert [section.title for section in blame_words.sections(RED)] == ["Blame", "Probes"]


def test_lists_are_cut_and_say_so() -> None:
    many = blame(
        *(replace(FIRST.findings[1], detail=f"f{number}") for number in range(40)),
        probes=[probe(number, "tonight", FAIL, why="again") for number in range(1, 71)],
    )
    found, probes = blame_words.sections(red(many))

    assert (len(found.items), found.more) == (30, "10 more in report.json")
    assert probes.table is not None
    assert (len(probes.table.rows), probes.more) == (60, "10 more in report.json")


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        (probe(1, "tonight", why="x"), "does not compose"),
        (probe(1, "tonight", FAIL, why="x"), "fail"),
        (probe(1, "tonight", GuardOutcome.SKIPPED_BY_RULE, why="x"), "skipped by rule"),
        (probe(1, "tonight", FAIL, FAIL, tests=("a", "b"), why="x"), "fail, 2 guards"),
        (
            probe(1, "x", FAIL, PASS, GuardOutcome.CRASH, tests=("a", "b", "t.py::c"), why="x"),
            "fail a; pass 1; crash c",
        ),
        (probe(1, "tonight", FAIL, FAIL, tests=("a", "a"), why="x"), "fail, 2 times"),
        (probe(1, "tonight", FAIL, FAIL, FAIL, tests=("a", "a", "b"), why="x"), "fail, 2 guards, 2 times"),
        (probe(1, "tonight", FAIL, PASS, tests=("a", "a"), why="x"), "fail a; pass 1"),
        (replace(probe(1, "tonight", FAIL, why="x"), outcomes=()), "no answer"),
    ],
)
def test_the_answer_of_a_probe(probe: Probe, said: str) -> None:
    (section,) = blame_words.sections(red(blame(probes=[probe])))[1:]

    assert section.table is not None
    assert plain(section.table.rows[0][2]) == said


def test_a_night_that_nobody_asked_about_has_nothing_of_it() -> None:
    assert blame_words.sections(fixed_night.RED) == ()
    assert blame_words.lead(fixed_night.RED) == ()
    assert not blame_words.without_the_guilty(fixed_night.NIGHT)


def test_what_the_failure_says_of_tonights_composition_is_not_said_twice() -> None:
    assert blame_words.lead(RED) == ()
    assert RED.blame is not None
    other = replace(RED, blame=replace(RED.blame, composition=sha("7")))
    twice = replace(other, blame=replace(RED.blame, composition=sha("7"), before=RED.blame))
    assert blame_words.lead(twice) == blame_words.lead(other)
    (line,) = blame_words.lead(other)
    assert plain(line) == "Blame: CONFIRMED zmq-locked-sends; NARROWED to #41, ib-device-map; INFRA, 1 guard."


def test_the_headline_has_exclusions_only_where_the_rest_passed() -> None:
    assert blame_words.without_the_guilty(SHIPPED)
    assert not blame_words.without_the_guilty(replace(SHIPPED, headline=Status.FAIL))
    assert not blame_words.without_the_guilty(replace(SHIPPED, blame=replace(FIRST, left_out=())))
    assert [plain(line) for line in blame_words.lead(replace(SHIPPED, headline=Status.INCOMPLETE))] == [
        "Blame: CONFIRMED #51; FLAKY, 1 guard; CONFIRMED #41, #52 together.",
        "Left out for it: #51, #53, #52.",
    ]


# --- the author of a guilty pull request ---


def remark(report: NightReport, number: int) -> Remark:
    return next(remark for remark in remarks(report, PLACE) if remark.number == number)


def body(report: NightReport, number: int) -> str:
    return remark(report, number).body.partition("-->\n\n")[2]


def test_the_author_is_told_which_guards_the_probes_in_two_lines_and_how_it_comes_back() -> None:
    assert (
        body(SHIPPED, 51)
        == """\
**Found guilty of a red night**.

With this pull request at `555555555555` night `20261121T020000Z` is red, and without it is not: `tests/regression/zmq_locked_sends/test_zmq.py::test_two_threads` (**fail**).

Red on `tonight` (probe 1).

Green on `last promoted` (probe 2), `tonight without #51` (probes 3, 4).

The rest of the night goes on without it.

It comes back by itself with a mended head that is admitted. Where it is not to blame an operator lets this very head in again: `patchstack release-hold '#51'`.
"""  # noqa: E501
    )


def test_evidence_is_what_the_finding_follows_from_and_of_its_own_guards() -> None:
    both = (GUARD.test, HANG)
    finding = replace(FIRST.findings[0], probes=(1, 2, 4))
    probes = (
        probe(1, "tonight", FAIL, PASS, tests=both, why=""),
        probe(2, "last promoted", PASS, FAIL, tests=both, why=""),
        probe(3, "tonight without #7", PASS, why=""),
        probe(4, "tonight without #8", PASS, tests=(HANG,), why=""),
    )
    lines = blame_words.evidence(blame(finding, probes=probes), finding)

    assert [plain(line) for line in lines] == ["Red on tonight (probe 1).", "Green on last promoted (probe 2)."]


def test_the_trees_that_lack_least_are_named_first() -> None:
    finding = replace(FIRST.findings[0], probes=tuple(range(1, 7)))
    out = [("#1", "#2", "#3"), ("#1", "#2"), (), ("#1",), ("#1",), ("#2", "#3", "#4", "#5")]
    probes = [
        probe(number, f"tonight without {len(without)}", PASS, why="", without=without)
        for number, without in enumerate(out, 1)
    ]
    (line,) = blame_words.evidence(blame(finding, probes=probes), finding)

    assert plain(line) == (
        "Green on tonight without 0 (probe 3), tonight without 1 (probes 4, 5), tonight without 2 (probe 2) and 2 more."
    )


def test_of_a_set_that_fails_only_together_the_last_is_told_and_with_whom() -> None:
    assert (
        "With this pull request at `666666666666` together with [`#41`](<https://github.com/acme/sglang/pull/41>) night"
    ) in body(SHIPPED, 52)
    assert body(SHIPPED, 41).startswith("**In tonight's deploy**.")


def test_in_the_nights_after_it_the_state_is_the_same_until_the_head_changes() -> None:
    later = replace(guilty("#52", sha("6")), detail="night 20261121T020000Z found this head guilty: have a mended one")

    def next_night(*items: object) -> NightReport:
        composition = replace(fixed_night.COMPOSITION, left_out=items)  # type: ignore[arg-type]
        return replace(fixed_night.NIGHT, night="20261122T020000Z", composition=composition)

    assert remark(SHIPPED, 52).state == remark(next_night(later), 52).state
    assert "Night 20261121T020000Z found this head guilty: have a mended one\n" in body(next_night(later), 52)
    assert remark(next_night(replace(later, head=sha("7"))), 52).state != remark(SHIPPED, 52).state
    waits = next_night(replace(later, newer_head=sha("7")))
    assert remark(waits, 52).state != remark(SHIPPED, 52).state
    assert "This is about `666666666666`, which was admitted; its newer head is not.\n" in body(waits, 52)


def test_one_that_is_guilty_and_could_not_be_left_out_is_told_too() -> None:
    own = Suspect(Culprit.PULL, "#41", sha("3"))
    found = blame(replace(FIRST.findings[0], suspects=(own,)), probes=FIRST.probes)

    assert body(red(found), 41).startswith(
        "**Found guilty of a red night**.\n\nWith this pull request at `333333333333`"
    )
    assert "goes on without it" not in body(red(found), 41)
    # Another head's guilt is not this one's, and what is only narrowed is nobody's.
    other = replace(found, findings=(replace(found.findings[0], suspects=(replace(own, head=sha("9")),)),))
    narrowed = replace(found, findings=(replace(found.findings[0], certainty=Certainty.NARROWED),))
    assert body(red(other), 41).startswith("**Composed, and not deployed**.")
    assert body(red(narrowed), 41).startswith("**Composed, and not deployed**.")


# --- issues ---


def keyed(report: NightReport) -> dict[str, Signal]:
    return {signal.key: signal for signal in signals(report, PLACE) if not signal.key.startswith("conflict:")}


def test_the_issue_of_a_red_night_names_what_was_found_and_what_to_do_about_each() -> None:
    text = keyed(RED)["red-night"].body

    found, _, rest = text.partition("### Blame\n\n")[2].partition("\n\n### Not green")
    link = "[`#41`](<https://github.com/acme/sglang/pull/41>)"
    said = "It fails twice on the last promoted tree. Probe 2."
    assert [line.partition(" at ")[0] for line in found.splitlines()] == [
        "- **CONFIRMED** patch `zmq-locked-sends` `pd: lock shared PUSH sockets` by `Acme SGLang maintainers`",
        f"- **NARROWED** to 2, pull request {link} `fix/metrics` by `mallory`",
        f"- **INFRA**, nobody is blamed: `{fixed_blame.TTFT}` (**fail**). {said}",
    ]
    assert f"### Metrics\n\n- `send_rate`: **fail**, of `{fixed_blame.TTFT}`. 8.8% worse than the median.\n" in rest
    asked = rest.partition("### What to do\n\n")[2].splitlines()
    assert [line.partition(":")[0] for line in asked] == [
        "- `zmq-locked-sends` is guilty, and was not left out",
        "- What is narrowed",
        "- What fails where nothing has changed, or dies with its machine",
        "- `docs/operators.md` says under “When a night is not green” what exit code 1 asks.",
    ]


@pytest.mark.parametrize(
    ("suspect", "asked"),
    [
        (Suspect(Culprit.BASE, "sglang==0.5.13", sha("c")), "go back to the one before, under `upstream` in `deploy.y"),
        (Suspect(Culprit.PULL, "#9", sha("c")), "have its author mend it, or keep it out with the label `blocked`."),
        (Suspect(Culprit.PATCH, "a-patch", sha("c")), "mend it (`patchstack patch edit a-patch FOLDER`), or take back"),
    ],
)
def test_who_is_guilty_and_stays_is_to_be_mended(suspect: Suspect, asked: str) -> None:
    found = blame(replace(FIRST.findings[0], suspects=(suspect,)))

    text = keyed(red(found))["red-night"].body
    assert f"- `{suspect.name}` is guilty, and was not left out: " in text
    assert asked in text
    assert "Find out who did it" not in text
    gone_already = keyed(red(replace(found, left_out=(suspect.name,))))["red-night"].body
    assert "was not left out" not in gone_already


def test_what_only_got_worse_is_not_in_the_issue_of_a_red_night() -> None:
    assert "### Metrics" not in keyed(replace(RED, measures=fixed_blame.MEASURES))["red-night"].body


def test_whom_no_comment_reaches_has_an_issue_and_a_pull_request_of_the_fork_has_none() -> None:
    items = (guilty("pd-transfer-parking", sha("2")), guilty("sgl-project/sglang#7", sha("6")), guilty("#51", sha("5")))
    report = replace(fixed_night.NIGHT, composition=replace(fixed_night.COMPOSITION, left_out=items))

    assert list(keyed(report)) == ["guilty:pd-transfer-parking", "guilty:sgl-project/sglang#7"]
    assert (
        keyed(report)["guilty:pd-transfer-parking"].body
        == f"""\
<!-- patchstack:signal v1 lane=production key=guilty:pd-transfer-parking inputs={sha("2")} -->

The night leaves it out at this commit, and ships the rest. Mended, it comes back by itself.

### Who

- `pd-transfer-parking` `title of pd-transfer-parking` by `mallory` at `222222222222`
- `{GUARD.test}` fails twice with it
"""
    )


def issue(signal: Signal, **more: object) -> Issue:
    made = Issue(7, signal.title, signal.body, open=True, author=OURS)
    return replace(made, **more)  # type: ignore[arg-type]


def test_the_nights_after_it_leave_that_issue_as_the_night_wrote_it_that_knew_more() -> None:
    name, head = "sgl-project/sglang#7", sha("6")
    known = replace(
        FIRST, findings=(replace(FIRST.findings[0], suspects=(Suspect(Culprit.PULL, name, head),)),), left_out=(name,)
    )
    first = replace(SHIPPED, blame=known, composition=replace(fixed_night.COMPOSITION, left_out=(guilty(name, head),)))
    barred = replace(guilty(name, head), detail="night 20261121T020000Z found this head guilty")
    later = replace(first, blame=None, composition=replace(fixed_night.COMPOSITION, left_out=(barred,)))
    key = f"guilty:{name}"
    written, again = keyed(first)[key], keyed(later)[key]

    def acts(found: Issue) -> list[Act]:
        return [step.act for step in plan_issues([found], [again], lambda _: None, login=OURS, lane="production").steps]

    assert "Green on `last promoted` (probe 2)" in written.body
    assert (written.stays, again.stays) == (False, True)
    assert acts(issue(written)) == []
    assert acts(issue(written, open=False)) == [Act.REOPEN]
    assert acts(issue(written, body=written.body.replace(head, sha("7")))) == [Act.EDIT]


@pytest.mark.parametrize(
    ("report", "key", "line"),
    [
        (fixed_night.NIGHT, "guilty:x", " left out nothing of that name for a red guard."),
        (replace(fixed_night.NIGHT, hotfix=Hotfix("n", sha("d"), ("#41",))), "guilty:x", None),
        (fixed_night.NIGHT, "unsteady-guards", " had no flaky guard, and none in quarantine."),
        (fixed_night.NOTHING_TO_DO, "guilty:x", None),
        (fixed_night.NOTHING_TO_DO, "unsteady-guards", None),
        (replace(fixed_night.NIGHT, verdicts=()), "unsteady-guards", None),
        (fixed_night.STOPPED, "guilty:x", None),
    ],
)
def test_when_they_are_gone(report: NightReport, key: str, line: str | None) -> None:
    said = gone(report, SignalMarker("production", key))

    assert said == (f"Gone: night `20261121T020000Z` (`2026-11-21T02:00:00Z`){line}" if line else None)


def test_flaky_and_quarantined_guards_have_one_issue_a_lane() -> None:
    signal = keyed(SHIPPED)["unsteady-guards"]

    assert signal.title == "Lane `production`: guards are flaky, or in quarantine"
    assert signal_of(signal.body) == SignalMarker("production", "unsteady-guards")
    assert f"### Flaky\n\n- `{HANG}` on `composed`: **flaky**: **timeout** in 120.0 s" in signal.body
    assert "### Quarantine\n\n- `tests/regression/kvcm_backend/test_kvcm.py`, of `@acme/kv` until" in signal.body
    assert "green 4 nights in a row" in signal.body
    assert keyed(fixed_night.NIGHT) == {}
    # That a machine failed a guard is nobody's to mend.
    assert SHIPPED.tests is not None
    again = replace(SHIPPED.tests.runs[0], results=SHIPPED.tests.runs[0].results[:1])
    assert list(keyed(replace(SHIPPED, tests=replace(SHIPPED.tests, runs=(again,), quarantine=())))) == []


def test_who_carries_a_guilty_one_is_told_whose_commits_these_are() -> None:
    assert body(SHIPPED, 53).startswith("**Left out of the night**: carries commits of the blocked [`#51`]")
    assert blame_words.guilty(SHIPPED) == ("#51", "#53", "#52")


@pytest.mark.parametrize("name", ["#" + "1" * 19, "#x", "#", "41", "acme/sglang#4", "#\u0661"])
def test_what_is_no_number_of_a_pull_request_is_no_address(name: str) -> None:
    assert PLACE.name(name) == Quoted(name)
    assert isinstance(PLACE.name("#41"), Link)
