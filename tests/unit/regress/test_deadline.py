"""The night's deadline: what runs is stopped, what has not answered is missing, and what has answered counts."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from tests.unit.regress.test_crew import Bench, outcomes

from patchstack.deadline import REASON, Deadline
from patchstack.errors import Incomplete
from patchstack.model import GuardOutcome, GuardReport, Standing
from patchstack.regress.crew import run_parts
from patchstack.regress.durations import read_durations
from patchstack.regress.lane import run_lane
from patchstack.regress.prove import Claim
from patchstack.regress.record import read_record
from patchstack.regress.suites import Suite

FIRST_PASSES_THEN_WAITS = """
def test_first(): pass

@pytest.mark.limit(600)
def test_waits():
    import signal, sys
    pipe = open(sys.pycache_prefix + "/pipe", "w")
    pipe.write("here")
    pipe.flush()
    signal.pause()

def test_last(): pass
"""


class Clock:
    """Stands still until a guard says that it waits, and is then past every deadline."""

    def __init__(self, pipe: Path) -> None:
        pipe.parent.mkdir()
        os.mkfifo(pipe)
        pipe.chmod(0o622)
        self._pipe = pipe
        self._asked = 0
        self._held: TextIO | None = None

    def __call__(self) -> float:
        self._asked += 1
        if self._asked > 2 and self._held is None:  # made, and asked once before the first guard begins
            self._held = self._pipe.open()
            assert self._held.read(4) == "here"
        return 0.0 if self._held is None else 1e9

    def guard_ends(self) -> bool:
        """Whether the guard, which holds the other end, ends within a minute."""
        assert self._held is not None
        with self._held:
            return bool(select.select([self._held], [], [], 60)[0]) and self._held.read() == ""


def run(bench: Bench, deadline: Deadline, workers: int = 1) -> GuardReport:
    steps = bench.steps()
    return run_lane(
        "cpu",
        steps,
        {step.suite.slug: Claim("base") for step in steps if step.subject.composed},
        bench.keeping,
        root=bench.root,
        logs=bench.folder / "logs",
        workers=workers,
        progress=bench.said.append,
        restore=bench.restore,
        deadline=deadline,
    )


def test_what_has_answered_counts_and_all_else_is_missing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"x/test_x.py": FIRST_PASSES_THEN_WAITS})
    clock = Clock(tmp_path / "bytecode" / "pipe")
    report = run(bench, Deadline.after(5, monotonic=clock))
    assert outcomes(report) == [
        "composed x test_x.py::test_first: pass",
        "composed x test_x.py::test_waits: missing",
        "composed x test_x.py::test_last: missing",
        "base bed bed: missing",
        "base x x: missing",
    ]
    late = [said for tree in report.runs for said in tree.results if said.outcome is GuardOutcome.MISSING]
    assert {said.reason for said in late} == {REASON}
    assert clock.guard_ends()
    assert [proof.standing for proof in report.proofs] == [Standing.BROKEN]
    assert bench.said == [
        "guards of x on composed (1 of 3)",
        f"{REASON} of 5 min is over: what is under way is stopped",
    ]
    # Nothing is kept of it, and nobody takes the time that it took for what its guards take.
    assert [path.name for path in bench.keeping.folder.glob("*.json")] == ["durations.json"]
    assert read_durations(bench.keeping.folder).composed_s == {}
    assert (tmp_path / "logs" / "composed" / "x.log").is_file()


def test_a_deadline_that_is_over_begins_no_guard(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path, {"x/test_x.py": "import sys\nopen(sys.pycache_prefix + '/made', 'w')\ndef test_x(): pass\n"}
    )
    report = run(bench, Deadline(5, 0.0, lambda: 1.0), workers=2)
    assert outcomes(report) == ["composed x x: missing", "base bed bed: missing", "base x x: missing"]
    assert not (tmp_path / "bytecode" / "made").exists()


def test_a_deadline_that_is_far_off_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"x/test_x.py": "def test_x(): pass\n"})
    assert outcomes(run(bench, Deadline.after(300))) == [
        "composed x test_x.py::test_x: pass",
        "base bed test_bed.py::test_bed: pass",
        "base x test_x.py::test_x: pass",
    ]


def test_what_is_red_at_the_deadline_stays_red() -> None:
    lines = [
        '{"collected": ["a", "b", "c"]}',
        '{"started": "a"}',
        '{"test": "a", "outcome": "fail", "reason": "r"}',
        '{"started": "b"}',
    ]
    found = read_record(Suite("x", ("p",), "d"), lines, "ended", cut=REASON)
    assert [(said.test, said.outcome, said.reason) for said in found] == [
        ("a", GuardOutcome.FAIL, "r"),
        ("b", GuardOutcome.MISSING, REASON),
        ("c", GuardOutcome.MISSING, REASON),
    ]


@pytest.fixture
def moments() -> Iterator[float]:
    return iter((100.0, 130.0, 160.0, 170.0))


def test_it_is_measured_from_the_night_s_begin_on_a_clock_that_nobody_sets(moments: Iterator[float]) -> None:
    deadline = Deadline.after(2, spent_s=60.0, monotonic=lambda: next(moments))
    assert [deadline.left_s(), deadline.left_s(), deadline.over] == [30.0, 0.0, True]


def test_no_part_is_lost_where_nothing_was_to_run() -> None:
    run_parts(
        [],
        1,
        lambda part, stop: (),
        restore=lambda subject: False,
        settle=lambda *_: None,
        progress=lambda _: None,
        deadline=Deadline(1, 0.0, lambda: 1.0),
    )


def test_a_night_that_is_late_before_its_guards_says_so(tmp_path: Path) -> None:
    from patchstack.verbs.test import run_guards

    with pytest.raises(Incomplete, match="deadline of 5 min was over before any guard began"):
        run_guards(None, None, None, deadline=Deadline(5, 0.0, lambda: 1.0))  # type: ignore[arg-type]
