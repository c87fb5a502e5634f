"""Our composition beside a loop of `git merge` in a work tree, on the same heads, in one process and one run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tests.bench.ground import Ground, borrow
from tests.bench.measure import Cost, Measurement, Patience, Series, measured

from patchstack import process
from patchstack.compose.compose import compose
from patchstack.compose.memo import Memo
from patchstack.compose.topics import pull_topics
from patchstack.git import Repository
from patchstack.git import version as git_version
from patchstack.model import Candidates, Composition, Fingerprint, Reason, Sha

LOOP_LABEL = "git merge loop"
LOOP_LIMIT_S = 3600.0
NONE = Fingerprint("0" * 64, ())
"""Nothing is decided by it here."""

# What a person would write. A merge that fails otherwise than by a conflict leaves nothing to abort, and ends it.
LOOP = """\
for head in "$@"; do
    git merge --quiet --no-ff -m "$head" "$head" >/dev/null 2>&1 || { git merge --abort && echo "$head"; } || exit 1
done
"""


def measure_composition(ground: Ground, folder: Path, patience: Patience) -> list[Measurement]:
    """Three rows by the loop: from topics to the commit (dedup, plan, merge); from heads to the commit; and that once
    more, by a machine that composed last night, when the first topic was another.

    Whatever the loop takes, ours is done as often as it may be at most.
    """
    last_night = ground.with_another_first()
    topics: list[Cost] = []
    composed: list[Cost] = []
    again: list[Cost] = []
    loops: list[Cost] = []
    equal = True
    found: set[tuple[Sha, tuple[tuple[str, tuple[str, ...]], ...]]] = set()
    for turn in range(patience.repeats):
        where = folder / f"turn-{turn}"
        store = ground.fresh_store(where / "store.git")
        candidates, topics_cost = measured(_topics, ground, store, Memo())
        composition, composed_cost = measured(_compose, ground, store, candidates, Memo())
        remembering = ground.fresh_store(where / "remembering.git")
        _night(last_night, remembering, where / "memo")
        same, again_cost = measured(_night, ground, remembering, where / "memo")
        topics.append(topics_cost)
        composed.append(composed_cost)
        again.append(again_cost)
        found |= {(made.commit, _pairs(made)) for made in (composition, same)}
        equal = equal and _pairs(composition) == ground.pairs
        if patience.may_repeat(len(loops)):
            tree, failed, loop_cost = _loop(ground, where)
            equal = equal and (composition.tree, _left_out(composition)) == (tree, failed)
            loops.append(loop_cost)
    beside = Series(LOOP_LABEL, tuple(loops))
    whole = tuple(Cost(a.cpu_s + b.cpu_s, a.wall_s + b.wall_s) for a, b in zip(topics, composed, strict=True))
    size = len(ground.pulls)
    said = f"trees; {len(ground.pairs)} of {size} left out, by whom"
    equal = equal and len(found) == 1
    return [
        Measurement(f"compose {size}", Series("dedup, plan, merge", tuple(composed)), beside, said, equal),
        Measurement(f"heads to commit {size}", Series("topics and the above", whole), beside, said, equal),
        Measurement(f"first of {size} changed", Series("the same, with a memo", tuple(again)), beside, said, equal),
    ]


def compose_ground(ground: Ground, store: Repository) -> Composition:
    """From heads to the commit."""
    return _compose(ground, store, _topics(ground, store, Memo()), Memo())


def _topics(ground: Ground, store: Repository, memo: Memo) -> Candidates:
    topics, left_out = pull_topics(store, ground.base, (), ground.pulls, lane=ground.lane, memo=memo)
    return Candidates(ground.base, topics, left_out)


def _compose(ground: Ground, store: Repository, candidates: Candidates, memo: Memo) -> Composition:
    return compose(store, candidates, lane=ground.lane, skips={}, fingerprint=NONE, memo=memo).composition


def _night(ground: Ground, store: Repository, kept: Path) -> Composition:
    """From heads to the commit, with what the last night on this machine left in ``kept``."""
    plan, merge = (Memo.read(kept / f"{name}.json", store, git_version()) for name in ("plan", "merge"))
    candidates = _topics(ground, store, plan)
    plan.write()
    composition = _compose(ground, store, candidates, merge)
    merge.write()
    return composition


def _left_out(composition: Composition) -> frozenset[Sha]:
    return frozenset(item.head for item in composition.left_out if item.head is not None)


def _pairs(composition: Composition) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Who is in conflict with whom; of what is left out for another reason, with nobody."""
    return tuple((item.name, item.twins if item.reason is Reason.CONFLICT else ()) for item in composition.left_out)


def _loop(ground: Ground, folder: Path) -> tuple[Sha, frozenset[Sha], Cost]:
    """The loop's tree, the heads that conflicted, and what the loop alone took: not the checkout before it."""
    work = folder / "work"
    work.mkdir(parents=True)
    environment = _sealed(folder)
    process.run(["git", "init", "--quiet", "."], cwd=work, env=environment)
    borrow(ground.seed, work / ".git")
    process.run(["git", "checkout", "--quiet", "--detach", ground.base.commit], cwd=work, env=environment)
    heads: Sequence[Sha] = [pull.head for pull in ground.pulls]
    argv = ["bash", "-c", LOOP, "loop", *heads]
    done, cost = measured(process.run, argv, cwd=work, env=environment, timeout_s=LOOP_LIMIT_S)
    return Repository(work / ".git").tree_of("HEAD"), frozenset(map(Sha, done.stdout.split())), cost


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
