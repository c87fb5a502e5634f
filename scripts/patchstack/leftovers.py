"""What was killed leaves things behind: half-made folders, and in our own repositories locks and pieces of objects.

The store and the embedded remote are looked through, and only under the night's lock. Git never takes over a
`*.lock` file: it cannot know whether its owner lives. We look: whoever changes a bare repository works in its folder
(git-receive-pack(1) does), so what `/proc/*/cwd` shows of it is all who could own a lock there.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
WAIT_LIMIT_S = 60.0
"""How long a night waits for the git processes of one that was killed; a push takes seconds."""
HOOKS_LIMIT_S = 5.0
"""How long one waits for what a git that was killed had started."""

_PIECES = ("objects/incoming-*", "objects/tmp_objdir-*", "objects/pack/tmp_*", "objects/pack/.tmp-*")
_PIECES_OF_A_DEAD_RUN = ("objects/[0-9a-f][0-9a-f]/tmp_obj_*",)
_KEPT_FOR = (b"receive-pack ", b"fetch-pack ")
"""How a `*.keep` begins that git writes while it takes a pack in; a person's says something else."""


@dataclass(frozen=True)
class Worker:
    """A living process that works in a repository, or may do so."""

    pid: int
    name: str
    """Empty where not even that can be read."""
    known: bool
    """False: where it works cannot be read; it is a git process, or nameless."""

    def __str__(self) -> str:
        unknown = "" if self.known else ", which may not be looked at"
        return f"process {self.pid} ({self.name or 'nameless'}){unknown}"


@dataclass(frozen=True)
class Swept:
    """What was found in one repository, and what became of it."""

    folder: Path
    removed: tuple[str, ...] = ()
    """Paths below ``folder``."""
    left: tuple[str, ...] = ()
    because: str = ""
    """Why those were left."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a night is told."""
        said = []
        if self.removed:
            said.append(f"removed from {self.folder.name}, left by a git that was killed: {_listed(self.removed)}")
        if self.left:
            said.append(f"left in {self.folder.name}, for {self.because}: {_listed(self.left)}")
        return tuple(said)


def _listed(paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:8])
    return f"{shown} and {len(paths) - 8} more" if len(paths) > 8 else shown


def clean_up(repositories: Sequence[Path], state: Path, killed: str) -> tuple[str, ...]:
    """Put right what a killed run left in the state folder; what was found, in words. The caller holds the lock.

    ``killed``: the process id of the lock's last holder, if that did not live to let go of it.
    """
    notes = []
    if killed:
        notes.append(f"the run before this one (process {killed}) was killed")
        notes += [
            f"{worker} of it is still at work after {WAIT_LIMIT_S:.0f} s"
            for worker in wait_for_workers(repositories, WAIT_LIMIT_S)
        ]
    for place in sorted(state.glob(f"*{_SCRATCH}*")):
        _remove_unless_held(place)
    for repository in repositories:
        notes += sweep(repository, after_a_kill=bool(killed)).notes
    return tuple(notes)


