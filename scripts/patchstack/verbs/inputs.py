"""What decides a night besides commits: read from the repository for its plan, and again before anything moves.

A night takes an hour. What is edited meanwhile was neither composed nor proven, and a ledger line that names it would
be wrong. The heads of pull requests, the base and the patches' commits need no second look: the plan pins them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from patchstack import __version__
from patchstack.compose.plan import inputs_here
from patchstack.config import load
from patchstack.errors import ConfigError, Incomplete
from patchstack.image.files import recipe_digest
from patchstack.model import Composition, Hotfix
from patchstack.patches.header import Patch
from patchstack.patches.series import read_series
from patchstack.regress.metrics import metrics_digest
from patchstack.regress.suites import find_suites, scenarios_digest, support_digest
from patchstack.verbs.quarantine import quarantine_inputs
from patchstack.workplace import Workplace

_SHOWN = 5


def skips(work: Workplace, hotfix: Hotfix | None = None) -> Mapping[str, str]:
    """Why `deploy.yaml` leaves pull requests out: by name, or by a bare number, which is any repository's.

    What a hotfix adds was asked for by name and judged already; what is deployed stays.
    """
    if hotfix is not None:
        return {}
    return {skip.name_in(work.config.fork.repo): skip.because for skip in work.config.pulls.skip}


def read_inputs(work: Workplace, patches: tuple[Patch, ...]) -> dict[str, str]:
    """Digests of what decides the proof and the image, and the lane's settings that decide what is merged on what."""
    suites = find_suites(work.root, [(patch.slug, patch.guards) for patch in patches])
    channels = [
        f"{name}: {' '.join(sorted(channel.needs))} {channel.flaky}"
        for name, channel in sorted(work.config.channels.items())
    ]
    tests = work.config.tests
    asked = {name: lane for name, lane in sorted(tests.lanes.items()) if lane.executor is not None}
    machines = "\n".join(f"{name}: {lane.executor} {lane.gpus} {lane.limit_min}" for name, lane in asked.items())
    lanes = hashlib.sha256(f"{machines}\n{scenarios_digest(work.root)}".encode()).hexdigest()
    return {
        "test bed": support_digest(work.root),
        **{f"guards of {suite.slug}": suite.digest for suite in suites},
        "channels": hashlib.sha256("\n".join(channels).encode()).hexdigest(),
        "tests": f"{tests.retries} retries, {tests.max_flaky} flaky",
        "quarantine": quarantine_inputs(work),
        **({"lanes": lanes} if asked else {}),  # where nobody runs them they decide nothing
        "metrics": metrics_digest(work.root),
        "image": recipe_digest(work.lane.image),
        "upstream": work.upstream_words,
        "optional": " ".join(sorted(work.lane.optional)),
    }


def inputs_now(work: Workplace, hotfix: Hotfix | None = None) -> dict[str, str]:
    """All that a fingerprint has from the repository, as it is now; `ConfigError` where that cannot be read."""
    config = load(work.config_path)
    if work.lane_name not in config.lanes:
        raise ConfigError([f"{work.config_path}:1: lanes: there is no {work.lane_name} any more: put it back"])
    again = replace(work, config=config)
    patches = read_series(work.patches_folder)
    digests = {patch.slug: patch.digest for patch in patches}
    inputs = read_inputs(again, patches)
    return inputs_here(__version__, digests, skips(again, hotfix), config.pulls.protected, inputs)


def require_as_planned(work: Workplace, composition: Composition) -> None:
    """`Incomplete` that names what was changed in the repository since ``composition`` was planned."""
    try:
        now = inputs_now(work, composition.hotfix)
    except ConfigError as error:
        raise Incomplete(
            "what decides this night was changed after it was planned, and cannot be read any more; nothing was moved:"
            f"\n{error}"
        ) from error
    planned = dict(composition.fingerprint.inputs)
    changed = [name.removeprefix("input ") for name, value in now.items() if planned.get(name) != value]
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise Incomplete(
            f"what decides this night was changed after it was planned: {', '.join(changed[:_SHOWN])}{more}; what was "
            "composed and tested is not what is there now, and nothing was moved: run `patchstack nightly`"
        )
