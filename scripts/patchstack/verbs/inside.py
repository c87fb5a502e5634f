"""A job's tests inside an image that is pulled by its digest: what `patchstack job` does in form ``device``."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack.errors import MachineError, UsageError
from patchstack.image import devices, probe
from patchstack.image.engine import NEEDED, Limits, OpenEngine, engine_at_hand
from patchstack.image.harness import OURS, harness
from patchstack.image.login import login_for
from patchstack.image.names import is_digest, place_of
from patchstack.image.room import Mount, Room
from patchstack.image.sharing import Wanted, shared
from patchstack.model import Composition, GuardOutcome, GuardResult, Hardware, LaneJob, Settings
from patchstack.process import Stop, Stopped
from patchstack.regress import inside, stacks
from patchstack.regress.file_again import heard_again, log_name
from patchstack.regress.metrics import OF_SCENARIOS, measuring, read_metrics
from patchstack.regress.node import memory_gib
from patchstack.regress.record import Said, unanswered
from patchstack.regress.suites import Suite
from patchstack.verbs.image import open_registry
from patchstack.verbs.measure import join
from patchstack.verbs.plan import read_composition
from patchstack.workplace import Workplace

ROUNDS = 2
"""How often what measures runs in each of two images, in turns; in one alone it runs once."""
MODELS = "PATCHSTACK_MODELS"

_OF_MEMORY = 0.9
"""What the containers of all jobs of a machine may use of it together."""
_IN_FILES = 0.5
"""What of that a container's /tmp may take, and its /dev/shm."""
_PROCESSES = 32_768


@dataclass(frozen=True)
class HeardInside:
    """What the tests of a job said."""

    results: tuple[GuardResult, ...]
    """Of tonight's image: of every test that pytest knew of, in the order of the suites."""
    hardware: Hardware | None
    """None where no process got so far as to look."""
    settings: tuple[Settings, ...]
    beside: tuple[GuardResult, ...] = ()
    """Of the last promoted image, those tests that measure alone; empty where there is none."""


def run_inside(
    work: Workplace, job: LaneJob, suites: Sequence[Suite], logs: Path, *, stop: Stop | None = None
) -> HeardInside:
    """Run ``suites`` inside ``job.image``, for ``job.limit_s`` at most; each test keeps its own limit.

    ``suites`` have the files of the job's shard, by the patch that they guard. Each file has a container of its own,
    and what it prints is kept in ``logs``. The GPUs are those that ``CUDA_VISIBLE_DEVICES`` names, else the first
    ``job.gpus``. The tests that measure run in ``job.last_promoted``, too, in turns, unless it is the same image.

    `MachineError` where nothing could run: no engine, no GPU, an image that cannot be pulled. What a test does to its
    process, or the process to itself, is a result.
    """
    ends_s = time.monotonic() + job.limit_s
    composition = read_composition(work, work.state.run(job.run))
    engine = engine_at_hand()
    if engine is None:
        raise MachineError(f"no engine for containers is at hand, and the tests run inside the image: install {NEEDED}")
    room = _room(work, job, composition, engine.name)
    peer = job.last_promoted if job.last_promoted != job.image else ""
    named = {"tonight": job.image, **({"last-promoted": peer} if peer else {})}
    with _wanted(work, named) as wanted, shared(engine, wanted, work.cache, work.progress) as (running, ids):
        tonight = _Image(work, job, running, ids[0], room, "", logs, ends_s, stop)
        heard = [tonight.of(replace(suite, paths=(file,)), log_name(file)) for suite in suites for file in suite.paths]
        results = tuple(result for said in heard for result in said.results)
        beside: tuple[GuardResult, ...] = ()
        if peer:
            promoted = replace(tonight, image=ids[1], of_whom="last-promoted-")
            results, beside = _in_turns(suites, tonight, promoted, results)
    looked = next((said.hardware for said in heard if said.hardware is not None), None)
    return HeardInside(
        results,
        # A container has a name of its own.
        replace(looked, node=platform.node()) if looked is not None else None,
        tuple(one for said in heard for one in said.settings),
        beside,
    )


# --- one image -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Image:
    """An image that is here, and how its tests run."""

    work: Workplace
    job: LaneJob
    engine: OpenEngine
    image: str
    room: Room
    of_whom: str
    """Before the names of its logs; empty for tonight's."""
    logs: Path
    ends_s: float
    """On the monotonic clock."""
    stop: Stop | None

    @property
    def left_s(self) -> float:
        return self.ends_s - time.monotonic()

    def of(self, suite: Suite, named: str) -> Said:
        """What the tests of one file say, and again those that died with their process."""

        def hear(part: Suite, name: str) -> Said:
            return self.hear(part, f"{self.of_whom}{name}")

        return heard_again(hear, suite, named, self.work.config.tests.retries)

    def hear(self, suite: Suite, name: str) -> Said:
        """``suite`` in a container of its own; `MachineError` where none could be made."""
        limit_s = self.left_s - inside.GRACE_S
        if limit_s <= 0:
            why = f"the job's limit of {self.job.limit_s:.0f} s was over before it began"
            return Said(unanswered(suite, why))
        self.work.progress(f"{', '.join(suite.paths)} in {self.of_whom.strip('-') or 'tonight'}'s image")
        asked = inside.request(suite, dict(self.room.environment), OURS, limit_s)
        limits = Limits(
            limit_s + inside.GRACE_S,
            memory_mib=_memory_mib(self.job),
            processes=_PROCESSES,
            scratch_mib=_mib_in_files(self.job),
            output_bytes=inside.MOST_BYTES,
        )
        try:
            ran = self.engine.run(
                self.image,
                ["python3", "-c", probe.source("suite")],
                stdin=asked,
                limits=limits,
                room=self.room,
                under=self.stop,
            )
            printed = inside.Printed(ran.stdout, ran.stderr, ran.returncode, ran.late, ran.too_much)
        except Stopped as stopped:
            if self.stop is None or not self.stop.because:
                raise
            printed = inside.Printed(stopped.stdout, stopped.stderr, 0, cut=self.stop.because)
        self.logs.mkdir(parents=True, exist_ok=True)
        (self.logs / f"{name}.log").write_text(printed.stderr)
        kept_in = self.logs / stacks.NAME / name
        keep = stacks.Keep(kept_in, kept_in.relative_to(self.logs.parent).as_posix())
        return inside.hear(suite, printed, limit_s, keep)


