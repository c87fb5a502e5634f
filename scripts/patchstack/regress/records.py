"""Runs of other lanes that are kept in the repository: ``records/NIGHT-LANE.json``, one `LaneRun` each.

Whoever reads the repository sees by them what ran on which hardware, and when. So a file is read strictly: it is what
`patchstack record` writes of a run on the lane's own machines, or it is named as an error. Fields that a later version
adds may be absent, and nothing may be there that no version knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import ConfigError, PatchstackError
from patchstack.model import Form, GuardOutcome, GuardResult, Hardware, JobState, LaneRun, Sha
from patchstack.regress.declared import bare
from patchstack.store import decode, encode

FOLDER = "records"
README = "README.md"
MOST_BYTES = 8 << 20
_NIGHT = re.compile(r"\d{8}T\d{6}Z(-\d{1,4})?")
_LANE = re.compile(r"[a-z0-9][a-z0-9-]*")
_UNHEARD = {GuardOutcome.MISSING, GuardOutcome.SKIPPED_BY_RULE}


@dataclass(frozen=True)
class Record:
    """One file of the folder."""

    name: str
    run: LaneRun

    @property
    def night(self) -> str:
        return self.run.jobs[0].job.run

    @property
    def tree(self) -> Sha:
        return self.run.jobs[0].job.tree


@dataclass(frozen=True)
class Heard:
    """What the newest record that has an answer of a test says of it."""

    record: str
    """The file's name."""
    night: str
    tree: Sha
    hardware: Hardware
    """Of the machine that ran it."""
    in_image: bool
    """Inside the night's image; else in an environment that somebody had made there."""
    results: tuple[GuardResult, ...]
    """One for each of its parameters."""


def record_name(run: LaneRun) -> str:
    return f"{run.jobs[0].job.run}-{run.lane}.json"


def record_problem(run: LaneRun) -> str:
    """Why ``run`` is no record of a run on the lane's machines; empty where it is one."""
    jobs = [end.job for end in run.jobs]
    if run.form is not Form.DEVICE or any(job.form is not Form.DEVICE for job in jobs):
        return "it was rehearsed on a CPU, which shows nothing of a GPU"
    if (
        not jobs
        or len({(job.run, job.composition, job.tree, job.lane) for job in jobs}) != 1
        or jobs[0].lane != run.lane
    ):
        return "its jobs are not those of one lane of one night"
    if not _NIGHT.fullmatch(jobs[0].run) or not _LANE.fullmatch(run.lane):
        return "its night or its lane has a name that none has"
    answered = [end.job for end in run.jobs if end.state is JobState.ANSWERED]
    if not answered or [answer.job for answer in run.answers] != answered:
        return "no machine answered" if not answered else "its answers are not those of its jobs"
    for answer in run.answers:
        if answer.hardware is None:
            return f"job {answer.job.shard} does not say what hardware it ran on"
        if len(answer.hardware.gpus) < answer.job.gpus:
            return f"job {answer.job.shard} was to have {answer.job.gpus} GPUs, and saw {len(answer.hardware.gpus)}"
    files = {file for job in answered for file in job.shard.files}
    strange = [said.test for said in run.results if _file(said) not in files and said.outcome not in _UNHEARD]
    return f"{strange[0]} has a result, and no job that answered has its file" if strange else ""


def read_records(root: Path) -> tuple[Record, ...]:
    """Every record of the repository at ``root``, the newest first; none where there is no such folder.

    Raises `ConfigError` that names each file which is none.
    """
    folder = root / FOLDER
    found: list[Record] = []
    problems: list[str] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name == README:
            continue
        try:
            found.append(_read(path))
        except _NoRecordError as error:
            fix = "take it out; `patchstack record` writes what belongs here"
            problems.append(f"{FOLDER}/{path.name}:1: : {error}: {fix}")
    if problems:
        raise ConfigError(problems)
    return tuple(sorted(found, key=lambda record: (record.night, record.name), reverse=True))


class _NoRecordError(Exception):
    """Why a file is no record."""


def _read(path: Path) -> Record:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise _NoRecordError(f"it is no plain file of at most {MOST_BYTES} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        run = decode(LaneRun, text, path.name)
    except (UnicodeDecodeError, PatchstackError) as error:
        raise _NoRecordError(" ".join(str(error).split())[:500]) from error
    if not _is_within(json.loads(text), json.loads(encode(run))):
        raise _NoRecordError("it has something that no version of a record knows, or writes otherwise")
    if problem := record_problem(run):
        raise _NoRecordError(problem)
    if path.name != record_name(run):
        raise _NoRecordError(f"by what it holds its name is {record_name(run)}")
    return Record(path.name, run)


def _is_within(said: object, known: object) -> bool:
    """Whether all of ``said`` is in ``known``, which may have more keys."""
    if isinstance(said, dict) and isinstance(known, dict):
        return all(key in known and _is_within(value, known[key]) for key, value in said.items())
    if isinstance(said, list) and isinstance(known, list):
        return len(said) == len(known) and all(map(_is_within, said, known))
    return type(said) is type(known) and said == known


def heard_of(records: Iterable[Record], test: str) -> Heard | None:
    """The newest answer to ``test``, a node id without parameters; None where no machine ever gave one."""
    for record in records:
        said = tuple(one for one in record.run.results if bare(one.test) == test and one.outcome not in _UNHEARD)
        answers = [answer for answer in record.run.answers if said and _file(said[0]) in answer.job.shard.files]
        for answer in answers:
            if answer.hardware is not None:
                return Heard(record.name, record.night, record.tree, answer.hardware, bool(answer.job.image), said)
    return None


def _file(said: GuardResult) -> str:
    return said.test.partition("::")[0]
