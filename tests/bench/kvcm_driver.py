"""`python -m tests.bench.kvcm_driver ORDER FOUND` in the bed's Python: ranks as processes with gloo over loopback."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from tests.bench.kvcm_found import KINDS, Batches, KvcmFound, KvcmOrder, read_order, write_json
from tests.bench.kvcm_ranks import measure_all
from tests.bench.measure import Cost

from testbed import network
from testbed.child import die_with_parent
from testbed.gloo import run_ranks
from testbed.processes import Children
from testbed.warm import WarmProcesses

START_LIMIT_S = 120.0


def main() -> None:
    order, found = read_order(Path(sys.argv[1])), Path(sys.argv[2])
    die_with_parent()
    network.make_private()
    with tempfile.TemporaryDirectory(prefix="kvcm-bench-", ignore_cleanup_errors=True) as folder:
        logs = Path(folder) / "warm"
        logs.mkdir()
        with closing(WarmProcesses(logs, {**os.environ, **order.environment})) as warm:
            groups = [measure(order, size, Path(folder) / str(size), warm) for size in order.groups]
            write_json(found, KvcmFound(groups))


def measure(order: KvcmOrder, size: int, folder: Path, warm: WarmProcesses) -> Batches:
    with closing(Children(folder, warm)) as children:
        limit_s = START_LIMIT_S + 2 * order.budget_s
        said = run_ranks(children, measure_all, order, size=size, limit_s=limit_s, env=order.environment).values()
    kinds = [
        [_together(costs) for costs in zip(*(samples[kind] for samples, _ in said), strict=True)] for kind in KINDS
    ]
    count = sum(map(len, kinds)) * order.batches
    return Batches(size, *kinds, right=min(right for _, right in said), expected=count)


def _together(costs: tuple[Cost, ...]) -> Cost:
    return Cost(sum(cost.cpu_s for cost in costs), max(cost.wall_s for cost in costs))


if __name__ == "__main__":
    main()
