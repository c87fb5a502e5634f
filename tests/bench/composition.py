"""Our composition beside a loop of `git merge` in a work tree, on the same heads, in turns."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bench.ground import Ground, borrow
from tests.bench.measure import Cost, Measurement, Patience, Series, measured

from patchstack import process
from patchstack.compose.compose import compose
from patchstack.compose.topics import pull_topics
from patchstack.git import Repository
from patchstack.model import Candidates, Composition, Fingerprint, Sha

LOOP_LABEL = "git merge loop"

# What a person would write. A merge that fails otherwise than by a conflict leaves nothing to abort, and ends it.
LOOP = """\
for head in "$@"; do
    git merge --quiet --no-ff -m "$head" "$head" >/dev/null 2>&1 || git merge --abort || exit 1
done
"""


def measure_composition(ground: Ground, folder: Path, patience: Patience) -> list[Measurement]:
    """Two rows: from topics to the commit (dedup, plan, merge), and from heads to the commit, both by the loop."""
    topics: list[Cost] = []
    composed: list[Cost] = []
    loops: list[Cost] = []
    equal = True
    while patience.may_repeat(len(loops)):
        turn = folder / f"turn-{len(loops)}"
        store = ground.fresh_store(turn / "store.git")
        candidates, topics_cost = measured(_topics, ground, store)
        composition, composed_cost = measured(_compose, ground, store, candidates)
        tree, loop_cost = _loop(ground, turn)
        equal = equal and composition.tree == tree and _left_out(composition) == ground.conflicting
        topics.append(topics_cost)
        composed.append(composed_cost)
        loops.append(loop_cost)
    beside = Series(LOOP_LABEL, tuple(loops))
    whole = tuple(Cost(a.cpu_s + b.cpu_s, a.wall_s + b.wall_s) for a, b in zip(topics, composed, strict=True))
    size = len(ground.pulls)
    same = f"trees; {len(ground.conflicting)} of {size} left out"
    return [
        Measurement(f"compose {size}", Series("dedup, plan, merge", tuple(composed)), beside, same, equal),
        Measurement(f"heads to commit {size}", Series("topics and the above", whole), beside, same, equal),
    ]


def _topics(ground: Ground, store: Repository) -> Candidates:
    topics, left_out = pull_topics(store, ground.base, (), ground.pulls, lane=ground.lane)
    return Candidates(ground.base, topics, left_out)


def _compose(ground: Ground, store: Repository, candidates: Candidates) -> Composition:
    return compose(store, candidates, lane=ground.lane, skips={}, fingerprint=Fingerprint("", ())).composition


def _left_out(composition: Composition) -> frozenset[str]:
    return frozenset(item.name for item in composition.left_out)


def _loop(ground: Ground, folder: Path) -> tuple[Sha, Cost]:
    """The loop's tree, and what the loop alone took: not the checkout before it."""
    work = folder / "work"
    work.mkdir(parents=True)
    environment = _sealed(folder)
    process.run(["git", "init", "--quiet", "."], cwd=work, env=environment)
    borrow(ground.seed, work / ".git")
    process.run(["git", "checkout", "--quiet", "--detach", ground.base.commit], cwd=work, env=environment)
    heads = [pull.head for pull in ground.pulls]
    _, cost = measured(process.run, ["bash", "-c", LOOP, "loop", *heads], cwd=work, env=environment)
    return Repository(work / ".git").tree_of("HEAD"), cost


def _sealed(home: Path) -> dict[str, str]:
    """No configuration of the user's: it would decide how `git merge` merges, and start collections."""
    settings = {"gc.auto": "0", "maintenance.auto": "false", "user.name": "Bench", "user.email": "bench@example.com"}
    numbered = list(enumerate(settings.items()))
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": str(len(settings)),
        **{f"GIT_CONFIG_KEY_{number}": key for number, (key, _) in numbered},
        **{f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in numbered},
    }
