"""The JSON file of a run: the machine, the samples, the ratios. A later run compares itself with the newest."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.measure import Measurement, Series, Tally

from patchstack.git import version as git_version
from patchstack.store import write_whole

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Machine:
    """What decides how fast this machine is, as far as it says so. No name: the file may be shown around."""

    cores: int
    cpu: str
    system: str
    python: str
    git: str


@dataclass(frozen=True)
class Before:
    """What an earlier run found, by `key`."""

    at: str
    machine: Machine
    cpu_s: Mapping[str, float]
    cpu_ratio: Mapping[str, float]


def this_machine() -> Machine:
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cpu=_cpu_model(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        git=".".join(map(str, git_version())),
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def key(measurement: Measurement) -> str:
    return f"{measurement.name} / {measurement.beside.label}"


def encode(
    at: str,
    machine: Machine,
    load: Sequence[float],
    base: Mapping[str, Any],
    measurements: Sequence[Measurement],
    tallies: Sequence[Tally] = (),
) -> dict[str, Any]:
    """The file's content; times in seconds, ratios ours by the other. ``base`` says what it was measured on."""
    return {
        "schema_version": SCHEMA_VERSION,
        "at": at,
        "machine": asdict(machine),
        "load_average_at_start": [round(part, 2) for part in load],
        "base": dict(base),
        "measurements": [_encode_one(measurement) for measurement in measurements],
        "tallies": [asdict(tally) for tally in tallies],
    }


def _encode_one(measurement: Measurement) -> dict[str, Any]:
    intervals = measurement.ratio_intervals
    return {
        "key": key(measurement),
        "ours": _encode_series(measurement.ours),
        "beside": _encode_series(measurement.beside),
        "cpu_ratio": round(measurement.cpu_ratio, 4),
        "wall_ratio": round(measurement.wall_ratio, 4),
        "least_ratios": dict(
            zip(("cpu", "wall"), (round(ratio, 4) for ratio in measurement.least_ratios), strict=True)
        ),
        "ratio_intervals": None if intervals is None else [[round(ratio, 4) for ratio in each] for each in intervals],
        "compared": measurement.compared,
        "equal": measurement.equal,
    }


def _encode_series(series: Series) -> dict[str, Any]:
    return {
        "label": series.label,
        "cpu_s": round(series.cpu_s, 6),
        "wall_s": round(series.wall_s, 6),
        "samples": [{"cpu_s": round(cost.cpu_s, 6), "wall_s": round(cost.wall_s, 6)} for cost in series.samples],
    }


def write(folder: Path, body: Mapping[str, Any]) -> Path:
    """One file a run, named by its time; the newest sorts last."""
    path = folder / f"{str(body['at']).replace(':', '').replace('-', '')}.json"
    write_whole(path, json.dumps(body, indent=2) + "\n")
    return path


def newest(folder: Path) -> Before | None:
    """The newest run that this version can read; None when there is none."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        body = json.loads(path.read_text())
        if body.get("schema_version") == SCHEMA_VERSION:
            rows = body["measurements"]
            return Before(
                at=body["at"],
                machine=Machine(**body["machine"]),
                cpu_s={row["key"]: row["ours"]["cpu_s"] for row in rows},
                cpu_ratio={row["key"]: row["cpu_ratio"] for row in rows},
            )
    return None
