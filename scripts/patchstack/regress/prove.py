"""What a patch's guards say of it: with it, without it, and with a known fault brought back into it.

Without it is its ground: the base with all that it requires. A guard that is marked as killing mutants says
nothing there, for what it imports may not be there; it must fail on each mutant that it names, and a patch of
new files may be proven by such guards alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from patchstack.model import GuardOutcome, GuardResult, Mutant, Proof, Standing, TreeRun

_GREEN = {GuardOutcome.PASS}
_OWN_FAILURE = {GuardOutcome.FAIL}
"""Where it must fail only the guard's own assertion counts; an import error or a crash proves nothing."""
_DOUBTFUL = {GuardOutcome.FLAKY, GuardOutcome.QUARANTINED}

Results = Mapping[str, GuardResult]
"""By test."""


@dataclass(frozen=True)
class Claim:
    """Where a patch's guards must fail."""

    ground: str
    """The label of the tree without it."""
    mutants: tuple[Mutant, ...] = ()


def prove(claims: Mapping[str, Claim], runs: Iterable[TreeRun]) -> tuple[Proof, ...]:
    """The standing of each patch: composed trees have it, its ground has it not, and its mutants have it broken."""
    with_it: dict[str, dict[str, GuardResult]] = {}
    without_it: dict[str, dict[str, GuardResult]] = {}
    on_mutants: dict[str, dict[str, GuardResult]] = {}
    for run in runs:
        if run.mutant:
            on_mutants[run.mutant] = {result.test: result for result in run.results}
            continue
        for result in run.results:
            if run.composed:
                with_it.setdefault(result.slug, {})[result.test] = result
            elif result.slug in claims and claims[result.slug].ground == run.label:
                without_it.setdefault(result.slug, {})[result.test] = result
    proofs = []
    for slug, claim in claims.items():
        mine = _Results(
            with_it.get(slug, {}),
            without_it.get(slug, {}),
            {mutant.name: on_mutants.get(mutant_id(slug, mutant), {}) for mutant in claim.mutants},
        )
        proofs.append(Proof(slug, claim.ground, *_judge(claim.mutants, mine)))
    return tuple(proofs)


def mutant_id(slug: str, mutant: Mutant) -> str:
    """``<slug>/<name>``: as a `TreeRun` names it."""
    return f"{slug}/{mutant.name}"


@dataclass(frozen=True)
class _Results:
    with_it: Results
    without_it: Results
    on_mutants: Mapping[str, Results]


def _judge(mutants: Sequence[Mutant], said: _Results) -> tuple[Standing, str]:
    """What those say that can be relied on; the others count for nothing, whatever they say elsewhere."""
    doubtful = sorted(name for name, result in said.with_it.items() if result.outcome in _DOUBTFUL)
    standing, detail = _standing(mutants, _without(said, doubtful))
    if not doubtful:
        return standing, detail
    if standing in (Standing.REDUNDANT, Standing.UNGUARDED):
        return Standing.UNPROVEN, f"flaky, or in quarantine: {_some(doubtful)}; else {detail}"
    return standing, f"{detail}; flaky, or in quarantine: {_some(doubtful)}"


def _without(said: _Results, tests: Sequence[str]) -> _Results:
    def rest(results: Results) -> Results:
        return {name: result for name, result in results.items() if name not in tests}

    on_mutants = {name: rest(results) for name, results in said.on_mutants.items()}
    return _Results(rest(said.with_it), rest(said.without_it), on_mutants)


def _standing(mutants: Sequence[Mutant], said: _Results) -> tuple[Standing, str]:
    killers = {name: result for name, result in said.with_it.items() if result.kills}
    with_it = {name: result for name, result in said.with_it.items() if name not in killers}
    without_it = said.without_it
    broken = [name for name, result in sorted(said.with_it.items()) if result.outcome not in _GREEN]
    if broken:
        return Standing.BROKEN, f"not green with it: {_some(broken)}"
    absent = [name for name in sorted({*with_it, *without_it}) if (name in with_it) != (name in without_it)]
    if absent:
        return Standing.UNPROVEN, f"ran on one of the two trees only: {_some(absent)}"
    bad_controls = [
        name for name, result in sorted(without_it.items()) if result.control and result.outcome not in _GREEN
    ]
    if bad_controls:
        return Standing.UNPROVEN, f"controls are not green without it: {_some(bad_controls)}"
    contradicting = [name for name, result in sorted(killers.items()) if result.control]
    if contradicting:
        return Standing.UNPROVEN, f"marked as controls and as killing mutants: {_some(contradicting)}"
    guards = {name: result for name, result in without_it.items() if not result.control}
    if not guards and not killers and not mutants:
        return Standing.UNGUARDED, "it has no guard that must turn"
    turned = [name for name, result in guards.items() if result.outcome in _OWN_FAILURE]
    green = [name for name, result in sorted(guards.items()) if result.outcome in _GREEN]
    other = [name for name in sorted(guards) if name not in turned and name not in green]
    if other:
        told = _told(guards[other[0]])
        return Standing.UNPROVEN, f"without it they end otherwise than by their assertion: {_some(other)} ({told})"
    if guards and not turned and not killers:
        return Standing.REDUNDANT, f"every guard passes without it: {_some(green)}"
    if green:
        return Standing.UNPROVEN, f"these guards pass without it: {_some(green)}"
    alive = _alive(mutants, killers, said.on_mutants)
    if alive:
        return Standing.UNPROVEN, "; ".join(alive)
    parts = [f"{len(turned)} guards fail without it and pass with it"] if turned else []
    if mutants:
        parts.append(f"{len(killers)} guards kill {len(mutants)} mutants")
    return Standing.PROVEN, "; ".join(parts)


def _alive(mutants: Sequence[Mutant], killers: Results, on_mutants: Mapping[str, Results]) -> list[str]:
    """A sentence on each mutant that is not killed by every guard that names it."""
    unknown = sorted(
        f"{test} kills {name}, which is no mutant of the patch"
        for test, killer in killers.items()
        for name in set(killer.kills) - {mutant.name for mutant in mutants}
    )
    return unknown + [
        sentence for mutant in mutants if (sentence := _why_alive(mutant, killers, on_mutants[mutant.name]))
    ]


def _why_alive(mutant: Mutant, killers: Results, results: Results) -> str:
    """Why a mutant is not killed; empty when it is."""
    if mutant.problems:
        return f"mutant {mutant.name} cannot be made: {mutant.problems[0]}"
    named = [test for test, killer in sorted(killers.items()) if mutant.name in killer.kills]
    if not named:
        return f"mutant {mutant.name} survives: no guard kills it"
    missing = [test for test in named if test not in results]
    if missing:
        # A file that cannot be imported there answers for all of its tests.
        told = next((_told(result) for test, result in sorted(results.items()) if test not in named), "not collected")
        return f"on mutant {mutant.name} these guards did not run: {_some(missing)} ({told})"
    passed = [test for test in named if results[test].outcome in _GREEN]
    if passed:
        return f"mutant {mutant.name} survives: these guards pass on it: {_some(passed)}"
    other = [test for test, result in sorted(results.items()) if result.outcome not in _OWN_FAILURE]
    if other:
        told = _told(results[other[0]])
        return f"on mutant {mutant.name} they end otherwise than by their assertion: {_some(other)} ({told})"
    return ""


def _told(result: GuardResult) -> str:
    return f"{result.outcome.value}: {result.reason}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
