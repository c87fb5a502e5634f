"""Trainer ranks that ask for one engine together: real processes with a real gloo group, led by the test.

::

    def test_both_get_text(colocate):
        ranks = colocate.start()
        assert [rank.ask("generate", prompt="hi").value["text"] for rank in ranks] == ["answer to hi"] * 2

`Colocation.start` calls SGLang's ``create_engine`` in each, with the small server of `testbed.colocate_server` unless
the test names another; each then waits for orders. What a rank says is never an exception in the test: a `Said`. The
folder that stands for ``/dev/shm`` is the test's own.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed.child import Task
from testbed.colocate_server import FOLDER, Asked, Launch, read_launches, read_requests
from testbed.colocate_sglang import fork_servers_of_this_process
from testbed.device import Device, device
from testbed.gloo import Rank, start_ranks
from testbed.processes import Child, Children, abort

JOB = "night-train"
START_LIMIT_S = 90.0
ANSWER_LIMIT_S = 60.0
SMALL_SERVER = "testbed.colocate_server"


@dataclass(frozen=True)
class Said:
    """What came of an order: a value, or what SGLang raised."""

    value: Any = None
    error: str = ""
    """The exception's class, without its module."""
    text: str = ""


@dataclass(frozen=True)
class Setup:
    """What a rank starts with."""

    job: str
    server_module: str
    arguments: Mapping[str, Any]
    """For ``create_engine``, besides group, job and server module."""
    environ: Mapping[str, str | None]
    """Laid over the environment of the rank; None: not set."""
    on_begin: Task | None
    """Called in a thread of its own, beside ``create_engine``, with the `Caller`."""


@dataclass
class Caller:
    """What an order gets that runs in a rank's process."""

    rank: Rank
    engine: Any = None
    kept: dict[str, Any] = field(default_factory=dict)
    """From one order to the next."""


class CallerHandle:
    """The test's end of one rank."""

    def __init__(self, number: int, child: Child) -> None:
        self.number = number
        self.child = child

    def begin(self, function: Callable[..., Any], *args: object) -> None:
        """Have ``function(caller, *args)`` run there; it must be defined at the top of a module."""
        self.child.send(Task.of(function, args))

    def said(self, limit_s: float = ANSWER_LIMIT_S) -> Said:
        """What came of the oldest order. Silence is the test's own failure, with the rank's stacks."""
        return _said_of([self], limit_s)[0]

    def do(self, function: Callable[..., Any], *args: object, limit_s: float = ANSWER_LIMIT_S) -> Said:
        self.begin(function, *args)
        return self.said(limit_s)

    def ask(self, method: str, *args: object, **more: object) -> Said:
        """Call a method of the rank's engine."""
        return self.do(_call_method, method, args, more)


