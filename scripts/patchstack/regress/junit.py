"""A report of guards as JUnit XML, for whoever collects results of many tools: one test suite a tree, every outcome.

https://github.com/testmoapp/junitxml is how the format is read. Red there is what is red or open here: on the composed
tree, of the bed's own controls, and of a patch that is not proven. Where a guard is meant to fail (on a ground, on a
mutant) its failure is a plain pass, and anything else is shown as skipped, with what it said: whether the patch is
proven by it is said once, in the suite `proofs`. Each other lane is a suite, too; what it rehearsed on a CPU is
skipped, whatever it said: no reader counts it as run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from xml.etree import ElementTree as Xml

from patchstack.model import (
    Form,
    GuardOutcome,
    GuardReport,
    GuardResult,
    LaneRun,
    LaneRuns,
    Proof,
    Scenario,
    Standing,
    TreeRun,
)
from patchstack.regress.hardware import kind
from patchstack.regress.suites import BED_SUITE

PROOFS = "proofs"
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""https://www.w3.org/TR/xml/#charsets: what no XML 1.0 can hold, escaped or not; and `\\r`, which readers drop."""
_TAGS = {
    GuardOutcome.FAIL: "failure",
    GuardOutcome.FLAKY: "failure",
    GuardOutcome.TIMEOUT: "error",
    GuardOutcome.CRASH: "error",
    GuardOutcome.MISSING: "error",
    GuardOutcome.QUARANTINED: "skipped",
    GuardOutcome.SKIPPED_BY_RULE: "skipped",
}
_COUNTED = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def junit_xml(report: GuardReport, lanes: LaneRuns | None = None) -> str:
    """The whole document; every result, proof and scenario of ``report`` and ``lanes`` is one test case of it."""
    root = Xml.Element("testsuites", name="patchstack")
    for run in report.runs:
        about = {"tree": run.tree, "lane": report.lane, "bed": report.bed, "kept": str(run.kept).lower()}
        root.append(_suite(run.label, about.items(), [_result(result, run) for result in run.results]))
    root.append(_suite(PROOFS, (), map(_proof, report.proofs)))
    runs = {run.lane: run for run in lanes.runs} if lanes else {}
    for lane in dict.fromkeys((*(scenario.lane for scenario in report.not_run), *runs)):
        if lane in runs:
            root.append(_lane(runs[lane]))
        else:
            cases = [_scenario(scenario) for scenario in report.not_run if scenario.lane == lane]
            root.append(_suite(f"lane {lane}", (), cases))
    _count(root, root.iter("testcase"))
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="utf-8"?>\n', "\n")
    )


def _lane(run: LaneRun) -> Xml.Element:
    trees = dict.fromkeys(end.job.tree for end in run.jobs)
    about = [("tree", tree) for tree in trees] + [("executor", run.executor), ("form", run.form.value)]
    machines = dict.fromkeys(answer.hardware for answer in run.answers if answer.hardware)
    about += [("hardware", f"{machine.node}: {kind(machine)}") for machine in machines]
    about += [
        ("job", f"{end.job.shard}: {end.state.value}" + (f": {end.detail}" if end.detail else "")) for end in run.jobs
    ]
    return _suite(f"lane {run.lane}", about, [_lane_result(result, run) for result in run.results])


def _lane_result(result: GuardResult, run: LaneRun) -> Xml.Element:
    case = _told_of(result)
    if run.form is Form.REHEARSAL:
        reason = f"rehearsed on a CPU: {result.outcome.value}" + (f": {result.reason}" if result.reason else "")
        _add_end(case, "skipped", "rehearsed", reason)
    elif tag := _TAGS.get(result.outcome):
        _add_end(case, tag, result.outcome.value, result.reason)
    return case


def _suite(name: str, about: Iterable[tuple[str, str]], cases: Iterable[Xml.Element]) -> Xml.Element:
    suite = Xml.Element("testsuite", name=_safe(name))
    _add_properties(suite, about)
    suite.extend(cases)
    _count(suite, suite.iter("testcase"))
    return suite


