"""Nights that are killed, and what must be true afterwards.

A night is a process, `patchstack nightly`, with real git, a real receive-pack and a release of two files. Its guards
are said to be green (`kill_driver.py`): what they say is no business of a kill, and a night takes a second.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.kill_driver import LIVES, Order
from tests.unit.builders import TEN, A, edit
from tests.unit.verbs.fork_bench import workplace
from tests.unit.verbs.night_bench import Fork

from patchstack.git import Repository
from patchstack.leftovers import workers_in
from patchstack.model import NightReport, Promotion, Sha
from patchstack.release.ledger import History
from patchstack.release.promote import Source
from patchstack.release.remote import RemoteState, read_remote
from patchstack.release.repair import decide_repair
from patchstack.store import State
from patchstack.verbs.promote import status

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("kill_driver.py")
TONIGHT, LATER = "2026-11-21T08:00:00+00:00", "2026-11-21T09:00:00+00:00"
END_LIMIT_S = 300.0
"""What was killed, and a night, must have ended by then; they take seconds."""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str
    moments: tuple[str, ...]

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass
class Scene:
    """A fork right before the night that is to be killed."""

    root: Path
    nights: int
    """How many were promoted."""
    theirs: dict[str, Sha] = field(default_factory=dict)
    """Refs that are nobody's business."""
    began: int = 0

    @property
    def remote(self) -> Path:
        return self.root / ".patchstack" / "remote.git"

    @property
    def state(self) -> State:
        return State(self.root / ".patchstack")

    def copied(self, folder: Path) -> Scene:
        return Scene(shutil.copytree(self.root, folder, symlinks=True), self.nights, dict(self.theirs))

    def begin(
        self, driver: Driver, now: str, *argv: str, number: int = LIVES, who: str = "process", **env: str
    ) -> Begun:
        """Start a night in a process group of its own."""
        self.began += 1
        log = self.root / f"moments-{self.began}"
        options = ["--local", "--offline", *(argv or ("nightly", "--json"))]
        order = Order(str(self.root), options, {"PATCHSTACK_NOW": now, **env}, number, who, str(log))
        return Begun(driver, driver.begin(order), log)

    def night(
        self, driver: Driver, now: str, *argv: str, number: int = LIVES, who: str = "process", **env: str
    ) -> Done:
        return self.begin(driver, now, *argv, number=number, who=who, **env).end()

    def read(self, folder: Path) -> RemoteState:
        """The remote, by a store of its own: nothing that the killed night left is trusted."""
        if not (self.remote / "HEAD").is_file():
            return RemoteState("production", "deploy", None, None, None, History(()), ())
        store = Repository.init(folder)
        return read_remote(store, str(self.remote), lane="production", branch="deploy")

    # --- what must be true ---

    def require_old_or_new(self, before: RemoteState, folder: Path) -> RemoteState:
        """The remote reads, is whole, and deploy is where it was or one whole promotion further."""
        now = self.read(folder)
        if not (self.remote / "HEAD").is_file():
            assert now == before
            return now
        remote = Repository(self.remote)
        fsck = remote.attempt("fsck", "--strict", "--no-dangling", "--no-progress")
        assert (fsck.returncode, fsck.text) == (0, ""), fsck.stderr
        assert {name: sha for name, sha in remote.refs().items() if name in self.theirs} == self.theirs
        old, new = before.history.entries, now.history.entries
        if now.deploy == before.deploy:
            assert new == old
        else:
            assert new[1:] == old
            assert len(new) == self.nights + 1
            assert now.deploy is not None
            assert now.history.foreign_on_top == 0
            line = new[0].line
            assert (now.deploy.tree, now.deploy.parents[1]) == (line.tree, line.composition)
            assert (before.deploy is None) or now.deploy.parents[0] == before.deploy.commit
        return now

    def require_complete(self, folder: Path, done: Done) -> None:
        """Tonight's promotion is there once, all that follows from it too, and nothing of the killed one is left."""
        now = self.require_complete_remote(folder)
        line = now.history.entries[0].line
        run = self.state.run(line.night)
        promotion = run.read(Promotion)
        assert (promotion.commit, promotion.line) == (now.deploy.commit if now.deploy else None, line)
        report = done.json
        assert self.state.run(report["night"]).read(NightReport).exit_code == 0
        assert report["nothing_to_do"] is (report["promotion"] is None), report
        told = status(workplace(self.root, local=True))
        assert told.night == line
        assert (told.tip, told.tags_missing, told.tags_elsewhere) == (promotion.commit, (), ())
        assert self.left_behind() == []

    def require_complete_remote(self, folder: Path) -> RemoteState:
        now = self.read(folder)
        store = Repository.init(folder)
        assert len(now.history.nights) == self.nights + 1
        line = now.history.entries[0].line
        assert line.stack is not None
        assert now.base is not None
        assert now.stack is not None
        assert now.base.tree == store.tree_of(line.base_commit)
        assert line.stack in (now.stack.commit, *now.stack.parents)
        assert now.stack.tree == store.tree_of(line.stack)
        assert dict(now.tags)[line.tag] == now.history.entries[0].commit
        sources = (Source(line.base_commit, now.base.tree), Source(line.stack, now.stack.tree))
        assert decide_repair(now, base=sources[0], stack=sources[1]).pushed == {}
        assert {name: sha for name, sha in Repository(self.remote).refs().items() if name in self.theirs} == self.theirs
        return now

    def hook(self, name: str, script: str) -> Path:
        """A hook of the remote."""
        path = self.remote / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def left_behind(self) -> list[str]:
        """Locks and pieces in store and remote, half-made folders, and processes that still work here."""
        state = self.root / ".patchstack"
        found = [path for name in ("store.git", "remote.git") for path in (state / name).rglob("*") if _is_left(path)]
        found += state.glob("*.making-*")
        wait_for_end(state)
        return [str(path.relative_to(state)) for path in found] + [str(worker) for worker in workers_in(state)]


