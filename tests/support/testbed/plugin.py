"""Pytest plugin of the test bed (``-p testbed.plugin``): the record of outcomes, marks, limits, fixtures.

With ``--record FILE`` it appends one JSON object a line to FILE:

* ``{"collected": [node ids]}`` once, and ``{"started": node id}`` before each test, so that a test without
  an answer is known to be missing;
* ``{"left_out": [node ids]}`` once, if there are any: tests that say nothing on this tree;
* ``{"hardware": {...}}`` once, in a job of another lane than ``cpu`` (`testbed.hardware`);
* ``{"settings": {"test": node id, "values": {name: text}}}`` for each test that has a form (`testbed.forms`);
* ``{"sample": {"test": node id, "metric": name, "value": float}}`` for each number that a test measures;
* for each test ``{"test": node id, "outcome": ..., "control": bool, "kills": [names], "duration_s": float,
  "reason": str}``, where ``reason`` is the first line of the assertion or exception; and ``"stacks": [names]`` where
  it ran into its limit: files in the folder of ``--stacks``;
* ``{"out_of_time_s": seconds, "stacks": [names]}`` at last, when the whole run did not end within ``--part-limit``.

With ``--mutant NAME`` the tree under test has that mutant, and only the tests run that are marked as killing
it (``@pytest.mark.kills("NAME")``). With ``--ground`` the tree lacks the patch, and the tests so marked are
left out: there they would fail for want of what they import, which proves nothing.

Only tests of one lane run: that of ``PATCHSTACK_LANE``, else ``cpu``; the others are left out.

Outcomes: ``pass``; ``fail``, an assertion of the test's own or ``pytest.fail`` in the call phase; ``timeout``,
its limit was hit; ``skip``; and ``crash``, everything else: an error while collecting, setting up or tearing
down, another exception, an assertion in the code under test.

A test has 120 s or what ``@pytest.mark.limit(seconds)`` says. At the limit the stacks of this process and of
all its children go into the report, the children are ended and the next test runs. If the main thread cannot
be interrupted, the time-out is recorded and the process ends: the tests after it are then missing. With
``--stacks FOLDER`` those of every process that the run has started go into a file there (`testbed.stacks`), and at
``--part-limit SECONDS``, at which the whole run ends, again.

In the bed (``PATCHSTACK_TREE`` is set) the whole run moves into a network of its own, unless ``TESTBED_NETWORK`` says
that it was given one, and turns the stand-ins on, before anything else is imported.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from testbed import network, stacks
from testbed.assertions import is_by_the_test
from testbed.device import Device, device
from testbed.forms import CPU, LANE, is_rehearsal, lane_of
from testbed.forms import form as form  # a fixture
from testbed.hardware import hardware
from testbed.kvcm_manager import KvcmManager
from testbed.measures import measure as measure  # a fixture
from testbed.ports import Ports
from testbed.processes import Children, run_alone
from testbed.program import Programs
from testbed.shared_servers import SharedServers
from testbed.standins import activate
from testbed.tiny_model import greedy_tokens, make_tiny_model
from testbed.warm import WarmProcesses

DEFAULT_LIMIT_S = 120.0
TEARDOWN_LIMIT_S = 30.0
STUCK_AFTER_S = 120.0
"""How long after its limit a test that cannot be interrupted ends this process."""

LONGEST_NAME = 80
"""How much of a test's name is in that of the file with its stacks, in characters."""

STUCK_EXIT_CODE = 86


