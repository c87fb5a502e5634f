"""A real SGLang server of the tree under test, with a tiny model, as processes of the test.

::

    def test_it_answers(programs, ports, tiny_model):
        server = start_server(programs, ports, ServerOptions(model=tiny_model, tp=2))
        answer = server.generate(prompt_ids(40), new_tokens=8)
        assert answer.ok, answer.describe()
        assert answer.tokens == greedy_tokens(tiny_model, [prompt_ids(40)], 8)[0]

Nearly always a server that other tests use as well will do (fixture ``shared_servers``)::

        server = shared_servers.server(ServerOptions(tp=2))

An answer is never an exception: a refusal, an abort and a hang are all looked at by the test. After a hang the
server has been ended, and ``answer.stacks`` shows where each of its processes was.

What a server costs (two cores, November 2026): 2 s of processor time for one rank, 5 s for two, 5 s for PD,
and 7 to 10 s once a run for the process that they are forked from; they hold 150 MB a process that are not shared.
A ``fresh`` one takes 25 s of processor time and 430 MB a process. A request for 8 tokens takes 20 ms. An idle
server takes next to no processor time (``--sleep-on-idle``), so that it can wait for the next test.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.answers import LOOPBACK, Answer, Pending, ask, ask_for_stream, call, hung, request_body
from testbed.device import Device, device, device_environment, device_flags
from testbed.engine_control import CONTROL_FOLDER, EngineControl
from testbed.hicache_events import COPY_POLLS
from testbed.ports import Ports
from testbed.processes import tail
from testbed.program import Process, Program, Programs, abort

START_LIMIT_S = 240.0
"""For a fresh one on busy cores; a forked one is up in a tenth of it."""

POLL_S = 0.1
PROTOCOL, RDMA = "MOONCAKE_PROTOCOL", "rdma"
REQUEST_LIMIT_S = 60.0

HICACHE_FLAGS = (
    "--enable-hierarchical-cache",
    *("--hicache-ratio", "2", "--hicache-io-backend", "direct", "--hicache-mem-layout", "layer_first"),
    *("--hicache-write-policy", "write_through"),
)


class ServerSilent(Exception):
    """A server was not up in time; the stacks of its processes are in the message."""


class ServerRefused(Exception):
    """A server did not do what the bed asked of it (load, flush, abort)."""


@dataclass(frozen=True)
class ServerOptions:
    """What a server is started with. Equal options mean the same shared server."""

    role: str = ""
    """``prefill`` or ``decode``; empty for a server that does both."""
    tp: int = 1
    pp: int = 1
    hicache: bool = False
    pool_tokens: int = 4096
    """Tokens in the KV pool."""
    page_size: int = 1
    copy_polls: tuple[int, ...] = ()
    """How often HiCache asks for the end of a copy until it has come, by pipeline stage; on a CPU, at once."""
    flags: tuple[str, ...] = ()
    """More command-line flags; they come last and win."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Laid over the environment of all of its processes."""
    fresh: bool = False
    """Started as in production: each of its processes a fresh interpreter, none forked."""
    model: Path | None = None
    """A model's folder; None for the tiny one, which `SharedServers` and `start_pd` fill in."""


@dataclass(frozen=True)
class Load:
    """What a server has to do, as its ``/v1/loads`` says."""

    running: int
    waiting: int
    used_tokens: int
    pool_tokens: int
    queues: Mapping[str, int]
    """Requests in PD's queues: ``prefill_inflight_queue_reqs``, ``decode_transfer_queue_reqs``, ..."""

    @property
    def free_tokens(self) -> int:
        """Tokens of the pool that are free or only cached."""
        return self.pool_tokens - self.used_tokens

    @property
    def idle(self) -> bool:
        return not (self.running or self.waiting or self.used_tokens or any(self.queues.values()))


