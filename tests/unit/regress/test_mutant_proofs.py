"""What mutants say of their patch: killed by each guard that names it, or the patch is not proven; and the gate."""

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
    Mutant,
    Proof,
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
COMPOSED_TREE, BASE_TREE, COMMIT = Sha("a" * 40), Sha("b" * 40), Sha("c" * 40)


def mutant(name: str, *problems: str) -> Mutant:
    return Mutant(name, None, None, problems) if problems else Mutant(name, COMMIT, tree_of(name))


def tree_of(name: str) -> Sha:
    return Sha(f"{ord(name[0]):040x}")


def said(test: str, outcome: GuardOutcome = P, *kills: str, control: bool = False) -> GuardResult:
    return GuardResult(test, "x", control, outcome, 0.1, "r", kills)


BED = GuardResult("bed", "bed", True, P, 0.1)


def composed(*results: GuardResult) -> TreeRun:
    return TreeRun("composed", True, COMPOSED_TREE, results)


def ground(*results: GuardResult) -> TreeRun:
    return TreeRun("base", False, BASE_TREE, (BED, *results))


def on(name: str, *results: GuardResult) -> TreeRun:
    return TreeRun(f"mutant x/{name}", False, tree_of(name), results, mutant=f"x/{name}")


def proof(*runs: TreeRun, mutants: tuple[Mutant, ...] = (mutant("p"), mutant("q"))) -> tuple[Standing, str]:
    (found,) = prove({"x": Claim("base", mutants)}, runs)
    assert (found.slug, found.ground) == ("x", "base")
    return found.standing, found.detail


KILLERS = (said("one", P, "p"), said("two", P, "p", "q"))
KILLED = (on("p", said("one", F, "p"), said("two", F, "p", "q")), on("q", said("two", F, "p", "q")))


def test_a_patch_is_proven_by_mutants_alone() -> None:
    assert proof(composed(*KILLERS), ground(), *KILLED) == (Standing.PROVEN, "2 guards kill 2 mutants")


def test_or_by_mutants_and_by_its_ground() -> None:
    more = (said("three"), said("control", control=True))
    without = ground(said("three", F), said("control", control=True))
    assert proof(composed(*KILLERS, *more), without, *KILLED) == (
        Standing.PROVEN,
        "1 guards fail without it and pass with it; 2 guards kill 2 mutants",
    )


@pytest.mark.parametrize(
    ("on_q", "detail"),
    [
        (said("two", P, "p", "q"), "mutant q survives: these guards pass on it: two"),
        (said("two", C, "p", "q"), "on mutant q they end otherwise than by their assertion: two (crash: r)"),
        (said("two", T, "p", "q"), "on mutant q they end otherwise than by their assertion: two (timeout: r)"),
        (said("two", M, "p", "q"), "on mutant q they end otherwise than by their assertion: two (missing: r)"),
        (said("file.py", C), "on mutant q these guards did not run: two (crash: r)"),
        (None, "on mutant q these guards did not run: two (not collected)"),
    ],
)
def test_a_mutant_is_killed_by_the_guard_s_own_assertion_and_by_nothing_else(
    on_q: GuardResult | None, detail: str
) -> None:
    run = on("q", *((on_q,) if on_q else ()))
    assert proof(composed(*KILLERS), ground(), KILLED[0], run) == (Standing.UNPROVEN, detail)


def test_every_guard_that_names_a_mutant_kills_it() -> None:
    on_p = on("p", said("one", F, "p"), said("two", P, "p", "q"))
    assert proof(composed(*KILLERS), ground(), on_p, KILLED[1]) == (
        Standing.UNPROVEN,
        "mutant p survives: these guards pass on it: two",
    )


def test_all_that_is_wrong_with_the_mutants_is_said() -> None:
    mutants = (mutant("p"), mutant("q"), mutant("lonely"), mutant("stale", "1: a.py: no: mend it", "1: b.py: more"))
    killers = (*KILLERS, said("three", P, "ghost"))
    assert proof(composed(*killers), ground(), KILLED[0], on("q", said("two", P, "p", "q")), mutants=mutants) == (
        Standing.UNPROVEN,
        (
            "three kills ghost, which is no mutant of the patch; mutant q survives: these guards pass on it: two; "
            "mutant lonely survives: no guard kills it; mutant stale cannot be made: 1: a.py: no: mend it"
        ),
    )


CONTROL, TWO = said("control", control=True), said("two")