class LimitReached(BaseException):
    """Not an Exception: code under test that catches everything must not swallow it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, metavar="FILE", help="append each test's outcome to FILE, as JSON lines")
    parser.addoption("--ground", action="store_true", help="leave out the tests that kill mutants")
    parser.addoption("--mutant", metavar="NAME", help="run only the tests that kill this mutant")
    parser.addoption("--stacks", type=Path, metavar="FOLDER", help="where every process was when time was up")
    parser.addoption("--part-limit", type=float, metavar="SECONDS", help="end the run after this, and leave stacks")
    parser.addoption("--fresh", action="store_true", help="start each child in a fresh interpreter, fork none")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "control: must pass with the patch and without it")
    config.addinivalue_line("markers", "kills(*names): fails by its own assertion on these mutants of its patch")
    config.addinivalue_line("markers", "form(scenario, name): how large it is, in tests/regression/gpu/forms.yaml")
    config.addinivalue_line("markers", "lane(name, ...): where it runs and for whom; read without importing the file")
    config.addinivalue_line("markers", f"limit(seconds): the test's time limit, {DEFAULT_LIMIT_S:.0f} s by default")
    # The repository's own tests turn warnings into errors; SGLang and what it imports warn a good deal.
    config.addinivalue_line("filterwarnings", "default")
    if os.environ.get("PATCHSTACK_TREE"):
        config.stash[_NETWORK] = network.enter()
    os.environ[stacks.MARK] = f"{os.getpid()}-{time.monotonic_ns()}"
    activate()
    config.stash[_ENVIRONMENT] = dict(os.environ)
    record = Record(config.getoption("--record"))
    left = Stacks(config.getoption("--stacks"))
    lane = os.environ.get(LANE) or CPU
    if lane != CPU:
        record.hardware(hardware(cuda=not is_rehearsal() and device() is Device.CUDA))
    config.pluginmanager.register(Selection(record, lane, config.getoption("--ground"), config.getoption("--mutant")))
    config.pluginmanager.register(record, "testbed-record")
    config.pluginmanager.register(Limits(record, left), "testbed-limits")
    if config.getoption("--part-limit") is not None:
        left.look_out(config.getoption("--part-limit"), config.getoption("--record"))


def pytest_report_header(config: pytest.Config) -> str | None:
    return f"network: {config.stash[_NETWORK]}" if _NETWORK in config.stash else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _WARM in config.stash:
        terminalreporter.write_line(f"children: {config.stash[_WARM].summary()}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """All is said: end the process here, as the children end.

    Python's own way out runs what native libraries have for it, and may wait there for ever.
    """
    if os.environ.get("PATCHSTACK_TREE") and _EXIT_STATUS in config.stash:
        config.get_terminal_writer().flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_EXIT_STATUS])


@pytest.fixture
def ports() -> Iterator[Ports]:
    """Loopback ports that are this test's alone."""
    held = Ports()
    yield held
    held.close()


@pytest.fixture
def kvcm(ports: Ports, tmp_path: Path) -> Iterator[KvcmManager]:
    """A KV cache manager of this test's own, with its storage in a folder."""
    root = tmp_path / "kvcm"
    root.mkdir()
    manager = KvcmManager(ports.take(), root)
    yield manager
    manager.close()


@pytest.fixture(scope="session")
def warm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmProcesses | None]:
    """What children are forked from; None with ``--fresh``, and on CUDA, which survives no fork."""
    config = request.config
    if config.getoption("--fresh") or device() is Device.CUDA:
        yield None
        return
    processes = WarmProcesses(tmp_path_factory.mktemp("warm"), config.stash[_ENVIRONMENT])
    config.stash[_WARM] = processes
    yield processes
    processes.close()


@pytest.fixture
def children(request: pytest.FixtureRequest, tmp_path: Path, warm: WarmProcesses | None) -> Iterator[Children]:
    """Processes of this test; none outlives it. A failing test shows the end of their output."""
    started = Children(tmp_path / "children", warm)
    _processes_of(request.node).append(started)
    yield started
    started.close()


@pytest.fixture
def programs(request: pytest.FixtureRequest, tmp_path: Path, warm: WarmProcesses | None) -> Iterator[Programs]:
    """Servers of this test alone; none of their processes outlives it. A failing test shows the end of their logs."""
    started = Programs(tmp_path / "programs", warm)
    _processes_of(request.node).append(started)
    yield started
    started.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, warm: WarmProcesses | None) -> Path:
    """The folder of the tiny model, made once a run."""
    folder = tmp_path_factory.mktemp("model")
    return run_alone(make_tiny_model, folder / "tiny", folder=folder, warm=warm)


