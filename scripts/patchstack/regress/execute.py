"""Run guards on one tree, in the bed's Python, in a child that sees nothing of the user.

The child's environment is an allow-list, and what else it sees, and as whom it runs, is `unprivileged`'s. What it
says comes back through the record that the bed's pytest plugin writes (`tests/support/testbed/plugin.py`), one JSON
object a line; what pytest collected and the record does not answer for is `missing`, never green. The record is a
candidate's to write to: it is not read without end, and what no plugin of ours would say is a crash.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from patchstack import process
from patchstack.errors import MachineError
from patchstack.model import GuardOutcome, GuardResult, Hardware, Sample, Settings
from patchstack.regress import stacks, unprivileged
from patchstack.regress.suites import Suite

Progress = Callable[[str], None]

_INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")

# What SGLang and Mooncake need on a machine without a GPU.
_SERVER_ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "MC_FORCE_TCP": "1",
    "SGLANG_HOST_IP": "127.0.0.1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
}


_SAID = {
    "pass": GuardOutcome.PASS,
    "fail": GuardOutcome.FAIL,
    "crash": GuardOutcome.CRASH,
    "timeout": GuardOutcome.TIMEOUT,
    # A test that skips itself did not run, whatever its reason: it is missing, not green.
    "skip": GuardOutcome.MISSING,
}
"""What the plugin says, and nothing else: a child cannot put itself into quarantine."""

RECORD_BYTES = 64 << 20
LONGEST_REASON = 2000
MOST_SAMPLES = 1000
"""Of one test."""
_METRIC = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")

STACKS_BEFORE_S = 30.0
"""So long before a child is ended its bed ends it itself, and leaves the stacks of all its processes."""


class Place(StrEnum):
    """What kind of tree it is; it decides which tests say something there."""

    COMPOSED = "composed"
    GROUND = "ground"
    """Without the patch."""
    MUTANT = "mutant"
    """With the patch, and with a fault of its own."""


@dataclass(frozen=True)
class Tree:
    """A tree on disk, with the release's compiled parts laid in: ``folder/python/sglang``."""

    folder: Path
    python: Path
    """The bed's interpreter."""
    bytecode: Path
    """Where this tree's compiled bytecode goes: never into the tree, never beside another tree's."""


def child_environment(root: Path, tree: Tree, home: Path) -> dict[str, str]:
    """All that a guard's process sees: no HOME of the user, no agent, no token, no remote.

    Raises `MachineError` for a path that cannot stand in a list of paths.
    """
    divided = next((path for path in (root, tree.folder) if os.pathsep in str(path)), None)
    if divided is not None:
        raise MachineError(
            f"{divided}: Python cannot import from a folder with {os.pathsep!r} in its name; "
            "move the repository, or set PATCHSTACK_CACHE"
        )
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    support = root / "tests" / "support"
    return {
        **inherited,
        **_SERVER_ENVIRONMENT,
        "HOME": str(home),
        "TMPDIR": str(home),
        "PATCHSTACK_TREE": str(tree.folder),
        "PYTHONPATH": os.pathsep.join(map(str, (tree.folder / "python", support / "standins", support))),
        "PYTHONPYCACHEPREFIX": str(tree.bytecode),
    }


@dataclass(frozen=True)
class Said:
    """All that a record says."""

    results: tuple[GuardResult, ...]
    hardware: Hardware | None = None
    """None where nobody has looked at it."""
    settings: tuple[Settings, ...] = ()


def run_suite(
    suite: Suite,
    tree: Tree,
    root: Path,
    log: Path,
    limit_s: float,
    under: process.Stop | None = None,
    *,
    place: Place = Place.COMPOSED,
    mutant: str = "",
    keep: stacks.Keep | None = None,
) -> tuple[GuardResult, ...]:
    """As `hear_suite`, where nobody asks what it ran on."""
    return hear_suite(suite, tree, root, log, limit_s, under, place=place, mutant=mutant, keep=keep).results


