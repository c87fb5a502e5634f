"""Where a verb works: configuration, lane, state folder, remote and cache, resolved once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from patchstack.config import Config, Lane, load
from patchstack.errors import LaneUnavailable, UsageError
from patchstack.git import Repository
from patchstack.lock import night_lock
from patchstack.model import Verdicts
from patchstack.store import Run, State, cache_folder


class Progress(Protocol):
    """Tells a person what is going on; `stage` names what runs in its block."""

    def __call__(self, message: str, /) -> None: ...
    def stage(self, name: str) -> AbstractContextManager[object]: ...


@dataclass(frozen=True)
class Workplace:
    """What every verb needs to know; nothing in it changes while a verb runs."""

    root: Path
    """The folder of deploy.yaml, patches/ and tests/."""
    config_path: Path
    config: Config
    lane_name: str
    state: State
    remote: str
    """A URL, or the folder of the embedded remote."""
    embedded: bool
    local: bool
    offline: bool
    cache: Path
    progress: Progress

    @property
    def lane(self) -> Lane:
        return self.config.lanes[self.lane_name]

    @property
    def patches_folder(self) -> Path:
        """As the user named the place, so that a message names a file as the user would."""
        return self.config_path.parent / "patches"

    def store(self) -> Repository:
        return Repository.init(self.state.store_git)

    def locked(self) -> AbstractContextManager[None]:
        return night_lock(self.state.lock)

    @contextmanager
    def open_run(self, run_id: str | None = None) -> Iterator[Run]:
        """The run that was asked for, or a new one; a new one is gone again if the request itself was wrong."""
        if run_id is not None:
            yield self.state.run(run_id)
            return
        run = self.state.new_run()
        try:
            yield run
        except UsageError:
            shutil.rmtree(run.folder)
            raise
        except BaseException:
            with suppress(OSError):  # what was written before it failed is worth a look
                run.folder.rmdir()
            raise

    def judged_run(self, run_id: str | None) -> Run:
        """The run that was asked for, or the newest that has a verdict."""
        if run_id is not None:
            return self.state.run(run_id)
        newest = self.state.latest_run(having=Verdicts)
        if newest is None:
            raise UsageError(f"no run in {self.state.runs} has a verdict yet: run `patchstack test` first")
        return newest


def open_workplace(
    *,
    config_path: Path,
    state_folder: Path,
    lane: str | None,
    remote: str | None,
    local: bool,
    offline: bool,
    progress: Progress,
) -> Workplace:
    """Resolve the options; `ConfigError` for a bad file, `LaneUnavailable` for a lane that it does not have."""
    config = load(config_path)
    name = lane or ("production" if "production" in config.lanes else next(iter(config.lanes)))
    if name not in config.lanes:
        raise LaneUnavailable(f"{config_path} has no lane {name!r}; it has: {', '.join(config.lanes)}")
    state = State(state_folder.absolute())
    url = remote or config.fork.remote
    if url is not None and url.startswith("-"):
        raise UsageError(f"--remote {url!r} is not a URL")
    return Workplace(
        root=config_path.absolute().parent,
        config_path=config_path,
        config=config,
        lane_name=name,
        state=state,
        remote=url or str(state.remote_git),
        embedded=url is None,
        local=local,
        offline=offline,
        cache=cache_folder(),
        progress=progress,
    )


class Clock:
    """Measures stages in the order in which they ran."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.stages: list[tuple[str, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = self._monotonic()
        try:
            yield
        finally:
            self.stages.append((name, round(self._monotonic() - begin, 3)))
