"""A job's tests inside an image that is pulled by its digest: what `patchstack job` does in form ``device``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchstack.model import GuardResult, Hardware, LaneJob, Settings
from patchstack.process import Stop
from patchstack.regress.suites import Suite
from patchstack.workplace import Workplace


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
    work: Workplace,
    job: LaneJob,
    suites: Sequence[Suite],
    logs: Path,
    *,
    last_promoted: str = "",
    stop: Stop | None = None,
) -> HeardInside:
    """Run ``suites`` inside ``job.image``, for ``job.limit_s`` at most; each test keeps its own limit.

    ``suites`` have the files of the job's shard, by the patch that they guard. What they print is kept in ``logs``, a
    file a suite; the GPUs are those that ``CUDA_VISIBLE_DEVICES`` names, else the first ``job.gpus``. The tests that
    measure run on the image ``last_promoted``, too (``repository@digest``, empty for none), in turns.

    `MachineError` where nothing could run: no engine, no GPU, an image that cannot be pulled. What a test does to its
    process, or the process to itself, is a result.
    """
    raise NotImplementedError
