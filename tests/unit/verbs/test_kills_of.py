"""What lint is handed of the guards' marks: those that can be read, and each that cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.patches.stack_bench import Bench

from patchstack.git import Repository
from patchstack.model import KillMark
from patchstack.verbs.author import _kills_of

GPU = "tests/regression/gpu/test_mend.py"


@pytest.fixture
def bench(repository: Repository, tmp_path: Path) -> Bench:
    return Bench(repository, tmp_path)


def test_marks_by_patch_and_those_that_nobody_can_read(bench: Bench) -> None:
    """What needs a GPU never runs on a mutant, and guards that are not there are lint's own finding."""
    base = bench.release("1.0", {"a.py": "x = 1\n"})
    text = "import pytest\n\n@pytest.mark.kills({})\ndef test_it(): ...\n"
    for slug, mark in {"mend": "'p'", "other": "NAME"}.items():
        guards = f"[tests/regression/{slug}/, tests/regression/ghost/, {GPU}]"
        bench.patch(slug, base, {f"{slug}.py": "# SGLANG_X\n"}, guards=guards)
        (bench.root / "tests" / "regression" / slug).mkdir()
        (bench.root / "tests" / "regression" / slug / "test_it.py").write_text(text.format(mark))
    (bench.root / GPU).parent.mkdir()
    (bench.root / GPU).write_text(text.format("'gpu'"))
    assert _kills_of(bench.root, bench.read()) == (
        {"mend": [KillMark("tests/regression/mend/test_it.py", 3, "p")]},
        ["tests/regression/other/test_it.py:3: kills: it names no mutant: write their names as plain text"],
    )
