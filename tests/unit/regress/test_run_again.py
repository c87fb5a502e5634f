"""Guards run again in processes of their own, as a night runs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.regress.test_crew import Bench

from patchstack.errors import MachineError
from patchstack.model import Attempt, GuardOutcome, GuardReport, GuardResult, Sample
from patchstack.regress import lane
from patchstack.regress.lane import run_lane
from patchstack.regress.prove import Claim
from patchstack.regress.steps import Step
from patchstack.regress.suites import Suite

ENDS_ONCE = """
import sys

def once(name):
    # Each tree has a folder of its own, which outlives a run.
    made = Path(sys.pycache_prefix) / (os.environ["PATCHSTACK_TREE"].rpartition(" ")[2] + "-" + name)
    if made.exists():
        return False
    made.touch()
    return True

def test_before(): pass

def test_crashes_once():
    if once("crash"):
        raise OSError("no route to host")

def test_fails_once():
    assert not once("fail"), "off by one"

def test_is_killed_once():
    if once("kill"):
        os.kill(os.getpid(), 9)

def test_after(): pass
"""


def run(bench: Bench, retries: int = 1) -> GuardReport:
    steps: tuple[Step, ...] = bench.steps()
    return run_lane(
        "cpu",
        steps,
        {step.suite.slug: Claim("base") for step in steps if step.subject.composed},
        bench.keeping,
        root=bench.root,
        logs=bench.folder / "logs",
        workers=1,
        progress=bench.said.append,
        restore=bench.restore,
        retries=retries,
    )


def results(report: GuardReport, label: str) -> dict[str, GuardResult]:
    (run,) = (run for run in report.runs if run.label == label)
    return {said.test.rpartition("::")[2]: said for said in run.results}


def test_a_night_asks_again_and_says_what_was_before(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"x/test_x.py": ENDS_ONCE})
    report = run(bench)
    killed = Attempt(GuardOutcome.CRASH, "pytest ended with -9 while it ran", 0.0, by_machine=True)
    never = Attempt(GuardOutcome.MISSING, "collected, not run: pytest ended with -9", 0.0, by_machine=True)
    composed = results(report, "composed")
    assert {name: said.outcome for name, said in composed.items()} == {
        "test_before": GuardOutcome.PASS,
        "test_crashes_once": GuardOutcome.FLAKY,
        "test_fails_once": GuardOutcome.FAIL,
        "test_is_killed_once": GuardOutcome.PASS,
        "test_after": GuardOutcome.PASS,
    }
    assert [end.outcome for end in composed["test_crashes_once"].attempts] == [GuardOutcome.CRASH, GuardOutcome.PASS]
    assert composed["test_is_killed_once"].attempts == (killed,)
    assert composed["test_after"].attempts == (never,)
    assert composed["test_before"].attempts == composed["test_fails_once"].attempts == ()
    # Where a guard is to fail, only what died with its process says nothing; a crash there proves nothing either.
    assert {name: said.outcome for name, said in results(report, "base").items() if name != "test_bed"} == {
        "test_before": GuardOutcome.PASS,
        "test_crashes_once": GuardOutcome.CRASH,
        "test_fails_once": GuardOutcome.FAIL,
        "test_is_killed_once": GuardOutcome.PASS,
        "test_after": GuardOutcome.PASS,
    }
    assert sorted(path.name for path in (tmp_path / "logs" / "composed").iterdir()) == ["x-again-2.log", "x.log"]
    kept = [step.suite.slug for step in bench.steps() if step.kept is not None]
    assert kept == ["bed"], "what had to be asked twice is asked again the next night"


def test_without_retries_every_end_stands(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"x/test_x.py": ENDS_ONCE})
    composed = results(run(bench, retries=0), "composed")
    assert [(said.outcome, said.attempts) for said in composed.values()] == [
        (GuardOutcome.PASS, ()),
        (GuardOutcome.CRASH, ()),
        (GuardOutcome.FAIL, ()),
        (GuardOutcome.CRASH, ()),
        (GuardOutcome.MISSING, ()),
    ]


def test_a_file_that_is_read_only_the_second_time_makes_its_guards_flaky(tmp_path: Path) -> None:
    once = ENDS_ONCE[: ENDS_ONCE.index("def test_before")]
    bench = Bench(
        tmp_path, {"x/test_x.py": f"{once}\nif once('import'):\n    raise ImportError('no')\n\ndef test_it(): pass\n"}
    )
    (said,) = results(run(bench), "composed").values()
    assert (said.test, said.outcome) == ("tests/regression/x/test_x.py::test_it", GuardOutcome.FLAKY)


@pytest.mark.parametrize("times", [1, 2])
def test_a_process_that_cannot_begin_is_begun_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    bench = Bench(tmp_path, {"x/test_x.py": "def test_x(): pass\n"})
    refused: list[str] = []
    really = lane.run_suite

    def refuses(*arguments: object, **options: object) -> object:
        if len(refused) < times:
            refused.append("once")
            raise MachineError("code of candidates cannot be started on this machine: no memory")
        return really(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(lane, "run_suite", refuses)
    if times == 2:
        with pytest.raises(MachineError, match="no memory"):
            run(bench)
        return
    (said,) = results(run(bench), "composed").values()
    assert (said.outcome, [end.by_machine for end in said.attempts]) == (GuardOutcome.PASS, [True])


def test_what_ends_the_process_before_any_guard_is_known_is_a_crash_where_they_must_pass(tmp_path: Path) -> None:
    """An import that the tree breaks for good: who did that can be found, which of a missing guard nobody asks."""
    bench = Bench(tmp_path, {"x/test_x.py": "import os\nos._exit(3)\n\ndef test_x(): pass\n"})
    report = run(bench)
    (said,) = results(report, "composed").values()
    assert (said.test, said.outcome) == ("tests/regression/x", GuardOutcome.CRASH)
    assert said.reason == "nothing was collected; pytest ended with 3"
    assert [end.outcome for end in said.attempts] == [GuardOutcome.CRASH]
    assert results(report, "base")["tests/regression/x"].outcome is GuardOutcome.MISSING


FORGES = """
import json

def test_x(request):
    names = [f"tests/regression/x/test_x.py::test_{number}" for number in range(3000)]
    with open(request.config.getoption("--record"), "a") as record:
        record.write(json.dumps({"collected": names}) + "\\n")
"""


def test_a_candidate_that_has_no_end_of_results_is_a_crash(tmp_path: Path) -> None:
    (said,) = results(run(Bench(tmp_path, {"x/test_x.py": FORGES})), "composed").values()
    assert (said.test, said.outcome) == ("tests/regression/x", GuardOutcome.CRASH)
    assert "more than any guards do" in said.reason


def test_names_and_reasons_have_a_bound_together() -> None:
    suite = Suite("x", ("tests/regression/x", "tests/regression/y"), "d")
    samples = (Sample("x", 1.0),) * 1000
    one = GuardResult("x" * 100, "x", False, GuardOutcome.FAIL, 0.0, "y" * 1000)
    assert lane.within_bounds(suite, (one,) * 400) == (one,) * 400
    for many in (
        (one,) * 500,
        (replace(one, reason="\0" * 1000),) * 150,
        (replace(one, kills=("",) * 200_000),),
        (replace(one, samples=samples),) * 6,
    ):
        assert [said.test for said in lane.within_bounds(suite, many)] == list(suite.paths)
