"""A scheduler's round on pipeline stages that follow the first one, and on stages that are each on their own.

What is measured runs in the bed's Python (`tests.bench.pp_driver`), on the composed tree, with the patch's switch on
and off: without it the tree does what the base does.
"""

from __future__ import annotations

from pathlib import Path

from tests.bench.kv_send import of_tree
from tests.bench.kv_trees import KvTrees
from tests.bench.measure import Measurement, Series
from tests.bench.pp_found import PpOrder, Rounds, read_found, write_json

from patchstack import process
from patchstack.regress.execute import child_environment

DRIVER_LIMIT_S = 3600.0
STAGES = (2, 4)
ROUNDS = 100


def measure_pp_sync(
    trees: KvTrees, folder: Path, *, repeats: int, budget_s: float, rounds: int = ROUNDS
) -> list[Measurement]:
    """A row for idle rounds and one for rounds with a prompt, for each number of stages."""
    home = folder / "home"
    home.mkdir(parents=True)
    order = PpOrder(of_tree(trees, trees.composed, home), list(STAGES), rounds, repeats, budget_s)
    ordered, answered = folder / "order.json", folder / "found.json"
    write_json(ordered, order)
    argv = [str(trees.composed.python), "-m", "tests.bench.pp_driver", str(ordered), str(answered)]
    environment = child_environment(trees.root, trees.composed, home)
    process.run(argv, cwd=trees.root, env=environment, timeout_s=DRIVER_LIMIT_S)
    return [row(found) for found in read_found(answered)]


def row(found: Rounds) -> Measurement:
    return Measurement(
        f"HiCache round, {found.stages} stages, {found.what}",
        Series("pp-sync on", tuple(found.on)),
        Series("pp-sync off", tuple(found.off)),
        "trees of all stages",
        found.same_trees,
    )
