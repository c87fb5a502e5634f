"""What machines of other lanes than `cpu` are asked, and what they answer. Part of `model.py`, which hands it on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from patchstack.ids import Sha
from patchstack.measures import Measures
from patchstack.results import GuardResult, Shard


class Form(StrEnum):
    """In which form a lane's scenarios run."""

    DEVICE = "device"
    """On what the lane says that it has, inside the night's image."""
    REHEARSAL = "rehearsal"
    """The same code on a CPU with a tiny model, in the test bed: it shows that the suite works, and proves no patch."""


class JobState(StrEnum):
    """What became of a job."""

    ANSWERED = "answered"
    LOST = "lost"
    """Its machine went away, or the job was killed; it was given to another one as often as may be."""
    LATE = "late"
    """It did not end, or did not begin, in time."""
    REFUSED = "refused"
    """There is no machine that could run it."""


@dataclass(frozen=True)
class Hardware:
    """The machine of a result; numbers of two are compared only where all but `node` is equal."""

    node: str
    """Its name, for people."""
    processor: str
    """As `regress/node.py` says it: ``16 x AMD EPYC 9554``."""
    memory_gib: int
    gpus: tuple[str, ...] = ()
    """Each by its model and memory, such as ``NVIDIA H200, 140 GiB``."""
    driver: str = ""
    cuda: str = ""
    nccl: str = ""
    torch: str = ""
    mooncake: str = ""
    nics: tuple[str, ...] = ()
    """RDMA devices, such as ``mlx5_0, 400 Gb/s``."""


@dataclass(frozen=True)
class Settings:
    """What a scenario ran with: its model, its sizes, its seeds."""

    test: str
    """pytest's node id."""
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LaneJob:
    """One shard of a lane on one machine, as that machine is asked."""

    run: str
    """The run's id."""
    lane: str
    shard: Shard
    composition: Sha
    tree: Sha
    form: Form
    image: str
    """``repository@sha256:...`` that its tests run inside; empty in a rehearsal."""
    gpus: int
    """Of the machine, for this job alone; none in a rehearsal."""
    limit_s: float
    last_promoted: str = ""
    """The image beside which measuring tests run; empty where there is none."""


@dataclass(frozen=True)
class LaneAnswer:
    """What a machine says of its job."""

    job: LaneJob
    hardware: Hardware | None
    """None where no process got so far as to look."""
    results: tuple[GuardResult, ...]
    settings: tuple[Settings, ...] = ()
    beside: tuple[GuardResult, ...] = ()
    """Of the last promoted image, those tests that measure alone."""


@dataclass(frozen=True)
class JobEnd:
    """What became of a job, answered or not."""

    job: LaneJob
    state: JobState
    detail: str = ""
    """Why there is no answer, or how often it was begun again; empty where nothing is to be said."""
    node: str = ""
    begun: int = 1
    """How often."""


@dataclass(frozen=True)
class LaneRun:
    """One lane of a night."""

    lane: str
    executor: str
    """``local``, ``slurm`` or ``github``."""
    form: Form
    jobs: tuple[JobEnd, ...]
    answers: tuple[LaneAnswer, ...]
    results: tuple[GuardResult, ...]
    """Of every test that is declared for the lane: what no answer speaks of is missing."""
    measures: tuple[Measures, ...] = ()
    """How its numbers end, for each kind of hardware that measured any."""


@dataclass(frozen=True)
class LaneRuns:
    """What other lanes than `cpu` said of one composition."""

    composition: Sha
    runs: tuple[LaneRun, ...]
