"""Nights of which something is found out: who is guilty, what is flaky, excused, or slower than it was."""

from __future__ import annotations

from dataclasses import replace

from patchstack.culprits import Blame, Certainty, Culprit, Finding, Probe, Suspect
from patchstack.measures import Measure, Measures, Trend
from patchstack.model import (
    Attempt,
    GuardOutcome,
    GuardResult,
    LeftOut,
    Outcome,
    Quarantined,
    Reason,
    Sha,
    Status,
    TreeRun,
    Verdict,
)

from . import fixed_night
from .fixed_night import GUARD, NIGHT, left_out, sha

FAIL, PASS = GuardOutcome.FAIL, GuardOutcome.PASS
HANG = "tests/regression/pd_abort_notify/test_abort.py::test_both_end"
TTFT = "tests/regression/zmq_locked_sends/test_cost.py::test_a_send"
BREAKER = Suspect(Culprit.PULL, "#51", sha("5"))
PARTNERS = (Suspect(Culprit.PULL, "#41", sha("3")), Suspect(Culprit.PULL, "#52", sha("6")))


def probe(
    number: int, target: str, *said: GuardOutcome, why: str, tests: tuple[str, ...] = (), **more: object
) -> Probe:
    """Of `GUARD`'s test, or of these; without a word it does not compose."""
    outcomes = tuple(zip(tests or (GUARD.test,), said, strict=False))
    made = Probe(number, target, (), Sha(f"{number:040x}") if said else None, outcomes, 12.5, why)
    return replace(made, **more)  # type: ignore[arg-type]


FIRST = Blame(
    composition=sha("4"),
    tree=sha("6"),
    tests=((GUARD.test, FAIL), (HANG, GuardOutcome.TIMEOUT)),
    findings=(
        Finding(
            Certainty.CONFIRMED,
            (GUARD.test,),
            (BREAKER,),
            "it fails twice with #51, and passes twice without it",
            (1, 2, 3, 4),
        ),
        Finding(Certainty.FLAKY, (HANG,), (), "it passed once and ended by its limit once on one tree", (1,)),
    ),
    probes=(
        probe(1, "tonight", FAIL, PASS, tests=(GUARD.test, HANG), why="is it the same again?"),
        probe(2, "last promoted", PASS, why="did it fail before?"),
        probe(3, "tonight without #51", PASS, why="does it pass without?"),
        probe(4, "tonight without #51", PASS, why="again"),
    ),
    left_out=("#51", "#53"),
)
SECOND = Blame(
    composition=sha("5"),
    tree=sha("7"),
    tests=((GUARD.test, FAIL),),
    findings=(
        Finding(
            Certainty.CONFIRMED,
            (GUARD.test,),
            PARTNERS,
            "they fail only together.",
            (1, 3),
        ),
    ),
    probes=(
        probe(1, "tonight", FAIL, why="is it the same again?"),
        probe(2, "tonight without #41", why="is it the first half?", seconds=0.25),
        probe(3, "tonight without #52", PASS, why="does it pass without?"),
    ),
    left_out=("#52",),
    before=FIRST,
)


def guilty(name: str, head: Sha, **more: object) -> LeftOut:
    item = left_out(name, Outcome.EXCLUDED, Reason.GUILTY, f"{GUARD.test} fails twice with it", head=head)
    return replace(item, **more)  # type: ignore[arg-type]