class Server:
    """A running server."""

    def __init__(self, program: Program, port: int, options: ServerOptions, control: Path) -> None:
        self.program = program
        self.port = port
        self.options = options
        self.partners: list[Program] = []
        """Programs that hang when this one does; their stacks are shown too."""
        self._control = control

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    # Requests. ``prompt`` is text or token ids; ``more`` goes into the request as it is.

    def generate(
        self,
        prompt: str | Sequence[int],
        new_tokens: int = 8,
        *,
        rid: str | None = None,
        limit_s: float = REQUEST_LIMIT_S,
        **more: object,
    ) -> Answer:
        """Continue the prompt greedily by exactly ``new_tokens`` tokens."""
        self.program.require_running()
        try:
            return ask(self.port, request_body(prompt, new_tokens, rid=rid, more=more), limit_s)
        except TimeoutError:
            return hung(limit_s, self.abort_all)

    def begin(
        self, prompt: str | Sequence[int], new_tokens: int = 8, *, rid: str | None = None, **more: object
    ) -> Pending:
        """Send the request and go on."""
        self.program.require_running()
        body = request_body(prompt, new_tokens, rid=rid, more=more)
        return Pending(lambda: ask(self.port, body, START_LIMIT_S), self.abort_all)

    def stream(
        self,
        prompt: str | Sequence[int],
        new_tokens: int = 8,
        *,
        rid: str | None = None,
        limit_s: float = REQUEST_LIMIT_S,
        **more: object,
    ) -> Iterator[Answer]:
        """The answer step by step; ``limit_s`` is for each step. Leaving the loop hangs up on the server."""
        self.program.require_running()
        try:
            yield from ask_for_stream(self.port, request_body(prompt, new_tokens, rid=rid, more=more), limit_s)
        except TimeoutError:
            yield hung(limit_s, self.abort_all)

    def abort(self, rid: str) -> None:
        """Abort a request by its id, as a client or a trainer does; an id that is unknown is no error there."""
        self._post("/abort_request", {"rid": rid})

    def flush(self) -> None:
        """Empty the caches; the server must be idle."""
        self._post("/flush_cache?timeout=10", {})

    def load(self) -> Load:
        """Its load; with several DP ranks, that of the first."""
        said: dict[str, Any] = self._get("/v1/loads?include=all")["loads"][0]
        queues = {name: value for name, value in said["disaggregation"].items() if name.endswith("_reqs")}
        return Load(
            said["num_running_reqs"],
            said["num_waiting_reqs"],
            said["num_used_tokens"],
            said["max_total_num_tokens"],
            queues,
        )

    def wait_until_idle(self, limit_s: float = 30.0) -> Load:
        """The load when nothing is left to do, or the last one if that takes longer than ``limit_s``."""
        for _ in range(max(1, round(limit_s / POLL_S))):
            load = self.load()
            if load.idle or self.program.exits_within(POLL_S):
                break
        return load

    def info(self) -> dict[str, Any]:
        """``/server_info``: all options, and the state of the schedulers."""
        return self._get("/server_info")

    # Processes

    @property
    def schedulers(self) -> list[Process]:
        """Its schedulers, by rank."""
        found = [process for process in self.program.processes() if "scheduler" in process.title]
        return sorted(found, key=lambda process: process.title)

    def signal_scheduler(self, number: signal.Signals, rank: int = 0) -> None:
        """Send a signal to one scheduler (SIGSTOP, SIGCONT, SIGKILL in fault tests)."""
        os.kill(self.schedulers[rank].pid, number)

    def engine(self, rank: int = 0) -> EngineControl:
        """The Mooncake engine of one scheduler of a PD server, to fail or hold its transfers."""
        sockets = sorted(self._control.iterdir())
        if rank >= len(sockets):
            raise LookupError(f"{self.program.name} has {len(sockets)} Mooncake engines: is it a PD server?")
        return EngineControl(sockets[rank])

    def output(self) -> str:
        """Everything that its processes have written."""
        return self.program.output()

    def abort_all(self) -> str:
        """End it, and the servers that it works with, with the stacks of all processes."""
        return abort([self.program, *self.partners])

    def end(self) -> None:
        self.program.end()

    def _get(self, path: str) -> dict[str, Any]:
        self.program.require_running()
        status, payload = call(self.port, "GET", path)
        return dict(json.loads(_require_ok(path, status, payload)))

    def _post(self, path: str, body: Mapping[str, object]) -> None:
        self.program.require_running()
        status, payload = call(self.port, "POST", path, body)
        _require_ok(path, status, payload)


