"""What one worker runs at a time: a long suite file by file, the longest first, whatever nobody knows before that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from patchstack.model import GuardOutcome, GuardResult, Sha
from patchstack.regress.durations import LONGEST_S, Durations, read_durations, write_durations
from patchstack.regress.execute import Tree
from patchstack.regress.parts import Part, decide_parts
from patchstack.regress.steps import Step, Subject
from patchstack.regress.suites import Suite

TREE = Tree(Path("tree"), Path("python"), Path("bytecode"))
COMPOSED, BASE = Subject("composed", True, Sha("a" * 40), TREE), Subject("base", False, Sha("b" * 40), TREE)
FILES = {
    "short": ["x/test_a.py", "x/test_b.py"],
    "long": ["y/test_a.py", "y/test_b.py", "y/test_c.py"],
    "one": ["z/test_z.py"],
}


def step(slug: str, subject: Subject = COMPOSED, *, kept: bool = False) -> Step:
    return Step(subject, Suite(slug, (slug,), "d"), slug, () if kept else None)


def decide(known: Durations, *steps: Step, workers: int = 2, files: Mapping[str, list[str]] = FILES) -> list[Part]:
    return list(decide_parts(steps, workers, known, lambda suite: files[suite.slug]))


def tell(parts: list[Part]) -> list[str]:
    return [f"{part.name} on {part.step.subject.label}" for part in parts]


SECONDS = {"x/test_a.py": 20.0, "x/test_b.py": 30.0, "y/test_a.py": 40.0, "y/test_b.py": 5.0, "y/test_c.py": 70.0}
KNOWN = Durations({**SECONDS, "z/test_z.py": 55.0}, {})


def test_a_long_suite_goes_file_by_file_and_the_longest_begins() -> None:
    parts = decide(KNOWN, step("short"), step("long"), step("one"))
    assert [(part.name, part.suite.paths, part.expected_s) for part in parts] == [
        ("long/test_c", ("y/test_c.py",), 70.0),
        ("one", ("one",), 55.0),
        ("short", ("short",), 50.0),
        ("long/test_a", ("y/test_a.py",), 40.0),
        ("long/test_b", ("y/test_b.py",), 5.0),
    ]
    assert [part.place for part in parts] == [2, 0, 0, 0, 1]


def test_one_worker_splits_nothing() -> None:
    assert tell(decide(KNOWN, step("one"), step("long"), workers=1)) == ["long on composed", "one on composed"]


def test_what_nothing_is_known_of_is_split_and_begins_in_its_order() -> None:
    assert tell(decide(Durations({"z/test_z.py": 900.0}, {}), step("one"), step("short"), step("long"))) == [
        *("short/test_a on composed", "short/test_b on composed"),
        *("long/test_a on composed", "long/test_b on composed", "long/test_c on composed", "one on composed"),
    ]


def test_mutants_come_last_and_whole() -> None:
    """Each is known by its own name: on its tree only some tests of a file run."""
    known = Durations(KNOWN.composed_s, {}, {"long/p": 2.0, "one/q": 9.0})
    subjects = [Subject(f"mutant {name}", False, Sha("d" * 40), TREE, name) for name in ("long/p", "long/r", "one/q")]
    steps = [step(subject.mutant.partition("/")[0], subject) for subject in subjects]
    parts = decide(known, *steps, step("one"))
    assert [(part.name, part.step.subject.label, part.expected_s) for part in parts] == [
        ("one", "composed", 55.0),
        ("long", "mutant long/r", None),
        ("one", "mutant one/q", 9.0),
        ("long", "mutant long/p", 2.0),
    ]


def test_kept_answers_are_no_parts() -> None:
    assert decide(KNOWN, step("one", BASE, kept=True), step("short", BASE, kept=True)) == []


def test_equal_names_are_told_apart() -> None:
    files = {"one": ["z/a/test_it.py", "z/b/test_it.py", "z/b/test_other.py"]}
    assert [part.name for part in decide(Durations({}, {}), step("one"), files=files)] == [
        "one/z/a/test_it",
        "one/z/b/test_it",
        "one/test_other",
    ]


def result(test: str, duration_s: float) -> GuardResult:
    return GuardResult(test, "x", False, GuardOutcome.TIMEOUT, duration_s)


def test_durations_are_by_file_and_place_and_last(tmp_path: Path) -> None:
    assert read_durations(tmp_path).of("a.py", composed=True) is None
    known = Durations({}, {}).after(
        [result("a.py::t", 1.5), result("a.py::u[x::y]", 2.0)], files=("a.py",), composed=False
    )
    assert (known.of("a.py", composed=False), known.of("a.py", composed=True)) == (3.5, 3.5)
    known = known.after([result("a.py::t", 0.25)], files=("a.py",), composed=True)
    assert (known.of("a.py", composed=False), known.of("a.py", composed=True)) == (3.5, 0.25)
    known = known.after_mutant("x/p", [result("a.py::t", 0.5), result("b.py::t", 0.25)])
    assert (known.of("a.py", composed=True), known.mutants_s) == (0.25, {"x/p": 0.75})
    write_durations(tmp_path, known)
    assert read_durations(tmp_path) == known
    (tmp_path / "durations.json").write_bytes(b"\xff{")
    assert read_durations(tmp_path) == Durations({}, {})


def test_of_what_a_candidate_says_nothing_is_kept_that_no_guard_can_take() -> None:
    """Names of its own would stay for ever, and a number without bounds would decide what every night begins with."""
    said = [result("mine.py::t", 1.0), result("a.py::t", 1e308), result("a.py::u", 1e308), result("b.py::t", -1e308)]
    known = Durations({}, {}).after(said, files=("a.py", "b.py"), composed=True)
    assert known == Durations({"a.py": 2 * LONGEST_S, "b.py": 0.0}, {})
    assert known.after_mutant("x/p", said[1:2]).mutants_s == {"x/p": LONGEST_S}