class Driver:
    """A process that starts nights, one after the other (`kill_driver.py`); ``within``: a command that becomes it."""

    def __init__(self, *within: str) -> None:
        self._child = subprocess.Popen(
            [*within, sys.executable, str(PROGRAM)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    def begin(self, order: Order) -> int:
        """Its process id."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(asdict(order)) + "\n")
        return self.next_number()

    def ends_within(self, seconds: float) -> bool:
        assert self._child.stdout is not None
        return bool(select.select([self._child.stdout], [], [], seconds)[0])

    def next_number(self) -> int:
        assert self._child.stdout is not None
        assert self.ends_within(END_LIMIT_S), f"nothing has ended within {END_LIMIT_S} s"
        return int(self._child.stdout.readline())

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        with self._child:
            assert self._child.stdin is not None
            self._child.stdin.close()


@dataclass
class Begun:
    driver: Driver
    pid: int
    log: Path

    def kill_after(self, seconds: float, *, group: bool) -> None:
        """Kill it then, alone or with all that it started, unless it has ended."""
        if self.driver.ends_within(seconds):
            return
        with suppress(ProcessLookupError):  # it may have no group of its own yet
            if group:
                os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> Done:
        code = self.driver.next_number()
        files = [Path(f"{self.log}{end}") for end in ("", ".out", ".err")]
        moments, out, err = (file.read_text(errors="replace") if file.is_file() else "" for file in files)
        return Done(code, out, err, tuple(moments.splitlines()))


def _is_left(path: Path) -> bool:
    return path.name.endswith(".lock") or path.name.startswith(("tmp_", "incoming-"))


def wait_for_end(folder: Path, limit_s: float = END_LIMIT_S) -> None:
    """Wait until every process that works in ``folder`` has ended; what has not within ``limit_s`` is left running."""
    for worker in tuple(workers_in(folder)):
        try:
            descriptor = os.pidfd_open(worker.pid)
        except ProcessLookupError:
            continue
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(limit_s * 1000)
        os.close(descriptor)


@contextmanager
def scenes_in(folder: Path) -> Iterator[tuple[Scene, ...]]:
    """`make_scenes`, with a cache that has nothing but the release of two files, for what runs in the block, too."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PATCHSTACK_CACHE", str(folder / "cache"))
        yield tuple(make_scenes(folder, monkeypatch))


def make_scenes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """The night before the first one; then one with a new pull request, and a patch that moves the published stack."""
    fork = Fork(folder / "fork", monkeypatch)
    fork.patches.patch("kept", fork.base, {"python/sglang/kept.py": "KEPT = 1\n"})
    shutil.rmtree(fork.folder / ".patchstack")
    yield Scene(fork.folder, 0).copied(folder / "first")
    assert fork.night().exit_code == 0
    fork.pull(7, {A: edit(TEN, 1, "SEVEN")})
    fork.patches.patch("other", fork.base, {"python/sglang/other.py": "OTHER = 1\n"})
    base = fork.base.commit
    theirs = {"refs/heads/theirs": base, "refs/tags/v1": base, "refs/heads/deploy-edge": base}
    fork.remote.set_refs(theirs)
    kept = {name: sha for name, sha in fork.refs().items() if name in theirs or name.startswith("refs/pull/")}
    yield Scene(fork.folder, 1, kept)
