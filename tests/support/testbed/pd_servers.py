"""Prefill, decode and load balancer as real servers: the whole of PD with a tiny model, over Mooncake on TCP.

::

    def test_a_failed_transfer(shared_servers):
        pd = shared_servers.pd()
        pd.prefill.engine().fail_next("kv")
        answer = pd.generate(prompt_ids(40), new_tokens=8)
        assert not answer.ok
        assert [t.kind for t in pd.prefill.engine().transfers() if t.injected] == ["kv"]

``pd.generate``, ``begin`` and ``stream`` go through the load balancer (the mini one of sglang-router), as a client's
requests do; it chooses the room. ``pd.begin_in_room`` asks both servers itself, for a test that has to name the
room or has to see prefill's answer too. ``pd.prefill`` and ``pd.decode`` are a `Server` each: their load, their
processes, their logs and the engines of their ranks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from testbed.answers import LOOPBACK, Answer, Pending
from testbed.ports import Ports
from testbed.program import Program, Programs
from testbed.server import (
    REQUEST_LIMIT_S,
    START_LIMIT_S,
    Server,
    ServerOptions,
    launch,
    wait_for_health,
    wait_until_up,
)


@dataclass(frozen=True)
class PdOptions:
    """What a PD deployment is started with."""

    prefill_tp: int = 1
    decode_tp: int = 1
    prefill_pp: int = 1
    pool_tokens: int = 4096
    page_size: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    """For both servers."""
    prefill_env: Mapping[str, str] = field(default_factory=dict)
    decode_env: Mapping[str, str] = field(default_factory=dict)
    prefill_flags: tuple[str, ...] = ()
    decode_flags: tuple[str, ...] = ()
    model: Path | None = None


class PdServers:
    """A running deployment."""

    def __init__(self, prefill: Server, decode: Server, router: Program, port: int, bootstrap_port: int) -> None:
        self.prefill = prefill
        self.decode = decode
        self.router = router
        self.bootstrap_port = bootstrap_port
        self._front = Server(router, port, ServerOptions(), Path())
        self._link()

    @property
    def programs(self) -> list[Program]:
        return [self.prefill.program, self.decode.program, self.router]

    @property
    def running(self) -> bool:
        return not any(program.exits_within(0) for program in self.programs)

    def generate(
        self,
        prompt: str | Sequence[int],
        new_tokens: int = 8,
        *,
        rid: str | None = None,
        limit_s: float = REQUEST_LIMIT_S,
        **more: object,
    ) -> Answer:
        """Through the load balancer: `Server.generate`."""
        return self._front.generate(prompt, new_tokens, rid=rid, limit_s=limit_s, **more)

    def begin(
        self, prompt: str | Sequence[int], new_tokens: int = 8, *, rid: str | None = None, **more: object
    ) -> Pending:
        """Through the load balancer: `Server.begin`."""
        return self._front.begin(prompt, new_tokens, rid=rid, **more)

    def stream(
        self,
        prompt: str | Sequence[int],
        new_tokens: int = 8,
        *,
        rid: str | None = None,
        limit_s: float = REQUEST_LIMIT_S,
        **more: object,
    ) -> Iterator[Answer]:
        """Through the load balancer: `Server.stream`."""
        return self._front.stream(prompt, new_tokens, rid=rid, limit_s=limit_s, **more)

    def begin_in_room(
        self, room: int, prompt: str | Sequence[int], new_tokens: int = 8, *, rid: str | None = None, **more: object
    ) -> tuple[Pending, Pending]:
        """Ask prefill and decode without the load balancer, in this room; the answers of both."""
        return (
            self.prefill.begin(prompt, new_tokens, rid=rid, **{**self.bootstrap(room), **more}),
            self.decode.begin(prompt, new_tokens, rid=rid, **{**self.bootstrap(room), **more}),
        )

    def bootstrap(self, room: int) -> dict[str, object]:
        """What a request to one of the servers says of its room, where no load balancer does."""
        return {"bootstrap_host": LOOPBACK, "bootstrap_port": self.bootstrap_port, "bootstrap_room": room}

    def abort(self, rid: str, *, at: str = "decode") -> None:
        """Abort a request by its id at ``decode`` or ``prefill``; the load balancer has no such call."""
        {"decode": self.decode, "prefill": self.prefill}[at].abort(rid)

    def wait_until_idle(self, limit_s: float = 30.0) -> bool:
        """Whether both servers have nothing left to do after at most ``limit_s`` each."""
        return all(server.wait_until_idle(limit_s).idle for server in (self.prefill, self.decode))

    def end(self) -> None:
        for program in self.programs:
            program.end()

    def _link(self) -> None:
        for server in (self.prefill, self.decode, self._front):
            server.partners = [program for program in self.programs if program is not server.program]


def start_pd(
    programs: Programs,
    ports: Ports,
    options: PdOptions | None = None,
    *,
    limit_s: float = START_LIMIT_S,
    **shape: object,
) -> PdServers:
    """Start all three and wait until they answer; ``shape`` are fields of `PdOptions`, by name.

    Raises `ProgramEnded` at once if one dies meanwhile, and `ServerSilent` with all stacks after ``limit_s``.
    """
    options = replace(options or PdOptions(), **shape)  # type: ignore[arg-type]
    bootstrap_port, router_port = ports.take(), ports.take()
    prefill = launch(
        programs,
        ports,
        _server_options(options, "prefill"),
        *("--disaggregation-bootstrap-port", str(bootstrap_port)),
    )
    decode = launch(programs, ports, _server_options(options, "decode"))
    router_arguments = _router_arguments(prefill, bootstrap_port, decode, router_port)
    router = programs.start("router", router_arguments, _router_env(), fresh=True)
    wait_until_up([prefill, decode], limit_s)
    wait_for_health([(router, router_port)], limit_s)
    return PdServers(prefill, decode, router, router_port, bootstrap_port)


def _server_options(options: PdOptions, role: str) -> ServerOptions:
    is_prefill = role == "prefill"
    return ServerOptions(
        role=role,
        tp=options.prefill_tp if is_prefill else options.decode_tp,
        pp=options.prefill_pp if is_prefill else 1,
        pool_tokens=options.pool_tokens,
        page_size=options.page_size,
        flags=options.prefill_flags if is_prefill else options.decode_flags,
        env={**options.env, **(options.prefill_env if is_prefill else options.decode_env)},
        model=options.model,
    )


def _router_arguments(prefill: Server, bootstrap_port: int, decode: Server, port: int) -> list[str]:
    return [
        *("router", "--pd-disaggregation", "--mini-lb", "--policy", "random"),
        *("--host", LOOPBACK, "--port", str(port)),
        *("--prefill", prefill.url, str(bootstrap_port), "--decode", decode.url),
    ]


def _router_env() -> dict[str, str]:
    """The router looks for an old SGLang's tracing; without SGLang on its path it saves the import, 6 s and 450 MB."""
    if "PATCHSTACK_TREE" not in os.environ:  # inside an image SGLang is installed
        return {}
    tree = Path(os.environ["PATCHSTACK_TREE"]) / "python"
    path = os.environ["PYTHONPATH"].split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join(entry for entry in path if Path(entry) != tree)}
