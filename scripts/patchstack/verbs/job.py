"""`patchstack job FOLDER`: one shard of a lane on this machine, as the folder's ``job.json`` asks.

The machine has the repository, the state folder and the cache at the same paths as the one that asks, or copies of
them; the lock is held by that one. A rehearsal runs in the test bed, on the composed tree; all else inside the
night's image. The answer is written whole when all is said: whoever finds none knows that the job did not end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack.errors import MachineError, UsageError
from patchstack.model import Composition, Form, LaneAnswer, LaneJob, Settings
from patchstack.patches.series import read_series
from patchstack.regress import stacks
from patchstack.regress.execute import Tree, hear_suite
from patchstack.regress.executor import ANSWER, JOB
from patchstack.regress.file_again import heard_again, log_name
from patchstack.regress.lane_jobs import due_on, patches_of, suites_of
from patchstack.regress.record import Said, unanswered
from patchstack.regress.suites import Suite
from patchstack.store import Run, decode, encode, write_whole
from patchstack.verbs.declared import declared_in
from patchstack.verbs.inside import run_inside
from patchstack.verbs.plan import read_composition
from patchstack.verbs.trees import lay_tree, open_bed
from patchstack.workplace import Workplace

LOGS = "logs"
_MARGIN_S, _MARGIN = 120.0, 0.1
"""So much of its limit is left for the answer: seconds, and which part at most."""


def run_job(work: Workplace, folder: Path) -> LaneAnswer:
    """Do what ``folder`` asks, and leave the answer there.

    `UsageError` where there is no job, or one of another composition than its run has now.
    """
    job = read_job(folder)
    run = work.state.run(job.run)
    composition = read_composition(work, run)
    _require_same(job, run, composition)
    declared = declared_in(work.root, work.config, read_series(work.patches_folder))
    suites = suites_of(job, due_on(declared, job.lane, patches_of(composition)))
    inner = replace(job, limit_s=job.limit_s - min(_MARGIN_S, job.limit_s * _MARGIN))
    if job.form is Form.DEVICE:
        heard = run_inside(work, inner, suites, folder / LOGS)
        answer = LaneAnswer(job, heard.hardware, heard.results, heard.settings, heard.beside)
    else:
        said = _rehearsed(work, inner, suites, composition, folder / LOGS)
        answer = LaneAnswer(job, said.hardware, said.results, said.settings)
    write_whole(folder / ANSWER, encode(answer))
    return answer


def read_job(folder: Path) -> LaneJob:
    """What ``folder`` asks; `UsageError` where it asks nothing."""
    file = folder / JOB
    try:
        return decode(LaneJob, file.read_text(), str(file))
    except FileNotFoundError:
        raise UsageError(f"{folder} has no {JOB}: name a folder below runs/ID/lanes/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"{file} cannot be read: {error}") from error


def _require_same(job: LaneJob, run: Run, composition: Composition) -> None:
    if (job.composition, job.tree) != (composition.commit, composition.tree):
        raise UsageError(
            f"the job is of composition {job.composition[:12]}, and run {run.id} has {composition.commit[:12]} now: "
            f"ask the lane again: `patchstack test --run {run.id} --lane {job.lane}`"
        )


# --- a rehearsal ---------------------------------------------------------------------------------------


def _rehearsed(work: Workplace, job: LaneJob, suites: tuple[Suite, ...], composition: Composition, logs: Path) -> Said:
    """Each file in a process of its own, on the composed tree, in the bed: one that dies takes no other with it."""
    bed = open_bed(work, composition.base)
    tree = lay_tree(work, composition.tree, bed)
    files = [replace(suite, paths=(file,)) for suite in suites for file in suite.paths]
    rehearsal = _Rehearsal(work, job, tree, logs, time.monotonic() + job.limit_s)
    heard = [rehearsal.of(suite) for suite in files]
    settings: dict[str, Settings] = {one.test: one for said in heard for one in said.settings}
    return Said(
        tuple(result for said in heard for result in said.results),
        next((said.hardware for said in heard if said.hardware is not None), None),
        tuple(settings.values()),
    )


@dataclass(frozen=True)
class _Rehearsal:
    work: Workplace
    job: LaneJob
    tree: Tree
    logs: Path
    ends_s: float
    """On the monotonic clock."""
    monotonic: Callable[[], float] = time.monotonic

    def of(self, suite: Suite) -> Said:
        """One file, and again what died with its process."""
        (file,) = suite.paths
        return heard_again(self.hear, suite, log_name(file), self.work.config.tests.retries)

    def hear(self, suite: Suite, name: str) -> Said:
        """``suite`` in the bed; `MachineError` where it could not begin."""
        left_s = self.ends_s - self.monotonic()
        if left_s <= 0:
            return Said(unanswered(suite, f"the job's limit of {self.job.limit_s:.0f} s was over before it began"))
        self.work.progress(", ".join(suite.paths))
        kept_in = self.logs / stacks.NAME / name
        return hear_suite(
            suite,
            self.tree,
            self.work.root,
            self.logs / f"{name}.log",
            left_s,
            keep=stacks.Keep(kept_in, kept_in.relative_to(self.logs.parent).as_posix()),
            environment=scenario_environment(self.job),
        )


def scenario_environment(job: LaneJob) -> dict[str, str]:
    """What tells a scenario how it runs; beside the folder of models, which only an image is shown."""
    return {"PATCHSTACK_FORM": job.form.value, "PATCHSTACK_LANE": job.lane, "HF_HUB_OFFLINE": "1"}
