"""The state folder: `store.git`, `remote.git`, `runs/<id>/` and the lock; and the cache of downloads.

Every file appears whole (written beside its place, then renamed) or not at all.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from patchstack.errors import MachineError, UsageError
from patchstack.losses import Losses
from patchstack.model import (
    SCHEMA_VERSION,
    Base,
    Blame,
    Candidates,
    Composition,
    Deduped,
    Division,
    GuardReport,
    ImageResult,
    ImageTests,
    LaneRuns,
    MergePlan,
    NightReport,
    Past,
    Promotion,
    Verdicts,
)

STAGE_FILES: dict[type, str] = {
    Base: "base.json",
    Past: "past.json",
    Candidates: "candidates.json",
    Deduped: "dedup.json",
    MergePlan: "plan.json",
    Composition: "composition.json",
    Losses: "losses.json",
    ImageResult: "image.json",
    Division: "shards.json",
    GuardReport: "tests.json",
    ImageTests: "image-tests.json",
    LaneRuns: "lanes.json",
    Blame: "blame.json",
    Verdicts: "verdicts.json",
    Promotion: "promotion.json",
    NightReport: "report.json",
}
"""Each stage's value and the name of its file in the run folder."""

RUN_STAMP = "%Y%m%dT%H%M%SZ"
CLOCKS_DIFFER_MOST = timedelta(minutes=5)
"""How far two clocks that a night goes by may be apart: this machine's and its own earlier, or another machine's."""

Value = TypeVar("Value")


def now_utc() -> datetime:
    """The present, to the second. ``PATCHSTACK_NOW`` (ISO 8601) stands in for it in tests."""
    fixed = os.environ.get("PATCHSTACK_NOW")
    moment = datetime.fromisoformat(fixed) if fixed else datetime.now(UTC)
    return moment.astimezone(UTC).replace(microsecond=0)


def cache_folder() -> Path:
    """``$PATCHSTACK_CACHE``, else ``patchstack`` below the XDG cache folder; made if it is not there."""
    chosen = os.environ.get("PATCHSTACK_CACHE")
    if chosen:
        folder = Path(chosen)
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "patchstack"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"the cache folder {folder} cannot be made: {error.strerror}; set PATCHSTACK_CACHE"
        ) from error
    return folder.resolve()


def write_whole(path: Path, data: bytes | str) -> None:
    """Write ``data`` so that a reader, and a machine that loses power, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = data.encode() if isinstance(data, str) else data
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def encode(value: object) -> str:
    """A stage's value as JSON with its schema version; stable, so that equal values give equal bytes."""
    from pydantic import TypeAdapter

    body: dict[str, Any] = TypeAdapter(type(value)).dump_python(value, mode="json")
    return json.dumps({"schema_version": SCHEMA_VERSION, "type": type(value).__name__, **body}, indent=2) + "\n"


def decode(kind: type[Value], text: str, source: str) -> Value:
    """The value that `encode` wrote; `UsageError` names ``source`` when it is something else."""
    from pydantic import TypeAdapter, ValidationError

    try:
        body = json.loads(text)
        version, name = body.pop("schema_version"), body.pop("type")
        if version != SCHEMA_VERSION or name != kind.__name__:
            raise ValueError(f"it holds {name} of schema {version}, not {kind.__name__} of {SCHEMA_VERSION}")
        return TypeAdapter(kind).validate_python(body)
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError, RecursionError) as error:
        raise UsageError(f"{source}: not a {kind.__name__} of this version: {error}; run the stage again") from error


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def began(self) -> datetime | None:
        """The moment in its name, in UTC; None for a folder that somebody else named."""
        try:
            return datetime.strptime(self.id.partition("-")[0], RUN_STAMP).replace(tzinfo=UTC)
        except ValueError:
            return None

    def path(self, kind: type) -> Path:
        return self.folder / STAGE_FILES[kind]

    def has(self, kind: type) -> bool:
        return self.path(kind).is_file()

    def write(self, value: object) -> Path:
        path = self.path(type(value))
        write_whole(path, encode(value))
        return path

    def read(self, kind: type[Value]) -> Value:
        path = self.path(kind)
        try:
            text = path.read_text()
        except FileNotFoundError:
            raise UsageError(f"run {self.id} has no {path.name}: run the stage that writes it first") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}: it is not text ({error.reason}); run the stage again") from error
        return decode(kind, text, str(path))


@dataclass(frozen=True)
class State:
    """The state folder (`.patchstack/` unless told otherwise)."""

    root: Path

    @property
    def store_git(self) -> Path:
        return self.root / "store.git"

    @property
    def remote_git(self) -> Path:
        return self.root / "remote.git"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def memo(self) -> Path:
        """What spares later nights a question, or tells them what no remote holds; without it they are as right."""
        return self.root / "memo"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def new_run(self) -> Run:
        """A fresh run folder named by the time, with a number behind it where two fall into one second.

        A clock that was set back a little gives it the moment of the newest run, so that it is the newest. Raises
        `MachineError` where that is more than a little, for it would be lost among older ones.
        """
        now = now_utc()
        newest = next((run for run in self.all_runs() if run.began is not None), None)
        if newest is not None and newest.began is not None:
            if newest.began - now > CLOCKS_DIFFER_MOST:
                raise MachineError(
                    f"run {newest.id} is of a time to come, for this machine's clock says {now:{RUN_STAMP}}: set it "
                    f"right; if it is, it was ahead then: move {newest.folder} away"
                )
            now = max(now, newest.began)
        stamp = now.strftime(RUN_STAMP)
        self.runs.mkdir(parents=True, exist_ok=True)
        first = 1 if newest is None else _run_order(newest.folder)[1] + 1 if newest.began == now else 1
        for attempt in range(first, 10_000):
            folder = self.runs / (stamp if attempt == 1 else f"{stamp}-{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return Run(folder)
        raise MachineError(f"{self.runs} holds 10,000 runs of one second: the clock stands still")

    def run(self, run_id: str) -> Run:
        found = next((run for run in self.all_runs() if run.id == run_id), None)
        if found is None:
            known = ", ".join(reversed([run.id for run in self.all_runs()][:5])) or "none"
            raise UsageError(f"no run {run_id!r} in {self.runs}; the latest are: {known}")
        return found

    def all_runs(self) -> tuple[Run, ...]:
        """Every run, the newest first."""
        if not self.runs.is_dir():
            return ()
        folders = sorted((path for path in self.runs.iterdir() if path.is_dir()), key=_run_order, reverse=True)
        return tuple(map(Run, folders))

    def latest_run(self, having: type | None = None) -> Run | None:
        """The newest run, or the newest that holds the file of ``having``."""
        return next((run for run in self.all_runs() if having is None or run.has(having)), None)


def _run_order(folder: Path) -> tuple[str, int]:
    stamp, _, number = folder.name.partition("-")
    return stamp, int(number) if number.isdigit() else 1
