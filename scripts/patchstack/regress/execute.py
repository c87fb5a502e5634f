"""Run guards on one tree, in the bed's Python, in a child that sees nothing of the user.

The child's environment is an allow-list, and what else it sees, and as whom it runs, is `unprivileged`'s. What it
says comes back through the record that the bed's pytest plugin writes (`tests/support/testbed/plugin.py`), one JSON
object a line; what pytest collected and the record does not answer for is `missing`, never green.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from patchstack import process
from patchstack.errors import MachineError
from patchstack.model import GuardOutcome, GuardResult
from patchstack.regress import unprivileged
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
) -> tuple[GuardResult, ...]:
    """Every test of ``suite`` that says something on ``tree``; the output is kept in ``log``.

    ``place`` is what kind of tree it is, and ``mutant`` the name of the mutant that is on it.

    The child is ended after ``limit_s`` seconds; a test that it had not answered for is then a time-out if
    it was running and missing if it had not begun.
    """
    with unprivileged.cell(root, tree.folder, tree.python, tree.bytecode) as cell:
        options = ["-p", "testbed.plugin", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(root)]
        chosen = {Place.COMPOSED: [], Place.GROUND: ["--ground"], Place.MUTANT: [f"--mutant={mutant}"]}[place]
        argv = [str(tree.python), "-m", "pytest", "-q", *options, *chosen, "--record", str(cell.record), *suite.paths]
        environment = child_environment(root, tree, cell.home)
        ended, cut = "ended", ""
        try:
            done = process.run(cell.argv(argv), cwd=root, env=environment, timeout_s=limit_s, check=False, under=under)
            output, ended = done.stdout + done.stderr, f"ended with {done.returncode}"
        except process.ProcessTimeout as late:
            output, ended = late.stdout + late.stderr, f"was ended after {limit_s:.0f} s"
        except process.Stopped as stopped:
            if under is None or not under.because:
                raise
            output, cut = stopped.stdout + stopped.stderr, under.because
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(output)
        cell.require_begun()
        lines = cell.record.read_text(errors="replace").splitlines()
    return read_record(suite, lines, ended, cut=cut)


def unanswered(suite: Suite, reason: str) -> tuple[GuardResult, ...]:
    """What is said of a suite of which nobody knows the tests: each of its files or folders is missing."""
    return tuple(GuardResult(path, suite.slug, False, GuardOutcome.MISSING, 0.0, reason) for path in suite.paths)


def read_record(suite: Suite, lines: Iterable[str], ended: str, *, cut: str = "") -> tuple[GuardResult, ...]:
    """The record as results, with everything that was collected and not answered for as `missing`.

    A line is ``{"collected": [...]}``, ``{"left_out": [...]}``, ``{"started": id}`` or a result. A torn last
    line (the process was killed while it wrote) is not a result; anything else that is none of these, and a
    second answer of one test, is a crash: somebody else than the plugin has written here.

    ``cut`` is why we ended the process ourselves: then a test that was running is no crash, but missing for it.
    """
    collected: dict[str, None] = {}
    started: set[str] = set()
    left_out: list[str] = []
    results: dict[str, GuardResult] = {}
    broken: list[GuardResult] = []
    whole = list(lines)
    for number, line in enumerate(whole, start=1):
        entry = _entry(line)
        match entry:
            case {"collected": list(tests)}:
                collected.update(dict.fromkeys(map(str, tests)))
            case {"left_out": list(tests)}:
                left_out += map(str, tests)
            case {"started": str(test)}:
                started.add(test)
            case {"test": str(test), "outcome": str(said), **more} if said in _SAID:
                result = _result(suite, test, _SAID[said], more)
                if test in results:
                    result = replace(result, outcome=GuardOutcome.CRASH, reason="it answered twice")
                results[test] = result
            case _:
                if entry is not None or number < len(whole):
                    broken.append(_damaged(suite, number))
    broken += [result for test, result in results.items() if test not in collected]
    answered = [results.get(test) or _unanswered(suite, test, test in started, ended, cut) for test in collected]
    if not answered and not broken and not left_out:
        broken = [*unanswered(suite, cut or f"nothing was collected; pytest {ended}")]
    return (*answered, *broken)


def _entry(line: str) -> object:
    """What the line says; None where it is not JSON."""
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if found is not None else ()


def _damaged(suite: Suite, line: int) -> GuardResult:
    reason = f"line {line} of the record is not the plugin's"
    return GuardResult(suite.paths[0], suite.slug, False, GuardOutcome.CRASH, 0.0, reason)


def _result(suite: Suite, test: str, outcome: GuardOutcome, entry: Mapping[object, object]) -> GuardResult:
    duration, kills = entry.get("duration_s", 0.0), entry.get("kills")
    return GuardResult(
        test=test,
        slug=suite.slug,
        control=bool(entry.get("control", False)),
        outcome=outcome,
        duration_s=round(float(duration), 3) if isinstance(duration, int | float) else 0.0,
        reason=str(entry.get("reason", "")),
        kills=tuple(map(str, kills)) if isinstance(kills, list) else (),
    )


def _unanswered(suite: Suite, test: str, was_running: bool, ended: str, cut: str) -> GuardResult:
    if cut:
        return GuardResult(test, suite.slug, False, GuardOutcome.MISSING, 0.0, cut)
    outcome = GuardOutcome.TIMEOUT if was_running and "after" in ended else GuardOutcome.CRASH if was_running else None
    if outcome is None:
        return GuardResult(test, suite.slug, False, GuardOutcome.MISSING, 0.0, f"collected, not run: pytest {ended}")
    return GuardResult(test, suite.slug, False, outcome, 0.0, f"pytest {ended} while it ran")
