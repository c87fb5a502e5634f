"""Several workers, each with one part of the guards at a time, each part in a process of its own.

In the bed such a process has a network of its own, so that no two of them meet on a port; where the machine
allows none, there is one worker. A tree is compared with git's when nobody is at work on it: of those that
ran on it since the last look, nobody can say who wrote into it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from patchstack import process
from patchstack.deadline import REASON, Deadline
from patchstack.model import GuardOutcome, GuardResult
from patchstack.regress import unprivileged
from patchstack.regress.execute import Tree, child_environment
from patchstack.regress.parts import Part
from patchstack.regress.record import unanswered
from patchstack.regress.steps import Subject

Results = tuple[GuardResult, ...]
Done = tuple[Part, Results]

WROTE = "these guards wrote into the tree under test"
_PROBE = "import sys; from testbed import network; sys.exit(network.make_private() != network.PRIVATE)"
_PROBE_LIMIT_S = 60.0


def has_own_network(root: Path, tree: Tree) -> bool:
    """Whether a process of the bed gets a network namespace here, as `testbed.network` makes it."""
    with unprivileged.cell(root, tree.folder, tree.python, tree.bytecode) as cell:
        environment = child_environment(root, tree, cell.home)
        argv = cell.argv([str(tree.python), "-c", _PROBE])
        done = process.run(argv, cwd=root, env=environment, timeout_s=_PROBE_LIMIT_S, check=False)
        cell.require_begun()
        return done.returncode == 0


def run_parts(
    parts: Sequence[Part],
    workers: int,
    run: Callable[[Part, process.Stop], Results],
    *,
    restore: Callable[[Subject], bool],
    settle: Callable[[Part, Results], None],
    progress: Callable[[str], None],
    deadline: Deadline | None = None,
) -> None:
    """Run every part, ``workers`` at a time, and hand each one's results to ``settle`` once its tree was seen clean.

    ``run`` is called in the workers' threads, all else in this one. Whatever is raised here or there, Ctrl-C
    too, ends every part that is under way. So does ``deadline``, without an error: no part begins after it, and
    what has not answered then is missing.
    """
    stop = process.Stop()
    with ThreadPoolExecutor(workers, thread_name_prefix="guards") as pool:
        try:
            waiting = deque(parts)
            underway: dict[Future[Results], Part] = {}
            unchecked: dict[Path, list[Done]] = {}
            while waiting or underway:
                if deadline is not None and not stop.pulled and deadline.over:
                    progress(f"{REASON} of {deadline.minutes:g} min is over: what is under way is stopped")
                    stop.pull(REASON)
                    while waiting:
                        part = waiting.popleft()
                        settle(part, unanswered(part.suite, REASON))
                while waiting and len(underway) < workers:
                    part = waiting.popleft()
                    number = len(parts) - len(waiting)
                    progress(f"guards of {part.name} on {part.step.subject.label} ({number} of {len(parts)})")
                    underway[pool.submit(run, part, stop)] = part
                limit_s = deadline.left_s() if deadline is not None and not stop.pulled else None
                ended, _ = wait(underway, limit_s, return_when=FIRST_COMPLETED)
                for future in [future for future in underway if future in ended]:
                    part = underway.pop(future)
                    unchecked.setdefault(_folder(part), []).append((part, future.result()))
                busy = {_folder(part) for part in underway.values()}
                for folder in [folder for folder in unchecked if folder not in busy]:
                    for part, results in _checked(unchecked.pop(folder), restore):
                        settle(part, results)
        except BaseException:
            stop.pull()
            raise


def _folder(part: Part) -> Path:
    return part.step.subject.tree.folder


def _checked(done: Sequence[Done], restore: Callable[[Subject], bool]) -> list[Done]:
    """What ran on one tree since the last look; where that tree has changed, none of it is an answer."""
    if not restore(done[0][0].step.subject):
        return list(done)
    reason = WROTE
    if len(done) > 1:
        names = ", ".join(sorted(part.name for part, _ in done))
        reason = f"one of those that ran at a time wrote into the tree under test ({names}): --jobs 1 tells which"
    return [
        (part, tuple(replace(said, outcome=GuardOutcome.CRASH, reason=reason) for said in results))
        for part, results in done
    ]
