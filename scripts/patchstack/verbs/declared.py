"""Every test below the guards' folder, with what it says of itself, by deploy.yaml and the whole series."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from patchstack.config import Config
from patchstack.patches.header import Patch
from patchstack.regress.declared import Declared, Guarding, read_declared


def declared_in(root: Path, config: Config, patches: Iterable[Patch]) -> tuple[Declared, ...]:
    """Every test below ``root``'s guards; ``patches`` is the whole series. Raises `ConfigError`."""
    guarding = [Guarding(patch.slug, patch.owner, patch.guards) for patch in patches]
    return read_declared(root, config.tests.lanes, guarding)
