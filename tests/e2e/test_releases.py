"""Lint on real releases: a diff for a range is tried on each of them, and none is left out in silence.

`make lint` tries the whole stack on all of `patches/releases`; here it is three of them, fetched once (55 MB).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from patchstack.upstream.releases import fetch_wheel
from patchstack.workplace import cache_folder

ROOT = Path(__file__).parents[2]
WIDE, NARROW = "pd-transfer-retry", "state-transfer-rc"
RELEASES = ["0.5.10.post1", "0.5.12.post1", "0.5.23"]


def fork(folder: Path, slug: str) -> Path:
    """A copy of this repository with one patch in its stack, and three releases to try it on."""
    shutil.copy2(ROOT / "README.md", folder)
    # What the lane switches on is not in a series this short
    config = (ROOT / "deploy.yaml").read_text().splitlines(keepends=True)
    (folder / "deploy.yaml").write_text("".join(line for line in config if not line.strip().startswith("optional:")))
    guards = f"tests/regression/{slug.replace('-', '_')}"
    for path in (f"patches/{slug}", guards):
        shutil.copytree(ROOT / path, folder / path, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests/regression/gpu").mkdir()
    scenarios = re.findall(r"tests/regression/gpu/\w+\.py", (folder / "patches" / slug / "patch.md").read_text())
    (folder / "docs").mkdir()
    for path in (*scenarios, "tests/regression/gpu/forms.yaml", "docs/gpu.md"):
        shutil.copy2(ROOT / path, folder / path)
    (folder / "patches" / "series").write_text(f"{slug}\n")
    (folder / "patches" / "releases").write_text("".join(f"{version}\n" for version in RELEASES))
    return folder


def run(place: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from patchstack.cli import main; main()", *argv],
        cwd=place,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    place = fork(tmp_path, WIDE)
    [diff] = (place / "patches" / WIDE).glob("*.patch")
    diff.rename(diff.with_name(f"{RELEASES[0]}..{RELEASES[-1]}.patch"))
    run(place, "generate")
    return place


def test_a_range_is_tried_on_all_its_releases(wide: Path) -> None:
    done = run(wide, "lint", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["checked"]
    assert sorted(line.partition(" applies on ")[2] for line in said if " applies on " in line) == RELEASES


def test_a_release_on_which_the_lines_are_others_is_found(tmp_path: Path) -> None:
    place = fork(tmp_path, NARROW)
    header = place / "patches" / NARROW / "patch.md"
    text = header.read_text()
    assert text.count('bases: {"0.5.12.post1": needed}') == 1
    header.write_text(text.replace('{"0.5.12.post1": needed}', '{">=0.5.12.post1": needed}'))
    [diff] = header.parent.glob("*.patch")
    diff.rename(diff.with_name("0.5.12.post1..0.5.23.patch"))
    run(place, "generate")
    done = run(place, "lint")
    assert done.returncode == 4, done.stderr
    assert "does not apply on 0.5.23 (it was cut on 0.5.12.post1):" in done.stderr
    assert "hunk 2 (line 1316, in MooncakeKVManager.transfer_worker)" in done.stderr


def test_without_the_network_the_missing_releases_are_named(wide: Path, tmp_path: Path) -> None:
    had, empty = cache_folder() / "wheels", tmp_path / "cache" / "wheels"
    kept = fetch_wheel("sglang==0.5.12.post1", cache_folder())
    shutil.copytree(had / kept.sha256, empty / kept.sha256)
    (empty / "records").mkdir()
    [record] = (had / "records").glob("sglang-0.5.12.post1-*.json")
    shutil.copy2(record, empty / "records")
    done = run(wide, "--offline", "lint", PATCHSTACK_CACHE=str(empty.parent))
    assert done.returncode == 8, done.stderr
    assert "2 releases of sglang are not in the cache" in done.stderr
    assert "0.5.10.post1, 0.5.23; run it once with the network" in done.stderr
