"""The program that becomes a candidate's: it gives away what it may, and then executes it.

It is started by file, with nothing but the standard library (`python -I -S enclose.py PLAN`), and is the only code
that runs with our rights in the child. With `Means.NAMESPACES` it makes three processes of itself: the outermost
waits, and dies with whoever started it; the first process of a new PID namespace makes the file system, and with
its end the kernel ends all that is left in there; the innermost becomes the candidate's.

See namespaces(7), user_namespaces(7), mount_namespaces(7), pid_namespaces(7), prctl(2), mount_setattr(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import NoReturn


class Means(StrEnum):
    """How code that nobody trusts is kept from what it must not see."""

    NAMESPACES = "namespaces"
    """We are root: it gets a file system, a network, processes and user ids of its own."""
    IDENTITY = "identity"
    """We are root, and the machine allows no namespaces: it runs as a user that nothing belongs to."""
    ENVIRONMENT = "environment"
    """We are not root: it runs as ourselves, and only its environment is another one."""


class Kind(StrEnum):
    """What lies at a place of the new file system."""

    EMPTY = "empty"
    """An empty folder that nobody can write to: it covers what the machine has there."""
    SHOWN = "shown"
    """What the machine has there, read-only."""
    OWN = "own"
    """The child's: it writes there."""


@dataclass(frozen=True)
class Mount:
    target: str
    kind: Kind
    source: str
    """The machine's folder or file; empty for `Kind.EMPTY`."""


@dataclass(frozen=True)
class Link:
    path: str
    leads_to: str


@dataclass(frozen=True)
class Plan:
    """All that the program does, decided before it starts."""

    means: Means
    parent: int
    """The process that started it, and with which it dies."""
    first_id: int
    """The user and group id, outside, of what is root inside; in `Means.IDENTITY` the one id that there is."""
    ids: int
    """How many ids there are inside."""
    mounts: tuple[Mount, ...]
    """An outer one before those in it."""
    links: tuple[Link, ...]
    staging: str
    """An empty folder of the machine, where the new file system is put together."""
    fault: str
    """The file for what went wrong before the candidate's program began; empty where nothing did."""
    cwd: str
    argv: tuple[str, ...]
    """The program, by its path; none: only try whether the machine allows all this."""

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        said = json.loads(text)
        mounts = tuple(Mount(row["target"], Kind(row["kind"]), row["source"]) for row in said.pop("mounts"))
        links = tuple(Link(**row) for row in said.pop("links"))
        means, argv = Means(said.pop("means")), tuple(said.pop("argv"))
        return cls(means=means, mounts=mounts, links=links, argv=argv, **said)


_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = (
    0x00020000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SYS_MOUNT_SETATTR = 442  # the same on every architecture, as all since Linux 5.1
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1

_DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}

_NOT_BEGUN = 125

