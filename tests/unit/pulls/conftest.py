from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.github_server import GitHubServer
from tests.unit.pulls.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with GitHubServer(tmp_path / "github") as hub:
        yield Scene(hub, tmp_path)
