"""Numbers that a guard measures, for ``tests/regression/metrics.yaml`` to judge: no guard compares them itself.

::

    def test_a_request_costs_what_it_did(measure, shared_servers):
        server = shared_servers.server()
        before_s = processor_s([server.program])
        for prompt in PROMPTS:
            assert server.generate(prompt, NEW_TOKENS).ok
        measure("server-request-cpu", (processor_s([server.program]) - before_s) / len(PROMPTS) * 1000)

Processor time is what a busy machine changes least. Each call is one sample; of several the median counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from testbed.forms import CPU, lane_of
from testbed.program import Program

FILE = Path(__file__).parents[2] / "regression" / "metrics.yaml"
OF_SCENARIOS = FILE.parent / "gpu" / FILE.name
"""What scenarios of other lanes than ``cpu`` measure."""
Measure = Callable[[str, float], None]


class NotDeclared(LookupError):
    """A metric that ``metrics.yaml`` does not have, or that another test is to measure."""


class NoNumber(ValueError):
    """What was measured is no finite number."""


class Keeper(Protocol):
    """Who writes samples down: the plugin's record."""

    def sample(self, test: str, metric: str, value: float) -> None: ...


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Measure:
    """``measure(metric, value)``, in the unit that ``metrics.yaml`` gives.

    Raises `NotDeclared` or `NoNumber`, which are crashes of the test: a number that nobody looks at is lost. A fork
    that has removed the file wants no numbers, and none is kept.
    """
    keeper: Keeper | None = request.config.pluginmanager.get_plugin("testbed-record")
    assert keeper is not None, "the plugin registers its record when it is configured"
    test = request.node.nodeid
    tests = declared(OF_SCENARIOS if lane_of(request.node) != CPU else FILE)

    def say(metric: str, value: float) -> None:
        if tests is not None:
            require_declared(metric, value, test, tests)
            keeper.sample(test, metric, float(value))

    return say


def declared(file: Path = FILE) -> Mapping[str, str] | None:
    """Which test measures each metric; None where there is no file. The tool checks all else in it."""
    import yaml

    if not file.is_file():
        return None
    said: Any = yaml.safe_load(file.read_text())
    entries = said.items() if isinstance(said, dict) else ()
    return {str(name): str(entry.get("test", "")) for name, entry in entries if isinstance(entry, dict)}


def require_declared(metric: str, value: float, test: str, tests: Mapping[str, str]) -> None:
    """Raise unless ``test``, by its node id, may say ``value`` of ``metric``."""
    if metric not in tests:
        raise NotDeclared(f"{FILE.name} has no {metric}: add it, or mend its spelling")
    if test.partition("[")[0] != tests[metric]:
        raise NotDeclared(f"{FILE.name} has {metric} measured by {tests[metric]}, and this is {test}: name one of them")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise NoNumber(f"{metric} is to be a finite number, and is {value!r}")


def processor_s(programs: Iterable[Program]) -> float:
    """Seconds of processor time that all processes of ``programs`` that are alive have taken so far.

    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: utime and stime, in ticks of mostly 10 ms.
    """
    ticks = 0
    for program in programs:
        for process in program.processes():
            # Its name, the second field, may hold spaces and brackets.
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
