"""The bench of the stack's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchstack.git import Repository

from .stack_bench import Bench


@pytest.fixture
def bench(repository: Repository, tmp_path: Path) -> Bench:
    return Bench(repository, tmp_path)
