"""The guards of a lane over several machines: by measured times, each file on one of them; and their reports as one.

Longest first, each to the machine that has least to do (https://en.wikipedia.org/wiki/Longest-processing-time-first_scheduling).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from patchstack.errors import UsageError
from patchstack.model import GuardOutcome, GuardReport, GuardResult, Shard, TreeRun
from patchstack.regress.durations import Durations
from patchstack.regress.prove import Claim, prove

MOST = 256
_SHOWN = 3


@dataclass(frozen=True)
class Part:
    """Which shard of how many."""

    number: int
    """From 1."""
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def read_part(text: str, default_count: int) -> Part:
    """``2/3``, or ``2`` of ``default_count``; `UsageError` for anything else."""
    found = re.fullmatch(r"([1-9][0-9]{0,2})(?:/([1-9][0-9]{0,2}))?", text)
    if found is None:
        raise UsageError(f"--shard {text!r} is no shard: write the second of three as 2/3")
    part = Part(int(found[1]), int(found[2]) if found[2] else default_count)
    if part.number > part.count or part.count > MOST:
        raise UsageError(f"--shard {text}: there is no shard {part}: write a number up to {part.count}, of {MOST}")
    return part


def weights(
    runs: Iterable[tuple[str, bool]],
    known: Durations,
    estimates: Mapping[str, float],
    kills: Mapping[str, Sequence[str]],
) -> dict[str, float | None]:
    """Seconds that each file takes on all trees together; None where nobody knows.

    ``runs`` has each file as often as it runs, and whether that is on the composed tree; ``kills`` the files with the
    guards of each mutant. What was measured counts, else what its tests are said to take.
    """
    found: dict[str, list[float | None]] = {}
    for file, composed in runs:
        found.setdefault(file, []).append(known.of(file, composed=composed))
    for mutant, files in kills.items():
        for file in files:
            found[file].append(known.mutants_s.get(mutant, 0.0) / len(files))
    return {file: _sum(each, estimates.get(file)) for file, each in found.items()}


def _sum(measured: Sequence[float | None], estimate: float | None) -> float | None:
    known = [value for value in measured if value is not None]
    return sum(known) if len(known) == len(measured) else estimate


def decide_shards(seconds: Mapping[str, float | None], count: int) -> tuple[tuple[str, ...], ...]:
    """Every file in exactly one of ``count`` shards; a file of which nothing is known counts as the median one.

    `UsageError` where there are fewer files than shards: one of them would test nothing.
    """
    if count > len(seconds):
        number = f"{len(seconds)} file{'' if len(seconds) == 1 else 's'}"
        raise UsageError(
            f"{number} of guards over {count} shards: some would test nothing; take {len(seconds)} at most"
        )
    known = [value for value in seconds.values() if value is not None]
    middle = median(known) if known else 1.0
    load = [0.0] * count
    shards: list[list[str]] = [[] for _ in range(count)]
    cost = {file: middle if value is None else value for file, value in seconds.items()}
    for file in sorted(cost, key=lambda name: (-cost[name], name)):
        # Of equal ones the emptiest: what takes no time must not leave a shard without a file.
        least = min(range(count), key=lambda number: (load[number], len(shards[number]), number))
        shards[least].append(file)
        load[least] += cost[file]
    return tuple(tuple(sorted(shard)) for shard in shards)


def gather(reports: Sequence[GuardReport], claims: Mapping[str, Claim]) -> GuardReport:
    """The reports of shards of one composition as one, with the proofs that follow from all of them.

    What no shard has run is not in it: `expected.completed` names that. `UsageError` for reports that are not shards
    of one another, or that speak of each other's files.
    """
    shards = [_shard_of(report) for report in reports]
    if not reports:
        raise UsageError("there is no report to gather: name those that `patchstack test --shard I/N --json` wrote")
    first = reports[0]
    for report, shard in zip(reports, shards, strict=True):
        for what in ("lane", "bed", "not_run", "quarantine"):
            if getattr(report, what) != getattr(first, what):
                raise UsageError(f"shard {shard} and shard {shards[0]} differ in their {what}: run both again")
    _require_disjoint(shards)
    runs: dict[tuple[str, bool, str, str], TreeRun] = {}
    for report, shard in zip(reports, shards, strict=True):
        for run in report.runs:
            key = (run.label, run.composed, run.tree, run.mutant)
            mine = replace(run, results=tuple(_own(run.results, shard)))
            before = runs.get(key)
            if before is not None:
                mine = replace(mine, results=(*before.results, *mine.results), kept=before.kept and mine.kept)
            runs[key] = mine
    joined = tuple(run for run in runs.values() if run.results)
    nodes = " + ".join(sorted({report.node for report in reports if report.node}))
    return replace(first, runs=joined, proofs=prove(claims, joined), node=nodes, shard=None)


def _shard_of(report: GuardReport) -> Shard:
    if report.shard is None:
        raise UsageError("a report that is to be gathered is of no shard: it was not made with --shard")
    return report.shard


def _require_disjoint(shards: Sequence[Shard]) -> None:
    owner: dict[str, Shard] = {}
    for shard in shards:
        if shard.count != shards[0].count:
            raise UsageError(f"shard {shard} and shard {shards[0]} are of other numbers of shards: gather those of one")
        if [other.number for other in shards].count(shard.number) > 1:
            raise UsageError(f"shard {shard} is there twice: gather each once")
        both = [file for file in shard.files if file in owner]
        if both:
            shown = ", ".join(both[:_SHOWN]) + (f" and {len(both) - _SHOWN} more" if len(both) > _SHOWN else "")
            raise UsageError(
                f"shard {owner[both[0]]} and shard {shard} both have {shown}: they were divided by other measured "
                "times; run them from one run, whose shards.json says who has what"
            )
        owner |= dict.fromkeys(shard.files, shard)


def _own(results: Iterable[GuardResult], shard: Shard) -> Iterable[GuardResult]:
    """What a shard says of its own files; of the others' it can only say that they are missing."""
    for result in results:
        if result.test.partition("::")[0] in shard.files:
            yield result
        elif result.outcome is not GuardOutcome.MISSING:
            raise UsageError(f"shard {shard} speaks of {result.test}, which is none of its files: run it again")
