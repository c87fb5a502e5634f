"""Podman, or docker, behind one small interface: pull an image by digest, read what lies in it, run code in it.

Podman is preferred, for it needs no daemon and keeps what it pulls in a folder of ours: nothing of the user's own
containers is seen or touched, and settings of our own decide what a container may do. A container has no network
but its own loopback, no capability, no way to gain one, a read-only root and limits on memory, processes and time;
it runs as nobody. What a killed run left behind ends by its own time limit, and is swept when an engine is opened.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from patchstack import process
from patchstack.credential import inherited
from patchstack.errors import MachineError, PatchstackError
from patchstack.image.login import Login, authfile
from patchstack.image.names import Place
from patchstack.image.room import NARROW, Room
from patchstack.image.storage import containers_folder, require_own_disk
from patchstack.store import write_whole

RUNNERS = "runners"
"""In the folder: containers of those who run images that several use at once, each below a name of its own."""

NEEDED = "podman with runc (apt-get install podman runc), or a docker engine that answers"
"""What to install where there is no engine."""

_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
_LABEL = "patchstack.check"
_DIGESTS = "{{json .RepoDigests}} {{.Id}}"
_KEPT = "localhost/patchstack-kept"
_NOBODY = "65534:65534"
_ADMIN_S, _PULL_S, _EXPORT_S = 120.0, 3600.0, 1800.0
_GRACE_S = 60.0
"""What an engine may take beside the time of what it runs: to make a container, and to remove it."""


@dataclass(frozen=True)
class Limits:
    """What a container may use."""

    timeout_s: float
    memory_mib: int = 8192
    processes: int = 2048
    scratch_mib: int = 2048
    """Of /tmp, which is in memory."""
    output_bytes: int = 1 << 20
    """It is ended when it prints more than this."""

    @property
    def of_memory_and_processes(self) -> tuple[str, ...]:
        memory = f"{self.memory_mib}m"
        return (f"--memory={memory}", f"--memory-swap={memory}", f"--pids-limit={self.processes}")


@dataclass(frozen=True)
class Ran:
    """What a program in a container did."""

    returncode: int
    """As the engine says: 137 for one that was ended for its use of memory."""
    stdout: str
    stderr: str
    late: bool = False
    """It was ended because its time was up."""
    too_much: bool = False
    """It was ended because it printed more than a probe ever does."""


Stream = AbstractContextManager[tuple[IO[bytes], Callable[[], None]]]
"""What an engine prints, and what waits for its end (`process.reading`)."""


class DigestDiffers(PatchstackError):
    """The engine pulled something else than what was asked for."""


@dataclass(frozen=True)
class Engine:
    """A program that is at hand; `opened` makes it ready."""

    name: str
    """``podman`` or ``docker``."""
    program: Path
    runtime: str = ""
    """The OCI runtime that podman is told to use."""

    def opened(
        self, cache: Path, progress: Callable[[str], None] = lambda _: None
    ) -> AbstractContextManager[OpenEngine]:
        """Ready for use in ``cache``, by one process at a time; what a killed one left behind is gone.

        `MachineError` where no engine can keep images in that folder.
        """
        folder = containers_folder(cache)
        folder.mkdir(parents=True, exist_ok=True)
        made = _podman if self.name == "podman" else _docker
        return made(self, folder, progress)


def engine_at_hand() -> Engine | None:
    """Podman with a runtime, else a docker whose daemon answers, else None."""
    podman = shutil.which("podman")
    # runc first: crun refuses to work in some of the sandboxes that nights run in.
    runtime = next((name for name in ("runc", "crun") if _which_as_root(name)), None)
    if podman and runtime:
        return Engine("podman", Path(podman), runtime)
    docker = shutil.which("docker")
    if docker:
        argv = [docker, "version", "--format", "{{.Server.Version}}"]
        try:
            answer = process.run(argv, env=_plain_environment(), timeout_s=30.0, check=False)
        except process.ProcessTimeout:
            return None
        if answer.returncode == 0 and answer.stdout.strip():
            return Engine("docker", Path(docker))
    return None


def _which_as_root(name: str) -> str | None:
    # A user's PATH often lacks the folders in which Debian has these.
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_FOLDERS)


@dataclass(frozen=True)
class OpenEngine:
    """An engine that is ready, until the end of `Engine.opened`."""

    engine: Engine
    argv: tuple[str, ...]
    """The program with the options that say where it keeps its images."""
    environment: Mapping[str, str]
    folder: Path
    """Where it is started, and leaves its files."""
    owner: str
    """What tells this workplace's containers from those of others."""

    def pull(self, place: Place, digest: str, login: Login | None) -> str:
        """Pull ``place@digest``, whatever of it is not here yet, and return the image's id.

        Raises `ProcessFailed` or `ProcessTimeout` when it cannot be pulled, `DigestDiffers` when the engine does
        not say that what it has is of that digest.
        """
        name = f"{place.name}@{digest}"
        with authfile(login, place.host) as file:
            environment = dict(self.environment)
            options = ["--quiet"]
            if self.engine.name == "podman":
                options += ["--authfile", str(file), *(["--tls-verify=false"] if place.insecure else [])]
            else:
                # Docker takes a folder, and speaks to a loopback registry without encryption of its own accord.
                file.rename(file.with_name("config.json"))
                environment["DOCKER_CONFIG"] = str(file.parent)
            self._run("pull", *options, name, env=environment, timeout_s=_PULL_S)
        return self._id_of(name, digest)

    def _id_of(self, name: str, digest: str) -> str:
        answer = self._run("image", "inspect", "--format", _DIGESTS, name)
        names, _, image = answer.rpartition(" ")
        held = {str(entry).rpartition("@")[2] for entry in json.loads(names) or ()}
        if digest not in held:
            raise DigestDiffers(
                f"{self.engine.name} was asked for {digest} and has {', '.join(sorted(held)) or 'no digest of it'}"
            )
        return image.strip().removeprefix("sha256:")

    @contextmanager
    def unstarted(self, image: str) -> Iterator[str]:
        """A container of ``image`` that never runs: its files can be read without any code of the image."""
        name = self._container_name()
        # It needs a program for its name only; an image may have none.
        self._run("create", "--pull=never", "--name", name, *self._labels(), "--network=none", image, "/none")
        try:
            yield name
        finally:
            self._remove_container(name)

    def copied(self, container: str, path: str) -> Stream:
        """A file or folder of a container as a tar stream, with what waits for its end (`process.reading`)."""
        return self._reading(["cp", f"{container}:{path}", "-"], _ADMIN_S)

    def exported(self, container: str) -> Stream:
        """All files of a container as a tar stream, as a program in it would see them."""
        return self._reading(["export", container], _EXPORT_S)

    def run(
        self,
        image: str,
        argv: Sequence[str],
        *,
        stdin: str = "",
        limits: Limits,
        room: Room = NARROW,
        under: process.Stop | None = None,
    ) -> Ran:
        """Run ``argv`` in a container of ``image``, as nobody, to its end or for ``limits.timeout_s`` seconds.

        Raises `ProcessFailed` when the engine itself could not: nothing ran then; `Stopped` when ``under`` was pulled.
        """
        name = self._container_name()
        program, *arguments = argv
        options = [
            "--pull=never",
            "--rm",
            "--interactive",
            *("--name", name),
            *self._labels(),
            *room.options(),
            "--read-only",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
            f"--user={_NOBODY}",
            *(limits.of_memory_and_processes if self.engine.name == "docker" or _may_limit() else ()),
            # Kernels are compiled into it and loaded from there.
            f"--tmpfs=/tmp:rw,exec,nosuid,nodev,size={limits.scratch_mib}m,mode=1777",
            "--workdir=/tmp",
            "--env=HOME=/tmp",
            "--log-driver=none",
            # A proxy is for pulling: its address may have a password, and podman would hand it on.
            *(("--http-proxy=false", f"--timeout={int(limits.timeout_s)}") if self.engine.name == "podman" else ()),
            f"--entrypoint={program}",
        ]
        command = [*self.argv, "run", *options, image, *arguments]
        try:
            # The engine's own limit ends it also when nobody is there to do so; ours is for an engine that hangs.
            done = process.run(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=stdin,
                timeout_s=limits.timeout_s + (_GRACE_S if self.engine.name == "podman" else 0.0),
                check=False,
                under=under,
                most_output_bytes=limits.output_bytes,
            )
        except process.ProcessTimeout as late:
            return Ran(137, late.stdout, late.stderr, late=True)
        except process.OutputTooLong:
            return Ran(137, "", "", too_much=True)
        finally:
            self._remove_container(name)
        if done.returncode == _ENGINE_FAILED:
            raise process.ProcessFailed(done)
        # Podman says so when its own limit ended a container (conmon's --timeout).
        late_inside = self.engine.name == "podman" and done.returncode == _PODMAN_LATE
        return Ran(done.returncode, done.stdout, done.stderr, late=late_inside)

    def keep(self, image: str, name: str) -> None:
        """Keep ``image`` for the next night, which then pulls only what is new, and forget the one before.

        ``name`` is what it is the newest of: a lane and its runtime.
        """
        tag = f"{_KEPT}:{name}"
        before = self._run("image", "inspect", "--format", "{{.Id}}", tag, check=False)
        self._run("tag", image, tag)
        old = before.strip().removeprefix("sha256:")
        # Podman's is swept when nobody runs it any more; docker removes none that runs.
        if self.engine.name == "docker" and old and old != image:
            self._run("rmi", "--force", old, check=False)

    def sweep(self) -> None:
        """Remove what a killed run left: containers of ours and, where all images are ours, those that none keeps."""
        self.remove_containers()
        if self.engine.name == "podman":
            everything = self._run("images", "--quiet", "--no-trunc")
            kept = self._run("images", "--quiet", "--no-trunc", "--filter", f"reference={_KEPT}")
            for image in sorted(set(everything.split()) - set(kept.split())):
                self._run("rmi", "--force", image, check=False)

    def remove_containers(self) -> None:
        """Ours, whether they run or not."""
        ids = self._run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={_LABEL}={self.owner}")
        for container in ids.split():
            self._remove_container(container)

    def held(self, digest: str) -> str | None:
        """The id of the image with this digest; None where it is not here."""
        for image in self._run("images", "--quiet", "--no-trunc").split():
            names, _, found = self._run("image", "inspect", "--format", _DIGESTS, image, check=False).rpartition(" ")
            if names and digest in {str(entry).rpartition("@")[2] for entry in json.loads(names) or ()}:
                return found.strip().removeprefix("sha256:")
        return None

    def _container_name(self) -> str:
        return f"patchstack-{secrets.token_hex(8)}"

    def _labels(self) -> tuple[str, ...]:
        return ("--label", f"{_LABEL}={self.owner}")

    def _remove_container(self, name: str) -> None:
        now = ("--time=0",) if self.engine.name == "podman" else ()
        self._run("rm", "--force", *now, name, check=False)

    def _run(
        self, *argv: str, env: Mapping[str, str] | None = None, timeout_s: float = _ADMIN_S, check: bool = True
    ) -> str:
        """What the engine prints."""
        # In a folder of ours, for conmon leaves files where it was started.
        return process.run(
            [*self.argv, *argv], cwd=self.folder, env=env or self.environment, timeout_s=timeout_s, check=check
        ).stdout

    def _reading(self, argv: Sequence[str], timeout_s: float) -> Stream:
        return process.reading([*self.argv, *argv], cwd=self.folder, env=self.environment, timeout_s=timeout_s)