@contextmanager
def _wanted(work: Workplace, named: Mapping[str, str]) -> Iterator[tuple[Wanted, ...]]:
    """Images by ``repository@digest`` and where they are to be had, for the time of the block."""
    with open_registry(work) as registry:
        if registry is None:
            raise MachineError("the registry of the image is not there: run this where the image was made")
        found = []
        for kept_as, image in named.items():
            repository, _, digest = image.partition("@")
            if not is_digest(digest):
                raise UsageError(f"{image!r} is no image: a job names it as repository@sha256:…")
            place = registry.place if work.embedded else place_of(repository)
            login = None if work.embedded else login_for(place.host, os.environ, Path.home())
            found.append(Wanted(place, digest, login, f"{work.lane_name}-{kept_as}"))
        yield tuple(found)


# --- what a container gets -----------------------------------------------------------------------------


def _room(work: Workplace, job: LaneJob, composition: Composition, engine: str) -> Room:
    """Tests, pytest and models to read, the job's GPUs, and what its lane reaches besides."""
    lock = work.root / "tests" / "support" / "locks" / composition.base.version / "shared.txt"
    laid = harness(lock, work.cache, work.progress)
    seen = inside.environment(job, os.environ)
    mounts = [Mount(_readable(work.root / "tests"), inside.TESTS), Mount(laid, inside.HARNESS)]
    models = _models(work)
    if models is not None:
        # By its own name, for what lies in it may be links, and a message that names it is read out here.
        mounts.append(Mount(models.resolve(), str(models)))
        seen[MODELS] = str(models)
    reach = inside.reach(job.lane)
    gpus = devices.gpus(devices.asked_gpus(job.gpus, os.environ), engine)
    nics = devices.nics() if reach.nics else devices.Given()
    return Room(
        mounts=(*mounts, *gpus.mounts),
        environment=tuple(seen.items()),
        devices=(*gpus.options, *nics.options),
        shares_network=reach.network,
        shm_mib=_mib_in_files(job),
        pins_memory=reach.nics,
    )


def _models(work: Workplace) -> Path | None:
    """The folder of models, as deploy.yaml says or `MODELS`; None where nobody does."""
    named = work.config.tests.models or os.environ.get(MODELS, "")
    if not named:
        return None
    folder = (work.root / named).absolute()
    if not folder.is_dir():
        raise MachineError(
            f"{folder}, the folder of models, is not on this machine: put it there, or mend tests.models"
        )
    return _readable(folder)


def _readable(folder: Path) -> Path:
    """``folder``, which nobody in particular can read."""
    if folder.stat().st_mode & 0o005 != 0o005:
        raise MachineError(
            f"tests in an image run as nobody, and {folder} is readable to its owner alone: `chmod -R go+rX {folder}`"
        )
    return folder


def _memory_mib(job: LaneJob) -> int:
    """The job's share of the memory, by its GPUs; all where it has none, or is given all."""
    here = len(devices.gpus_here())
    share = job.gpus / here if 0 < job.gpus < here else 1.0
    return int(memory_gib() * 1024 * _OF_MEMORY * share)


def _mib_in_files(job: LaneJob) -> int:
    return int(_memory_mib(job) * _IN_FILES)


# --- what measures, beside the last promoted image -----------------------------------------------------


def _in_turns(
    suites: Sequence[Suite],
    tonight: _Image,
    promoted: _Image,
    results: tuple[GuardResult, ...],
) -> tuple[tuple[GuardResult, ...], tuple[GuardResult, ...]]:
    """``results`` with more samples, and what the last promoted image said: those that measure and passed, in turns.

    Tonight's first turn is in ``results``.
    """
    root = tonight.work.root
    passed = {said.test for said in results if said.outcome is GuardOutcome.PASS}
    plan = [
        replace(part.suite, paths=paths)
        for part in measuring(root, suites, read_metrics(root, file=OF_SCENARIOS))
        if (paths := tuple(test for test in part.suite.paths if test in passed))
    ]
    if not plan:
        return results, ()
    more: list[GuardResult] = []
    beside: list[GuardResult] = []
    for turn in range(1, ROUNDS + 1):
        for image, heard in ((promoted, beside), (tonight, more)):
            if image is promoted or turn < ROUNDS:
                for suite in plan:
                    heard += _turn(image, suite, turn)
    # A second turn that nobody answered takes nothing from the first.
    answered = [said for said in more if said.outcome is not GuardOutcome.MISSING]
    return join([*results, *answered]), join(beside)


def _turn(image: _Image, suite: Suite, turn: int) -> tuple[GuardResult, ...]:
    """Of one image; where it could not begin, that is missing: what was heard until then is heard all the same."""
    try:
        return image.hear(suite, f"{image.of_whom}measure-{suite.slug}-{turn}").results
    except Stopped:
        raise
    except MachineError as error:
        return tuple(replace(said, by_machine=True) for said in unanswered(suite, str(error)))
