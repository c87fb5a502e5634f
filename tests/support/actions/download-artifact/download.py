"""Brings what `upload.py` kept; what is not there, or is another run's, fails the step. Of a pattern nothing need be.

https://github.com/actions/download-artifact/tree/v4.3.0#inputs
"""

# ruff: noqa: T201 what a step prints is its log

from __future__ import annotations

import json
import os
import shutil
import sys
from fnmatch import fnmatchcase
from pathlib import Path


def main() -> None:
    given = json.loads(os.environ["GIVEN"])
    shelf = Path(os.environ["STANDIN_SHELF"]) / "artifacts"
    mine = [json.loads(path.read_text()) for path in shelf.glob("*/artifact.json")]
    mine = [one for one in mine if one["run"] == given["run-id"]]
    if given["run-id"] != os.environ["GITHUB_RUN_ID"] and not given.get("github-token"):
        sys.exit("download-artifact: another run's artifacts are given to a token alone")
    if given.get("name") and given.get("artifact-ids"):
        sys.exit("Inputs 'name' and 'artifact-ids' cannot be used together.")
    ids = {int(number) for number in (given.get("artifact-ids") or "").split(",") if number.strip()}
    if pattern := given.get("pattern"):
        chosen = [one for one in mine if fnmatchcase(one["name"], pattern)]
    else:
        chosen = [one for one in mine if one["id"] in ids or one["name"] == given.get("name")]
    if not pattern and (not chosen or len(chosen) < len(ids)):
        sys.exit(f"Unable to download artifact(s): not found for {given.get('name') or sorted(ids)}")
    flat = bool(given.get("name")) or given["merge-multiple"] == "true"
    for one in chosen:
        target = Path(given["path"]) if flat else Path(given["path"]) / one["name"]
        shutil.copytree(shelf / str(one["id"]) / "files", target, dirs_exist_ok=True)
        print(f"brought {one['name']} ({one['id']}) into {target}")


if __name__ == "__main__":
    main()
