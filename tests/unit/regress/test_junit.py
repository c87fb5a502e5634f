"""JUnit XML, held against a reader that somebody else wrote, and against pytest's own form of names."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from junitparser import TestCase as Case
from junitparser import TestSuite as Suite

from patchstack.model import (
    Attempt,
    Form,
    GuardOutcome,
    GuardReport,
    GuardResult,
    Hardware,
    JobEnd,
    JobState,
    LaneAnswer,
    LaneJob,
    LaneRun,
    LaneRuns,
    Proof,
    Sample,
    Scenario,
    Sha,
    Shard,
    Standing,
    TreeRun,
)
from patchstack.regress.junit import junit_xml

TREE, BASE = Sha("a" * 40), Sha("b" * 40)
Out = GuardOutcome


def said(test: str, outcome: GuardOutcome, reason: str = "", **more: object) -> GuardResult:
    slug, control = str(more.pop("slug", "x")), bool(more.pop("control", False))
    return GuardResult(f"tests/a/test_a.py::{test}", slug, control, outcome, 1.5, reason, **more)  # type: ignore[arg-type]


EVERY = tuple(said(f"test_{outcome.value}", outcome, f"it {outcome.value}") for outcome in Out)
REPORT = GuardReport(
    "cpu",
    "bed key",
    (
        TreeRun("composed", True, TREE, (*EVERY, said("TestX::test_in[a[0]]", Out.PASS))),
        TreeRun(
            "base",
            False,
            BASE,
            (
                said("test_turns", Out.FAIL, "as it must"),
                said("test_blind", Out.PASS),
                said("test_control", Out.PASS, control=True),
                said("test_control_red", Out.FAIL, "x", control=True),
                said("test_broken", Out.CRASH, "ImportError"),
                said("test_bed", Out.PASS, slug="bed", control=True),
                said("test_bed_red", Out.FAIL, "no engine", slug="bed", control=True),
            ),
            kept=True,
        ),
        TreeRun("mutant x/m", False, BASE, (said("test_kill", Out.FAIL, kills=("m",)),), mutant="x/m"),
        TreeRun("last promoted", False, BASE, (said("test_fast", Out.PASS), said("test_slow", Out.FAIL)), beside=True),
    ),
    tuple(Proof(standing.value, "base", standing, f"why {standing.value}") for standing in Standing),
    (Scenario("1-gpu", "tests/gpu/test_g.py::test_g"), Scenario("rdma", "tests/gpu/test_g.py::test_wire")),
)


def read(report: GuardReport, lanes: LaneRuns | None = None) -> JUnitXml:
    found = JUnitXml.fromstring(junit_xml(report, lanes).encode())
    assert isinstance(found, JUnitXml)
    return found


def ends(suite: Suite) -> dict[str, tuple[str, str, str] | None]:
    """By name: what the case ended with, its type and its message; None for a plain pass."""
    found: dict[str, tuple[str, str, str] | None] = {}
    for case in suite:
        assert isinstance(case, Case)
        (end,) = case.result or [None]
        found[case.name] = (type(end).__name__, end.type, end.message) if end is not None else None
    return found


def test_every_outcome_is_there_and_red_is_what_the_gate_calls_red_or_open() -> None:
    suites = {suite.name: suite for suite in read(REPORT)}
    assert list(suites) == ["composed", "base", "mutant x/m", "last promoted", "proofs", "lane 1-gpu", "lane rdma"]
    assert ends(suites["composed"]) == {
        "test_pass": None,
        "test_fail": ("Failure", "fail", "it fail"),
        "test_flaky": ("Failure", "flaky", "it flaky"),
        "test_timeout": ("Error", "timeout", "it timeout"),
        "test_crash": ("Error", "crash", "it crash"),
        "test_missing": ("Error", "missing", "it missing"),
        "test_quarantined": ("Skipped", "quarantined", "it quarantined"),
        "test_skipped_by_rule": ("Skipped", "skipped_by_rule", "it skipped_by_rule"),
        "test_in[a[0]]": None,
    }
    assert ends(suites["base"]) == {
        "test_turns": None,
        "test_blind": ("Skipped", "pass", "pass on base"),
        "test_control": None,
        "test_control_red": ("Skipped", "fail", "fail on base: x"),
        "test_broken": ("Skipped", "crash", "crash on base: ImportError"),
        "test_bed": None,
        "test_bed_red": ("Failure", "fail", "no engine"),
    }
    assert ends(suites["mutant x/m"]) == {"test_kill": None}
    assert ends(suites["last promoted"]) == {
        "test_fast": None,
        "test_slow": ("Skipped", "fail", "fail on last promoted"),
    }
    assert ends(suites["proofs"]) == {
        "proven": None,
        "redundant": None,
        **{name: ("Failure", name, f"why {name}") for name in ("broken", "unproven", "unguarded")},
    }
    assert ends(suites["lane rdma"]) == {"test_wire": ("Skipped", "skipped_by_rule", "it needs rdma")}


def lane(form: Form) -> LaneRun:
    """A lane whose one job of two answered, with every outcome there is."""
    job = LaneJob("20261121T020000Z", "1-gpu", Shard(1, 2, ()), TREE, TREE, form, "", 1, 60.0)
    hardware = Hardware("gpu-07", "16 x Any", 128, ("Any H200", "Any H200"), driver="570")
    ends = (JobEnd(job, JobState.ANSWERED), JobEnd(replace(job, shard=Shard(2, 2, ())), JobState.LOST, "node gone"))
    return LaneRun("1-gpu", "slurm", form, ends, (LaneAnswer(job, hardware, EVERY),), EVERY)


def test_a_lane_that_ran_is_a_suite_of_its_own() -> None:
    suites = {suite.name: suite for suite in read(REPORT, LaneRuns(TREE, (lane(Form.DEVICE),)))}
    assert list(suites)[-2:] == ["lane 1-gpu", "lane rdma"]
    assert ends(suites["lane 1-gpu"]) == {
        "test_pass": None,
        "test_fail": ("Failure", "fail", "it fail"),
        "test_flaky": ("Failure", "flaky", "it flaky"),
        "test_timeout": ("Error", "timeout", "it timeout"),
        "test_crash": ("Error", "crash", "it crash"),
        "test_missing": ("Error", "missing", "it missing"),
        "test_quarantined": ("Skipped", "quarantined", "it quarantined"),
        "test_skipped_by_rule": ("Skipped", "skipped_by_rule", "it skipped_by_rule"),
    }
    assert [(held.name, held.value) for held in suites["lane 1-gpu"].properties()] == [
        ("tree", TREE),
        ("executor", "slurm"),
        ("form", "device"),
        ("hardware", "gpu-07: 16 x Any; 128 GiB; 2 x Any H200; driver 570"),
        ("job", "1/2: answered"),
        ("job", "2/2: lost: node gone"),
    ]


def test_a_rehearsal_is_never_counted_as_run() -> None:
    (suite,) = [suite for suite in read(REPORT, LaneRuns(TREE, (lane(Form.REHEARSAL),))) if suite.name == "lane 1-gpu"]
    assert suite.tests == suite.skipped == len(EVERY)
    assert {(kind, end) for kind, end, _ in filter(None, ends(suite).values())} == {("Skipped", "rehearsed")}
    assert ends(suite)["test_fail"] == ("Skipped", "rehearsed", "rehearsed on a CPU: fail: it fail")


def test_a_lane_whose_scenarios_nobody_named_is_there_all_the_same() -> None:
    found = read(replace(REPORT, not_run=()), LaneRuns(TREE, (lane(Form.DEVICE),)))
    assert [suite.name for suite in found if suite.name.startswith("lane")] == ["lane 1-gpu"]


def test_what_is_counted_is_what_is_there() -> None:
    whole = read(REPORT)
    written = [(suite.tests, suite.failures, suite.errors, suite.skipped, suite.time) for suite in whole]
    total = (whole.tests, whole.failures, whole.errors, whole.skipped, whole.time)
    for suite in whole:
        suite.update_statistics()
    whole.update_statistics()
    assert [(suite.tests, suite.failures, suite.errors, suite.skipped, suite.time) for suite in whole] == written
    # That reader reckons the sums of all suites by itself.
    written_root = ElementTree.fromstring(junit_xml(REPORT)).attrib
    counts = {"tests": "26", "failures": "6", "errors": "3", "skipped": "8", "time": "28.500"}
    assert written_root == {"name": "patchstack", **counts}
    assert (whole.tests, whole.failures, whole.errors, whole.skipped, whole.time) == total == (26, 6, 3, 8, 28.5)


def test_names_are_those_that_pytest_writes() -> None:
    composed = next(iter(read(REPORT)))
    assert {(case.classname, case.name) for case in composed if "[" in case.name} == {
        ("tests.a.test_a.TestX", "test_in[a[0]]")
    }
    whole_file = GuardResult("tests/a/test_a.py", "x", False, Out.CRASH, 0.0, "cannot be collected")
    (case,) = next(iter(read(replace(REPORT, runs=(TreeRun("composed", True, TREE, (whole_file,)),)))))
    assert (case.classname, case.name) == ("tests.a.test_a", "tests/a/test_a.py")


def test_what_else_is_known_of_a_guard_is_beside_it() -> None:
    guard = said(
        "test_it",
        Out.FLAKY,
        "passed, then failed",
        control=True,
        kills=("m", "n"),
        attempts=(Attempt(Out.CRASH, "OSError: x", 2.25), Attempt(Out.PASS, "", 1.0)),
        samples=(Sample("speed", 1e-7),),
    )
    suite = next(iter(read(replace(REPORT, runs=(TreeRun("composed", True, TREE, (guard,), kept=True),)))))
    assert [(held.name, held.value) for held in suite.properties()] == [
        ("tree", TREE),
        ("lane", "cpu"),
        ("bed", "bed key"),
        ("kept", "true"),
    ]
    held = ElementTree.fromstring(junit_xml(replace(REPORT, runs=(TreeRun("composed", True, TREE, (guard,)),))))
    pairs = [(each.get("name"), each.get("value")) for each in held.findall("testsuite/testcase")[0].iter("property")]
    assert pairs == [
        ("outcome", "flaky"),
        ("guards", "x"),
        ("control", "true"),
        ("kills", "m"),
        ("kills", "n"),
        ("sample speed", "1e-07"),
        ("attempt", "crash after 2.250 s: OSError: x"),
        ("attempt", "pass after 1.000 s"),
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x00\x1b[31mred\x07", "\\x00\\x1b[31mred\\x07"),
        ("</failure><testcase name='x'/>", "</failure><testcase name='x'/>"),
        ("]]> & \" '", "]]> & \" '"),
        ("\ud800\ufffe\uffff", "\\ud800\\ufffe\\uffff"),
        ("\U0001f525 ü\u2028", "\U0001f525 ü\u2028"),
        ("a\rb", "a\\rb"),
        ("a\nb\tc", "a\nb\tc"),
    ],
)
def test_a_reason_breaks_nothing_whatever_is_in_it(text: str, shown: str) -> None:
    guard = said(f"test_it[{text}]", Out.CRASH, text)
    (case,) = next(iter(read(replace(REPORT, runs=(TreeRun(text, True, TREE, (guard,)),)))))
    (end,) = case.result
    assert (case.name, end.message, end.text) == (f"test_it[{shown}]", shown, shown)


def test_the_kinds_of_ends_are_the_reader_s_own() -> None:
    kinds = {type(end) for suite in read(REPORT) for case in suite for end in case.result}
    assert kinds == {Error, Failure, Skipped}
