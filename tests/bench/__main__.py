"""`python -m tests.bench`: measure, show, write down. It ends with 1 only when two results differ, never for a time."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from tests.bench import record
from tests.bench.composition import measure_composition
from tests.bench.decision import measure_decision
from tests.bench.discovery import measure_discovery
from tests.bench.ground import Ground, break_ground
from tests.bench.image import measure_image
from tests.bench.imports import measure_imports
from tests.bench.kv_send import measure_kv
from tests.bench.kv_trees import lay_kv_trees
from tests.bench.kvcm_batch import measure_kvcm
from tests.bench.measure import Measurement, Patience, Tally
from tests.bench.pp_sync import measure_pp_sync
from tests.bench.standing import NIGHTS, measure_status
from tests.bench.table import show

from patchstack import config as configuration
from patchstack.git import Repository
from patchstack.model import Base
from patchstack.report.terminal import Progress
from patchstack.store import cache_folder, now_utc
from patchstack.upstream.provider import resolve_base

PARTS = ("import", "compose", "decide", "status", "github", "image", "kv", "kvcm", "pp-sync")
ROOT = Path(__file__).parents[2]
RELEASE = "0.5.23"
"""What topics are composed on: the newest release, which is the largest."""
SIZES = (100, 1000)
LANE = "lane"
DECIDE_SIZES = (20, 100)
GITHUB_SIZES = (100, 1000)
REPEATS = 3
BUDGET_S = 60.0
"""Once this has passed nothing is done a second time; what is left is done once."""

KV_REPEATS = 60


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="numbers of topics composed")
    parser.add_argument(
        "--release", default=RELEASE, metavar="X", help=f"composed on it; {LANE}: on the lane's own base"
    )
    parser.add_argument(
        "--decide-sizes", type=int, nargs="+", default=DECIDE_SIZES, metavar="N", help="numbers of topics planned again"
    )
    parser.add_argument(
        "--github-sizes", type=int, nargs="+", default=GITHUB_SIZES, metavar="N", help="numbers of pull requests"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS, metavar="K", help="samples of each, at most")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, metavar="S", help="no second sample after this")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="what is measured, all if left out")
    parser.add_argument(
        "--kv-repeats",
        type=int,
        default=KV_REPEATS,
        metavar="K",
        help="samples of each row on SGLang; each row has S seconds",
    )
    parser.add_argument("--config", type=Path, default=ROOT / "deploy.yaml", help="whose first lane is measured")
    parser.add_argument("--output", type=Path, default=ROOT / ".patchstack" / "bench", help="folder of the JSON files")
    chosen = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 200)
    before = record.newest(chosen.output)
    machine, load = record.this_machine(), os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="patchstack-bench-") as folder:
        base, found, tallies = measure(chosen, Path(folder))
    path = record.write(
        chosen.output,
        record.encode(f"{now_utc():%Y-%m-%dT%H:%M:%SZ}", machine, load, base, found, tallies),
    )
    show(console, machine, found, before, tallies)
    console.print(f"load average at the start: {', '.join(f'{part:.1f}' for part in load)}")
    console.print(f"written to {path}")
    equal = [row.equal for row in found] + [tally.equal for tally in tallies]
    return 0 if all(equal) else 1


def measure(chosen: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[Measurement], list[Tally]]:
    """What was chosen, on the configuration's first lane; what it was measured on comes first."""
    lane, settings = next(iter(configuration.load(chosen.config).lanes.items()))
    patience = Patience(chosen.repeats, time.monotonic() + chosen.budget_s)
    cache = cache_folder()
    seed = Repository.init(folder / "release.git")
    base = resolve_base(settings.upstream, seed, cache)
    measured_on: dict[str, Any] = {"name": base.name, "commit": base.commit, "tree": base.tree}
    # It is all here now: from here on a release needs no network, and a git upstream costs what asking it costs.
    offline = settings.upstream.pypi is not None
    found = []
    if "import" in chosen.only:
        found.append(measure_imports(settings.upstream, cache, folder / "imports", patience, offline=offline))
    tallies: list[Tally] = []

    def ground_of(size: int, name: str, on: Base = base) -> Ground:
        remote = Repository.init(folder / f"{name}-{size}.git")
        remote.fetch(str(seed.folder), [f"+{on.commit}:refs/heads/base/{lane}"])
        return break_ground(remote, on, lane, size)

    if "compose" in chosen.only:
        on = base if chosen.release == LANE else resolve_base(_release(chosen.release), seed, cache)
        measured_on["composed_on"] = {"name": on.name, "commit": on.commit, "tree": on.tree}
        for size in chosen.sizes:
            found += measure_composition(ground_of(size, "composed", on), folder / f"compose-{size}", patience)
    for size in chosen.decide_sizes if "decide" in chosen.only else ():
        ground, where = ground_of(size, "decided"), folder / f"decide-{size}"
        found += measure_decision(ground, chosen.config, where, patience, offline=offline)
    if "status" in chosen.only:
        found.append(measure_status(ground_of(NIGHTS, "status"), chosen.config, folder / "status", patience))
    for size in chosen.github_sizes if "github" in chosen.only else ():
        where = folder / f"github-{size}"
        rows, counted = measure_discovery(ground_of(size, "pulls"), chosen.config, where, patience, offline=offline)
        found += rows
        tallies += counted
    if "image" in chosen.only:
        rows, counted = measure_image(chosen.config, lane, cache, folder / "image", patience, Progress())
        found += rows
        tallies += counted
    if {"kv", "kvcm", "pp-sync"} & set(chosen.only):
        rows, counted = _measure_trees(chosen, lane, folder, measured_on)
        found += rows
        tallies += counted
    return measured_on, found, tallies


def _release(version: str) -> configuration.Upstream:
    return configuration.Upstream(pypi=f"sglang=={version}")


def _measure_trees(
    chosen: argparse.Namespace, lane: str, folder: Path, measured_on: dict[str, Any]
) -> tuple[list[Measurement], list[Tally]]:
    """What runs on SGLang, on the composed tree and on others; ``measured_on`` is told which."""
    found: list[Measurement] = []
    tallies: list[Tally] = []
    trees = lay_kv_trees(chosen.config, lane, folder / "state", Progress())
    measured_on |= {"composed_tree": trees.composed_sha, "patches": list(trees.patches)}
    if "kv" in chosen.only:
        sent, counted = measure_kv(trees, folder / "kv", repeats=chosen.kv_repeats, budget_s=chosen.budget_s)
        found += sent
        tallies += counted
    if "kvcm" in chosen.only:
        found += measure_kvcm(trees, folder / "kvcm", repeats=chosen.kv_repeats, budget_s=chosen.budget_s)
    if "pp-sync" in chosen.only:
        found += measure_pp_sync(trees, folder / "pp-sync", repeats=chosen.kv_repeats, budget_s=chosen.budget_s)
    return found, tallies


if __name__ == "__main__":
    sys.exit(main())