_ENGINE_FAILED, _PODMAN_LATE = 125, 255


# --- podman's own place --------------------------------------------------------------------------------


@contextmanager
def _podman(engine: Engine, folder: Path, progress: Callable[[str], None]) -> Iterator[OpenEngine]:
    with alone(folder, progress):
        _unmount_left(folder)
        opened = podman_in(engine, folder)
        for left in sorted((folder / RUNNERS).glob("*")):
            remove_runner(engine, folder, left.name)
        opened.sweep()
        try:
            yield opened
        finally:
            opened.sweep()


@contextmanager
def _docker(engine: Engine, folder: Path, progress: Callable[[str], None]) -> Iterator[OpenEngine]:
    with alone(folder, progress):
        opened = docker_in(engine, folder)
        opened.sweep()
        try:
            yield opened
        finally:
            opened.sweep()


def _unmount_left(folder: Path) -> None:
    """Unmount what is mounted there, which is nobody's, for we are alone.

    Podman cannot remove a layer that a killed pull has left mounted, and then does nothing else either.
    """
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in sorted((place for place in places if place.startswith(f"{folder}/")), reverse=True):
        process.run(["umount", "--lazy", place], timeout_s=_ADMIN_S, check=False)


def docker_in(engine: Engine, folder: Path) -> OpenEngine:
    return OpenEngine(engine, (str(engine.program),), _plain_environment(), folder, owner=_key(folder))


