"""What a patch's guards say of it: on its ground, which is all that it requires, and on the composed tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from patchstack.model import GuardOutcome, GuardResult, Proof, Standing, TreeRun

_GREEN = {GuardOutcome.PASS}
_OWN_FAILURE = {GuardOutcome.FAIL}
"""Without the patch only the guard's own assertion counts; an import error or a crash proves nothing."""


def prove(grounds: Mapping[str, str], runs: Iterable[TreeRun]) -> tuple[Proof, ...]:
    """The standing of each patch: the composed tree has it, its ground, the run of the label given here, has it not."""
    with_it: dict[str, dict[str, GuardResult]] = {}
    without_it: dict[str, dict[str, GuardResult]] = {}
    for run in runs:
        for result in run.results:
            if run.composed:
                with_it.setdefault(result.slug, {})[result.test] = result
            elif grounds.get(result.slug) == run.label:
                without_it.setdefault(result.slug, {})[result.test] = result
    return tuple(
        Proof(slug, ground, *_judge(with_it.get(slug, {}), without_it.get(slug, {})))
        for slug, ground in grounds.items()
    )


def _judge(with_it: Mapping[str, GuardResult], without_it: Mapping[str, GuardResult]) -> tuple[Standing, str]:
    everything = {*with_it, *without_it}
    broken = [name for name in sorted(everything) if name in with_it and with_it[name].outcome not in _GREEN]
    if broken:
        return Standing.BROKEN, f"not green with it: {_some(broken)}"
    absent = [name for name in sorted(everything) if (name in with_it) != (name in without_it)]
    if absent:
        return Standing.UNPROVEN, f"ran on one of the two trees only: {_some(absent)}"
    bad_controls = [
        name for name, result in sorted(without_it.items()) if result.control and result.outcome not in _GREEN
    ]
    if bad_controls:
        return Standing.UNPROVEN, f"controls are not green without it: {_some(bad_controls)}"
    guards = {name: result for name, result in without_it.items() if not result.control}
    if not guards:
        return Standing.UNGUARDED, "it has no guard that must turn"
    turned = [name for name, result in guards.items() if result.outcome in _OWN_FAILURE]
    green = [name for name, result in sorted(guards.items()) if result.outcome in _GREEN]
    other = [name for name in sorted(guards) if name not in turned and name not in green]
    if other:
        said = f"{guards[other[0]].outcome.value}: {guards[other[0]].reason}"
        return Standing.UNPROVEN, f"without it they end otherwise than by their assertion: {_some(other)} ({said})"
    if not turned:
        return Standing.REDUNDANT, f"every guard passes without it: {_some(green)}"
    if green:
        return Standing.UNPROVEN, f"these guards pass without it: {_some(green)}"
    return Standing.PROVEN, f"{len(turned)} guards fail without it and pass with it"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
