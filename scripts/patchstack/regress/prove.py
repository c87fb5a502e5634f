"""What a patch's guards say of it, without it and with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from patchstack.model import GuardOutcome, GuardResult, Proof, Standing, TreeRun

_GREEN = {GuardOutcome.PASS}
_OWN_FAILURE = {GuardOutcome.FAIL}
"""Without the patch only the guard's own assertion counts; an import error or a crash proves nothing."""


def prove(slugs: Iterable[str], composed: TreeRun, without: TreeRun) -> tuple[Proof, ...]:
    """The standing of each patch: ``without`` is a tree that has none of them, ``composed`` has them all."""
    with_it, without_it = _by_slug(composed), _by_slug(without)
    return tuple(_judge(slug, with_it.get(slug, {}), without_it.get(slug, {})) for slug in slugs)


def _by_slug(run: TreeRun) -> dict[str, dict[str, GuardResult]]:
    found: dict[str, dict[str, GuardResult]] = {}
    for result in run.results:
        found.setdefault(result.slug, {})[result.test] = result
    return found


def _judge(slug: str, with_it: Mapping[str, GuardResult], without_it: Mapping[str, GuardResult]) -> Proof:
    everything = {*with_it, *without_it}
    broken = [name for name in sorted(everything) if name in with_it and with_it[name].outcome not in _GREEN]
    if broken:
        return Proof(slug, Standing.BROKEN, f"not green with it: {_some(broken)}")
    absent = [name for name in sorted(everything) if (name in with_it) != (name in without_it)]
    if absent:
        return Proof(slug, Standing.UNPROVEN, f"ran on one of the two trees only: {_some(absent)}")
    bad_controls = [
        name for name, result in sorted(without_it.items()) if result.control and result.outcome not in _GREEN
    ]
    if bad_controls:
        return Proof(slug, Standing.UNPROVEN, f"controls are not green without it: {_some(bad_controls)}")
    guards = {name: result for name, result in without_it.items() if not result.control}
    if not guards:
        return Proof(slug, Standing.UNGUARDED, "it has no guard that must turn")
    turned = [name for name, result in guards.items() if result.outcome in _OWN_FAILURE]
    green = [name for name, result in sorted(guards.items()) if result.outcome in _GREEN]
    other = [name for name in sorted(guards) if name not in turned and name not in green]
    if other:
        said = f"{guards[other[0]].outcome.value}: {guards[other[0]].reason}"
        return Proof(
            slug, Standing.UNPROVEN, f"without it they end otherwise than by their assertion: {_some(other)} ({said})"
        )
    if not turned:
        return Proof(slug, Standing.REDUNDANT, f"every guard passes without it: {_some(green)}")
    if green:
        return Proof(slug, Standing.UNPROVEN, f"these guards pass without it: {_some(green)}")
    return Proof(slug, Standing.PROVEN, f"{len(turned)} guards fail without it and pass with it")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
