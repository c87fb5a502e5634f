from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from patchstack.git import Repository
from patchstack.release.remote import ensure_embedded_remote

from .release_bench import Bench


@pytest.fixture
def bench(repository: Repository, tmp_path: Path) -> Bench:
    return Bench(repository, Repository(Path(ensure_embedded_remote(tmp_path / "remote.git"))))


@pytest.fixture
def hook(bench: Bench) -> Callable[[str, str], None]:
    """Install a hook of the remote: its name and its shell text."""

    def install(name: str, script: str) -> None:
        path = bench.remote.folder / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return install
