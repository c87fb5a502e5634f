"""A real Slurm cluster on loopback: munge, a controller and two nodes of this one machine, with two GPUs each.

The GPUs are the system's null device by other names: Slurm counts them, hands them out and says so in
CUDA_VISIBLE_DEVICES, and nothing computes on them. All of it is in a folder of its own and on ports of its own, runs
as whoever runs the test, and ends with the block: the programs are ours, and what they detach is found by its mark.

https://slurm.schedmd.com/slurm.conf.html
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from patchstack import process
from patchstack.process import Beside

NODES = ("n1", "n2")
GPUS_OF_A_NODE = 2
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
_UP_WITHIN_S = 30.0
_BEFORE_IT_IS_OVER_S = 60.0
_LOOK_EVERY_S = 0.05
_MARK = "PATCHSTACK_TEST_NODE"
"""In the environment of a node's slurmd and of what that detaches; a job has another environment."""


def until(holds: Callable[[], bool], what: str, limit_s: float = _BEFORE_IT_IS_OVER_S) -> None:
    """Wait for something that another process does; an `AssertionError` that says what did not come."""
    pause = Event()
    for _ in range(int(limit_s / _LOOK_EVERY_S)):
        if holds():
            return
        pause.wait(_LOOK_EVERY_S)
    raise AssertionError(f"{what}: not within {limit_s:.0f} s")


@dataclass
class Node:
    """One of the cluster's machines."""

    name: str
    folder: Path
    conf: Path
    mark: str
    _running: ExitStack = field(default_factory=ExitStack)
    _daemon: Beside | None = None

    def start(self) -> None:
        argv = [_path("slurmd"), "-D", "-N", self.name, "-f", str(self.conf)]
        env = {**_environment(self.conf), _MARK: self.mark}
        log = self.folder / f"{self.name}.out"
        self._daemon = self._running.enter_context(process.beside(argv, env=env, log=log))

    def dies(self) -> None:
        """At once, as a machine does that loses its power: slurmd and all that it began are killed."""
        assert self._daemon is not None
        os.kill(self._daemon.pid, signal.SIGKILL)
        self._running.close()
        self._daemon = None
        _kill_trees(_marked(self.mark))

    def stop(self) -> None:
        self._running.close()
        _kill_trees(_marked(self.mark))


@dataclass
class Cluster:
    folder: Path
    conf: Path
    nodes: dict[str, Node]
    _controller: ExitStack = field(default_factory=ExitStack)

    def ask(self, *argv: str) -> str:
        done = subprocess.run(argv, env=_environment(self.conf), capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    @property
    def queue(self) -> list[str]:
        """What is queued or runs, or is being ended; each by its name."""
        return self.ask("squeue", "--noheader", "--array", "--format=%j").splitlines()

    def states(self) -> dict[str, str]:
        listed = self.ask("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return dict(line.split() for line in listed)

    def start_controller(self) -> None:
        argv = [_path("slurmctld"), "-D", "-f", str(self.conf)]
        log = self.folder / "slurmctld.out"
        self._controller.enter_context(process.beside(argv, env=_environment(self.conf), log=log))

    def stop_controller(self) -> None:
        """It writes down what is in its queue, and ends."""
        self._controller.close()

    def is_idle(self) -> bool:
        with suppress(subprocess.CalledProcessError):
            return self.states() == dict.fromkeys(self.nodes, "idle")
        return False


@contextmanager
def cluster(node_silence_s: int = 120) -> Iterator[Cluster]:
    """A cluster whose nodes are idle; ``SLURM_CONF`` of it is for the caller to set.

    A node that is silent for ``node_silence_s`` is down at the next look: the fewer, the sooner a dead one is known,
    and the sooner a living one on a busy machine is taken for dead.
    """
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_search_path()) is None]
    if missing:
        raise AssertionError(f"{', '.join(missing)} not found: `make slurm` installs what these tests need")
    # In a short folder of its own: a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-") as place, ExitStack() as stack:
        folder = Path(place)
        folder.chmod(0o711)  # munged asks that everybody can come to its socket
        conf = _write(folder, node_silence_s)
        _start_munge(folder, stack)
        mark = secrets.token_hex(8)
        nodes = {name: Node(name, folder, conf, f"{mark}-{name}") for name in NODES}
        made = Cluster(folder, conf, nodes)
        stack.callback(made.stop_controller)
        for node in nodes.values():
            stack.callback(node.stop)
        made.start_controller()
        for node in nodes.values():
            node.start()
        _until_up(made.is_idle, folder)
        yield made