_SCRATCH = ".making-"


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """An empty folder beside ``place``, for what is made there to be renamed to it; gone after the block.

    It is locked meanwhile, so that nobody takes it for one that was left by a kill.
    """
    while True:
        folder = Path(tempfile.mkdtemp(dir=place.parent, prefix=f"{place.name}{_SCRATCH}"))
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # somebody cleaned up in between
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.is_dir():  # the same, a moment later
            break
        os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _remove_unless_held(folder: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(descriptor)


def sweep(folder: Path, *, after_a_kill: bool = False) -> Swept:
    """Remove the locks and pieces of objects in the bare repository at ``folder``, unless somebody works there.

    The caller holds the night's lock. ``after_a_kill``: a run of ours was killed, so look for single objects, too.
    """
    folder = folder.absolute()
    if folder.is_symlink() or not (folder / "objects").is_dir():
        return Swept(folder)
    found = {path: _identity(path) for path in _leftovers(folder, after_a_kill)}
    if not found:
        return Swept(folder)
    # In this order: what appears after the first look belongs to somebody who lives, and is not in ``found``.
    try:
        workers = tuple(workers_in(folder))
    except OSError as error:
        return Swept(folder, (), _names(folder, found), f"{PROC} cannot be read ({error.strerror})")
    if workers:
        return Swept(folder, (), _names(folder, found), f"{workers[0]} works there")
    gone = [path for path, identity in found.items() if identity is not None and _identity(path) == identity]
    for path in gone:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return Swept(folder, _names(folder, gone))


def workers_in(folder: Path) -> Iterator[Worker]:
    """Every living process but this one that works in ``folder`` or below, or may; `OSError` without `/proc`."""
    place = folder.resolve()
    same = place.stat()
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        name = ""
        try:
            name = (entry / "comm").read_text(errors="replace").strip()
            # By identity as well: another mount namespace shows another path.
            there = os.path.samestat((entry / "cwd").stat(), same)
            if there or Path((entry / "cwd").readlink()).is_relative_to(place) or _names_it(entry, place):
                yield Worker(int(entry.name), name, known=True)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        except PermissionError:
            # Somebody else's. Only git makes these locks, and what a process is called anybody may read.
            if not name or name.startswith("git"):
                yield Worker(int(entry.name), name, known=False)


def _names_it(entry: Path, place: Path) -> bool:
    """Whether a git process that works elsewhere was told of ``place``: by ``--git-dir``, GIT_DIR or as an operand."""
    if not (entry / "comm").read_text(errors="replace").startswith("git"):
        return False
    said = (entry / "cmdline").read_bytes().split(b"\0")
    said += [value for value in (entry / "environ").read_bytes().split(b"\0") if value.startswith(b"GIT_DIR=")]
    paths = [os.fsdecode(word.rpartition(b"=")[2]) for word in said if b"/" in word]
    beside = (entry / "cwd").readlink()
    return any(Path(os.path.normpath(beside / path)).is_relative_to(place) for path in paths)


def clear(folder: Path) -> tuple[str, ...]:
    """Remove what a git left in the repository that broke off a moment ago; what was found, in words.

    The caller holds the night's lock. Hooks of the one that was killed may live a little longer than it.
    """
    wait_for_workers((folder,), HOOKS_LIMIT_S, name="")
    return sweep(folder).notes


def wait_for_workers(folders: Sequence[Path], limit_s: float, *, name: str = "git") -> tuple[Worker, ...]:
    """Wait until no git process works in ``folders``: a run that was killed may have left some; those that still do.

    A push goes on when its starter is killed, and what it moves must be there before the remote is read. ``name``: how
    the processes that are waited for begin.
    """
    ends_s = time.monotonic() + limit_s
    while True:
        with suppress(OSError):
            workers = tuple(
                worker
                for folder in folders
                if folder.is_dir()
                for worker in workers_in(folder)
                if worker.known and worker.name.startswith(name)
            )
            left_s = ends_s - time.monotonic()
            if workers and left_s > 0:
                _wait_for_end(workers[0].pid, left_s)
                continue
            return workers
        return ()


def _wait_for_end(pid: int, limit_s: float) -> None:
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(limit_s * 1000)
        finally:
            os.close(descriptor)


def _leftovers(folder: Path, after_a_kill: bool) -> Iterator[Path]:
    for below in ("", "info", "objects/info", "objects/pack"):
        yield from (folder / below).glob("*.lock")
    yield from (folder / "refs").rglob("*.lock")  # no ref may be called so (git-check-ref-format)
    yield from (path for path in (folder / "objects" / "pack").glob("*.keep") if _is_gits(path))
    for pattern in (*_PIECES, *(_PIECES_OF_A_DEAD_RUN if after_a_kill else ())):
        yield from folder.glob(pattern)


def _is_gits(keep: Path) -> bool:
    with suppress(OSError), keep.open("rb") as stream:
        return stream.read(32).startswith(_KEPT_FOR)
    return False


def _identity(path: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        found = path.lstat()
        return found.st_dev, found.st_ino, found.st_ctime_ns
    return None


def _names(folder: Path, paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(sorted(str(path.relative_to(folder)) for path in paths))
