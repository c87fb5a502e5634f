import os
from pathlib import Path

from patchstack import process, store
from patchstack.git import Repository


def test_nothing_of_the_machine_is_seen(sealed: Path) -> None:
    said = process.run(["git", "config", "--list", "--show-scope"], cwd=sealed)
    assert {line.split()[0] for line in said.stdout.splitlines()} == {"global"}
    assert Path.home() == sealed
    assert store.cache_folder().is_relative_to(sealed.resolve())
    assert store.now_utc().isoformat() == "2026-11-21T02:00:00+00:00"
    assert os.environ["PIP_NO_INDEX"] == "1"


def test_the_repository_is_an_empty_store(repository: Repository) -> None:
    assert repository.refs() == {}
