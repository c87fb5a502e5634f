"""Compiled code goes from tree to tree where the source is the same, and Python itself takes it for its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from patchstack.regress.bytecode import take_over
from patchstack.regress.execute import Tree


def tree(folder: Path, **sources: str) -> Tree:
    (folder / "tree" / "python").mkdir(parents=True)
    for name, text in sources.items():
        (folder / "tree" / "python" / f"{name}.py").write_text(text)
    return Tree(folder / "tree", Path(sys.executable), folder / "bytecode")


def imported(tree: Tree) -> list[str]:
    """What the modules of ``tree`` say, and whether each was read from a compiled file."""
    code = "import same, other; print(same.SAID, other.SAID)"
    environment = {"PYTHONPATH": str(tree.folder / "python"), "PYTHONPYCACHEPREFIX": str(tree.bytecode)}
    done = subprocess.run(
        [sys.executable, "-v", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    matched = [name for name in ("same", "other") if f"/python/{name}.cpython" in _matches(done.stderr)]
    return [done.stdout.strip(), *matched]


def _matches(said: str) -> str:
    """Python names every compiled file that it takes for that of a source."""
    return "\n".join(line for line in said.splitlines() if " matches " in line)


def test_what_is_equal_is_taken_over_and_what_differs_is_compiled(tmp_path: Path) -> None:
    origin = tree(tmp_path / "origin", same="SAID = __file__", other="SAID = 1")
    assert imported(origin) == [f"{origin.folder}/python/same.py 1"]
    mutant = tree(tmp_path / "mutant", same="SAID = __file__", other="SAID = 2")
    take_over(origin, mutant, {"python/other.py"})
    assert imported(mutant) == [f"{mutant.folder}/python/same.py 2", "same"]
    assert imported(origin) == [f"{origin.folder}/python/same.py 1", "same", "other"]


def test_a_tree_that_has_gone_gives_nothing(tmp_path: Path) -> None:
    mutant = tree(tmp_path / "mutant", same="SAID = 1", other="SAID = 2")
    take_over(Tree(tmp_path / "gone", Path(sys.executable), tmp_path / "bytecode"), mutant, set())
    assert imported(mutant) == ["1 2"]