def hear_suite(
    suite: Suite,
    tree: Tree,
    root: Path,
    log: Path,
    limit_s: float,
    under: process.Stop | None = None,
    *,
    place: Place = Place.COMPOSED,
    mutant: str = "",
    keep: stacks.Keep | None = None,
    environment: Mapping[str, str] | None = None,
) -> Said:
    """Every test of ``suite`` that says something on ``tree``; the output is kept in ``log``.

    ``place`` is what kind of tree it is, and ``mutant`` the name of the mutant that is on it. What did not end in
    time names the files that ``keep`` has of it. ``environment`` is what it sees more than guards do.

    The child is ended after ``limit_s`` seconds; a test that it had not answered for is then a time-out if
    it was running and missing if it had not begun.
    """
    with unprivileged.cell(root, tree.folder, tree.python, tree.bytecode) as cell:
        options = ["-p", "testbed.plugin", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(root)]
        chosen = {Place.COMPOSED: [], Place.GROUND: ["--ground"], Place.MUTANT: [f"--mutant={mutant}"]}[place]
        options += ["--record", str(cell.record), "--stacks", str(cell.home / stacks.NAME)]
        options += [f"--part-limit={max(limit_s - STACKS_BEFORE_S, limit_s / 2):g}"]
        argv = [str(tree.python), "-m", "pytest", "-q", *options, *chosen, *suite.paths]
        seen = {**child_environment(root, tree, cell.home), **(environment or {})}
        ended, cut, killed = "ended", "", False
        try:
            done = process.run(cell.argv(argv), cwd=root, env=seen, timeout_s=limit_s, check=False, under=under)
            output, ended = done.stdout + done.stderr, f"ended with {done.returncode}"
            killed = done.returncode == -signal.SIGKILL
        except process.ProcessTimeout as late:
            output, ended = late.stdout + late.stderr, f"was ended after {limit_s:.0f} s"
        except process.Stopped as stopped:
            if under is None or not under.because:
                raise
            output, cut = stopped.stdout + stopped.stderr, under.because
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(output)
        cell.require_begun()
        lines = _lines_of(cell.record)
        taken = stacks.take(cell.home / stacks.NAME, keep) if keep is not None else {}
    return hear_record(suite, lines, ended, cut=cut, killed=killed, taken=taken)


def _lines_of(record: Path) -> list[str]:
    """Its lines, and one that is none where it is longer than any plugin writes."""
    with record.open("rb") as stream:
        text = stream.read(RECORD_BYTES + 1)
    lines = text[:RECORD_BYTES].decode(errors="replace").splitlines()
    return [*lines, "{}"] if len(text) > RECORD_BYTES else lines


def unanswered(suite: Suite, reason: str) -> tuple[GuardResult, ...]:
    """What is said of a suite of which nobody knows the tests: each of its files or folders is missing."""
    return tuple(GuardResult(path, suite.slug, False, GuardOutcome.MISSING, 0.0, reason) for path in suite.paths)


@dataclass
class _Heard:
    """What the lines of a record have said so far."""

    collected: dict[str, None] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)
    left_out: int = 0
    results: dict[str, GuardResult] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    out_of_time_s: float | None = None
    stacks: Sequence[object] = ()


@dataclass(frozen=True)
class _End:
    """How the process ended, for what it has not answered."""

    said: str
    late: bool
    cut: str
    killed: bool
    stacks: str


def read_record(
    suite: Suite,
    lines: Iterable[str],
    ended: str,
    *,
    cut: str = "",
    killed: bool = False,
    taken: Mapping[str, str] | None = None,
) -> tuple[GuardResult, ...]:
    """The results of `hear_record`."""
    return hear_record(suite, lines, ended, cut=cut, killed=killed, taken=taken).results


