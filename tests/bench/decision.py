"""An unchanged night's decision: `patchstack plan` on a remote on which nothing has moved since the last one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.bench.ground import HEADS, Ground
from tests.bench.measure import Cost, Measurement, Patience, Series, measured

from patchstack import process
from patchstack.git import Repository


def measure_decision(
    ground: Ground, config: Path, folder: Path, patience: Patience, *, offline: bool
) -> list[Measurement]:
    """Two rows: beside the first plan on this machine, and beside the least that any answer must ask the remote."""
    state, size = folder / "state", len(ground.pulls)
    first, first_cost = measured(_plan, ground, config, state, offline)
    digests = {first}
    again: list[Cost] = []
    asks: list[Cost] = []
    while patience.may_repeat(len(again)):
        digest, cost = measured(_plan, ground, config, state, offline)
        digests.add(digest)
        again.append(cost)
        store = Repository(state / "store.git")
        listed, ask = measured(store.ls_remote, str(ground.seed.folder), "refs/heads/*", f"{HEADS}/*")
        asks.append(ask)
        if len(listed) != size + 1:
            raise ValueError(f"the remote lists {len(listed)} refs, not {size + 1}")
    unchanged = Series("unchanged plan", tuple(again))
    same = "fingerprints"
    return [
        Measurement(f"decide {size}", unchanged, Series("first plan", (first_cost,)), same, len(digests) == 1),
        Measurement(f"decide {size}", unchanged, Series("git ls-remote", tuple(asks)), same, len(digests) == 1),
    ]


def _plan(ground: Ground, config: Path, state: Path, offline: bool) -> str:
    """The fingerprint that the verb prints; a process of its own, as a night starts it."""
    options = ["--config", str(config), "--state", str(state), "--lane", ground.lane, "--local"]
    options += ["--remote", str(ground.seed.folder), *(["--offline"] if offline else []), "plan", "--json"]
    code = "from patchstack.cli import main; main()"
    done = process.run([sys.executable, "-c", code, *options], timeout_s=120)
    plan = json.loads(done.stdout)
    if len(plan["steps"]) + len(plan["left_out"]) < len(ground.pulls):
        raise ValueError(f"the plan knows fewer than {len(ground.pulls)} pull requests")
    return str(plan["fingerprint"]["digest"])
