"""The far side of `testbed.warm`: imports what children of guards import, once, and is forked from for each.

A fork has only the thread that forks. So this process has no other: it imports and nothing else, never the
Mooncake engine, which starts threads as it loads. It is asked before each fork, and says why it is unfit.

The child of the fork is to be the test run's own child, to wait for as for any other. So a process in between
forks it and ends at once, and the kernel hands it on to the test run, which is a subreaper meanwhile.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import os
import pickle
import resource
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from testbed import child
from testbed.environment_watch import EnvironmentWatch
from testbed.standins import activate

MODULES = (
    "numpy",
    "torch.distributed",
    "zmq",
    "sglang.srt.disaggregation.decode",
    "sglang.srt.disaggregation.mooncake.conn",
    "sglang.srt.disaggregation.prefill",
    "sglang.srt.layers.dp_attention",
    "sglang.srt.managers.cache_controller",
    "sglang.srt.managers.scheduler",
    "sglang.srt.mem_cache.hi_mamba_radix_cache",
    "sglang.srt.mem_cache.hiradix_cache",
    "sglang.srt.mem_cache.unified_radix_cache",
    "sglang.srt.server_args",
)
"""What children spend seconds on. One that is not there, as on another release, is left to the child."""

MESSAGE_BYTES = 1 << 17


@dataclass(frozen=True)
class Ready:
    """The first message: the imports are done."""

    early: frozenset[str]
    """Environment variables that were read or written meanwhile."""
    unfit: str
    """Why no child may be forked; empty if one may."""


@dataclass(frozen=True)
class Order:
    """Fork a child. With it come two descriptors: of its line to the test, and of its output."""

    parent: int
    """The id of the test run."""
    log: str
    folder: str
    """Its working directory."""
    environment: dict[str, str | None]
    """What is different from this process's own environment; None: not set."""


@dataclass(frozen=True)
class Answer:
    pid: int = 0
    unfit: str = ""


def main() -> None:
    """``argv``: the descriptor of the line to `testbed.warm`, and what to import. Ends when that does."""
    child.die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    line = socket.socket(fileno=int(sys.argv[1]))
    line.set_inheritable(False)
    line.send(pickle.dumps(_warm_up(sys.argv[2:])))
    while True:
        message, descriptors, _, _ = socket.recv_fds(line, MESSAGE_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if not message:
            os._exit(0)
        try:
            line.send(pickle.dumps(_fork(line, pickle.loads(message), *descriptors)))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _warm_up(modules: Sequence[str]) -> Ready:
    try:
        with EnvironmentWatch() as watch:
            activate()
            for name in modules:
                _import(name)
    except Exception as error:
        # The child is to see this for itself, in a fresh interpreter.
        traceback.print_exc()
        return Ready(frozenset(), f"{type(error).__name__} while importing: {error}")
    gc.collect()
    gc.freeze()  # the collector of a child need not touch, and so copy, what is shared
    scans = f"read the whole environment: {', '.join(sorted(watch.scans))}" if watch.scans else ""
    return Ready(frozenset(watch.names), scans or _why_unfit())


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        sys.stderr.write(f"testbed: there is no {error.name} here\n")


def _why_unfit() -> str:
    """What a fork would not take along; empty if nothing."""
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if len(threads) > 1 or threading.active_count() > 1:
        return f"its imports left {len(threads)} threads running: {', '.join(threads)}"
    if "mooncake.engine" in sys.modules:
        return "its imports loaded the Mooncake engine"
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return "its imports made a process group"
    return ""


def _fork(line: socket.socket, order: Order, connection: int, output: int) -> Answer:
    unfit = _why_unfit()
    if unfit:
        return Answer(unfit=unfit)
    ctypes.CDLL(None).fflush(None)
    told, tell = os.pipe()  # the child has a session of its own
    heard, go = os.pipe()  # the child has its parent
    try:
        between = os.fork()
        if between == 0:
            _fork_and_end(line, order, connection, output, tell=tell, heard=heard, unused=(told, go))
        os.close(tell)
        tell = -1
        os.waitpid(between, 0)
        said = os.read(told, 8)
        os.write(go, b"!")
    except OSError as error:
        return Answer(unfit=f"it cannot fork: {error}")
    finally:
        for descriptor in (told, tell, heard, go):
            if descriptor >= 0:
                os.close(descriptor)
    return Answer(pid=int.from_bytes(said)) if said else Answer(unfit="the process that it forked has ended")


def _fork_and_end(
    line: socket.socket,
    order: Order,
    connection: int,
    output: int,
    *,
    tell: int,
    heard: int,
    unused: tuple[int, int],
) -> None:
    """The process in between; and the child, which comes out of nothing that is called here."""
    try:
        if os.fork() != 0:
            os._exit(0)
        os.setsid()
        line.close()
        for descriptor in unused:
            os.close(descriptor)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.write(tell, os.getpid().to_bytes(8))
        os.close(tell)
        if not os.read(heard, 1) or os.getppid() != order.parent:
            os._exit(1)  # the test run, or the zygote, has gone
        os.close(heard)
        _dress(order, connection)
        child.serve(Connection(connection), Path(order.log))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _dress(order: Order, connection: int) -> None:
    """All in which the child is not the zygote."""
    for name, value in order.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.chdir(order.folder)
    sys.argv[1:] = [str(connection), order.log]
    importlib.invalidate_caches()  # the test has written files since
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # `random` does so by itself; torch always begins with the same seed
