"""Keeps files below ``$STANDIN_SHELF/artifacts/ID/files``, with what is said of them in ``ID/artifact.json``.

As on GitHub, ids are never given twice, a name is free once in a run, and what is kept does not change; but it can be
deleted by the upload that takes its name.
https://github.com/actions/upload-artifact#inputs
"""

# ruff: noqa: T201 what a step prints is its log

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path


def main() -> None:
    given = json.loads(os.environ["GIVEN"])
    run = os.environ["GITHUB_RUN_ID"]
    shelf = Path(os.environ["STANDIN_SHELF"]) / "artifacts"
    shelf.mkdir(parents=True, exist_ok=True)
    found = [Path(line.strip()) for line in given["path"].splitlines() if Path(line.strip()).exists()]
    if not found:
        said = f"No files were found with the provided path: {given['path']}. No artifacts will be uploaded."
        if given["if-no-files-found"] == "error":
            sys.exit(said)
        print(said)
        return
    kept = [json.loads(path.read_text()) for path in shelf.glob("*/artifact.json")]
    if given["overwrite"] == "true":
        for one in [one for one in kept if (one["run"], one["name"]) == (run, given["name"])]:
            (shelf / str(one["id"]) / "artifact.json").unlink()  # its id is not given again
            kept.remove(one)
    if any((one["run"], one["name"]) == (run, given["name"]) for one in kept):
        sys.exit(f"Conflict: an artifact with this name already exists on the workflow run: {given['name']}")
    number = 1 + max((int(path.name) for path in shelf.iterdir()), default=1000)
    files = shelf / str(number) / "files"
    files.mkdir(parents=True)
    for path in found:
        if path.is_dir():
            shutil.copytree(path, files, dirs_exist_ok=True)
        else:
            shutil.copy2(path, files / path.name)
    about = {
        "id": number,
        "run": run,
        "job": os.environ["GITHUB_JOB"],
        "name": given["name"],
        "retention_days": given.get("retention-days", ""),
    }
    (files.parent / "artifact.json").write_text(json.dumps(about))
    with Path(os.environ["GITHUB_OUTPUT"]).open("a") as output:
        output.write(f"artifact-id={number}\n")
    print(f"kept {given['name']} as {number}")


if __name__ == "__main__":
    main()
