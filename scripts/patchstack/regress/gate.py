"""The verdict for each channel: a channel moves only when all that it needs ran and passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patchstack.model import GuardOutcome, GuardReport, Standing, Status, Verdict, Verdicts
from patchstack.regress.suites import BED_SUITE

CPU = "cpu"
BASE = "base"
"""The label of the run on the plain base."""
_RED = {GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT, GuardOutcome.FLAKY}


def judge(channels: Mapping[str, Sequence[str]], report: GuardReport) -> Verdicts:
    """One verdict a channel; ``channels`` maps its name to the test lanes and artefacts that it needs."""
    red, open_ends = _of_cpu_lane(report)
    every_need = sorted({need for needs in channels.values() for need in needs})
    return Verdicts(tuple(_verdict(name, needs, every_need, red, open_ends) for name, needs in channels.items()))


def _verdict(
    name: str, needs: Sequence[str], every_need: Sequence[str], red: Sequence[str], open_ends: Sequence[str]
) -> Verdict:
    reasons = [*red, *open_ends] if CPU in needs else []
    absent = [f"it needs {need}, which did not run" for need in needs if need != CPU]
    failed = bool(red) and CPU in needs
    status = Status.FAIL if failed else Status.INCOMPLETE if reasons or absent else Status.PASS
    skipped = tuple(f"{need}: {name} does not need it" for need in every_need if need not in needs)
    return Verdict(name, status, (*reasons, *absent), skipped)


def _of_cpu_lane(report: GuardReport) -> tuple[list[str], list[str]]:
    """What makes the lane red, and what keeps it from being complete.

    On the base a guard is meant to fail; only the bed's own controls must be green there.
    """
    results = [result for run in report.runs for result in run.results if run.label != BASE or result.slug == BED_SUITE]
    red = [f"{result.test}: {result.outcome.value}: {result.reason}" for result in results if result.outcome in _RED]
    missing = [f"{r.test}: missing: {r.reason}" for r in results if r.outcome is GuardOutcome.MISSING]
    unproven = [
        f"patch {proof.slug} is {proof.standing.value}: {proof.detail}"
        for proof in report.proofs
        if proof.standing in {Standing.UNPROVEN, Standing.UNGUARDED}
    ]
    nothing = [] if any(result.outcome is GuardOutcome.PASS for result in results) else ["no guard ran and passed"]
    return red, [*missing, *unproven, *nothing]
