"""Guards on the trees of mutants, with the bed's real plugin: what runs, what counts, what is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from tests.unit.regress.test_guards_gone_wild import FINE, fake_bed

from patchstack.model import GuardReport, Mutant, Sha
from patchstack.regress.execute import Tree
from patchstack.regress.kills import on_ground, on_mutant, read_kills
from patchstack.regress.lane import run_lane
from patchstack.regress.prove import Claim
from patchstack.regress.steps import Keeping, Rerun, Step, Subject, Trial, decide_steps
from patchstack.regress.suites import Suite, files_of

FIXED = "def is_sorted(values):\n    return sorted(values) == values\n"
FAULTS = {
    "always": "def is_sorted(values):\n    return True\n",
    "never": "def is_sorted(values):\n    return False\n",
    "hangs": "import threading\n\ndef is_sorted(values):\n    threading.Event().wait()\n",
    "no-import": "raise OSError('no')\n",
    "raises": "def is_sorted(values):\n    assert values is None, 'in the code under test'\n",
    "exits": "import os\n\ndef is_sorted(values):\n    os._exit(0)\n",
}
"""What the patch brings, and what each mutant makes of it."""

GUARDS = """
@pytest.mark.limit(2)
@pytest.mark.kills({names})
def test_unsorted():
    from fixed import is_sorted
    assert not is_sorted([2, 1])

@pytest.mark.kills("never")
def test_sorted():
    from fixed import is_sorted
    assert is_sorted([1, 2])

@pytest.mark.control
def test_control():
    pass
