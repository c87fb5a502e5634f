"""A loop of `git merge` in a work tree is the reference: what it merges, a night merges to the same tree.

Histories are random, and the same in every run: each seed is a test.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.unit.builders import Clone, Content, Fork, Program

from patchstack.model import Outcome, Reason, Sha

WHOLE = (1, 2, 4, 7, 10, 13, 16, 22)
"""Seeds of histories in which nothing conflicts."""
CONFLICTED = (0, 17, 20, 33, 35)


def lines(name: str) -> list[str]:
    return [f"{name}, line {number}" for number in range(40)]


def random_history(fork: Fork, seed: int) -> dict[str, Sha]:
    """Some pull requests with edits, renames, deletions, new files and modes, a few of them stacked or merged."""
    chance = random.Random(seed)
    heads: dict[str, Sha] = {}
    for number in range(1, chance.randint(4, 9)):
        below = [heads[other] for other in heads if chance.random() < 0.2][:2]
        start = below[0] if below else fork.base.commit
        if len(below) == 2 and not fork.repository.is_ancestor(below[1], start):
            merged = fork.repository.merge_tree(*below)
            start = fork.commit_tree("merge", merged.tree, *below) if merged.clean else start
        files = {path: text for path, text in fork.files_of(start).items() if path != "python/sglang/fixed.py"}
        heads[f"#{number}"] = fork.pull(
            number, fork.commit(f"pull {number}", random_change(chance, files, number), start)
        )
    return heads


def random_change(chance: random.Random, files: dict[str, str], number: int) -> dict[str, Content]:
    path = chance.choice(sorted(files))
    text = files[path].splitlines()
    match chance.choice(["edit", "edit", "edit", "insert", "rename", "delete", "mode", "new"]):
        case "edit":
            text[chance.randrange(len(text))] = f"edited by {number}"
        case "insert":
            text.insert(chance.randrange(len(text)), f"inserted by {number}")
        case "rename":
            text[chance.randrange(len(text))] = f"edited by {number} as well"
            return {path: None, f"python/sglang/moved/{number}.py": "\n".join(text) + "\n"}
        case "delete" if len(files) > 3:
            return {path: None}
        case "mode":
            return {path: Program(files[path])}
        case _:
            return {f"python/sglang/new/{number}.py": f"new from {number}\n" * 5}
    return {path: "\n".join(text) + "\n"}


def base_files() -> dict[str, Content]:
    named = {f"python/sglang/{name}.py": "\n".join(lines(name)) + "\n" for name in "abcdefgh"}
    return {**named, "python/sglang/fixed.py": "fixed\n"}


@pytest.fixture
def fork(tmp_path: Path) -> Fork:
    return Fork(tmp_path, base_files())


def merge_loop(fork: Fork, folder: Path, commits: dict[str, Sha]) -> tuple[Sha, list[str]]:
    """Merge one after the other in a work tree; the last tree, and the names of those that conflicted."""
    clone = Clone(fork.url, folder, "base/production")
    failed = []
    for name, commit in commits.items():
        if not clone.type("merge", "--no-ff", "--no-edit", "--quiet", commit):
            failed.append(name)
            assert clone.type("merge", "--abort")
    return clone.tree_of("HEAD"), failed


@pytest.mark.parametrize("seed", WHOLE)
def test_where_a_loop_over_all_heads_succeeds_the_tree_is_the_loops(fork: Fork, tmp_path: Path, seed: int) -> None:
    heads = random_history(fork, seed)

    composition = fork.compose().composition

    assert merge_loop(fork, tmp_path / "loop", heads) == (composition.tree, [])
    assert {item.outcome for item in composition.left_out} <= {Outcome.CARRIED, Outcome.DROPPED}


@pytest.mark.parametrize("seed", CONFLICTED)
def test_where_the_loop_skips_what_conflicts_the_same_is_left_out(fork: Fork, tmp_path: Path, seed: int) -> None:
    random_history(fork, seed)

    composed = fork.compose()

    steps = {topic.name: topic.commit for topic in composed.plan.steps}
    in_the_last_round = [
        item.name for item in composed.composition.left_out if item.reason is Reason.CONFLICT and item.name in steps
    ]
    assert merge_loop(fork, tmp_path / "loop", steps) == (composed.composition.tree, in_the_last_round)
    assert any(item.reason is Reason.CONFLICT for item in composed.composition.left_out)
