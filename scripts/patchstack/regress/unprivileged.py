"""What code of candidates may see and touch on this machine, and as whom it runs.

Where we are root it runs in a file system of its own (`enclose`), made of what is named here and nothing else: the
system's programs and libraries, the bed with its Python, the tree under test and the guards, all read-only; a HOME,
a ``/tmp`` and this tree's bytecode to write to. Root in there is one of `IDS` ids from `FIRST_ID` on, which own
nothing on the machine.
"""

from __future__ import annotations

import functools
import json
import os
import pwd
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from patchstack import process
from patchstack.errors import MachineError
from patchstack.regress import enclose
from patchstack.regress.enclose import Kind, Link, Means, Mount, Plan
from patchstack.store import cache_folder

FIRST_ID, IDS = 0x70000000, 65_536
"""Behind what systemd gives to containers (https://systemd.io/UIDS-GIDS): nobody has these ids."""

LONE_ID = 60_999
"""Without namespaces; below 65,536, so that a container has it, and in no range that somebody gives away."""

# Programs and libraries of the machine. A link among them (/bin) stays one.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/sys", "/nix/store", "/gnu/store")

_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - in there they are the child's own

# Folders that these name hold what is the user's alone.
_HOMES = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "GNUPGHOME", "DOCKER_CONFIG")
_SOCKETS = ("SSH_AUTH_SOCK",)

_PROBE_LIMIT_S = 60.0
_PREFIXES = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.base_exec_prefix]))"


@dataclass(frozen=True)
class Needs:
    """What a child of the bed needs, beside the system."""

    shown: tuple[Path, ...]
    """Read-only."""
    bytecode: Path
    home: Path
    tmp: Path
    record: Path

    @property
    def own(self) -> tuple[Path, ...]:
        return self.bytecode, self.home, self.record


@dataclass(frozen=True)
class Cell:
    """One child's own folders, and how it is started."""

    needs: Needs
    plan: Plan

    @property
    def home(self) -> Path:
        return self.needs.home

    @property
    def record(self) -> Path:
        return self.needs.record

    def argv(self, program: Sequence[str]) -> list[str]:
        """What starts ``program``; its first word is a path."""
        plan = replace(self.plan, argv=tuple(program), parent=os.getpid())
        return [sys.executable, "-I", "-S", enclose.__file__, plan.as_json()]

    def require_begun(self) -> None:
        """Raise `MachineError` if the program could not be started."""
        fault = _said(Path(self.plan.fault))
        if fault:
            raise MachineError(f"code of candidates cannot be started on this machine: {fault}")


def decide(euid: int, fault: str) -> Means:
    """By what means; ``fault`` is why this machine gives root no namespaces, empty where it does."""
    if euid != 0:
        return Means.ENVIRONMENT
    return Means.IDENTITY if fault else Means.NAMESPACES


def means() -> Means:
    """By what means on this machine."""
    euid = os.geteuid()
    return decide(euid, "" if euid else namespace_fault())


@functools.cache
def namespace_fault() -> str:
    """Why root gets no namespaces here; empty if it does."""
    with tempfile.TemporaryDirectory(prefix="patchstack-probe-") as folder:
        place = Path(folder)
        (place / "root").mkdir()
        plan = Plan(Means.NAMESPACES, 0, FIRST_ID, IDS, (), (), str(place / "root"), str(place / "fault"), "/", ())
        needs = Needs((), place, place, place, place)
        done = process.run(Cell(needs, plan).argv(()), timeout_s=_PROBE_LIMIT_S, check=False)
        if done.returncode == 0:
            return ""
        return _said(place / "fault") or f"it ended with {done.returncode}: {done.stderr.strip()}"


def _said(fault: Path) -> str:
    return fault.read_text(errors="replace") if fault.is_file() else ""


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="patchstack-guard-"))
    try:
        yield folder
    finally:
        # Candidates write there: folders in folders, deeper than Python's own way of removing them gets.
        process.run(["rm", "-rf", "--", str(folder)], check=False)


@contextmanager
def cell(root: Path, tree: Path, python: Path, bytecode: Path) -> Iterator[Cell]:
    """What a child with ``tree`` and the guards of ``root`` gets; its folders are gone at the end of the block.

    Raises `MachineError` for what it needs and could not read.
    """
    how = means()
    with _scratch() as scratch:
        needs = Needs(
            (*_python_folders(python), root / "tests", tree),
            bytecode,
            scratch / "home",
            scratch / "tmp",
            scratch / "record.jsonl",
        )
        for folder in (needs.bytecode, needs.home, needs.tmp, scratch / "root"):
            folder.mkdir(parents=True, exist_ok=True)
        needs.record.touch()
        plan = Plan(how, 0, FIRST_ID, IDS, (), (), str(scratch / "root"), str(scratch / "fault"), str(root), ())
        if how is Means.ENVIRONMENT:
            yield Cell(needs, plan)
            return
        owner = FIRST_ID if how is Means.NAMESPACES else LONE_ID
        for path in (needs.home, needs.tmp, needs.record):
            os.chown(path, owner, owner)
        needs.tmp.chmod(0o1777)
        hand_over(bytecode, owner)
        scratch.chmod(0o711)
        if how is Means.NAMESPACES:
            _require(unreadable(needs.shown), "")
            plan = replace(plan, mounts=decide_mounts(needs, _hidden(root)), links=_links(python, needs))
        else:
            _require(unreadable((*needs.shown, *needs.own), ancestors=True), namespace_fault())
            plan = replace(plan, first_id=owner, ids=1)
        yield Cell(needs, plan)