"""
NAMES = ("always", "hangs", "no-import", "raises", "exits")


@dataclass
class Bench:
    folder: Path
    guards: str = GUARDS.format(names=", ".join(f'"{name}"' for name in NAMES))
    laid: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root, _ = fake_bed(self.folder, FINE)
        (self.root / "tests" / "regression" / "x" / "test_x.py").write_text(f"import os, pytest\n{self.guards}")
        self.keeping = Keeping(self.folder / "answers", "bed", "natives", "tool", Rerun.NONE, date(2026, 11, 21))
        self.suite = Suite("x", ("tests/regression/x",), "d")

    def subject(self, label: str, digit: str, text: str = "", mutant: str = "") -> Subject:
        folder = self.folder / f"tree of {label.replace('/', '-')}"
        (folder / "python").mkdir(parents=True, exist_ok=True)
        if text:
            (folder / "python" / "fixed.py").write_text(text)
        tree = Tree(folder, Path(sys.executable), self.folder / "bytecode")
        return Subject(label, label == "composed", Sha(digit * 40), tree, mutant)

    def mutants(self) -> list[tuple[Mutant, Subject]]:
        found = []
        for number, name in enumerate(FAULTS, start=1):
            subject = self.subject(f"mutant x/{name}", str(number), mutant=f"x/{name}")
            found.append((Mutant(name, subject.sha, subject.sha), subject))
        return found

    def steps(self) -> tuple[Step, ...]:
        kills = read_kills(self.root, files_of(self.root, self.suite))
        trials = [Trial(self.subject("base", "b"), left)] if (left := on_ground(self.suite, kills)) else []
        for mutant, subject in self.mutants():
            named = on_mutant(self.suite, kills, mutant.name)
            trials += [Trial(subject, named)] if named else []
        return decide_steps(self.subject("composed", "a", FIXED), [self.suite], trials, self.keeping)

    def lay(self, subject: Subject) -> None:
        self.laid.append(subject.mutant)
        (subject.tree.folder / "python" / "fixed.py").write_text(FAULTS[subject.mutant_name])

    def run(self) -> GuardReport:
        return run_lane(
            "cpu",
            self.steps(),
            {"x": Claim("base", tuple(mutant for mutant, _ in self.mutants()))},
            self.keeping,
            root=self.root,
            logs=self.folder / "logs",
            workers=1,
            progress=lambda _: None,
            restore=lambda _: False,
            lay=self.lay,
            drop=lambda subject: self.dropped.append(subject.mutant),
        )


def told(report: GuardReport) -> list[str]:
    """``base: test_control pass``, a tree a line; a tree whose answer was kept ends with ``(kept)``."""
    return [
        f"{run.label}: "
        + ", ".join(f"{said.test.rpartition(':')[2]} {said.outcome}" for said in run.results)
        + " (kept)" * run.kept
        for run in report.runs
    ]


EXPECTED = [
    "composed: test_unsorted pass, test_sorted pass, test_control pass",
    "base: test_control pass",
    "mutant x/always: test_unsorted fail",
    "mutant x/never: test_sorted fail",
    "mutant x/hangs: test_unsorted timeout",
    "mutant x/no-import: test_unsorted crash",
    "mutant x/raises: test_unsorted crash",
    "mutant x/exits: test_unsorted crash",
]


def test_only_marked_guards_run_on_a_mutant_and_only_their_own_assertion_kills_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    report = bench.run()
    assert told(report) == EXPECTED
    (proof,) = report.proofs
    test = "tests/regression/x/test_x.py::test_unsorted"
    otherwise = f"they end otherwise than by their assertion: {test}"
    sentences = proof.detail.split("; ")
    (stacks,) = [sentence for sentence in sentences if sentence.startswith("stacks of every process: ")]
    assert stacks.endswith(".txt)")
    assert [sentence for sentence in sentences if sentence != stacks] == [
        f"on mutant hangs {otherwise} (timeout: did not end within 2 s",
        f"on mutant no-import {otherwise} (crash: OSError: no)",
        f"on mutant raises {otherwise} (crash: AssertionError: in the code under test)",
        f"on mutant exits {otherwise} (crash: pytest ended with 0 while it ran)",
    ]
    assert bench.laid == bench.dropped == [f"x/{name}" for name in FAULTS]
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == sorted(
        ["base", "composed", *(f"mutant-x-{name}" for name in FAULTS)]
    )


def test_an_answer_is_kept_and_what_is_none_is_asked_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run()
    bench.laid.clear()
    kept = {"base", "mutant x/always", "mutant x/never"}
    assert told(bench.run()) == [f"{line} (kept)" if line.partition(":")[0] in kept else line for line in EXPECTED]
    assert sorted(bench.laid) == ["x/exits", "x/hangs", "x/no-import", "x/raises"]


def test_a_file_of_killers_alone_has_no_ground(tmp_path: Path) -> None:
    """It may import at the top what only the patch brings."""
    guards = (
        "from fixed import is_sorted\n@pytest.mark.kills('always')\ndef test_it():\n    assert not is_sorted([2, 1])\n"
    )
    bench = Bench(tmp_path, guards)
    report = bench.run()
    assert told(report) == ["composed: test_it pass", "mutant x/always: test_it fail"]


def test_a_run_that_is_killed_outright_keeps_no_half_of_an_answer(tmp_path: Path) -> None:
    """The process that waits for the guards is killed while a mutant hangs; what had answered before stays kept."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from pathlib import Path
from tests.unit.regress import test_mutant_runs as this

class Told(this.Bench):
    def lay(self, subject):
        super().lay(subject)
        if subject.mutant_name == "hangs":
            print("hangs", flush=True)

Told(Path({str(tmp_path)!r}), this.ENDLESS).run()
"""
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "hangs\n"
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    bench = Bench(tmp_path / "again", ENDLESS)
    bench.keeping = Keeping(tmp_path / "answers", "bed", "natives", "tool", Rerun.NONE, date(2026, 11, 21))
    kept = [step.subject.label for step in bench.steps() if step.kept is not None]
    assert kept == ["base", "mutant x/always", "mutant x/never"]


ENDLESS = GUARDS.format(names='"always", "hangs"').replace("limit(2)", "limit(600)")
