"""Several suites at a time: none is lost, none is begun twice, and nothing goes on when the run has ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest
from tests.unit.regress.test_guards_gone_wild import FINE, fake_bed

from patchstack import process
from patchstack.errors import MachineError, PatchstackError
from patchstack.model import GuardOutcome, GuardReport, GuardResult, Sha, Standing
from patchstack.regress import lane, unprivileged
from patchstack.regress.crew import has_own_network, run_parts
from patchstack.regress.enclose import Means
from patchstack.regress.execute import Tree
from patchstack.regress.lane import run_lane
from patchstack.regress.parts import Part
from patchstack.regress.prove import Claim
from patchstack.regress.steps import Keeping, Rerun, Step, Subject, Trial, decide_steps
from patchstack.regress.suites import BED_SUITE, Suite, find_suites
from patchstack.verbs.test import default_jobs

Settle = Callable[[Part, tuple[GuardResult, ...]], None]


@dataclass
class Bench:
    """A repository with guards in files, its trees, and what its runs said."""

    folder: Path
    files: dict[str, str]
    said: list[str] = field(default_factory=list)
    dirty: set[str] = field(default_factory=set)
    """Labels of the subjects whose tree had to be written again."""

    def __post_init__(self) -> None:
        self.root, _ = fake_bed(self.folder, FINE)
        for name, text in self.files.items():
            path = self.root / "tests" / "regression" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"import os, pytest\nfrom pathlib import Path\n{text}")
        self.subjects = {
            label: Subject(label, label == "composed", Sha(digit * 40), self.tree(label))
            for label, digit in (("composed", "a"), ("base", "b"))
        }
        self.keeping = Keeping(self.folder / "answers", "bed", "natives", "tool", Rerun.DUE, date(2026, 11, 21))

    def tree(self, label: str) -> Tree:
        folder = self.folder / f"tree of {label}"
        (folder / "python").mkdir(parents=True)
        return Tree(folder, Path(sys.executable), self.folder / "bytecode")

    def steps(self) -> tuple[Step, ...]:
        slugs = dict.fromkeys(name.partition("/")[0] for name in self.files)
        suites = find_suites(self.root, [(slug, [f"tests/regression/{slug}"]) for slug in slugs])
        trials = [Trial(self.subjects["base"], suite) for suite in suites]
        return decide_steps(self.subjects["composed"], suites, trials, self.keeping)

    def restore(self, subject: Subject) -> bool:
        new = subject.tree.folder / "python" / "new"
        if not new.exists():
            return False
        new.unlink()
        self.dirty.add(subject.label)
        return True

    def run(self, workers: int) -> GuardReport:
        steps = self.steps()
        return run_lane(
            "cpu",
            steps,
            {step.suite.slug: Claim("base") for step in steps if step.subject.composed},
            self.keeping,
            root=self.root,
            logs=self.folder / "logs",
            workers=workers,
            progress=self.said.append,
            restore=self.restore,
        )


def outcomes(report: GuardReport) -> list[str]:
    """``base x test_it: pass``, in the report's order."""
    return [
        f"{run.label} {result.slug} {result.test.rpartition('/')[2]}: {result.outcome}"
        for run in report.runs
        for result in run.results
    ]


# Each begins when the other has; alone, neither ends before its limit.
RENDEZVOUS = """
@pytest.mark.limit(60)
def test_{mine}():
    place = Path(os.environ["PYTHONPYCACHEPREFIX"]) / os.environ["PATCHSTACK_TREE"].rpartition(" ")[2]
    place.mkdir(exist_ok=True)
    for name in ("{mine}", "{other}"):
        try:
            os.mkfifo(place / name)
        except FileExistsError:
            pass
    mine = os.open(place / "{mine}", os.O_RDWR)
    other = os.open(place / "{other}", os.O_RDWR)
    os.write(other, b"here")
    assert os.read(mine, 4) == b"here"
"""


