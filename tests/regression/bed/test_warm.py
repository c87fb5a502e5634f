"""Forked children are what fresh interpreters would be, and end as those do."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import Children, Link, Rank, State, run_ranks
from testbed.warm import MOST_AT_A_TIME, WarmProcesses, WarmProcessGone

pytestmark = pytest.mark.control

HEAVY = "sglang.srt.managers.cache_controller"
READ_AT_IMPORT = "SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION"

Start = Callable[..., WarmProcesses]


@pytest.fixture
def with_sglang(warm: WarmProcesses | None, tmp_path: Path) -> Iterator[WarmProcesses]:
    """The run's own warm processes, or others where it has none (``--fresh``)."""
    if warm is not None:
        yield warm
        return
    own = WarmProcesses(tmp_path, os.environ)
    yield own
    own.close()


@pytest.fixture
def warming(tmp_path: Path) -> Iterator[Start]:
    """Warm processes that import only what is named, so that they start at once."""
    started: list[WarmProcesses] = []

    def start(*modules: str) -> WarmProcesses:
        folder = tmp_path / f"warm-{len(started)}"
        folder.mkdir()
        started.append(WarmProcesses(folder, os.environ, modules))
        return started[-1]

    yield start
    for processes in started:
        processes.close()


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Callable[[WarmProcesses], Children]]:
    started: list[Children] = []

    def start(warm: WarmProcesses) -> Children:
        started.append(Children(tmp_path / f"children-{len(started)}", warm))
        return started[-1]

    yield start
    for children in started:
        children.close()


Fork = Callable[[WarmProcesses], Children]