_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    plan = Plan.from_json(sys.argv[1])
    fault = os.open(plan.fault, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _die_with(plan.parent)
        if plan.means is Means.NAMESPACES:
            _in_namespaces(plan, fault)
        if plan.means is Means.IDENTITY:
            _become(plan.first_id)
            _die_with(plan.parent)  # another identity takes it back
        _execute(plan)
    except OSError as error:
        _say_fault(fault, str(error))


def _say_fault(fault: int, reason: str) -> NoReturn:
    os.write(fault, reason.encode())
    os._exit(_NOT_BEGUN)


def _called(what: str, result: int) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def _die_with(parent: int) -> None:
    """Be killed when whoever started this process dies; it may have died before this was asked for."""
    _called("prctl", _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(_NOT_BEGUN)


def _become(identity: int) -> None:
    _forget_keys()
    os.setgroups([])
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)
    os.environ["LOGNAME"] = "guards"  # some library asks for a name, and this id has none


def _execute(plan: Plan) -> None:
    if plan.means is not Means.ENVIRONMENT:
        _called("prctl", _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        os.umask(0o022)
    if not plan.argv:
        os._exit(0)
    os.chdir(plan.cwd)
    os.execv(plan.argv[0], plan.argv)  # noqa: S606 - this process becomes it


def _in_namespaces(plan: Plan, fault: int) -> NoReturn:
    """Wait for the first process of the new namespaces, and end as the candidate's ended."""
    alive, ours = os.pipe()
    said, tells = os.pipe()
    _called("unshare", _LIBC.unshare(_CLONE_NEWPID | _CLONE_NEWIPC | _CLONE_NEWNET))
    child = os.fork()
    if child == 0:
        os.close(ours)
        os.close(said)
        _first_process(plan, alive, tells)
    os.close(alive)
    os.close(tells)
    with os.fdopen(said) as stream:
        lines = stream.read().splitlines()
    os.waitpid(child, 0)
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "fault":
            _say_fault(fault, rest)
    code = os.waitstatus_to_exitcode(int(lines[0].partition(" ")[2])) if lines else _NOT_BEGUN
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL has no other way
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _first_process(plan: Plan, alive: int, tells: int) -> NoReturn:
    """Make the file system, start the candidate's process and take in the orphans until it has ended."""
    try:
        _called("prctl", _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
        if select.select([alive], [], [], 0)[0]:  # its other end is closed: the outermost process died before
            os._exit(_NOT_BEGUN)
        os.umask(0o022)
        _forget_keys()
        _bring_up_loopback()
        _called("unshare", _LIBC.unshare(_CLONE_NEWNS))
        _make_file_system(plan)
        asks, asked = os.pipe()
        answered, answers = os.pipe()
        child = os.fork()
        if child == 0:
            _innermost(plan, tells, asked, answered)
        os.close(asked)
        if os.read(asks, 1):
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{child}/{name}").write_text(f"0 {plan.first_id} {plan.ids}")
            os.write(answers, b".")
        while True:
            ended, status = os.wait()
            if ended == child:
                os.write(tells, f"wait {status}\n".encode())
                os._exit(0)
    except OSError as error:
        _tell_fault(tells, error)


def _innermost(plan: Plan, tells: int, asked: int, answered: int) -> NoReturn:
    try:
        _called("unshare", _LIBC.unshare(_CLONE_NEWUSER))
        os.write(asked, b".")
        if not os.read(answered, 1):
            os._exit(_NOT_BEGUN)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        _execute(plan)
    except OSError as error:
        _tell_fault(tells, error)
    os._exit(_NOT_BEGUN)


def _tell_fault(tells: int, error: OSError) -> NoReturn:
    os.write(tells, f"fault {' '.join(str(error).split())}\n".encode())
    os._exit(_NOT_BEGUN)


def _forget_keys() -> None:
    """Leave the keys of whoever started us, see keyrings(7)."""
    number = _SYS_KEYCTL.get(platform.machine())
    if number is not None:
        _LIBC.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)  # a kernel without keys has none to leave


def _bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        asked = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(handle, _SIOCGIFFLAGS, asked))[1]
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _make_file_system(plan: Plan) -> None:
    """Put together what the child sees, and make it the root."""
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    root = Path(plan.staging)
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    empty = [root]
    for name in ("proc", "dev"):
        (root / name).mkdir()
    _mount("proc", root / "proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _make_devices(root / "dev")
    for link in plan.links:
        place = _inside(root, link.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(link.leads_to)
    for mount in plan.mounts:
        place = _place(root, mount)
        if mount.kind is Kind.EMPTY:
            _mount("tmpfs", place, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=755")
            empty.append(place)
            continue
        _mount(mount.source, place, "", _MS_BIND | _MS_REC)
        _restrict(place, _ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if mount.kind is Kind.SHOWN else 0))
    for place in empty:
        _restrict(place, _ATTR_RDONLY, below=False)
    os.chdir(root)
    # The old root lies on the new one after this, see pivot_root(2).
    _called("pivot_root", _LIBC.pivot_root(b".", b"."))
    _called("umount", _LIBC.umount2(b".", _MNT_DETACH))
    os.chdir("/")


def _make_devices(folder: Path) -> None:
    for name in _DEVICES:
        (folder / name).touch()
        _mount(f"/dev/{name}", folder / name, "", _MS_BIND)
        _restrict(folder / name, _ATTR_NOSUID | _ATTR_NOEXEC)
    for name, leads_to in _DEVICE_LINKS.items():
        (folder / name).symlink_to(leads_to)
    (folder / "shm").mkdir()
    _mount("tmpfs", folder / "shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")


def _inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _place(root: Path, mount: Mount) -> Path:
    """Where it goes, made if it is not there; raises where a link on the way leads elsewhere."""
    place = _inside(root, mount.target)
    if not os.path.lexists(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        if mount.source and not Path(mount.source).is_dir():
            place.touch()
        else:
            place.mkdir()
    if place.resolve() != _inside(root.resolve(), mount.target):
        raise OSError(0, f"{mount.target} leads elsewhere: name the folder without links")
    return place


def _mount(source: str, target: str | Path, kind: str, flags: int, data: str = "") -> None:
    result = _LIBC.mount(
        os.fsencode(source), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    _called(f"mount {target}", result)


def _restrict(target: str | Path, attributes: int, *, below: bool = True) -> None:
    wanted = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if below else 0
    result = _LIBC.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), flags, wanted, len(wanted))
    _called(f"mount_setattr {target}", result)


if __name__ == "__main__":
    main()
