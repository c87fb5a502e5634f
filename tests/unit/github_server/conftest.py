"""The place in which the fake GitHub's own tests happen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.github_server import GitHubServer
from tests.unit.github_server.place import FORK, Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with GitHubServer(tmp_path / "github") as hub:
        fork = hub.repository(FORK)
        hub.user("ann", write=[FORK])
        found = Place(hub, fork, tmp_path, "")
        found.root = found.commit("root")
        fork.push("main", found.root, by="ann")
        yield found
