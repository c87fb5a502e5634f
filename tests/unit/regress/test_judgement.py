"""Standing of a patch from its guards on two trees, and the verdict for each channel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from patchstack.model import (
    Base,
    Composition,
    Fingerprint,
    GuardOutcome,
    GuardReport,
    GuardResult,
    Kind,
    LeftOut,
    Outcome,
    Proof,
    Reason,
    Scenario,
    Sha,
    Standing,
    Status,
    Topic,
    TreeRun,
)
from patchstack.regress.gate import judge
from patchstack.regress.ground import Ground
from patchstack.regress.prove import Claim, prove

P, F, C, T, M = (
    GuardOutcome.PASS,
    GuardOutcome.FAIL,
    GuardOutcome.CRASH,
    GuardOutcome.TIMEOUT,
    GuardOutcome.MISSING,
)


TREE, PLAIN_TREE, COMMIT = Sha("a" * 40), Sha("b" * 40), Sha("c" * 40)
TOPIC = Topic("x", Kind.PATCH, "title", "Pat", COMMIT, COMMIT, COMMIT, COMMIT, "id", ("a",), required=True)
COMPOSITION = Composition(
    "production", Base("sglang==1.0", "1.0", COMMIT, PLAIN_TREE), COMMIT, TREE, (TOPIC,), (), Fingerprint("f", ())
)
"""Patch ``x`` on the base."""
GROUNDS = {"x": Ground(PLAIN_TREE)}


def run(label: str, **outcomes: GuardOutcome) -> TreeRun:
    """Tests named ``guard...`` or ``control...`` of one patch, ``x``."""
    results = tuple(
        GuardResult(name, "x", name.startswith("control"), said, 0.1, "r") for name, said in outcomes.items()
    )
    return TreeRun(label, label != "base", PLAIN_TREE if label == "base" else TREE, results)


def standing(composed: TreeRun, base: TreeRun) -> Standing:
    return prove({"x": Claim("base")}, [composed, base])[0].standing


@pytest.mark.parametrize(
    ("with_it", "without_it", "expected"),
    [
        ({"guard": P}, {"guard": F}, Standing.PROVEN),
        ({"guard": P, "control": P}, {"guard": F, "control": P}, Standing.PROVEN),
        ({"guard": P}, {"guard": P}, Standing.REDUNDANT),
        ({"guard": F}, {"guard": F}, Standing.BROKEN),
        ({"guard": C}, {"guard": F}, Standing.BROKEN),
        ({"guard": M}, {"guard": F}, Standing.BROKEN),
        ({"guard": P}, {"guard": C}, Standing.UNPROVEN),
        ({"guard": P}, {"guard": T}, Standing.UNPROVEN),
        ({"guard": P}, {"guard": M}, Standing.UNPROVEN),
        ({"guard": P}, {}, Standing.UNPROVEN),
        ({"guard": P, "guard2": P}, {"guard": F, "guard2": P}, Standing.UNPROVEN),
        ({"guard": P, "control": P}, {"guard": F, "control": F}, Standing.UNPROVEN),
        ({"guard": P, "control": F}, {"guard": F, "control": P}, Standing.BROKEN),
        ({"control": P}, {"control": P}, Standing.UNGUARDED),
        ({}, {}, Standing.UNGUARDED),
    ],
)
def test_standing(with_it: dict[str, GuardOutcome], without_it: dict[str, GuardOutcome], expected: Standing) -> None:
    assert standing(run("composed", **with_it), run("base", **without_it)) is expected


def report_of(composed: TreeRun, base: TreeRun) -> GuardReport:
    return GuardReport("production", "bed", (composed, base), prove({"x": Claim("base")}, [composed, base]))


def verdicts(composed: TreeRun, base: TreeRun, **channels: list[str]) -> dict[str, Status]:
    report = report_of(composed, base)
    return {verdict.channel: verdict.status for verdict in judge(channels, COMPOSITION, GROUNDS, report).verdicts}


def test_a_channel_moves_only_when_all_that_it_needs_ran_and_passed() -> None:
    green, failing = run("composed", guard=P), run("base", guard=F)
    assert verdicts(green, failing, nightly=["cpu"], stable=["cpu", "image", "1-gpu"]) == {
        "nightly": Status.PASS,
        "stable": Status.INCOMPLETE,
    }
    assert verdicts(run("composed", guard=F), failing, nightly=["cpu"]) == {"nightly": Status.FAIL}
    assert verdicts(run("composed", guard=M), failing, nightly=["cpu"]) == {"nightly": Status.INCOMPLETE}
    assert verdicts(green, run("base", guard=C), nightly=["cpu"]) == {"nightly": Status.INCOMPLETE}
    assert verdicts(run("composed"), run("base"), nightly=["cpu"]) == {"nightly": Status.INCOMPLETE}


def test_a_redundant_patch_is_reported_and_does_not_stop_the_night() -> None:
    assert verdicts(run("composed", guard=P), run("base", guard=P), nightly=["cpu"]) == {"nightly": Status.PASS}


def test_what_a_channel_does_not_need_is_listed_as_skipped_by_rule() -> None:
    report = report_of(run("composed", guard=P), run("base", guard=F))
    nightly, stable = judge({"nightly": ["cpu"], "stable": ["cpu", "2-gpu"]}, COMPOSITION, GROUNDS, report).verdicts
    assert nightly.skipped_by_rule == ("2-gpu: nightly does not need it",)
    assert stable.reasons == ("it needs 2-gpu, which did not run",)


def test_scenarios_that_did_not_run_are_counted_and_named() -> None:
    """A channel that needs their lane stays where it is; the others are told what their needs left out."""
    scenarios = (
        *(Scenario("1-gpu", f"gpu.py::test_{number}") for number in range(5)),
        Scenario("2-gpu", "gpu.py::test_two"),
    )
    report = replace(report_of(run("composed", guard=P), run("base", guard=F)), not_run=scenarios)
    nightly, stable = judge(
        {"nightly": ["cpu"], "stable": ["cpu", "1-gpu", "2-gpu"]}, COMPOSITION, GROUNDS, report
    ).verdicts
    one = "(5 scenarios: gpu.py::test_0, gpu.py::test_1, gpu.py::test_2, 2 more)"
    two = "(1 scenario: gpu.py::test_two)"
    assert (nightly.status, stable.status) == (Status.PASS, Status.INCOMPLETE)
    assert nightly.skipped_by_rule == (
        f"1-gpu: nightly does not need it {one}",
        f"2-gpu: nightly does not need it {two}",
    )
    assert stable.reasons == (f"it needs 1-gpu, which did not run {one}", f"it needs 2-gpu, which did not run {two}")


GREEN = report_of(run("composed", guard=P), run("base", guard=F))


def nightly(
    composition: Composition, report: GuardReport, grounds: dict[str, Ground] = GROUNDS
) -> tuple[Status, tuple[str, ...]]:
    (verdict,) = judge({"nightly": ["cpu"]}, composition, grounds, report).verdicts
    return verdict.status, verdict.reasons


def test_green_is_green() -> None:
    assert nightly(COMPOSITION, GREEN) == (Status.PASS, ())


@pytest.mark.parametrize("said", sorted({*GuardOutcome} - {P}))
@pytest.mark.parametrize("with_a_pass", [True, False])
def test_only_a_pass_is_green(said: GuardOutcome, with_a_pass: bool) -> None:
    """Quarantined, skipped by rule, missing: whatever did not run keeps the channel where it is."""
    more = {"other": P} if with_a_pass else {}
    report = report_of(run("composed", guard=said, **more), run("base", guard=F, **dict.fromkeys(more, F)))
    status, reasons = nightly(COMPOSITION, report)
    assert status is (Status.FAIL if said in {F, C, T} else Status.INCOMPLETE)
    assert reasons


def test_a_patch_whose_guards_did_not_run_keeps_the_channel_where_it_is() -> None:
    """Such as `test --suite x` on a composition that holds more."""
    both = replace(COMPOSITION, included=(TOPIC, replace(TOPIC, name="y")))
    grounds = {**GROUNDS, "y": Ground(PLAIN_TREE)}
    assert nightly(both, GREEN, grounds) == (Status.INCOMPLETE, ("patch y: its guards did not run",))


def test_what_lacks_a_patch_on_request_is_not_a_night() -> None:
    """`--without y` with `--suite x`, or a patch that upstream made redundant: every guard that ran is green."""
    out = LeftOut("y", Kind.PATCH, "t", "Pat", None, Outcome.SKIPPED, Reason.ON_REQUEST, "d", required=True)
    status, reasons = nightly(replace(COMPOSITION, left_out=(out,)), GREEN)
    assert (status, reasons) == (
        Status.INCOMPLETE,
        ("patch y is left out on request: what lacks it is not a night",),
    )


def test_a_report_on_another_tree_says_nothing_of_this_one() -> None:
    other = Sha("d" * 40)
    assert nightly(replace(COMPOSITION, tree=other), GREEN) == (
        Status.INCOMPLETE,
        ("the guards did not run on the composed tree dddddddddddd, and it alone",),
    )
    assert nightly(replace(COMPOSITION, base=replace(COMPOSITION.base, tree=other)), GREEN)[0] is Status.INCOMPLETE
    assert nightly(COMPOSITION, replace(GREEN, runs=GREEN.runs[:1]))[0] is Status.INCOMPLETE


STACKED = replace(COMPOSITION, included=(replace(TOPIC, name="z"), replace(TOPIC, requires=("z",))))
"""Patch ``x`` on patch ``z`` on the base."""
Z_TREE = Sha("e" * 40)
STACKED_GROUNDS = {"z": Ground(PLAIN_TREE), "x": Ground(Z_TREE, ("z",))}


def on_ground(label: str, tree: Sha, *slugs: str) -> TreeRun:
    return TreeRun(label, False, tree, tuple(GuardResult(f"guard of {slug}", slug, False, F, 0.1) for slug in slugs))


def stacked(*grounds: TreeRun, labels: dict[str, str] | None = None) -> GuardReport:
    claims = {slug: Claim(label) for slug, label in (labels or {"z": "base", "x": "base + z"}).items()}
    passed = tuple(GuardResult(f"guard of {slug}", slug, False, P, 0.1) for slug in "zx")
    runs = (TreeRun("composed", True, TREE, passed), *grounds)
    return GuardReport("cpu", "bed", runs, prove(claims, runs))


RIGHT = (on_ground("base", PLAIN_TREE, "z"), on_ground("base + z", Z_TREE, "x"))


def test_a_patch_is_proven_on_what_it_requires() -> None:
    report = stacked(*RIGHT)
    assert [(proof.slug, proof.ground, proof.standing) for proof in report.proofs] == [
        ("z", "base", Standing.PROVEN),
        ("x", "base + z", Standing.PROVEN),
    ]
    assert nightly(STACKED, report, STACKED_GROUNDS) == (Status.PASS, ())


def test_what_a_guard_says_on_another_ground_than_its_own_proves_nothing() -> None:
    """On the plain base it fails for want of what its patch requires."""
    everywhere = stacked(on_ground("base", PLAIN_TREE, "z", "x"), TreeRun("base + z", False, Z_TREE, ()))
    assert everywhere.proofs[1].standing is Standing.UNPROVEN


X_ELSEWHERE = (Status.INCOMPLETE, (f"patch x: its guards did not run on base + z (tree {Z_TREE[:12]}), and it alone",))


@pytest.mark.parametrize(
    "report",
    [
        stacked(on_ground("base", PLAIN_TREE, "z", "x"), labels={"z": "base", "x": "base"}),
        stacked(RIGHT[0], on_ground("base + z", PLAIN_TREE, "x")),
        stacked(RIGHT[0], on_ground("base + q", Z_TREE, "x"), labels={"z": "base", "x": "base + q"}),
        stacked(*RIGHT, on_ground("base + q", Z_TREE, "x")),
        stacked(on_ground("base", PLAIN_TREE, "z", "x"), RIGHT[1]),
        replace(stacked(*RIGHT), proofs=(stacked(*RIGHT).proofs[0], Proof("x", "base", Standing.PROVEN, "d"))),
    ],
    ids=["on the base", "another tree", "another label", "a second label", "on two grounds", "another proof"],
)
def test_a_report_on_another_ground_leaves_the_patch_open(report: GuardReport) -> None:
    status, reasons = nightly(STACKED, report, STACKED_GROUNDS)
    assert (status, reasons) == X_ELSEWHERE


def test_the_bed_s_own_guards_run_on_the_plain_base_alone() -> None:
    bed = GuardResult("bed", "bed", True, P, 0.1)
    base, on_z = RIGHT
    beside = f"the bed's own guards did not run on the base tree {PLAIN_TREE[:12]}, and it alone"
    right = stacked(replace(base, results=(bed, *base.results)), on_z)
    assert nightly(STACKED, right, STACKED_GROUNDS) == (Status.PASS, ())
    wrong = stacked(base, replace(on_z, results=(bed, *on_z.results)))
    assert nightly(STACKED, wrong, STACKED_GROUNDS) == (Status.INCOMPLETE, (beside,))
    red = stacked(replace(base, results=(replace(bed, outcome=F), *base.results)), on_z)
    assert nightly(STACKED, red, STACKED_GROUNDS)[0] is Status.FAIL
