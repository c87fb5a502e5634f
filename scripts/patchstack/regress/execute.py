"""Run guards on one tree, in the bed's Python, in a child that sees nothing of the user.

The child's environment is an allow-list, and what else it sees, and as whom it runs, is `unprivileged`'s. What it
says comes back through the record that the bed's pytest plugin writes (`tests/support/testbed/plugin.py`) and `record`
reads.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from patchstack import process
from patchstack.errors import MachineError
from patchstack.model import GuardResult
from patchstack.regress import stacks, unprivileged
from patchstack.regress.record import Said, hear_record, lines_of
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
        lines = lines_of(cell.record)
        taken = stacks.take(cell.home / stacks.NAME, keep) if keep is not None else {}
    return hear_record(suite, lines, ended, cut=cut, killed=killed, taken=taken)