def _count(element: Xml.Element, cases: Iterator[Xml.Element]) -> None:
    found = list(cases)
    element.set("tests", str(len(found)))
    for name, tag in _COUNTED.items():
        element.set(name, str(sum(case.find(tag) is not None for case in found)))
    element.set("time", f"{sum(float(case.get('time', '0')) for case in found):.3f}")


def _told_of(result: GuardResult) -> Xml.Element:
    """The case of a result, with what else is known of it; how it ended is still to be said."""
    case = _case(result.test, result.duration_s)
    said = [("outcome", result.outcome.value), ("guards", result.slug)]
    said += [("control", "true")] if result.control else []
    said += [("kills", mutant) for mutant in result.kills]
    said += [(f"sample {sample.metric}", repr(sample.value)) for sample in result.samples]
    said += [("attempt", _told(before.outcome, before.reason, before.duration_s)) for before in result.attempts]
    _add_properties(case, said)
    return case


def _result(result: GuardResult, run: TreeRun) -> Xml.Element:
    case = _told_of(result)
    if run.composed or (result.slug == BED_SUITE and run.is_ground):
        tag = _TAGS.get(result.outcome, "")
        reason = result.reason
    else:
        as_meant = result.outcome is (GuardOutcome.PASS if result.control or run.beside else GuardOutcome.FAIL)
        tag = "" if as_meant else "skipped"
        reason = f"{result.outcome.value} on {run.label}" + (f": {result.reason}" if result.reason else "")
    if tag:
        _add_end(case, tag, result.outcome.value, reason)
    return case


def _proof(proof: Proof) -> Xml.Element:
    case = _case(f"{PROOFS}::{proof.slug}", 0.0)
    _add_properties(case, [("standing", proof.standing.value), ("ground", proof.ground)])
    if proof.standing in (Standing.PROVEN, Standing.REDUNDANT):
        Xml.SubElement(case, "system-out").text = _safe(proof.detail)
    else:
        _add_end(case, "failure", proof.standing.value, proof.detail)
    return case


def _scenario(scenario: Scenario) -> Xml.Element:
    case = _case(scenario.test, 0.0)
    outcome = GuardOutcome.SKIPPED_BY_RULE.value
    _add_properties(case, [("outcome", outcome)])
    _add_end(case, "skipped", outcome, f"it needs {scenario.lane}")
    return case


def _case(test: str, seconds: float) -> Xml.Element:
    """``a/test_b.py::TestC::test_d[1]`` is ``test_d[1]`` of class ``a.test_b.TestC``, as pytest itself writes it."""
    place, divider, parameters = test.partition("[")
    file, *names = place.split("::")
    *classes, name = names or [file]
    module = file.removesuffix(".py").replace("/", ".")
    within = ".".join([module, *classes])
    return Xml.Element(
        "testcase", classname=_safe(within), name=_safe(f"{name}{divider}{parameters}"), time=f"{seconds:.3f}"
    )


def _add_properties(element: Xml.Element, pairs: Iterable[tuple[str, str]]) -> None:
    held: Sequence[tuple[str, str]] = list(pairs)
    if held:
        properties = Xml.SubElement(element, "properties")
        for name, value in held:
            Xml.SubElement(properties, "property", name=_safe(name), value=_safe(value))


def _add_end(case: Xml.Element, tag: str, kind: str, reason: str) -> None:
    Xml.SubElement(case, tag, type=kind, message=_safe(reason)).text = _safe(reason)


def _told(outcome: GuardOutcome, reason: str, seconds: float) -> str:
    return f"{outcome.value} after {seconds:.3f} s" + (f": {reason}" if reason else "")


def _safe(text: str) -> str:
    """``text``, with an escape for what XML cannot hold."""
    return _NOT_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