@pytest.fixture(scope="session")
def transformers_says(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, warm: WarmProcesses | None
) -> Callable[[Sequence[Sequence[int]], int], list[list[int]]]:
    """What Hugging Face transformers continues prompts with: ``transformers_says(prompts, new_tokens)``."""

    def say(prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        folder = tmp_path_factory.mktemp("transformers")
        return run_alone(greedy_tokens, tiny_model, prompts, new_tokens, folder=folder, warm=warm)

    return say


@pytest.fixture(scope="session")
def _servers_of_all_tests(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    warm: WarmProcesses | None,
) -> Iterator[SharedServers]:
    ports, started = Ports(), Programs(tmp_path_factory.mktemp("shared"), warm)
    request.config.stash[_SHARED] = started
    yield SharedServers(started, ports, tiny_model)
    started.close()
    ports.close()


@pytest.fixture
def shared_servers(request: pytest.FixtureRequest, _servers_of_all_tests: SharedServers) -> SharedServers:
    """Servers that all tests of the run share. A failing test shows what they wrote during it."""
    _servers_of_all_tests.programs.mark()
    _processes_of(request.node).append(_servers_of_all_tests.programs)
    return _servers_of_all_tests


_PROCESSES = pytest.StashKey[list[Children | Programs]]()
_EXIT_STATUS = pytest.StashKey[int]()
_NETWORK = pytest.StashKey[str]()
_ENVIRONMENT = pytest.StashKey[dict[str, str]]()
_WARM = pytest.StashKey[WarmProcesses]()
_SHARED = pytest.StashKey[Programs]()


def _processes_of(item: pytest.Item) -> list[Children | Programs]:
    """The processes that a test has, to show and to end when its time is up."""
    return item.stash.setdefault(_PROCESSES, [])


def kills(item: pytest.Item) -> tuple[str, ...]:
    """The mutants that its marks name, its own and those around it, each once."""
    return tuple(dict.fromkeys(str(name) for mark in item.iter_markers("kills") for name in mark.args))


class Selection:
    """Which tests say something on this tree."""

    def __init__(self, record: Record, lane: str, ground: bool, mutant: str | None) -> None:
        self._record = record
        self._lane = lane
        self._ground = ground
        self._mutant = mutant

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = [item for item in items if not self._speaks(item)]
        if left_out:
            items[:] = [item for item in items if self._speaks(item)]
            config.hook.pytest_deselected(items=left_out)
            self._record.left_out([item.nodeid for item in left_out])

    def _speaks(self, item: pytest.Item) -> bool:
        if lane_of(item) != self._lane:
            return False
        named = kills(item)
        return self._mutant in named if self._mutant else not (self._ground and named)


class Record:
    """Turns pytest's reports into one outcome a test and writes them down."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._phases: dict[str, list[tuple[str, str]]] = {}
        self._durations_s: dict[str, float] = {}
        self._controls: set[str] = set()
        self._kills: dict[str, tuple[str, ...]] = {}
        self._limits_hit: dict[str, float] = {}
        self._stacks: dict[str, list[str]] = {}

    def limit_hit(self, test: str, limit_s: float) -> None:
        self._limits_hit[test] = limit_s

    def left_out(self, tests: Sequence[str]) -> None:
        self._write({"left_out": list(tests)})

    def hardware(self, said: dict[str, Any]) -> None:
        """What this runs on, before anything runs."""
        self._write({"hardware": said})

    def settings(self, test: str, values: Mapping[str, str]) -> None:
        """What a test runs with, before its answer."""
        self._write({"settings": {"test": test, "values": dict(values)}})

    def stacks_left(self, test: str, names: list[str]) -> None:
        """Where they are, by the names of their files; none where nobody keeps them."""
        self._stacks[test] = names

    def sample(self, test: str, metric: str, value: float) -> None:
        """A number that a test has measured, before its answer."""
        self._write({"sample": {"test": test, "metric": metric, "value": value}})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            reason = str(report.longrepr).strip().splitlines()[-1]
            self._answer(report.nodeid, "crash", 0.0, f"cannot be collected: {reason}")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._controls = {item.nodeid for item in session.items if item.get_closest_marker("control")}
        self._kills = {item.nodeid: kills(item) for item in session.items}
        self._write({"collected": [item.nodeid for item in session.items]})

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write({"started": nodeid})
        self._phases[nodeid] = []
        self._durations_s[nodeid] = 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        if call.excinfo is not None:
            for name, output in (log for started in _processes_of(item) for log in started.logs()):
                item.add_report_section(call.when, f"output of child {name}", output)
        report = yield
        self._durations_s[item.nodeid] += call.duration
        if report.skipped:
            self._phases[item.nodeid].append(("skip", str(report.longrepr)))
        elif call.excinfo is not None:
            self._phases[item.nodeid].append(_judge(call.when, call.excinfo.value))
        elif report.failed:  # an expected failure that passed
            self._phases[item.nodeid].append(("fail", str(report.longrepr)))
        return report

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if nodeid in self._limits_hit:
            outcome, reason = "timeout", f"did not end within {self._limits_hit[nodeid]:.0f} s"
        else:
            # The first thing that went wrong is the answer; what came after may be its consequence.
            outcome, reason = next(iter(self._phases[nodeid]), ("pass", ""))
        self._answer(nodeid, outcome, self._durations_s[nodeid], reason)

    def stuck(self, nodeid: str, limit_s: float) -> None:
        """Record a time-out of a test that cannot be interrupted; its process ends next."""
        self._answer(nodeid, "timeout", limit_s, f"did not end within {limit_s:.0f} s and could not be interrupted")

    def _answer(self, test: str, outcome: str, duration_s: float, reason: str) -> None:
        first_line = (reason.strip().splitlines() or [""])[0]
        self._write(
            {
                "test": test,
                "outcome": outcome,
                "control": test in self._controls,
                "kills": list(self._kills.get(test, ())),
                "duration_s": round(duration_s, 3),
                "reason": first_line,
                **({"stacks": self._stacks[test]} if self._stacks.get(test) else {}),
            }
        )

    def _write(self, entry: dict[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(entry) + "\n")


def _judge(phase: str, error: BaseException) -> tuple[str, str]:
    """The outcome that an exception in a phase means, and its text."""
    own = is_by_the_test(error) or isinstance(error, pytest.fail.Exception)
    if phase == "call" and own:
        return "fail", str(error) or "assertion without a message"
    where = "" if phase == "call" else f"{phase}: "
    return "crash", f"{where}{type(error).__name__}: {error}"


class Limits:
    """One timer a test: a signal that interrupts the main thread, and a thread for when that cannot be done."""

    def __init__(self, record: Record, left: Stacks) -> None:
        self._record = record
        self._left = left
        self._item: pytest.Item | None = None
        self._phase: str | None = None
        self._limit_s = DEFAULT_LIMIT_S

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        mark = item.get_closest_marker("limit")
        self._item, self._limit_s = item, float(mark.args[0]) if mark else DEFAULT_LIMIT_S
        watchdog = threading.Timer(self._limit_s + STUCK_AFTER_S, self._give_up, [item, self._limit_s])
        watchdog.daemon = True
        before = signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, self._limit_s)
        watchdog.start()
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            watchdog.cancel()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        return (yield from self._during("setup"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        return (yield from self._during("call"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        return (yield from self._during("teardown"))

    def _during(self, phase: str) -> Generator[None, object, object]:
        self._phase = phase
        try:
            return (yield)
        finally:
            self._phase = None

    def _ring(self, _number: int, _frame: FrameType | None) -> None:
        """Runs in the main thread, wherever that is."""
        if self._item is None or self._phase is None:
            signal.setitimer(signal.ITIMER_REAL, 1.0)  # between two phases: nothing to interrupt yet
            return
        self._record.limit_hit(self._item.nodeid, self._limit_s)
        described, own = self._left.described(), _stacks_of_this_process()
        self._item.add_report_section(self._phase, "stacks of this process at the limit", own)
        others = self._left.others(self._item)
        said = [started.abort() for started in _processes_of(self._item)]
        for text in said:
            self._item.add_report_section(self._phase, "stacks of the children at the limit", text)
        self._record.stacks_left(self._item.nodeid, self._left.leave(self._item, described, own, *said, others))
        # A busy machine takes its time over the stacks; only what comes now is the test's own end.
        signal.setitimer(signal.ITIMER_REAL, TEARDOWN_LIMIT_S)
        raise LimitReached(f"{self._item.nodeid} did not end within {self._limit_s:.0f} s")

    def _give_up(self, item: pytest.Item, limit_s: float) -> None:
        """Runs in the watchdog's thread."""
        print(f"{item.nodeid} cannot be interrupted; this process ends", file=sys.__stderr__)
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        texts = self._left.described(), _stacks_of_this_process(), self._left.others(None)
        self._record.stacks_left(item.nodeid, self._left.leave(item, *texts))
        self._record.stuck(item.nodeid, limit_s)
        os._exit(STUCK_EXIT_CODE)


class Stacks:
    """Files that say where every process was when time was up; none without a folder for them."""

    def __init__(self, folder: Path | None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._mark = os.environ[stacks.MARK]
        self._count = 0

    def look_out(self, limit_s: float, record: Path) -> None:
        """Start the process that ends this one after ``limit_s``."""
        assert self._folder is not None, "--part-limit needs --stacks"
        stacks.write_on_signal((self._folder / stacks.OF_PYTEST).open("w"))
        argv = [stacks.__file__, str(os.getpid()), self._mark, str(limit_s), str(self._folder), str(record)]
        quiet = subprocess.DEVNULL
        subprocess.Popen([sys.executable, "-I", "-S", *argv], stdin=quiet, stdout=quiet, stderr=quiet)

    def described(self) -> str:
        """What the kernel says of every process of this run."""
        return stacks.describe(self._everyone()) if self._folder else ""

    def others(self, item: pytest.Item | None) -> str:
        """Stacks of those that ``item`` did not start itself, and that no other test needs; None: of all.

        What it did start is stopped, for the next question.
        """
        if self._folder is None:
            return ""
        known: set[int] = set()
        spared: set[int] = set()
        if item is not None:
            known = {pid for started in _processes_of(item) for pid in started.pids()}
            spared = item.config.stash[_SHARED].pids() if _SHARED in item.config.stash else set()
        everyone = self._everyone()
        stacks.send([process for process in everyone if process.pid in known], signal.SIGSTOP)
        return stacks.tell([process for process in everyone if process.pid not in known | spared])

    def leave(self, item: pytest.Item, *texts: str) -> list[str]:
        """Write a file, and return its name."""
        if self._folder is None:
            return []
        self._count += 1
        plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in item.name)
        name = f"{self._count}-{plain[:LONGEST_NAME]}.txt"
        (self._folder / name).write_text("\n\n".join(filter(None, texts)) + "\n")
        return [name]

    def _everyone(self) -> list[stacks.Process]:
        return stacks.processes_of_run(os.getpid(), self._mark)


def _stacks_of_this_process() -> str:
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        return file.read()