OUT = (
    guilty("#51", sha("5"), title="scheduler: one queue"),
    guilty("#52", sha("6")),
    left_out("#53", Outcome.EXCLUDED, Reason.CARRIES_BLOCKED, "rebase it", twins=("#51",)),
)
RESULTS = (
    replace(GUARD, attempts=(Attempt(GuardOutcome.CRASH, "the process was killed by SIGKILL", 0.5, by_machine=True),)),
    fixed_night.CONTROL,
    GuardResult(
        HANG,
        "pd-abort-notify",
        False,
        GuardOutcome.FLAKY,
        9.0,
        "it ended by its limit once and passed once",
        attempts=(Attempt(GuardOutcome.TIMEOUT, "120 s", 120.0), Attempt(PASS, "", 9.0)),
    ),
    GuardResult(
        "tests/regression/ib_device_map/test_map.py::test_names[mlx5|0]",
        "ib-device-map",
        False,
        GuardOutcome.QUARANTINED,
        1.0,
        "fail: AssertionError: mlx5_1",
    ),
    GuardResult("tests/regression/kvcm_backend/test_kvcm.py::test_put", "kvcm-backend", False, PASS, 1.0),
    replace(GUARD, test=TTFT),
)
QUARANTINE = (
    Quarantined(
        "tests/regression/ib_device_map/test_map.py::test_names",
        "@acme/pd",
        "the names depend on the order of /sys",
        "2026-11-20",
        "2026-12-04",
        "the order is sorted.",
    ),
    Quarantined(
        "tests/regression/kvcm_backend/test_kvcm.py",
        "@acme/kv",
        "its port is taken now and then",
        "2026-11-18",
        "2026-11-30",
        "ten green nights",
    ),
)
TESTS = replace(
    fixed_night.TESTS,
    runs=(
        TreeRun("composed", True, sha("e"), RESULTS),
        fixed_night.TESTS.runs[1],
        TreeRun("last promoted", False, sha("9"), (replace(GUARD, test=TTFT),), beside=True),
    ),
    quarantine=QUARANTINE,
)
MEASURES = Measures(
    "2 x AMD EPYC 9554, 8 GiB, no GPU",
    sha("9"),
    (
        Measure(
            "send_us", "us", TTFT, 12.25, 12.0, 9, 11.5, 0.25, Trend.PASS, "2.1% worse than the last promoted tree"
        ),
        Measure("send_rate", "1/s", TTFT, 91234.5, 1e5, 9, 1.1e5, 250.0, Trend.WARN, "8.8% worse than the median"),
        Measure("rooms", "", TTFT, 7.0, None, 2, None, None, Trend.INSUFFICIENT, "2 of 5 nights that a band needs."),
    ),
    (("bytes_sent", f"{TTFT} passed and measured nothing"),),
)
SHIPPED = replace(
    NIGHT,
    composition=replace(NIGHT.composition, left_out=(*fixed_night.LEFT_OUT[:1], *OUT)),  # type: ignore[type-var]
    tests=TESTS,
    verdicts=(
        Verdict(
            "nightly",
            Status.PASS,
            (),
            ("image: nightly does not need it",),
            (f"{HANG}: flaky: it ended by its limit once and passed once", "metric send_rate: warn"),
        ),
        Verdict("stable", Status.INCOMPLETE, (f"{HANG}: flaky",)),
    ),
    blame=SECOND,
    measures=MEASURES,
    quarantined_green=(("tests/regression/kvcm_backend/test_kvcm.py::test_put", 4),),
)
"""Two were left out in two rounds, and the rest is promoted."""

_UNSURE = Blame(
    composition=fixed_night.COMPOSITION.commit,
    tree=fixed_night.COMPOSITION.tree,
    tests=((GUARD.test, FAIL), (HANG, GuardOutcome.CRASH), (TTFT, FAIL)),
    findings=(
        Finding(
            Certainty.CONFIRMED,
            (GUARD.test,),
            (Suspect(Culprit.PATCH, "zmq-locked-sends", sha("2")),),
            "it passes twice with the patch as it was",
            (1, 2),
        ),
        Finding(
            Certainty.NARROWED,
            (HANG,),
            (Suspect(Culprit.PULL, "#41", sha("3")), Suspect(Culprit.PATCH, "ib-device-map", sha("1"))),
            "max_probes was reached",
            (1,),
        ),
        Finding(Certainty.INFRA, (TTFT,), (), "it fails twice on the last promoted tree", (2,)),
    ),
    probes=(
        probe(1, "tonight", FAIL, FAIL, FAIL, tests=(GUARD.test, HANG, TTFT), why="is it the same again?"),
        probe(2, "last promoted", PASS, FAIL, tests=(GUARD.test, TTFT), why="did it fail before?"),
    ),
)
RED = replace(
    fixed_night.RED,
    failure="channel nightly is FAIL, nothing was moved\n"
    "  CONFIRMED: patch zmq-locked-sends: it passes twice with the patch as it was; no night is shipped without it\n"
    "  NARROWED: pull request #41, patch ib-device-map: max_probes was reached\n"
    "  INFRA: nobody is blamed: it fails twice on the last promoted tree",
    blame=_UNSURE,
    measures=replace(MEASURES, against=None, measures=(replace(MEASURES.measures[1], trend=Trend.FAIL),)),
)
"""A required patch is guilty, and the rest is not found out."""
