"""The bed's harness without SGLang: the record of the plugin, and what happens to the processes of a test."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).parents[1] / "support"

GUARDS = """
import os, signal, subprocess, threading
import pytest
from testbed import ChildEnded, Ports
import under_test

def answer(link, value):
    link.send(os.getpid())
    return value + link.receive()

def assert_wrongly(link):
    assert 1 == 2, "in the child"

def raise_something(link):
    raise ValueError("no")

def assert_in_the_tree(link):
    under_test.check(1, 2)

def exit_silently(link):
    os._exit(3)

def wait_for_ever(link):
    grandchild = subprocess.Popen(["sleep", "600"])
    link.send(grandchild.pid)
    threading.Event().wait()

def note(pid):
    with open(os.environ["PIDS"], "a") as file:
        file.write(f"{pid}\\n")

@pytest.fixture
def broken():
    assert False, "set-up"

@pytest.fixture
def breaks_later():
    yield
    raise OSError("tear-down")

def test_passes(children):
    child = children.start(answer, 3)
    assert child.receive(30) == child.pid != os.getpid()
    child.send(4)
    assert children.join(30).values() == [7]

@pytest.mark.control
def test_is_a_control(ports):
    other = Ports()
    try:
        assert len({ports.take(), ports.take(), other.take(), other.take()}) == 4
    finally:
        other.close()

def test_fails():
    assert 1 == 2, "first line\\nsecond line"

def test_fails_by_name():
    pytest.fail("said so")

def test_crashes():
    raise KeyError("gone")

def test_crashes_by_an_assertion_of_the_code_under_test():
    under_test.check(1, 2)

def test_crashes_in_set_up(broken):
    pass

def test_crashes_in_tear_down(breaks_later):
    pass

def test_skips_itself():
    pytest.skip("not today")

def test_fails_in_a_child(children):
    children.start(assert_wrongly)
    children.join(30).values()

@pytest.mark.parametrize("function", [raise_something, assert_in_the_tree, exit_silently])
def test_crashes_in_a_child(children, function):
    children.start(function, name="child")
    children.join(30).values()

def test_a_crash_is_not_taken_for_the_hang_of_another(children):
    children.start(wait_for_ever, name="waits").receive(30)
    children.start(raise_something, name="crashes")
    assert not children.join(5).hung

def test_hangs(children):
    child = children.start(wait_for_ever, name="waits")
    note(child.pid), note(child.receive(30))
    ended = children.join(0.2)
    assert "in wait_for_ever" in ended["waits"].stacks
    assert not ended.hung, ended.describe()

@pytest.mark.limit(2)
def test_takes_too_long(children):
    child = children.start(wait_for_ever)
    note(child.pid), note(child.receive(30))
    threading.Event().wait()

def test_runs_after_it(children):
    child = children.start(exit_silently, name="child")
    with pytest.raises(ChildEnded, match="exited with 3"):
        child.receive(30)