def unreadable(paths: Iterable[Path], *, ancestors: bool = False) -> Path | None:
    """The first folder that somebody else cannot read, or with ``ancestors`` not get to; `LONE_ID` owns what is own."""
    for path in paths:
        for above in reversed(path.absolute().parents) if ancestors else ():
            if not above.stat().st_mode & stat.S_IXOTH:
                return above
        status = path.stat()
        wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else 0)
        if status.st_mode & wanted != wanted and status.st_uid not in (FIRST_ID, LONE_ID):
            return path
    return None


def _require(path: Path | None, fault: str) -> None:
    if path is None:
        return
    if not fault:
        raise MachineError(
            f"code of candidates runs as a user without rights, and {path} is readable to its owner alone: "
            f"`chmod -R go+rX {path}`"
        )
    raise MachineError(
        f"code of candidates runs as a user without rights, who cannot get to {path} (this machine gives root no "
        f"namespaces: {fault}): run as a user who is not root, or move what is there: PATCHSTACK_CACHE is the cache, "
        "TMPDIR the folder for temporary files"
    )


def decide_mounts(needs: Needs, hidden: Iterable[Path], system: Iterable[str] = _SYSTEM) -> tuple[Mount, ...]:
    """The child's file system, an outer mount before those in it.

    ``hidden`` is empty in there where it lies in a folder that is shown; what the child needs is there all the
    same. Raises `MachineError` where one folder is both.
    """
    parts = [path for path in map(Path, system) if path.is_dir() and not path.is_symlink()]
    shown = [*parts, *(path for path in needs.shown if not any(path.is_relative_to(part) for part in parts))]
    shown = list(dict.fromkeys(shown))
    mounts = [Mount(str(path), Kind.SHOWN, str(path)) for path in shown]
    for path in dict.fromkeys(hidden):
        if path in shown:
            raise MachineError(
                f"{path} must be kept from candidates' code, and it needs to read it: move the repository or "
                "PATCHSTACK_CACHE, or set another HOME"
            )
        if any(path.is_relative_to(folder) for folder in shown):
            mounts.append(Mount(str(path), Kind.EMPTY, ""))
            within = [kept for kept in needs.shown if kept.is_relative_to(path) and kept not in shown]
            mounts += [Mount(str(kept), Kind.SHOWN, str(kept)) for kept in within]
    mounts += [Mount(name, Kind.OWN, str(needs.tmp)) for name in _TEMPORARY]
    mounts += [Mount(str(path), Kind.OWN, str(path)) for path in needs.own]
    # In one place the child's own comes last, and so on top.
    order = (Kind.EMPTY, Kind.SHOWN, Kind.OWN)
    return tuple(sorted(dict.fromkeys(mounts), key=lambda mount: (mount.target.count("/"), order.index(mount.kind))))


def _hidden(root: Path) -> list[Path]:
    """Folders of the user that exist here."""
    named = [Path(os.environ[name]) for name in _HOMES if name in os.environ]
    named += [Path(os.environ[name]).parent for name in _SOCKETS if name in os.environ]
    named += [Path(pwd.getpwuid(os.getuid()).pw_dir), root, cache_folder()]
    paths = dict.fromkeys(path.resolve() for path in named if path.is_absolute())
    return [path for path in paths if path.is_dir() and path != Path("/")]


def _links(python: Path, needs: Needs) -> tuple[Link, ...]:
    """The system's links, and those that lead to the bed's Python through folders that are not shown."""
    found = [Path(name) for name in _SYSTEM]
    while python.is_symlink() and python not in found:
        if not any(python.is_relative_to(folder) for folder in (*needs.shown, *map(Path, _SYSTEM))):
            found.append(python)
        python = python.parent / python.readlink()
    return tuple(Link(str(path), str(path.readlink())) for path in found if path.is_symlink())


@functools.cache
def _python_folders(python: Path) -> tuple[Path, ...]:
    """Where the interpreter, what it was made from, and their libraries lie."""
    said = process.run([str(python), "-I", "-c", _PREFIXES], cwd=Path("/"), timeout_s=_PROBE_LIMIT_S)
    named = [*json.loads(said.stdout), *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
    folders = dict.fromkeys(map(Path, filter(None, named)))
    return tuple(folder for folder in folders if folder.is_absolute() and folder.is_dir())


def hand_over(folder: Path, owner: int) -> None:
    """Make ``owner`` the owner of ``folder`` and the folders in it: it may replace the files, not rewrite them.

    Whoever writes there may be at it meanwhile; no link leads this elsewhere.
    """
    if folder.stat().st_uid == owner:
        return
    for _, folders, _, descriptor in os.fwalk(folder):
        for name in folders:
            os.chown(name, owner, owner, dir_fd=descriptor, follow_symlinks=False)
    os.chown(folder, owner, owner, follow_symlinks=False)
