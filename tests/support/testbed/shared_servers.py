"""Servers that the tests of a run share: one for each set of options, started when the first test asks.

A server that has ended meanwhile, in a test that hung or killed it, is started anew for the next test that asks.
A test that leaves a deployment unusable says so (`forget`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from testbed.pd_servers import PdOptions, PdServers, start_pd
from testbed.ports import Ports
from testbed.program import Programs
from testbed.server import Server, ServerOptions, start_server

Options = TypeVar("Options", ServerOptions, PdOptions)


class SharedServers:
    """``model`` is the folder of the model that servers get whose options name none."""

    def __init__(self, programs: Programs, ports: Ports, model: Path) -> None:
        self.programs = programs
        self._ports = ports
        self._model = model
        self._servers: list[tuple[ServerOptions, Server]] = []
        self._deployments: list[tuple[PdOptions, PdServers]] = []

    def server(self, options: ServerOptions | None = None, **shape: object) -> Server:
        """A running server with these options; ``shape`` are fields of `ServerOptions`, by name."""
        wanted = self._complete(replace(options or ServerOptions(), **shape))  # type: ignore[arg-type]
        for held, server in self._servers:
            if held == wanted and not server.program.exits_within(0):
                return server
        server = start_server(self.programs, self._ports, wanted)
        self._servers.append((wanted, server))
        return server

    def pd(self, options: PdOptions | None = None, **shape: object) -> PdServers:
        """A running PD deployment with these options; ``shape`` are fields of `PdOptions`, by name."""
        wanted = self._complete(replace(options or PdOptions(), **shape))  # type: ignore[arg-type]
        for held, deployment in self._deployments:
            if held == wanted and deployment.running:
                return deployment
        deployment = start_pd(self.programs, self._ports, wanted)
        self._deployments.append((wanted, deployment))
        return deployment

    def forget(self, servers: Server | PdServers) -> None:
        """End servers that no further test can use."""
        servers.end()

    def _complete(self, options: Options) -> Options:
        return options if options.model else replace(options, model=self._model)