def test_two_suites_run_at_the_same_time_and_the_report_is_in_order(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        {
            f"{mine}/test_{mine}.py": RENDEZVOUS.format(mine=mine, other=other)
            for mine, other in (("first", "second"), ("second", "first"))
        },
    )
    (bench.root / "tests/regression/bed/test_bed.py").write_text("def test_bed(): pass\n")
    report = bench.run(2)
    assert outcomes(report) == [
        "composed first test_first.py::test_first: pass",
        "composed second test_second.py::test_second: pass",
        "base bed test_bed.py::test_bed: pass",
        "base first test_first.py::test_first: pass",
        "base second test_second.py::test_second: pass",
    ]
    assert bench.said == [
        "guards of first on composed (1 of 5)",
        "guards of second on composed (2 of 5)",
        "guards of bed on base (3 of 5)",
        "guards of first on base (4 of 5)",
        "guards of second on base (5 of 5)",
    ]
    assert sorted(path.relative_to(tmp_path / "logs").as_posix() for path in (tmp_path / "logs").rglob("*.log")) == [
        *("base/bed.log", "base/first.log", "base/second.log"),
        *("composed/first.log", "composed/second.log"),
    ]


PLAIN = "def test_it(): pass\n"
FAILS_ON_BASE = "def test_it(): assert os.environ['PATCHSTACK_TREE'].endswith('composed')\n"


def test_a_suite_in_several_files_is_one_suite_in_the_report_and_among_the_answers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"x/test_x.py": FAILS_ON_BASE, "x/test_a.py": FAILS_ON_BASE, "y/test_y.py": PLAIN})
    report = bench.run(2)
    assert bench.said[0] == "guards of x/test_a on composed (1 of 7)"
    assert [line for line in outcomes(report) if " x " in line] == [
        *("composed x test_a.py::test_it: pass", "composed x test_x.py::test_it: pass"),
        *("base x test_a.py::test_it: fail", "base x test_x.py::test_it: fail"),
    ]
    assert [(proof.slug, proof.standing) for proof in report.proofs] == [
        ("x", Standing.PROVEN),
        ("y", Standing.REDUNDANT),
    ]
    # y passes where it is meant to fail: that is asked again.
    kept = [step.kept for step in bench.steps() if step.kept]
    assert [result for said in kept for result in said] == [said for said in report.runs[1].results if said.slug != "y"]
    # Kept or not, split or not: the same report but for the time that it took.
    assert outcomes(bench.run(1)) == outcomes(report)


def test_whoever_ends_first_the_report_is_in_order_and_a_part_alone_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, {"w/test_a.py": PLAIN, "w/test_b.py": PLAIN, "y/test_y.py": PLAIN})
    answers: list[list[str]] = []

    def backwards(parts: list[Part], workers: int, run: object, *, settle: Settle, **more: object) -> None:
        for part in reversed(parts):
            (path,) = part.suite.paths
            passes = part.step.subject.composed or part.suite.slug == BED_SUITE
            said = GuardOutcome.PASS if passes else GuardOutcome.FAIL
            settle(part, (GuardResult(f"{path}::t", part.suite.slug, False, said, 1.0),))
            answers.append([step.suite.slug for step in bench.steps() if step.kept])

    monkeypatch.setattr(lane, "has_own_network", lambda root, tree: True)
    monkeypatch.setattr(lane, "run_parts", backwards)
    assert [line.replace("::t", "") for line in outcomes(bench.run(2))] == [
        *("composed w test_a.py: pass", "composed w test_b.py: pass", "composed y y: pass"),
        *("base bed bed: pass", "base w test_a.py: fail", "base w test_b.py: fail", "base y y: fail"),
    ]
    assert answers[:4] == [["y"], ["y"], ["w", "y"], ["bed", "w", "y"]]


def test_a_process_that_dies_is_heard_of_and_its_file_is_not_lost(tmp_path: Path) -> None:
    dies = "def test_dies(): os.kill(os.getpid(), 9)\n"
    bench = Bench(tmp_path, {"x/test_a.py": dies, "x/test_x.py": PLAIN, "y/test_y.py": "import not_there\n"})
    assert [line for line in outcomes(bench.run(3)) if line.startswith("composed")] == [
        "composed x test_a.py::test_dies: crash",
        "composed x test_x.py::test_it: pass",
        "composed y test_y.py: crash",
    ]