def describe(_link: Link) -> dict[str, Any]:
    """What a child can see of how it was started; and whether SGLang was there when it was called."""
    was_there = HEAVY in sys.modules
    import sglang.srt.managers.cache_controller  # noqa: F401

    sys.stdout.write("said to stdout\n")
    os.system("echo said by a program")
    return {
        "forked": was_there,
        "parent": os.getppid(),
        "leads its session": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "folder": str(Path.cwd()),
        "path": sys.path,
        "environment": dict(os.environ),
        "of its programs": sorted(
            subprocess.run(["env"], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        ),
        "input": Path("/proc/self/fd/0").readlink(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "tasks": len(list(Path("/proc/self/task").iterdir())),
    }


@pytest.mark.limit(240)
def test_a_forked_child_is_as_a_fresh_one(
    with_sglang: WarmProcesses, forking: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGLANG_HICACHE_COLLECTIVE_ALWAYS", "0")
    children = forking(with_sglang)
    children.start(describe, name="forked", env={"RANK": "7"})
    children.start(describe, name="fresh", env={"RANK": "7"}, fresh=True)
    forked, fresh = children.join(200).values()
    assert (forked.pop("forked"), fresh.pop("forked")) == (True, False)
    assert forked == fresh
    assert (forked["environment"]["RANK"], forked["environment"]["SGLANG_HICACHE_COLLECTIVE_ALWAYS"]) == ("7", "0")
    assert forked["parent"] == os.getpid()
    assert "said to stdout\nsaid by a program" in dict(children.logs())["forked"]


def read_settings(_link: Link) -> tuple[int, bool]:
    was_there = HEAVY in sys.modules
    from sglang.srt.managers.schedule_policy import CLIP_MAX_NEW_TOKENS

    return CLIP_MAX_NEW_TOKENS, was_there


@pytest.mark.limit(240)
def test_a_variable_that_is_read_at_import_has_its_value(with_sglang: WarmProcesses, forking: Fork) -> None:
    children = forking(with_sglang)
    for value in ("77", "88", "77"):
        children.start(read_settings, env={READ_AT_IMPORT: value})
    children.start(read_settings)
    assert children.join(200).values() == [(77, True), (88, True), (77, True), (4096, True)]
    assert len(with_sglang.pids()) <= MOST_AT_A_TIME


def late_variables(_link: Link) -> list[str]:
    return sorted(name for name in os.environ if name.startswith("SGLANG_LATE"))


def test_a_variable_that_is_no_more_is_not_there(
    warming: Start, forking: Fork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLANG_LATE_OLD", "1")
    warm = warming()
    monkeypatch.delenv("SGLANG_LATE_OLD")
    children = forking(warm)
    children.start(late_variables, env={"SGLANG_LATE_NEW": "1"})
    assert children.join(30).values() == [["SGLANG_LATE_NEW"]]
    assert warm.summary() == "1 forked from 1 warm processes"


def answer(_rank: Rank) -> int:
    return os.getpid()


def test_the_interface_of_gloo_is_read_after_the_fork(children: Children) -> None:
    ended = run_ranks(children, answer, size=1, env={"GLOO_SOCKET_IFNAME": "no-such-interface"}, limit_s=90)
    (report,) = ended.reports
    assert report.state is State.RAISED
    assert "no-such-interface" in report.describe()


def hold(link: Link) -> None:
    program = subprocess.Popen(["sleep", "600"])
    link.send((os.getpid(), program.pid))
    link.send(link.receive())
    threading.Event().wait()


def test_a_killed_child_is_reported_as_such(warming: Start, forking: Fork) -> None:
    children = forking(warming())
    child = children.start(hold, name="held")
    pid, program = child.receive()
    assert pid == child.pid
    os.kill(pid, signal.SIGKILL)
    (report,) = children.join(10).reports
    assert (report.state, report.returncode) == (State.EXITED, -signal.SIGKILL)
    assert report.describe().startswith("held exited with -9")
    assert ends(program)


def test_a_hung_child_shows_its_stacks_and_leaves_nothing(warming: Start, forking: Fork) -> None:
    warm = warming()
    children = forking(warm)
    child = children.start(hold, name="held")
    pids = [*child.receive(), *warm.pids()]
    ended = children.join(0.2)
    assert ended.hung == ["held"]
    assert "in hold" in ended["held"].stacks
    warm.close()
    assert [pid for pid in pids if not ends(pid)] == []
    assert len(pids) == 3


def test_a_warm_process_that_dies_is_noticed_and_takes_no_child_with_it(warming: Start, forking: Fork) -> None:
    warm = warming()
    children = forking(warm)
    before = children.start(hold)
    before.receive()
    (pid,) = warm.pids()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WarmProcessGone, match=f"warm process {pid} ended with -9"):
        children.start(hold)
    after = children.start(hold)
    after.receive()
    for child in (before, after):
        child.send("still there?")
        assert child.receive() == "still there?"


def test_a_stopped_test_run_takes_its_forked_children_along(tmp_path: Path) -> None:
    """The kernel does it: they are told of the end of the test run, not of the warm process's."""
    run = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import start_and_wait; start_and_wait({str(tmp_path)!r})"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
    )
    with run.stdout as said:
        pids = [int(pid) for pid in said.readline().split()]
    run.kill()
    run.wait()
    assert [pid for pid in pids if not ends(pid)] == []
    assert len(pids) == 2


def start_and_wait(folder: str) -> None:
    """Another test run, with one child and its warm process; prints their ids."""
    warm = WarmProcesses(Path(folder), os.environ, [])
    child = Children(Path(folder), warm).start(wait_in_silence)
    sys.stdout.write(f"{child.receive()} {warm.pids()[0]}\n")
    sys.stdout.flush()
    threading.Event().wait()


def wait_in_silence(link: Link) -> None:
    os._exit = lambda _code: threading.Event().wait()  # what a child does at the end of its line
    link.send(os.getpid())
    threading.Event().wait()


HANGS = """
import os, pathlib, signal, threading
pathlib.Path(__file__).with_name("pid").write_text(str(os.getpid()))
os.kill(os.getppid(), signal.SIGUSR1)
threading.Event().wait()
"""


class TimeIsUp(BaseException):
    """As the plugin's limit: it comes wherever the main thread is."""


def ring(_number: int, _frame: object) -> None:
    raise TimeIsUp


def test_a_test_whose_time_is_up_during_the_imports_leaves_nothing(
    warming: Start, forking: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(tmp_path)]))
    warm = warming("hangs")
    before = signal.signal(signal.SIGUSR1, ring)
    try:
        with pytest.raises(TimeIsUp):
            forking(warm).start(hold)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert warm.pids() == []
    assert ends(int((tmp_path / "pid").read_text()))


SCANS = "import os\nfound = [name for name in os.environ if 'X' in name]\n"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("mooncake.engine", "threads running"),
        ("scans_all", "read the whole environment: scans_all"),
        ("breaks", "ZeroDivisionError while importing"),
    ],
)
def test_a_warm_process_that_is_unfit_forks_nothing(
    warming: Start, forking: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, reason: str
) -> None:
    (tmp_path / "scans_all.py").write_text(SCANS)
    (tmp_path / "breaks.py").write_text("1 / 0\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(tmp_path)]))
    warm = warming(module)
    children = forking(warm)
    child = children.start(hold, name="held")
    assert child.receive()[0] == child.pid
    log = dict(children.logs())["held"]
    assert log.startswith("testbed: a fresh interpreter, for the warm process is unfit")
    assert reason in log
    assert reason in warm.summary()


def ends(pid: int, limit_s: float = 10.0) -> bool:
    """Whether a process is over within ``limit_s`` seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], limit_s)[0])
    finally:
        os.close(handle)