"""

OUTCOMES = [
    ("passes", "pass", ""),
    ("is_a_control", "pass", ""),
    ("fails", "fail", "first line"),
    ("fails_by_name", "fail", "said so"),
    ("crashes", "crash", "KeyError: 'gone'"),
    ("crashes_by_an_assertion_of_the_code_under_test", "crash", "AssertionError: 1 is not 2"),
    ("crashes_in_set_up", "crash", "setup: AssertionError: set-up"),
    ("crashes_in_tear_down", "crash", "teardown: OSError: tear-down"),
    ("skips_itself", "skip", None),
    ("fails_in_a_child", "fail", "assert_wrongly-0 raised AssertionError: in the child"),
    ("crashes_in_a_child[raise_something]", "crash", "ChildFailed: child raised ValueError: no"),
    ("crashes_in_a_child[assert_in_the_tree]", "crash", "ChildFailed: child raised AssertionError: 1 is not 2"),
    ("crashes_in_a_child[exit_silently]", "crash", "ChildFailed: child exited with 3; its output ends with"),
    ("a_crash_is_not_taken_for_the_hang_of_another", "crash", "ChildFailed: crashes raised ValueError: no"),
    ("hangs", "fail", "waits hung; its threads were at"),
    ("takes_too_long", "timeout", "did not end within 2 s"),
    ("runs_after_it", "pass", ""),
]


class Bed:
    """A folder with a tree and guards, and the environment in which the runner runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "record.jsonl"
        self.pids = folder / "pids"
        (folder / "tree" / "python").mkdir(parents=True)
        (folder / "tree" / "python" / "under_test.py").write_text(
            "def check(one, other):\n    assert one == other, f'{one} is not {other}'\n"
        )
        self.environment = {
            **os.environ,
            "PATCHSTACK_TREE": str(folder / "tree"),
            "PYTHONPATH": os.pathsep.join(map(str, (folder / "tree" / "python", SUPPORT / "standins", SUPPORT))),
            "PIDS": str(self.pids),
            "TMPDIR": str(folder),
        }

    def start(self, guards: str, *options: str, pass_fds: Sequence[int] = ()) -> subprocess.Popen[str]:
        (self.folder / "test_guards.py").write_text(guards)
        argv = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "testbed.plugin",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
        ]
        argv += ["--rootdir", str(self.folder), "--record", str(self.record), *options, str(self.folder)]
        return subprocess.Popen(
            argv,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=pass_fds,
        )

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()]


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


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def test_every_kind_of_outcome_is_recorded_and_no_process_stays(bed: Bed) -> None:
    output, _ = bed.start(GUARDS).communicate(timeout=240)
    entries = bed.entries()
    names = [f"test_guards.py::test_{name}" for name, _, _ in OUTCOMES]
    assert entries[0] == {"collected": names}, output
    assert [entry["started"] for entry in entries if "started" in entry] == names
    results = [entry for entry in entries if "outcome" in entry]
    said = [(entry["test"], entry["outcome"], entry["reason"]) for entry in results]
    wanted = [
        (name, outcome, reason if reason is not None else found[2])
        for name, (_, outcome, reason), found in zip(names, OUTCOMES, said, strict=True)
    ]
    assert said == wanted
    assert [entry["test"] for entry in results if entry["control"]] == ["test_guards.py::test_is_a_control"]
    assert all(isinstance(entry["duration_s"], float) for entry in results)
    assert output.count("in wait_for_ever") >= 2, "the stacks of both hanging children"
    pids = [int(pid) for pid in bed.pids.read_text().split()]
    assert [pid for pid in pids if not ends(pid)] == []
    assert len(pids) == 4


def test_a_module_that_cannot_be_collected_is_a_crash(bed: Bed) -> None:
    bed.start("import there_is_no_such_module\n").communicate(timeout=60)
    (result,) = [entry for entry in bed.entries() if "outcome" in entry]
    assert (result["test"], result["outcome"]) == ("test_guards.py", "crash")
    assert "there_is_no_such_module" in str(result["reason"])


MARKED = """
import pytest

def test_plain(): pass

@pytest.mark.kills("p", "q")
def test_two(): pass

@pytest.mark.kills("q")
class TestIt:
    @pytest.mark.kills("r")
    def test_around_it(self): pass

@pytest.mark.parametrize("it", [1, pytest.param(2, marks=pytest.mark.kills("p"))])
def test_parameter(it): pass
"""


@pytest.mark.parametrize(
    ("options", "ran"),
    [
        ((), {"plain": "", "two": "p q", "around_it": "r q", "parameter[1]": "", "parameter[2]": "p"}),
        (("--ground",), {"plain": "", "parameter[1]": ""}),
        (("--mutant=p",), {"two": "p q", "parameter[2]": "p"}),
        (("--mutant=q",), {"two": "p q", "around_it": "r q"}),
        (("--mutant=other",), {}),
    ],
)
def test_on_each_tree_run_those_who_say_something_there(
    bed: Bed, options: tuple[str, ...], ran: dict[str, str]
) -> None:
    bed.start(MARKED, *options).communicate(timeout=60)
    entries = bed.entries()
    results = [entry for entry in entries if "outcome" in entry]
    told = {str(entry["test"]).rpartition("test_")[2]: " ".join(entry["kills"]) for entry in results}
    assert told == ran
    left_out = [test for entry in entries if "left_out" in entry for test in entry["left_out"]]
    assert len(left_out) + len(ran) == 5


ENDLESS_GUARD = """
import os, threading

def wait_for_ever(link):
    link.send(os.getpid())
    threading.Event().wait()

def test_is_killed(children):
    pid = children.start(wait_for_ever).receive(30)
    os.write(int(os.environ["TOLD"]), f"{pid}\\n".encode())
    threading.Event().wait()
"""


def test_children_end_with_a_test_run_that_is_killed(bed: Bed) -> None:
    told, tell = os.pipe()
    bed.environment["TOLD"] = str(tell)
    running = bed.start(ENDLESS_GUARD, pass_fds=[tell])
    os.close(tell)
    with os.fdopen(told) as line:
        child = int(line.readline())
    running.kill()
    running.communicate()
    assert ends(child)