@pytest.mark.parametrize(
    ("with_it", "without_it", "mutants", "expected"),
    [
        ((said("one", F, "p"),), (), "p", (Standing.BROKEN, "not green with it: one")),
        ((CONTROL,), (CONTROL,), "p", (Standing.UNPROVEN, "mutant p survives: no guard kills it")),
        ((said("one", P, "p"), TWO), (TWO,), "p", (Standing.UNPROVEN, "these guards pass without it: two")),
        (
            (said("one", P, "p", control=True),),
            (),
            "p",
            (Standing.UNPROVEN, "marked as controls and as killing mutants: one"),
        ),
        ((said("one", P, "p"),), (), "", (Standing.UNPROVEN, "one kills p, which is no mutant of the patch")),
        ((CONTROL,), (CONTROL,), "", (Standing.UNGUARDED, "it has no guard that must turn")),
    ],
)
def test_what_is_no_proof(
    with_it: tuple[GuardResult, ...],
    without_it: tuple[GuardResult, ...],
    mutants: str,
    expected: tuple[Standing, str],
) -> None:
    runs = (composed(*with_it), ground(*without_it), on("p", said("one", F, "p")))
    assert proof(*runs, mutants=tuple(map(mutant, mutants))) == expected


def test_a_mutant_of_another_patch_says_nothing_of_this_one() -> None:
    other = replace(KILLED[1], mutant="y/q")
    assert proof(composed(*KILLERS), ground(), KILLED[0], other)[0] is Standing.UNPROVEN


# --- the gate ---


TOPIC = Topic(
    "x",
    Kind.PATCH,
    "title",
    "Pat",
    COMMIT,
    COMMIT,
    COMMIT,
    COMMIT,
    "id",
    ("a",),
    required=True,
    mutants=(mutant("p"), mutant("q")),
)
COMPOSITION = Composition(
    "production",
    Base("sglang==1.0", "1.0", COMMIT, BASE_TREE),
    COMMIT,
    COMPOSED_TREE,
    (TOPIC,),
    (),
    Fingerprint("", ()),
)


def verdict(*runs: TreeRun, proofs: tuple[Proof, ...] | None = None) -> tuple[Status, tuple[str, ...]]:
    found = prove({"x": Claim("base", TOPIC.mutants)}, runs) if proofs is None else proofs
    report = GuardReport("cpu", "bed", runs, found)
    (channel,) = judge({"nightly": ["cpu"]}, COMPOSITION, {"x": Ground(BASE_TREE)}, report).verdicts
    return channel.status, channel.reasons


def test_a_night_of_killed_mutants_passes() -> None:
    """None of its guards ran on the ground; a mutant's failures are not the composed tree's."""
    assert verdict(composed(*KILLERS), ground(), *KILLED) == (Status.PASS, ())


def test_a_mutant_that_survives_keeps_the_channel_where_it_is() -> None:
    assert verdict(composed(*KILLERS), ground(), KILLED[0], on("q", said("two", P, "p", "q"))) == (
        Status.INCOMPLETE,
        ("patch x is unproven: mutant q survives: these guards pass on it: two",),
    )


def test_a_mutant_on_another_tree_or_on_none_proves_nothing() -> None:
    beside = "patch x: its guards did not run on the tree of mutant q, and it alone"
    elsewhere = replace(KILLED[1], tree=Sha("f" * 40))
    assert verdict(composed(*KILLERS), ground(), KILLED[0], elsewhere) == (Status.INCOMPLETE, (beside,))
    claimed = (Proof("x", "base", Standing.PROVEN, "2 guards kill 2 mutants"),)
    assert verdict(composed(*KILLERS), ground(), KILLED[0], proofs=claimed) == (Status.INCOMPLETE, (beside,))


def test_a_guard_that_kills_nothing_must_have_run_on_the_ground() -> None:
    claimed = (Proof("x", "base", Standing.PROVEN, "2 guards kill 2 mutants"),)
    beside = f"patch x: its guards did not run on base (tree {BASE_TREE[:12]}), and it alone"
    assert verdict(composed(*KILLERS, said("three")), ground(), *KILLED, proofs=claimed) == (
        Status.INCOMPLETE,
        (beside,),
    )


@pytest.mark.parametrize("doubt", [GuardOutcome.FLAKY, GuardOutcome.QUARANTINED])
def test_a_killer_in_doubt_kills_nothing_and_spoils_nothing(doubt: GuardOutcome) -> None:
    """Whatever it says on the mutants: the other killers decide, and where there is none the mutant survives."""
    one, two = said("one", doubt, "p"), said("two", P, "p", "q")
    crashed = on("p", said("one", C, "p"), said("two", F, "p", "q"))
    assert proof(composed(one, two), ground(), crashed, KILLED[1]) == (
        Standing.PROVEN,
        "1 guards kill 2 mutants; flaky, or in quarantine: one",
    )
    alone = proof(composed(KILLERS[0], said("two", doubt, "p", "q")), ground(), *KILLED)
    assert alone == (
        Standing.UNPROVEN,
        "mutant q survives: no guard kills it; flaky, or in quarantine: two",
    )
