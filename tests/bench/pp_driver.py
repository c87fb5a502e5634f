"""`python -m tests.bench.pp_driver ORDER FOUND` in the bed's Python: rounds of HiCache on pipeline stages, in turns.

Real trees, controllers, pools and gloo groups, one process a stage (`testbed.hicache`). No model runs, and copies
are over when the call returns: what is measured is what the stages' agreement costs, not what it waits for.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.bench.measure import Cost, Patience
from tests.bench.pp_found import PpOrder, Rounds, read_order, write_json
from tests.bench.pp_rounds import DEVICE_TOKENS, IDLE, PROMPT, run_rounds

from testbed import Child, hicache, network
from testbed.child import die_with_parent
from testbed.hicache import HiCacheShape
from testbed.hicache_state import TreeState
from testbed.processes import Children
from testbed.warm import WarmProcesses

SWITCH = "SGLANG_HICACHE_PP_SYNC_TIMEOUT_S"
SAMPLE_LIMIT_S = 300.0


def main() -> None:
    order, found = read_order(Path(sys.argv[1])), Path(sys.argv[2])
    die_with_parent()
    network.make_private()
    with tempfile.TemporaryDirectory(prefix="pp-bench-", ignore_cleanup_errors=True) as folder:
        logs = Path(folder) / "warm"
        logs.mkdir()
        warm = WarmProcesses(logs, os.environ)
        try:
            rows = [
                measure_rounds(order, Path(folder), warm, stages, what)
                for stages in order.stages
                for what in (IDLE, PROMPT)
            ]
        finally:
            warm.close()
        write_json(found, rows)


def measure_rounds(order: PpOrder, folder: Path, warm: WarmProcesses, stages: int, what: str) -> Rounds:
    """A sample of each setting to get going, then samples of both in turns; who comes first changes."""
    place = folder / f"{stages}-{what.replace(' ', '-')}"
    with closing(Children(place / "on", warm)) as with_it, closing(Children(place / "off", warm)) as without:
        shape = HiCacheShape(tp=1, pp=stages, device_tokens=DEVICE_TOKENS, host_ratio=4.0)
        sides = [
            hicache.start(with_it, shape, run_rounds, what, env=order.env),
            hicache.start(without, shape, run_rounds, what, env={**order.env, SWITCH: "0"}),
        ]
        trees = [state for side in sides for _, states in [sample(side, order.rounds)] for state in states]
        costs: list[list[Cost]] = [[], []]
        patience = Patience(order.repeats, time.monotonic() + order.budget_s)
        while patience.may_repeat(done := len(costs[0])):
            for setting in (0, 1) if done % 2 else (1, 0):
                cost, states = sample(sides[setting], order.rounds)
                costs[setting].append(cost)
                trees += states
        return Rounds(what, stages, costs[0], costs[1], all(tree == trees[0] for tree in trees))


def sample(side: list[Child], rounds: int) -> tuple[Cost, list[TreeState]]:
    """A round's cost: the processor time of all stages, the longest wall time; and their trees after it."""
    for stage in side:
        stage.send(rounds)
    said: list[tuple[Cost, TreeState]] = [stage.receive(SAMPLE_LIMIT_S) for stage in side]
    cpu_s, wall_s = sum(cost.cpu_s for cost, _ in said), max(cost.wall_s for cost, _ in said)
    return Cost(cpu_s / rounds, wall_s / rounds), [state for _, state in said]


if __name__ == "__main__":
    main()