def podman_in(engine: Engine, folder: Path, runner: str = "") -> OpenEngine:
    """Podman on the images in ``folder``, or with the name of a ``runner`` on its own containers of those images.

    `MachineError` where podman can keep nothing there.
    """
    require_own_disk(folder)
    shared, above, settings = folder / "storage", _run_folder(folder), folder / "settings"
    storage, work = (folder / RUNNERS / runner, above / runner) if runner else (shared, above)
    for place in (storage, folder / "tmp"):
        place.mkdir(parents=True, exist_ok=True)
    write_whole(settings / "containers.conf", _containers_conf(engine.runtime))
    write_whole(settings / "storage.conf", _storage_conf(shared, above))
    argv = (
        str(engine.program),
        *("--root", str(storage), "--runroot", str(work), "--tmpdir", str(work / "libpod")),
        *("--storage-driver", "overlay", "--storage-opt", "overlay.skip_mount_home=true"),
        *(("--storage-opt", f"overlay.imagestore={shared}") if runner else ()),
    )
    environment = {
        **_plain_environment(),
        # https://github.com/containers/common/blob/main/docs/containers.conf.5.md: this file, and no other.
        "CONTAINERS_CONF": str(settings / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(settings / "storage.conf"),
        "TMPDIR": str(folder / "tmp"),
    }
    return OpenEngine(engine, argv, environment, folder / "tmp", owner=above.name)


def remove_runner(engine: Engine, folder: Path, runner: str) -> None:
    """End what runs there, and remove it with all that it left; nobody else may be at work there."""
    podman_in(engine, folder, runner).remove_containers()
    for place in (folder / RUNNERS / runner, _run_folder(folder) / runner):
        process.run(["rm", "-rf", "--one-file-system", "--", str(place)], check=False)


@contextmanager
def alone(folder: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other process uses the folder: two that sweep would end each other's containers.

    Nor may two write at once: podman 4.3 has been seen to wait for itself for ever when another one pulled meanwhile.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another patchstack looks inside an image; waiting")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _plain_environment() -> dict[str, str]:
    """The user's environment without credentials, and without what points an engine at settings of the user."""
    said = inherited()
    return {name: text for name, text in said.items() if not name.startswith(("CONTAINERS_", "REGISTRY_AUTH"))}


def _key(folder: Path) -> str:
    return f"patchstack-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"


def _run_folder(folder: Path) -> Path:
    """Where podman keeps what lasts as long as its containers: not more than 50 characters, as podman wants it.

    Whoever else could write there could make us remove other things: it must be ours alone.
    """
    user = os.getuid()
    above = Path("/run") if user == 0 else Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    place = above / _key(folder)
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except OSError as error:
        raise MachineError(f"{place} cannot be made: {error.strerror}; podman needs such a folder") from error
    if not stat.S_ISDIR(found.st_mode) or _owner_of(found) != user or found.st_mode & 0o022:
        raise MachineError(f"{place} is not this user's own folder: remove it, and find out who made it")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    mark = place / "boot"
    if not mark.is_file() or mark.read_text() != boot:
        # What it says of mounts and processes was true before the machine was started.
        for left in [left for left in place.iterdir() if left != mark]:
            shutil.rmtree(left, ignore_errors=True)
        write_whole(mark, boot)
    return place


def _owner_of(found: os.stat_result) -> int:
    return found.st_uid


def _containers_conf(runtime: str) -> str:
    """Only what is needed: https://github.com/containers/common/blob/main/docs/containers.conf.5.md ."""
    # Podman asks for more than this process may have where it may not raise its own limits.
    files = _hard_limit(resource.RLIMIT_NOFILE, 65_536)
    processes = _hard_limit(resource.RLIMIT_NPROC, 32_768)
    manager = "systemd" if _has_systemd() else "cgroupfs"
    return (
        "[containers]\n"
        f'default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]\n'
        "[engine]\n"
        f'cgroup_manager = "{manager}"\n'
        'events_logger = "file"\n'
        # The other kind is shared by all podmans of the machine.
        'lock_type = "file"\n'
        f'runtime = "{runtime}"\n'
    )


def _has_systemd() -> bool:
    """Whether there is a systemd that makes groups of processes for us: the machine's, or the user's own."""
    if os.getuid() == 0:
        return Path("/run/systemd/system").is_dir()
    return Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"), "systemd", "private").exists()


def _may_limit() -> bool:
    """Whether memory and processes can be limited: by root, or where systemd has left both to the user.

    https://github.com/containers/podman/blob/main/troubleshooting.md (26): else podman starts no container at all.
    """
    user = os.getuid()
    if user == 0:
        return True
    held = Path(f"/sys/fs/cgroup/user.slice/user-{user}.slice/user@{user}.service/cgroup.controllers")
    return _has_systemd() and held.is_file() and {"memory", "pids"} <= set(held.read_text().split())


def _hard_limit(kind: int, most: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


def _storage_conf(storage: Path, work: Path) -> str:
    return (
        "[storage]\n"
        'driver = "overlay"\n'
        f"graphroot = {json.dumps(str(storage))}\n"
        f"runroot = {json.dumps(str(work))}\n"
        "[storage.options.overlay]\n"
        # A mount of the folder on itself would stay behind.
        'skip_mount_home = "true"\n'
    )
