"""Scenarios that need a GPU: no CPU lane collects them, and a patch has guards beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchstack.errors import ConfigError
from patchstack.regress.suites import find_suites


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "tests/support/h.py": "",
        "tests/regression/bed/test_bed.py": "def test_bed() -> None: ...\n",
        "tests/regression/x/test_x.py": "def test_x() -> None: ...\n",
        "tests/regression/gpu/test_plain.py": "import nothing\ndef test_plain() -> None: ...\n",
        "tests/regression/gpu/pd/test_two.py": "def test_two() -> None: ...\n",
    }.items():
        write(tmp_path, name, text)
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_the_cpu_lane_never_collects_them(root: Path) -> None:
    gpu, beside = "tests/regression/gpu/test_plain.py", "tests/regression/x/"
    (suite,) = find_suites(root, [("x", [gpu, beside])])[1:]
    assert suite.paths == ("tests/regression/x",)
    before = suite.digest
    write(root, gpu, "def test_other() -> None: ...\n")
    assert find_suites(root, [("x", [gpu, beside])])[1].digest == before
    with pytest.raises(ConfigError) as caught:
        find_suites(
            root,
            [("x", [gpu]), ("y", ["tests/regression/gpu"]), ("z", ["tests/regression/", "tests"]), ("q", [f"{gpu}x"])],
        )
    alone = "guards: all below tests/regression/gpu, where no CPU lane looks: add one beside it"
    assert caught.value.problems == [
        f"patches/x/patch.md:1: {alone}",
        f"patches/y/patch.md:1: {alone}",
        "patches/z/patch.md:1: guards: 'tests/regression/' holds tests/regression/gpu too: name the folders beside it",
        "patches/z/patch.md:1: guards: 'tests' holds tests/regression/gpu too: name the folders beside it",
        f"patches/q/patch.md:1: guards: '{gpu}x' holds no test_*.py: write the guard",
        f"patches/q/patch.md:1: {alone}",
    ]
