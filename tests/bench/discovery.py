"""What GitHub and the remote are asked for a plan: at first, and on a night on which nothing has moved.

The verb runs in a process of its own against a GitHub on this machine, so the CPU of both is in a row; what counts
are the requests, which are the same on every machine.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.bench.ground import HEADS, Ground
from tests.bench.measure import Cost, Measurement, Patience, Series, Tally, measured
from tests.support.github_server import GitHubServer

from patchstack import process
from patchstack.config import GitHubSource, load
from patchstack.git import Repository
from patchstack.paging import pages_of


@dataclass(frozen=True)
class Plan:
    digest: str
    pulls: int
    """How many pull requests it merges."""
    api_requests: int
    """That the server answered."""
    ref_listings: int
    """How often the fork's refs were listed over HTTP."""


def measure_discovery(
    ground: Ground, config: Path, folder: Path, patience: Patience, *, offline: bool
) -> tuple[list[Measurement], list[Tally]]:
    """An unchanged plan beside the first one, and its requests beside the pages that there are to read."""
    chosen, size = load(config), len(ground.pulls)
    with GitHubServer(folder / "hub") as hub:
        fork = hub.repository(chosen.fork.repo)
        sources = [source for source in chosen.pulls.sources if isinstance(source, GitHubSource)]
        for source in sources:
            hub.repository(source.repo)
        hub.user("maintainer", write=[fork.name])
        held = Repository(fork.path)
        branches = {f"topic-{pull.number}": pull.head for pull in ground.pulls}
        held.fetch(
            str(ground.seed.folder),
            [f"+{HEADS}/{pull.number}/head:refs/bench/{pull.number}" for pull in ground.pulls]
            + [f"+{ground.base.commit}:refs/bench/base"],
        )
        fork.push_many({f"base/{ground.lane}": ground.base.commit, **branches}, by="maintainer")
        for pull in ground.pulls:
            number = fork.open_pull(f"topic-{pull.number}", into=pull.target, author="maintainer", title=pull.title)
            fork.label(number, chosen.pulls.admit.label, by="maintainer")
        token = hub.token("maintainer")
        first, first_cost = measured(_plan, hub, token, config, folder / "state", ground.lane, offline)
        again: list[Plan] = []
        costs: list[Cost] = []
        while patience.may_repeat(len(again)):
            plan, cost = measured(_plan, hub, token, config, folder / "state", ground.lane, offline)
            again.append(plan)
            costs.append(cost)
    same = {plan.digest for plan in [first, *again]} == {first.digest}
    repositories = {source.repo for source in sources}
    # Whoever admitted is asked about each night: an admission ends with the right to give it. Here it is one person.
    # Pages overlap, so that none is missed that moves while they are read: 1,000 are 11 pages.
    least = pages_of(size) + len(repositories - {fork.name}) + 1
    unchanged = again[-1]
    rows = [
        Measurement(
            f"GitHub {size}",
            Series("unchanged plan", tuple(costs)),
            Series("first plan", (first_cost,)),
            "fingerprints",
            same,
        )
    ]
    said = f"overlapping pages of {len(repositories)} repositories, and 1 maintainer"
    tallies = [
        Tally(f"first plan of {size}", "API requests", first.api_requests, least, "more", first.api_requests > least),
        Tally(
            f"unchanged plan of {size}",
            "API requests",
            unchanged.api_requests,
            least,
            said,
            unchanged.api_requests == least,
        ),
        Tally(f"unchanged plan of {size}", "ls-remote", unchanged.ref_listings, 1, "one", unchanged.ref_listings == 1),
    ]
    return rows, tallies


def _plan(hub: GitHubServer, token: str, config: Path, state: Path, lane: str, offline: bool) -> Plan:
    begin = len(hub.requests)
    options = ["--config", str(config), "--state", str(state), "--lane", lane, *(["--offline"] if offline else [])]
    code = "from patchstack.cli import main; main()"
    argv = [sys.executable, "-c", code, *options, "plan", "--json"]
    done = process.run(argv, env={**os.environ, **hub.environment(token)}, timeout_s=600)
    plan = json.loads(done.stdout)
    asked = hub.requests[begin:]
    kinds = Counter("git" if ".git/" in request.path else "api" for request in asked)
    listings = sum(request.path.endswith("/info/refs") for request in asked)
    return Plan(
        plan["fingerprint"]["digest"],
        sum(step["kind"] == "pull" for step in plan["steps"]),
        kinds["api"],
        listings,
    )
