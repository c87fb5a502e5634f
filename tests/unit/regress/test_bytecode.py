"""Compiled code goes from tree to tree where the source is the same, and Python itself takes it for its own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from patchstack.regress.bytecode import take_over
from patchstack.regress.execute import Tree
from patchstack.regress.unprivileged import FIRST_ID, hand_over


def tree(folder: Path, **sources: str) -> Tree:
    (folder / "tree" / "python").mkdir(parents=True)
    for name, text in sources.items():
        (folder / "tree" / "python" / f"{name}.py").write_text(text)
    return Tree(folder / "tree", Path(sys.executable), folder / "bytecode")


def imported(tree: Tree) -> list[str]:
    """What the modules of ``tree`` say, and whether each was read from a compiled file."""
    code = "import same, other; print(same.SAID, other.SAID)"
    environment = {"PYTHONPATH": str(tree.folder / "python"), "PYTHONPYCACHEPREFIX": str(tree.bytecode)}
    done = subprocess.run(
        [sys.executable, "-v", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    matched = [name for name in ("same", "other") if f"/python/{name}.cpython" in _matches(done.stderr)]
    return [done.stdout.strip(), *matched]


def _matches(said: str) -> str:
    """Python names every compiled file that it takes for that of a source."""
    return "\n".join(line for line in said.splitlines() if " matches " in line)


def test_what_is_equal_is_taken_over_and_what_differs_is_compiled(tmp_path: Path) -> None:
    origin = tree(tmp_path / "origin", same="SAID = __file__", other="SAID = 1")
    assert imported(origin) == [f"{origin.folder}/python/same.py 1"]
    mutant = tree(tmp_path / "mutant", same="SAID = __file__", other="SAID = 2")
    take_over(origin, mutant, {"python/other.py"})
    assert imported(mutant) == [f"{mutant.folder}/python/same.py 2", "same"]
    assert imported(origin) == [f"{origin.folder}/python/same.py 1", "same", "other"]


def test_a_tree_that_has_gone_gives_nothing(tmp_path: Path) -> None:
    mutant = tree(tmp_path / "mutant", same="SAID = 1", other="SAID = 2")
    take_over(Tree(tmp_path / "gone", Path(sys.executable), tmp_path / "bytecode"), mutant, set())
    assert imported(mutant) == ["1 2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs a tree as somebody else")
def test_nobody_who_runs_one_tree_can_rewrite_what_another_runs(tmp_path: Path) -> None:
    """Whoever runs a tree writes its compiled files. What two share is ours, and each may only put its own in place."""
    origin = tree(tmp_path / "origin", same="SAID = 1", other="SAID = 2")
    imported(origin)
    (compiled,) = origin.bytecode.rglob("same.*.pyc")
    os.chown(compiled, FIRST_ID, FIRST_ID)
    mutant = tree(tmp_path / "mutant", same="SAID = 1", other="SAID = 2")
    take_over(origin, mutant, set())
    hand_over(mutant.bytecode, FIRST_ID)
    (taken,) = mutant.bytecode.rglob("same.*.pyc")
    assert taken.stat().st_ino == compiled.stat().st_ino
    assert (taken.stat().st_uid, taken.stat().st_mode & 0o022) == (0, 0)
    assert {folder.stat().st_uid for folder in (mutant.bytecode, taken.parent)} == {FIRST_ID}


@pytest.mark.parametrize("other_disk", [False, True])
def test_no_link_leads_us_to_another_file(tmp_path: Path, other_disk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that plants one would read through us what only we may read, or have us give it away."""

    def refuse(*_: object, **more: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    if other_disk:
        monkeypatch.setattr(os, "link", refuse)
    secret = tmp_path / "secrets"
    secret.mkdir()
    (secret / "key.pyc").write_text("secret")
    (tmp_path / "secret.pyc").write_text("secret")
    origin = tree(tmp_path / "origin", same="SAID = 1", other="SAID = 2")
    imported(origin)
    (origin.bytecode / "planted.pyc").symlink_to(tmp_path / "secret.pyc")
    (origin.bytecode / "folder").symlink_to(secret)
    os.mkfifo(origin.bytecode / "pipe.pyc")
    mutant = tree(tmp_path / "mutant", same="SAID = 1", other="SAID = 2")
    take_over(origin, mutant, set())
    hand_over(origin.bytecode, os.geteuid() + 1 if os.geteuid() == 0 else os.geteuid())
    assert sorted(path.name.split(".")[0] for path in mutant.bytecode.rglob("*.pyc") if "/lib/" not in str(path)) == [
        "other",
        "same",
    ]
    assert {path.stat().st_uid for path in (secret, secret / "key.pyc", tmp_path / "secret.pyc")} == {os.geteuid()}