def hear_record(
    suite: Suite,
    lines: Iterable[str],
    ended: str,
    *,
    cut: str = "",
    killed: bool = False,
    taken: Mapping[str, str] | None = None,
) -> Said:
    """The record as results, with everything that was collected and not answered for as `missing`.

    A line is ``{"collected": [...]}``, ``{"left_out": [...]}``, ``{"started": id}``, a sample, a result, or that the
    whole run was out of time. A torn last line (the process was killed while it wrote) is not a result; anything
    else that is none of these, and a second answer of one test, is a crash: somebody else than the plugin has
    written here.

    ``cut`` is why we ended the process ourselves: then a test that was running is no crash, but missing for it.
    ``killed``: it was ended by SIGKILL, which is what a machine without memory does. ``taken`` are the files with
    stacks that there are, and how results name them.
    """
    heard, broken = _Heard(), []
    files = taken or {}
    whole = list(lines)
    for number, line in enumerate(whole, start=1):
        entry = _entry(line)
        if not _hear(suite, heard, entry, files) and (entry is not None or number < len(whole)):
            broken.append(_damaged(suite, number))
    broken += [result for test, result in heard.results.items() if test not in heard.collected]
    late = heard.out_of_time_s is not None
    said = f"was ended after {heard.out_of_time_s:.0f} s" if late else ended
    end = _End(said, late or "after" in ended, cut, killed and not late, _named(heard.stacks, files))
    answered = [heard.results.get(test) or _unanswered(suite, test, heard, end) for test in heard.collected]
    if not answered and not broken and not heard.left_out:
        nothing = cut or f"nothing was collected; pytest {said}{end.stacks}"
        broken = [replace(result, by_machine=end.killed) for result in unanswered(suite, nothing)]
    return Said((*answered, *broken))


def _hear(suite: Suite, heard: _Heard, entry: object, taken: Mapping[str, str]) -> bool:
    """Take in one line; False where the plugin would not say it."""
    match entry:
        case {"collected": list(tests)}:
            heard.collected.update(dict.fromkeys(map(str, tests)))
        case {"left_out": list(tests)}:
            heard.left_out += len(tests)
        case {"started": str(test)}:
            heard.started.add(test)
        case {"sample": {"test": str(test), "metric": str(metric), "value": value, **more}} if not more:
            number = _finite(value)
            mine = heard.samples.setdefault(test, [])
            runs = test in heard.started and test not in heard.results
            if number is None or not runs or not _METRIC.fullmatch(metric) or len(mine) == MOST_SAMPLES:
                return False
            mine.append(Sample(metric, number))
        case {"out_of_time_s": seconds, "stacks": list(names)} if _finite(seconds) is not None:
            heard.out_of_time_s, heard.stacks = _finite(seconds), names
        case {"test": str(test), "outcome": str(said), **more} if said in _SAID:
            result = _result(suite, test, _SAID[said], more, taken)
            result = replace(result, samples=tuple(heard.samples.get(test, ())))
            if test in heard.results:
                result = replace(result, outcome=GuardOutcome.CRASH, reason="it answered twice")
            heard.results[test] = result
        case _:
            return False
    return True


def _entry(line: str) -> object:
    """What the line says; None where it is not JSON."""
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if found is not None else ()


def _finite(value: object) -> float | None:
    """A number that is one; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _damaged(suite: Suite, line: int) -> GuardResult:
    reason = f"line {line} of the record is not the plugin's"
    return GuardResult(suite.paths[0], suite.slug, False, GuardOutcome.CRASH, 0.0, reason)


def _result(
    suite: Suite, test: str, outcome: GuardOutcome, entry: Mapping[object, object], taken: Mapping[str, str]
) -> GuardResult:
    kills, left = entry.get("kills"), entry.get("stacks")
    return GuardResult(
        test=test,
        slug=suite.slug,
        control=bool(entry.get("control", False)),
        outcome=outcome,
        duration_s=round(_finite(entry.get("duration_s")) or 0.0, 3),
        reason=str(entry.get("reason", ""))[:LONGEST_REASON] + (_named(left, taken) if isinstance(left, list) else ""),
        kills=tuple(map(str, kills)) if isinstance(kills, list) else (),
    )


def _named(names: Sequence[object], taken: Mapping[str, str]) -> str:
    """Where the stacks are; empty where there are none."""
    here = [taken[name] for name in names if isinstance(name, str) and name in taken]
    return f"; stacks of every process: {', '.join(here)}" if here else ""


def _unanswered(suite: Suite, test: str, heard: _Heard, end: _End) -> GuardResult:
    runs = test in heard.started
    if end.cut:
        outcome, reason = GuardOutcome.MISSING, end.cut
    elif not runs:
        outcome, reason = GuardOutcome.MISSING, f"collected, not run: pytest {end.said}{end.stacks}"
    else:
        outcome = GuardOutcome.TIMEOUT if end.late else GuardOutcome.CRASH
        reason = f"pytest {end.said} while it ran{end.stacks}"
    by_machine = not end.cut and (end.killed or not runs)
    return GuardResult(test, suite.slug, False, outcome, 0.0, reason, by_machine=by_machine)
