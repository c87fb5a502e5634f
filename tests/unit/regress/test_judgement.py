"""Standing of a patch from its guards on two trees, and the verdict for each channel."""

from __future__ import annotations

import pytest

from patchstack.model import GuardOutcome, GuardReport, GuardResult, Sha, Standing, Status, TreeRun
from patchstack.regress.gate import judge
from patchstack.regress.prove import prove

P, F, C, T, M = (
    GuardOutcome.PASS,
    GuardOutcome.FAIL,
    GuardOutcome.CRASH,
    GuardOutcome.TIMEOUT,
    GuardOutcome.MISSING,
)


def run(label: str, **outcomes: GuardOutcome) -> TreeRun:
    """Tests named ``guard...`` or ``control...`` of one patch, ``x``."""
    results = tuple(
        GuardResult(name, "x", name.startswith("control"), said, 0.1, "r") for name, said in outcomes.items()
    )
    return TreeRun(label, Sha("a" * 40), results)


def standing(composed: TreeRun, base: TreeRun) -> Standing:
    return prove(["x"], composed, base)[0].standing


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


def verdicts(composed: TreeRun, base: TreeRun, **channels: list[str]) -> dict[str, Status]:
    report = GuardReport("production", "bed", (composed, base), prove(["x"], composed, base))
    return {verdict.channel: verdict.status for verdict in judge(channels, report).verdicts}


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
    report = GuardReport("production", "bed", (run("composed", guard=P),), ())
    nightly, stable = judge({"nightly": ["cpu"], "stable": ["cpu", "2-gpu"]}, report).verdicts
    assert nightly.skipped_by_rule == ("2-gpu: nightly does not need it",)
    assert stable.reasons == ("it needs 2-gpu, which did not run",)
