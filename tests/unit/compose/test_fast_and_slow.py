"""On random histories merging by paths, step by step and in a loop of `git merge` come to the same.

Each seed is a test, and the same history in every run. More of them: ``PATCHSTACK_SEEDS=200 pytest ...``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.unit.builders import Clone, Content, Fork, Link, Program

from patchstack.compose.compose import Composed, compose
from patchstack.compose.dedup import dedup
from patchstack.compose.memo import Memo
from patchstack.git import Repository
from patchstack.model import Candidates, Kind, Reason, Sha, Topic

SEEDS = range(int(os.environ.get("PATCHSTACK_SEEDS", "12")))
ROOT = "python/sglang"
FOLDERS = ("x", "x/y", "z")


def text(name: str) -> str:
    return "".join(f"{name}, line {number} of thirty\n" for number in range(30))


def base_files() -> dict[str, Content]:
    names = [*"abc", *(f"{folder}/{name}" for folder in FOLDERS for name in "pq")]
    return {**{f"{ROOT}/{name}.py": text(name) for name in names}, f"{ROOT}/fixed.py": "fixed\n"}


@dataclass
class History:
    """Patches and pull requests of one seed: few paths, so that they meet often."""

    fork: Fork
    chance: random.Random
    heads: list[Sha] = field(default_factory=list)

    def write(self) -> None:
        for number in range(self.chance.randint(0, 2)):
            on = self.chance.choice([None, *self.fork.patches])
            start = on.commit if on else self.fork.base.commit
            self.fork.patch(f"patch-{number}", self.change(start, number), on=on)
        for number in range(1, self.chance.randint(5, 9)):
            self.pull(number)

    def pull(self, number: int) -> None:
        start = self.fork.base.commit
        # Some stand on another, on two, or on a patch; a minute is sometimes the same for two commits.
        below = self.chance.sample(self.heads, min(len(self.heads), self.chance.choice([0, 0, 0, 1, 2])))
        if self.chance.random() < 0.15 and self.fork.patches:
            below = [self.chance.choice(self.fork.patches).commit, *below][:2]
        if below:
            start = below[0]
        if len(below) == 2:
            merged = self.fork.repository.merge_tree(*below)
            start = self.fork.commit_tree("merge", merged.tree, *below) if merged.clean else start
        for _ in range(self.chance.choice([1, 1, 2])):
            when = 1_800_000_000 if self.chance.random() < 0.3 else None
            start = self.fork.commit(f"pull {number}", self.change(start, number), start, when=when)
        self.heads.append(self.fork.pull(number, start))

    def change(self, commit: Sha, number: int) -> dict[str, Content]:
        files = {path: kept for path, kept in self.fork.files_of(commit).items() if path != f"{ROOT}/fixed.py"}
        changed: dict[str, Content] = {}
        for _ in range(self.chance.choice([1, 1, 2])):
            changed |= self.one_change(files, number)
        return changed

    def one_change(self, files: dict[str, str], number: int) -> dict[str, Content]:
        path = self.chance.choice(sorted(files))
        lines = files[path].splitlines()
        folder = f"{ROOT}/{self.chance.choice(FOLDERS)}"
        match self.chance.choice(
            ["edit"] * 5 + ["new"] * 3 + ["same", "clash", "mode", "link", "delete", "rename", "move", "into"]
        ):
            case "edit":
                lines[self.chance.randrange(len(lines))] = f"edited by {number}"
            case "new":
                return {f"{folder}/new{self.chance.randrange(4)}.py": f"new from {number}\n" * 5}
            case "same":
                lines[0] = "everybody's edit"
            case "clash":
                name = f"{ROOT}/clash{self.chance.randrange(2)}"
                return {self.chance.choice([name, f"{name}/in.py", f"{name}/deep/in.py"]): f"{number}\n" * 3}
            case "mode":
                return {path: Program(files[path])}
            case "link":
                return {path: Link("fixed.py")} if "/" not in path.removeprefix(f"{ROOT}/") else {path: None}
            case "delete":
                return {path: None}
            case "rename":
                lines[self.chance.randrange(len(lines))] = f"edited by {number} as well"
                return {path: None, f"{ROOT}/moved/{number}.py": "\n".join(lines) + "\n"}
            case "move":
                below = {name: kept for name, kept in files.items() if name.startswith(f"{folder}/")}
                moved = {name.replace(folder, f"{ROOT}/to{number % 3}", 1): kept for name, kept in below.items()}
                return {**dict.fromkeys(below), **moved}
            case _:
                return {path: None, f"{path}/inside.py": files[path]}
        return {path: "\n".join(lines) + "\n"}


def composed(fork: Fork, candidates: Candidates, *, memo: Memo | None = None, stepwise: bool = False) -> Composed:
    fingerprint = fork.compose(candidates=Candidates(fork.base, (), ())).plan.fingerprint
    return compose(
        fork.store,
        candidates,
        lane=fork.lane,
        skips={},
        fingerprint=fingerprint,
        memo=memo,
        stepwise=stepwise,
    )


def merge_loop(fork: Fork, folder: Path, steps: Sequence[Topic]) -> tuple[Sha, list[str]]:
    """Merge one after the other in a work tree; the last tree, and the names of those that conflicted."""
    for topic in steps:
        fork.store.set_refs({f"refs/heads/steps/{topic.commit}": topic.commit})
    fork.store.set_refs({"refs/heads/start": fork.base.commit})
    clone = Clone(str(fork.store.folder), folder, "start")
    failed = []
    for topic in steps:
        if not clone.type("merge", "--no-ff", "--no-edit", "--quiet", topic.commit):
            failed.append(topic.name)
            # Not `merge --abort`: of some conflicts of files with folders git's own checkout dies ("BUG: merge-ort.c:
            # Conflicted ... this shouldn't happen"), with its lock left behind and nothing to abort.
            (folder / ".git" / "index.lock").unlink(missing_ok=True)
            assert clone.type("reset", "--quiet", "--hard")
            assert clone.type("clean", "-ffdxq")
    return clone.tree_of("HEAD"), failed


@pytest.mark.parametrize("seed", SEEDS)
def test_three_ways_to_one_commit(tmp_path: Path, seed: int) -> None:
    fork = Fork(tmp_path, base_files())
    History(fork, random.Random(seed)).write()
    found = fork.candidates()
    candidates = Candidates(fork.base, tuple(optional(topic) for topic in found.topics), found.left_out)
    kept = tmp_path / "memo.json"
    memo = Memo.read(kept, fork.store, (2, 39, 5))

    fast, slow = composed(fork, candidates, memo=memo), composed(fork, candidates, stepwise=True)
    memo.write()
    again = composed(fork, candidates, memo=Memo.read(kept, Repository(fork.store.folder), (2, 39, 5)))

    assert fast == slow == again
    out = {item.name: item for item in fast.composition.left_out}
    steps = [t for t in fast.plan.steps if t.name not in out or out[t.name].reason in BY_MERGING]
    conflicts = [topic.name for topic in steps if topic.name in out and out[topic.name].reason is Reason.CONFLICT]
    assert merge_loop(fork, tmp_path / "loop", steps) == (fast.composition.tree, conflicts)
    assert dedup(fork.store, candidates, {}) == dedup(fork.store, candidates, {}, memo)


BY_MERGING = {Reason.CONFLICT, Reason.NO_EFFECT_ON_STACK}


def optional(topic: Topic) -> Topic:
    """A required patch that conflicts would end it all."""
    return replace(topic, required=False) if topic.kind is Kind.PATCH else topic
