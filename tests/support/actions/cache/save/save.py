"""Keeps folders below ``$STANDIN_SHELF/caches/N``; a key that is taken stays what it is.

https://github.com/actions/cache/blob/main/save/README.md
"""

# ruff: noqa: T201 what a step prints is its log

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path


def main() -> None:
    given = json.loads(os.environ["GIVEN"])
    shelf = Path(os.environ["STANDIN_SHELF"]) / "caches"
    shelf.mkdir(parents=True, exist_ok=True)
    taken = [json.loads(path.read_text())["key"] for path in shelf.glob("*/cache.json")]
    folders = [Path(line).expanduser() for line in given["path"].split()]
    if given["key"] in taken or not any(folder.exists() for folder in folders):
        print(f"cache: nothing is saved under {given['key']}: the key is taken, or no path is there")
        return
    place = shelf / str(len(taken) + 1)
    for number, folder in enumerate(folders):
        if folder.exists():
            shutil.copytree(folder, place / str(number))
    (place / "cache.json").write_text(json.dumps({"key": given["key"], "job": os.environ["GITHUB_JOB"]}))
    print(f"cache: saved {given['key']}")


if __name__ == "__main__":
    main()
