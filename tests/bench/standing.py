"""`patchstack status` on a remote with a month of nights, beside what tells a person as much: ls-remote and log."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bench.composition import compose_ground
from tests.bench.ground import Ground
from tests.bench.measure import Cost, Measurement, Patience, Series, measured

from patchstack import process
from patchstack.config import load
from patchstack.model import Composition, Sha, Status, Verdict
from patchstack.release.promote import NIGHTLY, Source, decide, promote
from patchstack.release.remote import read_remote

NIGHTS = 30
FIRST = datetime(2026, 10, 1, 2, tzinfo=UTC)


def measure_status(ground: Ground, config: Path, folder: Path, patience: Patience) -> Measurement:
    """As many nights as the ground has topics, each with one topic more than the one before it."""
    branch = load(config).lanes[ground.lane].branch
    _promote_nights(ground, branch, folder / "nights.git")
    ours: list[Cost] = []
    plain: list[Cost] = []
    tips: set[Sha] = set()
    while patience.may_repeat(len(ours)):
        tip, cost = measured(_status, ground, config, folder / "state")
        tips.add(tip)
        ours.append(cost)
        tip, cost = measured(_ls_remote_and_log, ground, branch)
        tips.add(tip)
        plain.append(cost)
    beside = Series("git ls-remote + git log", tuple(plain))
    return Measurement(f"status {NIGHTS}", Series("status", tuple(ours)), beside, "deployed commits", len(tips) == 1)


def _promote_nights(ground: Ground, branch: str, store_folder: Path) -> None:
    store, url = ground.fresh_store(store_folder), str(ground.seed.folder)
    base = Source(ground.base.commit, ground.base.tree)
    for night in range(1, NIGHTS + 1):
        made: Composition = compose_ground(replace(ground, pulls=ground.pulls[:night]), store)
        at = FIRST + timedelta(days=night)
        decision = decide(
            night=f"{at:%Y%m%dT%H%M%SZ}",
            at=at,
            composition=made,
            stack=base,
            verdicts=[Verdict(NIGHTLY, Status.PASS, ())],
            remote=read_remote(store, url, lane=ground.lane, branch=branch),
        )
        promote(store, url, decision)


def _status(ground: Ground, config: Path, state: Path) -> Sha:
    """The verb's answer, in a process of its own, as a person starts it."""
    options = ["--config", str(config), "--state", str(state), "--lane", ground.lane]
    options += ["--remote", str(ground.seed.folder), "status", "--json"]
    code = "from patchstack.cli import main; main()"
    done = process.run([sys.executable, "-c", code, *options], timeout_s=120)
    return Sha(json.loads(done.stdout)["night_commit"])


def _ls_remote_and_log(ground: Ground, branch: str) -> Sha:
    """The branch's tip where the remote lists it and where the log of its nights begins."""
    url, ref = str(ground.seed.folder), f"refs/heads/{branch}"
    listed = process.run(["git", "ls-remote", url, ref], timeout_s=120).stdout.split()[0]
    log = process.run(["git", "--git-dir", url, "log", "--first-parent", "--format=%H %B", ref], timeout_s=120)
    if log.stdout.split()[0] != listed:
        raise ValueError(f"{ref} is {listed}, and its log begins with {log.stdout[:40]}")
    return Sha(listed)
