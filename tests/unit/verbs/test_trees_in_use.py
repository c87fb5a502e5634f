"""Trees on disk are shared by all that use one cache: whoever tidies up leaves alone what another process runs on."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from patchstack.verbs import trees
from patchstack.verbs.trees import forget_old_trees, laying

USER = """
import sys
from pathlib import Path
from patchstack.verbs.trees import use_tree
use_tree(Path(sys.argv[1]))
print("used", flush=True)
sys.stdin.read()
"""

LAYER = """
import sys
from pathlib import Path
from patchstack.verbs.trees import laying
print("asks", flush=True)
with laying(Path(sys.argv[1])):
    print("lays:", *(path.name for path in Path(sys.argv[1]).parent.iterdir() if path.is_dir()), flush=True)
"""
LONG_ENOUGH_S = 0.5
"""For a process that waits for nobody to say its next word."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four trees with their bytecode, the oldest first, of which one is kept."""
    monkeypatch.setattr(trees, "TREES_KEPT", 1)
    for age, name in enumerate(["a", "b", "c", "d"]):
        (tmp_path / "trees" / name / "python").mkdir(parents=True)
        (tmp_path / "bytecode" / f"{name}-bed").mkdir(parents=True)
        os.utime(tmp_path / "trees" / name, (1_000 + age, 1_000 + age))
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_the_oldest_go(cache: Path) -> None:
    forget_old_trees(cache / "trees", keep={cache / "trees" / "a"})
    assert names(cache / "trees") == ["a"]
    assert names(cache / "bytecode") == ["a-bed"]


def test_what_another_process_runs_on_stays_until_it_has_ended(cache: Path) -> None:
    with Popen([sys.executable, "-c", USER, str(cache / "trees" / "b")], stdin=PIPE, stdout=PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "used\n"
        forget_old_trees(cache / "trees", keep={cache / "trees" / "d"})
        assert names(cache / "trees") == ["b", "d"]
        assert names(cache / "bytecode") == ["b-bed", "d-bed"]
        user.kill()
    forget_old_trees(cache / "trees", keep={cache / "trees" / "d"})
    assert names(cache / "trees") == ["d"]


def test_a_tree_is_laid_by_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "trees" / "a"
    with laying(folder):
        other = Popen([sys.executable, "-c", LAYER, str(folder)], stdout=PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "asks\n"
        assert select.select([other.stdout], [], [], LONG_ENOUGH_S)[0] == []
        folder.mkdir()
    assert other.communicate()[0] == "lays: a\n"
