"""The files that an image is made from besides the tree, as one digest: a change of any makes another night."""

from __future__ import annotations

import hashlib
from pathlib import Path

from patchstack.config import Image

RECIPE = Path(__file__).parent / "recipe"


def recipe_digest(settings: Image | None) -> str:
    """A digest of Containerfile and locks, and of what `deploy.yaml` says that changes an image."""
    said = settings.model_dump_json(exclude={"keep_days"}) if settings else "none"
    return hashlib.sha256(f"{_files_digest()} {said}".encode()).hexdigest()


def _files_digest() -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in RECIPE.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        found.update(f"{path.relative_to(RECIPE).as_posix()}\0{path.stat().st_size}\0".encode())
        found.update(path.read_bytes())
    return found.hexdigest()
