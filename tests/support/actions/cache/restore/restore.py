"""Brings back what `save.py` kept: each path of it to where it was. https://github.com/actions/cache#inputs"""

# ruff: noqa: T201 what a step prints is its log

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path


def main() -> None:
    given = json.loads(os.environ["GIVEN"])
    shelf = Path(os.environ["STANDIN_SHELF"]) / "caches"
    kept = {json.loads(path.read_text())["key"]: path.parent for path in shelf.glob("*/cache.json")}
    starts = [line.strip() for line in (given.get("restore-keys") or "").splitlines() if line.strip()]
    alike = [key for start in starts for key in reversed(kept_in_order(kept)) if key.startswith(start)]
    found = next((key for key in [given["key"], *alike] if key in kept), None)
    with Path(os.environ["GITHUB_OUTPUT"]).open("a") as output:
        output.write(f"cache-hit={'' if found is None else str(found == given['key']).lower()}\n")
    print(f"cache: {found or 'nothing'} for {given['key']}")
    if found is None or given["lookup-only"] == "true":
        return
    for number, line in enumerate(given["path"].split()):
        folder = kept[found] / str(number)
        if folder.exists():
            shutil.copytree(folder, Path(line).expanduser(), dirs_exist_ok=True)


def kept_in_order(kept: dict[str, Path]) -> list[str]:
    """The keys, the oldest first."""
    return sorted(kept, key=lambda key: int(kept[key].name))


if __name__ == "__main__":
    main()
