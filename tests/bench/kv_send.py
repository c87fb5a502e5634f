"""The KV send path and decode's hold, with the patches and without, on real Mooncake over TCP.

What is measured runs in the bed's Python (`tests.bench.kv_driver`), for the tool's has no SGLang. The processor
time that prefill's threads use within Mooncake's engine is left out: they spin there until a batch is done.
"""

from __future__ import annotations

from pathlib import Path

from tests.bench.kv_found import Holding, KvFound, KvOrder, read_found, write_json
from tests.bench.kv_trees import KvTrees
from tests.bench.measure import Measurement, Series, Tally

from patchstack import process
from patchstack.regress.execute import Tree, child_environment

DRIVER_LIMIT_S = 3600.0
ROOMS, FAULT_ROOMS, REQUESTS = 16, 200, 40


def measure_kv(
    trees: KvTrees,
    folder: Path,
    *,
    repeats: int,
    budget_s: float,
    rooms: int = ROOMS,
    fault_rooms: int = FAULT_ROOMS,
    requests: int = REQUESTS,
) -> tuple[list[Measurement], list[Tally]]:
    """What took time, and what was counted."""
    home = folder / "home"
    home.mkdir(parents=True)
    order = KvOrder(
        plain_env=of_tree(trees, trees.plain, home),
        composed_env=of_tree(trees, trees.composed, home),
        rooms=rooms,
        fault_rooms=fault_rooms,
        requests=requests,
        repeats=repeats,
        budget_s=budget_s,
    )
    ordered, answered = folder / "order.json", folder / "found.json"
    write_json(ordered, order)
    argv = [str(trees.plain.python), "-m", "tests.bench.kv_driver", str(ordered), str(answered)]
    environment = child_environment(trees.root, trees.plain, home)
    process.run(argv, cwd=trees.root, env=environment, timeout_s=DRIVER_LIMIT_S)
    return rows(read_found(answered))


def of_tree(trees: KvTrees, tree: Tree, home: Path) -> dict[str, str]:
    """What the environments of two trees' processes differ in."""
    environment = child_environment(trees.root, tree, home)
    return {name: environment[name] for name in ("PATCHSTACK_TREE", "PYTHONPATH", "PYTHONPYCACHEPREFIX")}


def rows(found: KvFound) -> tuple[list[Measurement], list[Tally]]:
    plain, composed = found.plain_sending, found.composed_sending
    sending = Measurement(
        "KV send, one room",
        Series("composed", tuple(composed.samples)),
        Series("plain", tuple(plain.samples)),
        "rooms whole at decode",
        composed.whole == composed.rooms and plain.whole == plain.rooms,
    )
    return [sending, *(_held(holding) for holding in found.holding)], [_faults(found), _aborted(found)]


def _held(holding: Holding) -> Measurement:
    wanted = {holding.expected}
    return Measurement(
        f"decode, one request, {holding.aborted_percent} % aborted",
        Series("hold on", tuple(holding.on)),
        Series("hold off", tuple(holding.off)),
        f"answers ({holding.expected} a sample, {holding.most_held} held at most)",
        {*holding.on_answered, *holding.off_answered} == wanted,
    )


def _faults(found: KvFound) -> Tally:
    plain, composed = found.plain_faults, found.composed_faults
    return Tally(
        f"rooms that end well, 1 % of the transfers failing ({composed.injected} and {plain.injected} did)",
        "rooms",
        composed.completed,
        plain.completed,
        f"composed with all {composed.rooms}",
        composed.completed == composed.rooms,
    )


def _aborted(found: KvFound) -> Tally:
    plain, composed = found.plain_aborted, found.composed_aborted
    return Tally(
        f"sent after an abort, of a room of {composed.room_bytes} bytes",
        "bytes",
        composed.sent_bytes,
        plain.sent_bytes,
        f"composed with the {composed.in_engine_bytes} in the engine",
        composed.sent_bytes == composed.in_engine_bytes,
    )