class Colocation:
    """One job of a trainer: its ranks, its rendezvous and the servers that it started. Use it as a context."""

    def __init__(self, children: Children, folder: Path) -> None:
        self.children = children
        self.root = folder / "shm"
        """Stands for ``/dev/shm``."""
        self.notes = folder / "server"
        """The small server's folder."""
        for made in (self.root, self.notes):
            made.mkdir(mode=0o700)

    @property
    def rendezvous(self) -> Path:
        return self.root / f"sglang-colocate-{os.geteuid()}"

    def environment(self) -> dict[str, str]:
        """Of every rank: nothing waits long for what will not come, and long enough for a busy machine."""
        return {
            "SGLANG_COLOCATE_ROOT": str(self.root),
            "SGLANG_COLOCATE_POLL_S": "0.05",
            "SGLANG_COLOCATE_HEALTH_TIMEOUT_S": "240",
            FOLDER: str(self.notes),
        }

    def begin(
        self,
        *,
        size: int = 2,
        environ: Mapping[str, str | None] | None = None,
        each: Sequence[Mapping[str, str | None]] = (),
        devices: Sequence[int] = (),
        server_module: str = SMALL_SERVER,
        on_begin: Task | None = None,
        **arguments: object,
    ) -> list[CallerHandle]:
        """Start the ranks and return at once; ``each`` is laid over ``environ``, rank by rank.

        ``devices`` are ``create_engine``'s, rank by rank; without them the ranks are on the CPU.
        """
        base: dict[str, Any] = {"model_path": "none", "tp_size": size, **arguments}
        if not devices:
            base = {"server_device": "cpu", **base}
        setups = [
            Setup(
                JOB,
                server_module,
                {**base, **({"device": devices[number]} if devices else {})},
                {**self.environment(), **(environ or {}), **(each[number] if each else {})},
                on_begin,
            )
            for number in range(size)
        ]
        return [
            CallerHandle(number, child)
            for number, child in enumerate(start_ranks(self.children, serve_caller, setups, size=size))
        ]

    def start(self, *, limit_s: float = START_LIMIT_S, **setup: Any) -> list[CallerHandle]:
        """Start the ranks and wait until each has its engine; see `begin` for the arguments."""
        ranks = self.begin(**setup)
        said = said_by(ranks, limit_s)
        assert [each.error for each in said] == [""] * len(ranks), said
        return ranks

    # What there is to see.

    @property
    def launches(self) -> list[Launch]:
        return read_launches(self.notes)

    @property
    def requests(self) -> list[Asked]:
        """What its small servers were asked."""
        return read_requests(self.notes)

    def files(self) -> list[str]:
        """Names in the rendezvous folder."""
        return sorted(path.name for path in self.rendezvous.iterdir()) if self.rendezvous.is_dir() else []

    def records(self) -> list[Path]:
        return sorted(self.rendezvous.glob("*.json"))

    def server_processes(self) -> list[int]:
        """Process ids of the servers that its ranks have started and of all that those have, as far as they run."""
        mark = f"{FOLDER}={self.notes}".encode()
        return [process for process in _processes() if mark in _environment_of(process)]

    def servers_left(self, limit_s: float = ANSWER_LIMIT_S) -> list[int]:
        """Of `server_processes` those that do not end within the limit: what is killed is not gone at once."""
        return [process for process in self.server_processes() if not wait_for_end(process, limit_s)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End the servers that a rank which was killed, or a fault, has left."""
        for process in self.server_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def said_by(ranks: Sequence[CallerHandle], limit_s: float = ANSWER_LIMIT_S) -> list[Said]:
    """What came of the oldest order of each. Silence of any is the test's own failure, with the stacks of all."""
    return _said_of(ranks, limit_s)


def do_all(
    ranks: Sequence[CallerHandle], function: Callable[..., Any], *args: object, limit_s: float = ANSWER_LIMIT_S
) -> list[Said]:
    """The same order on all ranks at once, as for a collective."""
    for rank in ranks:
        rank.begin(function, *args)
    return said_by(ranks, limit_s)


def ask_all(ranks: Sequence[CallerHandle], method: str, *args: object, **more: object) -> list[Said]:
    """The same method of all engines at once."""
    return do_all(ranks, _call_method, method, args, more)


def wait_for_end(pid: int, limit_s: float = ANSWER_LIMIT_S) -> bool:
    """Whether a process, of whomever, ends within the limit."""
    import select

    try:
        exit_of = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(exit_of, select.POLLIN)
        return bool(poll.poll(limit_s * 1000))
    finally:
        os.close(exit_of)


def _processes() -> list[int]:
    return sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _environment_of(process: int) -> list[bytes]:
    """What it was started with; nothing for one that has ended, a zombie, or is somebody else's."""
    try:
        return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _said_of(ranks: Sequence[CallerHandle], limit_s: float) -> list[Said]:
    from testbed.processes import ChildSilent

    found: list[Said] = []
    for rank in ranks:
        try:
            found.append(rank.child.receive(limit_s))
        except ChildSilent as silent:
            others = [other.child for other in ranks if other is not rank and not other.child.ended]
            abort(others)
            stacks = "\n".join(f"{child.name} was at\n{child.stacks()}" for child in others)
            raise AssertionError(f"it hung: {silent}\n{stacks}\nthe others said: {found}") from None
    return found


# In the rank's process.


def serve_caller(rank: Rank, setups: Sequence[Setup]) -> None:
    """Make the engine, say what came of it, and follow orders until the test ends."""
    setup = setups[rank.number]
    _lay_over(setup.environ)
    caller = Caller(rank)
    if setup.on_begin is not None:
        import threading

        function, args = setup.on_begin.load()
        threading.Thread(target=function, args=(caller, *args), daemon=True).start()
    rank.link.send(attempt(_create, caller, setup))
    while True:
        task: Task = rank.link.receive(None)
        function, args = task.load()
        rank.link.send(attempt(function, caller, *args))


def _create(caller: Caller, setup: Setup) -> str:
    from sglang.srt.colocate.engine import create_engine

    if caller.rank.size == 1 and device() is Device.CPU:
        fork_servers_of_this_process()
    caller.engine = create_engine(
        group=caller.rank.group, job=setup.job, server_module=setup.server_module, **setup.arguments
    )
    return type(caller.engine).__name__


def _call_method(caller: Caller, method: str, args: Sequence[Any], more: Mapping[str, Any]) -> Any:
    return getattr(caller.engine, method)(*args, **more)


def attempt(function: Callable[..., Any], *args: Any) -> Said:
    """What comes of a call of SGLang's; an assertion of the test's own is raised."""
    from testbed.assertions import is_by_the_test

    try:
        return Said(value=function(*args))
    except Exception as error:
        if is_by_the_test(error):
            raise
        return Said(error=type(error).__name__, text=str(error))


def _lay_over(environ: Mapping[str, str | None]) -> None:
    for name, value in environ.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