def _start_munge(folder: Path, stack: ExitStack) -> None:
    munge = folder / "munge"
    munge.mkdir(mode=0o711)
    key = munge / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(64))
    argv = [_path("munged"), "--foreground", f"--socket={munge}/socket", f"--key-file={key}"]
    argv += [f"--{name}-file={munge}/{name}" for name in ("pid", "log", "seed")]
    stack.enter_context(process.beside(argv, env=_environment(None), log=folder / "munged.out"))
    _until_up((munge / "socket").exists, folder)


def _until_up(holds: Callable[[], bool], folder: Path) -> None:
    try:
        until(holds, "Slurm is up", _UP_WITHIN_S)
    except AssertionError as error:
        logs = sorted([*folder.glob("*.out"), *folder.glob("*.log")])
        said = [f"{log.name}: {log.read_text()[-2000:]}" for log in logs]
        raise AssertionError("\n".join([str(error), *said])) from error


def _write(folder: Path, node_silence_s: int) -> Path:
    host = socket.gethostname().split(".")[0]
    ports = _free_ports(1 + len(NODES))
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    gres = []
    for node in NODES:
        for number in range(GPUS_OF_A_NODE):
            device = folder / f"{node}-gpu{number}"
            device.symlink_to(os.devnull)
            # The flag stands for the driver that is not there: without it CUDA_VISIBLE_DEVICES is not set.
            gres.append(f"NodeName={node} Name=gpu File={device} Flags=nvidia_gpu_env")
    (folder / "gres.conf").write_text("\n".join(gres) + "\n")
    (folder / "cgroup.conf").write_text("")
    conf = folder / "slurm.conf"
    lines = [
        _SETTINGS.format(folder=folder, host=host, port=ports[0], user=getpass.getuser(), silence_s=node_silence_s)
    ]
    lines += [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 Gres=gpu:{GPUS_OF_A_NODE}"
        for node, port in zip(NODES, ports[1:], strict=True)
    ]
    lines += ["PartitionName=gpus Nodes=ALL Default=YES MaxTime=60", "PartitionName=one Nodes=n1 MaxTime=60"]
    conf.write_text("\n".join(lines) + "\n")
    return conf


_SETTINGS = """\
ClusterName=patchstack
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
ReturnToService=2
SlurmdTimeout={silence_s}
MessageTimeout=5
KillWait=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1"""


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _search_path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _path(program: str) -> str:
    found = shutil.which(program, path=_search_path())
    assert found is not None, program
    return found


def _environment(conf: Path | None) -> dict[str, str]:
    return {"PATH": _search_path(), "LC_ALL": "C.UTF-8", **({"SLURM_CONF": str(conf)} if conf else {})}


# --- what a node began, which has left our session -------------------------------------------------------


def _marked(mark: str) -> set[int]:
    wanted = f"{_MARK}={mark}".encode()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.add(int(folder.name))
    return found


def _children() -> dict[int, set[int]]:
    """Every process's children; of those that we may see."""
    found: dict[int, set[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, IndexError):
                # proc(5): the name, which may hold anything, ends with the last parenthesis.
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found.setdefault(parent, set()).add(int(folder.name))
    return found


def _kill_trees(roots: set[int]) -> None:
    """Kill them with all that they began; stopped first, so that none begins more meanwhile."""
    tree: set[int] = set()
    fresh = roots
    while fresh:
        for pid in fresh:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        tree |= fresh
        children = _children()
        fresh = {child for parent in tree for child in children.get(parent, set())} - tree
    for pid in tree:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
