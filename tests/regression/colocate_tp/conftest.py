from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import Children
from testbed.colocate_callers import Colocation


@pytest.fixture
def colocate(children: Children, tmp_path: Path) -> Iterator[Colocation]:
    """A job of a trainer, with a folder of its own in the place of ``/dev/shm``."""
    with Colocation(children, tmp_path) as colocation:
        yield colocation


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """SGLang sets variables as it is imported; children of other tests are to be forked without them."""
    before = set(os.environ)
    yield
    for name in set(os.environ) - before:
        del os.environ[name]
