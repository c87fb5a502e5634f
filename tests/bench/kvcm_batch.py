"""The collectives of a kvcm batch beside broadcast and all_reduce, at 2 and at 4 ranks, in one run.

What is measured runs in the bed's Python (`tests.bench.kvcm_driver`), for the tool's has no SGLang.
"""

from __future__ import annotations

from pathlib import Path

from tests.bench.kv_trees import KvTrees
from tests.bench.kvcm_found import Batches, KvcmFound, KvcmOrder, read_found, write_json
from tests.bench.measure import Measurement, Series

from patchstack import process
from patchstack.regress.execute import child_environment

DRIVER_LIMIT_S = 1800.0
GROUPS = (2, 4)
PAGES = 128
"""HiCacheController's batch."""
BATCHES = 16


def measure_kvcm(trees: KvTrees, folder: Path, *, repeats: int, budget_s: float) -> list[Measurement]:
    home = folder / "home"
    home.mkdir(parents=True)
    environment = child_environment(trees.root, trees.composed, home)
    order = KvcmOrder(environment, list(GROUPS), PAGES, BATCHES, repeats, budget_s)
    ordered, answered = folder / "order.json", folder / "found.json"
    write_json(ordered, order)
    argv = [str(trees.composed.python), "-m", "tests.bench.kvcm_driver", str(ordered), str(answered)]
    process.run(argv, cwd=trees.root, env=environment, timeout_s=DRIVER_LIMIT_S)
    return rows(read_found(answered))


def rows(found: KvcmFound) -> list[Measurement]:
    return [row for batches in found.groups for row in _rows(batches)]


def _rows(batches: Batches) -> list[Measurement]:
    beside = (
        Series("same header + all_reduce", tuple(batches.reduced)),
        Series("broadcast_object_list + all_reduce", tuple(batches.objects)),
    )
    return [
        Measurement(
            f"kvcm collectives of a batch, {batches.ranks} ranks",
            Series("agreed commit", tuple(batches.agreed)),
            series,
            "URIs and flags on every rank",
            batches.right == batches.expected,
        )
        for series in beside
    ]