WRITES_ON_COMPOSED = """
    if place.name == "composed":
        open(os.environ["PATCHSTACK_TREE"] + "/python/new", "w").close()
"""


def test_what_ran_beside_guards_that_wrote_into_the_tree_is_no_answer_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can say which of them it was; `test_guards_gone_wild` has what runs alone."""
    monkeypatch.setattr(unprivileged, "means", lambda: Means.ENVIRONMENT)  # else they cannot write there
    first = RENDEZVOUS.format(mine="first", other="second") + WRITES_ON_COMPOSED
    second = RENDEZVOUS.format(mine="second", other="first")
    bench = Bench(tmp_path, {"first/test_first.py": first, "second/test_second.py": second})
    report = bench.run(2)
    assert bench.dirty == {"composed"}
    composed, base = report.runs
    assert {result.outcome for result in composed.results} == {GuardOutcome.CRASH}
    assert {result.reason for result in composed.results} == {
        "one of those that ran at a time wrote into the tree under test (first, second): --jobs 1 tells which"
    }
    assert {result.outcome for result in base.results} == {GuardOutcome.PASS}


def test_where_the_machine_allows_no_network_of_their_own_they_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, {"a/test_a.py": PLAIN, "a/test_b.py": PLAIN})
    monkeypatch.setattr(lane, "has_own_network", lambda root, tree: False)
    numbers: list[int] = []
    monkeypatch.setattr(lane, "run_parts", lambda parts, workers, run, **more: numbers.append(workers))
    with pytest.raises(PatchstackError, match="nobody heard how they ended: a on composed, bed on base, a on base"):
        bench.run(2)
    assert numbers == [1]
    assert bench.said == ["this machine allows no network namespace: the guards run one after the other"]


def test_where_root_gets_no_namespaces_the_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, {"a/test_a.py": PLAIN})
    monkeypatch.setattr(unprivileged, "means", lambda: Means.IDENTITY)
    monkeypatch.setattr(unprivileged, "namespace_fault", lambda: "unshare: Operation not permitted")
    monkeypatch.setattr(lane, "run_parts", lambda parts, workers, run, **more: None)
    with pytest.raises(PatchstackError, match="nobody heard how they ended"):
        bench.run(1)
    assert bench.said == [
        "this machine gives root no namespaces (unshare: Operation not permitted): guards run as user 60999"
    ]


@pytest.mark.parametrize(
    ("makes", "own"), [("return PRIVATE", True), ("return 'shared'", False), ("raise OSError('no')", False)]
)
def test_the_bed_is_asked_whether_it_gets_a_network(tmp_path: Path, makes: str, own: bool) -> None:
    bed = tmp_path / "tests" / "support" / "testbed"
    bed.mkdir(parents=True)
    (bed / "__init__.py").write_text("")
    (bed / "network.py").write_text(f"PRIVATE = 'private'\ndef make_private():\n    {makes}\n")
    (tmp_path / "tree" / "python").mkdir(parents=True)
    tree = Tree(tmp_path / "tree", Path(sys.executable), tmp_path / "bytecode")
    assert has_own_network(tmp_path, tree) is own


@pytest.mark.parametrize(("cores", "jobs"), [(1, 2), (2, 3), (3, 4), (64, 4)])
def test_unless_told_one_more_runs_than_there_are_cores(cores: int, jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert default_jobs() == jobs


# --- the end of a run ---


def parts(number: int) -> list[Part]:
    tree = Tree(Path("tree"), Path(sys.executable), Path("bytecode"))
    steps = [
        Step(Subject("base", False, Sha("b" * 40), tree), Suite(f"s{index}", ("p",), "d"), "k", None)
        for index in range(number)
    ]
    return [Part(step, step.suite, 0, step.suite.slug, None) for step in steps]


WAITS = """
import os, signal, sys
signal.alarm(60)  # it ends by itself, whatever happens to it
open(sys.argv[1], "w").write(str(os.getpid()))
signal.pause()
"""


@dataclass
class Waiting:
    """Parts whose processes wait until they are ended; each writes its pid into a FIFO."""

    folder: Path

    def __post_init__(self) -> None:
        self.fifo = self.folder / "pids"
        os.mkfifo(self.fifo)
        self.ended: list[BaseException] = []

    def run(self, part: Part, stop: process.Stop) -> tuple[()]:
        try:
            process.run([sys.executable, "-c", WAITS, str(self.fifo)], under=stop)
        except process.Stopped as stopped:
            self.ended.append(stopped)
            raise
        return ()

    def pid(self) -> int:
        return int(self.fifo.read_text())


def ends(pid: int) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 20.0)[0])
    finally:
        os.close(handle)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MachineError("no")])
def test_whatever_is_raised_ends_what_is_under_way_and_nothing_more_begins(
    tmp_path: Path, error: type[BaseException] | BaseException
) -> None:
    """In this thread: Ctrl-C, a full disk where answers are kept."""
    waiting = Waiting(tmp_path)
    pids: list[int] = []
    begun: list[str] = []

    def run(part: Part, stop: process.Stop) -> tuple[()]:
        begun.append(part.name)
        if part.name == "s0":
            pids.append(waiting.pid())
            return ()
        return waiting.run(part, stop)

    def settle(part: Part, results: object) -> None:
        raise error

    def progress(message: str) -> None:
        if "s2" in message:
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        run_parts(parts(5), 2, run, restore=lambda subject: False, settle=settle, progress=progress)
    assert begun == ["s0", "s1"]
    assert [type(stopped) for stopped in waiting.ended] == [process.Stopped]
    assert ends(pids[0])


def test_what_a_worker_raises_ends_the_others_and_is_raised_here(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)
    pids: list[int] = []

    def run(part: Part, stop: process.Stop) -> tuple[()]:
        if part.name == "s0":
            pids.append(waiting.pid())
            raise MachineError("the disk is full")
        return waiting.run(part, stop)

    with pytest.raises(MachineError, match="the disk is full"):
        run_parts(parts(3), 2, run, restore=lambda subject: False, settle=lambda *_: None, progress=lambda _: None)
    assert ends(pids[0])


def test_no_program_begins_under_a_stop_that_was_pulled(tmp_path: Path) -> None:
    stop = process.Stop()
    stop.pull()
    with pytest.raises(process.Stopped):
        process.run([sys.executable, "-c", f"open({str(tmp_path / 'made')!r}, 'w')"], under=stop)
    assert not (tmp_path / "made").exists()


KILLED = """
import sys
from pathlib import Path
from patchstack.regress.execute import Tree, run_suite
from patchstack.regress.suites import Suite
root, bytecode = Path(sys.argv[1]), Path(sys.argv[3])
tree = Tree(Path(sys.argv[2]), Path(sys.executable), bytecode)
run_suite(Suite("x", ("tests/regression/x",), "d"), tree, root, bytecode.with_name("log"), 60.0)
"""


def test_a_run_that_is_killed_outright_takes_its_guards_along(tmp_path: Path) -> None:
    """The guard holds a pipe, whose other end is told when nobody has it any more."""
    waits = "def test_waits():\n    import signal, sys\n    pipe = open(sys.pycache_prefix + '/pipe', 'w')\n"
    root, tree = fake_bed(tmp_path, f"{waits}    pipe.write('here')\n    pipe.flush()\n    signal.pause()\n")
    tree.bytecode.mkdir()
    pipe = tree.bytecode / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o622)
    argv = [sys.executable, "-c", KILLED, str(root), str(tree.folder), str(tree.bytecode)]
    with subprocess.Popen(argv) as run, pipe.open() as held:
        assert held.read(4) == "here"
        run.send_signal(signal.SIGKILL)
        assert select.select([held], [], [], 60)[0], "a guard outlived the run"
        assert held.read() == ""
