"""How `prove` ends: 0 only for a proven patch, 6 where something did not run, 1 with the reason for all else."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchstack.errors import GateFailed, Incomplete, PatchstackError
from patchstack.model import GuardOutcome, GuardReport, GuardResult, Mutant, Proof, Sha, Standing, TreeRun
from patchstack.regress.ground import Ground
from patchstack.regress.prove import Claim
from patchstack.regress.suites import Suite, find_suites
from patchstack.verbs.prove import raise_for
from patchstack.verbs.selection import MutantTrial, selection_of

TREE = Sha("a" * 40)


def ending(standing: Standing, *outcomes: GuardOutcome) -> PatchstackError | None:
    results = tuple(GuardResult(f"t{number}", "x", False, said, 0.1) for number, said in enumerate(outcomes))
    runs = (TreeRun("base + x", True, TREE, results), TreeRun("mutant x/p", False, TREE, results[:1], mutant="x/p"))
    try:
        raise_for(GuardReport("cpu", "bed", runs, (Proof("x", "base", standing, "because"),)))
    except PatchstackError as error:
        return error
    return None


def test_a_proven_patch_ends_well() -> None:
    assert ending(Standing.PROVEN, GuardOutcome.PASS) is None


@pytest.mark.parametrize("standing", sorted({*Standing} - {Standing.PROVEN}))
def test_everything_else_says_why(standing: Standing) -> None:
    said = ending(standing, GuardOutcome.PASS, GuardOutcome.FAIL, GuardOutcome.CRASH, GuardOutcome.TIMEOUT)
    assert (type(said), str(said)) == (GateFailed, f"patch x is {standing.value}: because")


def test_what_did_not_run_is_named() -> None:
    said = ending(Standing.UNPROVEN, GuardOutcome.MISSING, GuardOutcome.PASS)
    assert (type(said), str(said)) == (
        Incomplete,
        "patch x is unproven: these did not run: t0 on base + x, t0 on mutant x/p",
    )


KILLS = "import pytest\n\n@pytest.mark.kills('{}')\ndef test_it(): ...\n"


def test_each_tree_gets_its_files_and_grounds_come_one_after_the_other(tmp_path: Path) -> None:
    for name, text in {
        "bed/test_bed.py": "",
        "x/test_p.py": KILLS.format("p"),
        "x/test_q.py": KILLS.format("q") + "\ndef test_other(): ...\n",
        "y/test_y.py": "def test_y(): ...\n",
        "z/test_z.py": KILLS.format("p"),
    }.items():
        (tmp_path / "tests/regression" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests/regression" / name).write_text(text)
    suites = find_suites(tmp_path, [(slug, [f"tests/regression/{slug}"]) for slug in "xyz"])
    grounds = {"bed": Ground(TREE), "x": Ground(TREE, ("y",)), "y": Ground(TREE), "z": Ground(TREE)}
    p, q = Mutant("p", TREE, TREE), Mutant("q", None, None, ("1: a.py: no: mend it",))
    made = selection_of(tmp_path, suites, "composed", grounds, {"x": (p, q)})
    bed, x, y, _ = suites

    def only(suite: Suite, *names: str) -> Suite:
        return Suite(suite.slug, tuple(f"tests/regression/{name}" for name in names), suite.digest)

    assert made.suites == suites
    assert made.on_grounds == (bed, y, only(x, "x/test_q.py"))
    assert made.on_mutants == (MutantTrial("x", p, TREE, only(x, "x/test_p.py")),)
    assert made.claims == {"x": Claim("base + y", (p, q)), "y": Claim("base"), "z": Claim("base")}