def start_server(programs: Programs, ports: Ports, options: ServerOptions, *, limit_s: float = START_LIMIT_S) -> Server:
    """Start a server and wait until it answers.

    Raises `ProgramEnded` at once if it dies meanwhile, and `ServerSilent` with all stacks after ``limit_s``.
    """
    server = launch(programs, ports, options)
    wait_until_up([server], limit_s)
    return server


def launch(programs: Programs, ports: Ports, options: ServerOptions, *flags: str) -> Server:
    """Start a server, with more flags, and do not wait for it."""
    if options.model is None:
        raise ValueError("ServerOptions.model is not set: take the fixture tiny_model")
    port = ports.take()
    control = Path(tempfile.mkdtemp(dir=programs.sockets))
    arguments = ["server", *server_flags(options, port, ports.take()), *flags, *options.flags]
    environment = {
        **device_environment(device(), options.tp, options.page_size),
        # /health then only says whether the server is up: no request of its own, no pause of a second.
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false",
        "SGLANG_HOST_IP": LOOPBACK,
        "GLOO_SOCKET_IFNAME": "lo",
        **({} if options.env.get(PROTOCOL) == RDMA else {"MC_FORCE_TCP": "1"}),
        **options.env,
    }
    fresh = options.fresh or device() is Device.CUDA  # CUDA does not survive a fork
    settings = {CONTROL_FOLDER: str(control), COPY_POLLS: ",".join(map(str, options.copy_polls))}
    program = programs.start(options.role or "server", arguments, environment, settings, fresh)
    return Server(program, port, options, control)


def server_flags(options: ServerOptions, port: int, rendezvous_port: int) -> list[str]:
    """The command line of a server without what is particular to its role."""
    flags = [
        *("--model-path", str(options.model), "--host", LOOPBACK, "--port", str(port)),
        *("--nccl-port", str(rendezvous_port)),
        *("--tp-size", str(options.tp), "--pp-size", str(options.pp)),
        *("--max-total-tokens", str(options.pool_tokens), "--page-size", str(options.page_size)),
        *device_flags(device()),
    ]
    if options.role:
        flags += ["--disaggregation-mode", options.role, "--disaggregation-transfer-backend", "mooncake"]
    if options.hicache:
        flags += HICACHE_FLAGS
    return flags


def wait_until_up(servers: Sequence[Server], limit_s: float = START_LIMIT_S) -> None:
    """Wait until each answers ``/health``; `ProgramEnded` as soon as one has ended."""
    wait_for_health([(server.program, server.port) for server in servers], limit_s)


def wait_for_health(programs: Sequence[tuple[Program, int]], limit_s: float) -> None:
    """Poll ``/health`` of programs on their ports until each says 200."""
    deadline = time.monotonic() + limit_s
    for program, port in programs:
        while not _is_healthy(port):
            for each, _ in programs:
                each.require_running()
            if time.monotonic() > deadline:
                stacks = abort([each for each, _ in programs])
                raise ServerSilent(f"{program.name} was not up within {limit_s:.0f} s:\n{stacks}\n{tail(program.log)}")
            program.exits_within(POLL_S)


def _is_healthy(port: int) -> bool:
    try:
        return call(port, "GET", "/health", limit_s=5.0)[0] == 200
    except OSError:
        return False


def _require_ok(path: str, status: int, payload: bytes) -> bytes:
    if status != 200:
        raise ServerRefused(f"{path}: status {status}: {payload.decode(errors='replace')}")
    return payload
