"""Where a verb works: configuration, lane, state folder, remote and cache, resolved once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from patchstack.config import Config, GitHubSource, Lane, load
from patchstack.errors import LaneUnavailable, UsageError
from patchstack.git import Repository, without_secret
from patchstack.github import server_url
from patchstack.leftovers import clean_up
from patchstack.lock import night_lock
from patchstack.model import MergePlan, NightReport, Verdicts
from patchstack.queued import cancel_left
from patchstack.store import Run, State, cache_folder

PRODUCTION = "production"
"""The lane of a verb that is not told another one."""


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
    def upstream_words(self) -> str:
        """What deploy.yaml says of the lane's base, in one line: with another one, another base is meant."""
        upstream = self.lane.upstream
        source = upstream.pypi or f"{without_secret(upstream.git or '')}@{upstream.ref}"
        return f"{source} tree {upstream.tree}" if upstream.tree else source

    @property
    def github_sources(self) -> tuple[GitHubSource, ...]:
        """The repositories on GitHub whose open pull requests are candidates; none with ``--local``."""
        if self.local:
            return ()
        return tuple(source for source in self.config.pulls.sources if isinstance(source, GitHubSource))

    @property
    def asks_github(self) -> bool:
        return bool(self.github_sources)

    @property
    def on_github(self) -> bool:
        """The remote is the fork on GitHub, because nobody named another one."""
        return not self.embedded and self.remote == repository_url(self.config.fork.repo)

    @property
    def patches_folder(self) -> Path:
        """As the user named the place, so that a message names a file as the user would."""
        return self.config_path.parent / "patches"

    def store(self) -> Repository:
        return Repository.init(self.state.store_git)

    @contextmanager
    def locked(self) -> Iterator[tuple[str, ...]]:
        """Hold the night's lock; the block is given what was done about a run that was killed, in words."""
        with night_lock(self.state.lock) as killed:
            notes = clean_up((self.state.store_git, self.state.remote_git), self.state.root, killed)
            notes += cancel_left(self.state.root)
            for note in notes:
                self.progress(note)
            yield notes

    @contextmanager
    def open_run(self, run_id: str | None = None, *, dry_run: bool = False) -> Iterator[Run]:
        """The run that was asked for, or a new one; a new one is gone again if the request itself was wrong.

        ``dry_run``: a copy of it, or a new one elsewhere, that is gone afterwards.
        """
        if dry_run:
            with TemporaryDirectory(prefix="patchstack-dry-run-") as elsewhere:
                if run_id is None:
                    yield State(Path(elsewhere)).new_run()
                else:
                    run = self.state.run(run_id)
                    yield Run(shutil.copytree(run.folder, Path(elsewhere) / run.id))
            return
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

    def newest(self, kind: type) -> Run | None:
        """The newest run of this lane that holds the file of ``kind``, a stage that comes after the plan."""
        runs = (run for run in self.state.all_runs() if run.has(kind) and run.has(MergePlan))
        return next((run for run in runs if run.read(MergePlan).lane == self.lane_name), None)

    def newest_report(self) -> NightReport | None:
        """The report of the newest night of this lane; a night that failed before its plan has one too."""
        reports = (run.read(NightReport) for run in self.state.all_runs() if run.has(NightReport))
        return next((report for report in reports if report.lane == self.lane_name), None)

    def judged_run(self, run_id: str | None) -> Run:
        """The run that was asked for, or the newest that has a verdict."""
        if run_id is not None:
            return self.state.run(run_id)
        newest = self.newest(Verdicts)
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
    name = _default_lane(config) if lane is None else lane
    if name not in config.lanes:
        raise LaneUnavailable(f"{config_path} has no lane {name!r}; it has: {', '.join(config.lanes)}")
    state = State(state_folder.absolute())
    if remote is not None and (not remote.strip() or remote.startswith("-")):
        raise UsageError(f"--remote {remote!r} is not a URL: write it out, or leave the option off")
    url = _as_git_reads_it(remote, Path.cwd()) or _as_git_reads_it(config.fork.remote, config_path.absolute().parent)
    if url is None and not local and any(isinstance(source, GitHubSource) for source in config.pulls.sources):
        url = repository_url(config.fork.repo)
    return Workplace(
        root=config_path.parent.resolve(),
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


def repository_url(repo: str) -> str:
    """Where git reads ``owner/name``."""
    return f"{server_url()}/{repo}.git"


def _default_lane(config: Config) -> str:
    if PRODUCTION in config.lanes or len(config.lanes) == 1:
        return PRODUCTION if PRODUCTION in config.lanes else next(iter(config.lanes))
    raise UsageError(f"there are several lanes and none is {PRODUCTION}; choose one: --lane {'|'.join(config.lanes)}")


def _as_git_reads_it(url: str | None, beside: Path) -> str | None:
    """``url``, with a relative path made absolute: git runs in the store's folder, not where it was written.

    What has a colon before its first slash is a URL or ``host:path`` (https://git-scm.com/docs/git-clone).
    """
    if url is None or ":" in url.partition("/")[0]:
        return url
    return str(beside / url)


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
