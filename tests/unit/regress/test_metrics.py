"""``metrics.yaml``: what it may say, and who measures; the bed's fixture takes nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from patchstack.errors import ConfigError
from patchstack.regress.metrics import FILE, OF_SCENARIOS, Better, Metric, measuring, metrics_digest, read_metrics
from patchstack.regress.node import describe_node
from patchstack.regress.suites import BED_SUITE, Suite

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from testbed.measures import NoNumber, NotDeclared, declared, require_declared  # noqa: E402

COSTS = "tests/regression/bed/test_costs.py"
GOOD = f"""\
cost:
  unit: ms
  better: lower
  test: {COSTS}::test_it
  floor_share: 0.1
speed:
  unit: requests/s
  better: higher
  test: {COSTS}::TestIt::test_too
  floor_share: 1
  alone_share: 2
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / COSTS).parent.mkdir(parents=True)
    (tmp_path / COSTS).write_text("def test_it(): ...\nclass TestIt:\n    def test_too(self): ...\n")
    return tmp_path


def write(root: Path, text: str) -> Path:
    (root / FILE).write_text(text)
    return root


def problems(root: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_metrics(write(root, text))
    return [problem.removeprefix(f"{root / FILE}:") for problem in caught.value.problems]


def test_it_is_read_in_its_order(root: Path) -> None:
    assert read_metrics(write(root, GOOD)) == (
        Metric("cost", "ms", Better.LOWER, f"{COSTS}::test_it", 0.1),
        Metric("speed", "requests/s", Better.HIGHER, f"{COSTS}::TestIt::test_too", 1.0, 2.0),
    )


@pytest.mark.parametrize("text", [None, "", "# nothing yet\n\n"])
def test_without_metrics_nothing_is_measured(root: Path, text: str | None) -> None:
    assert read_metrics(root if text is None else write(root, text)) == ()


def test_all_problems_are_named_at_once_with_their_lines(root: Path) -> None:
    text = GOOD.replace("better: lower", "better: less").replace("floor_share: 1\n", "floor_share: 0\n")
    text = text.replace("unit: ms", "units: ms") + "Third: {}\n"
    assert problems(root, text) == [
        "1: cost.unit: Field required: add it",
        "2: cost.units: Extra inputs are not permitted: remove the key, or mend its spelling",
        "3: cost.better: Input should be 'higher', 'lower' or 'equal': mend it",
        "10: speed.floor_share: Input should be greater than 0: write a share above 0, such as 0.2 for 20 %",
        "12: Third.better: Field required: add it",
        "12: Third.floor_share: Field required: add it",
        "12: Third.test: Field required: add it",
        "12: Third.unit: Field required: add it",
        "12: Third: 'Third' is not of the right form: write it to match ^[a-z0-9][a-z0-9-]{0,79}$",
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "floor_share: 0.1",
            "floor_share: 10 %",
            "5: cost.floor_share: Input should be a valid number: write a number",
        ),
        ("floor_share: 0.1", "floor_share: .nan", "5: cost.floor_share: "),
        ("alone_share: 2", "alone_share: 0.5", "6: speed: alone_share is less than floor_share: what is not worse"),
        ("unit: ms", 'unit: "m\\ns"', "2: cost.unit: 'm\\ns' is not of the right form"),
        ("::test_it", "::test_gone", f"4: cost.test: {COSTS} has no test_gone: write the test, or mend the name"),
        ("TestIt::test_too", "test_too", f"9: speed.test: {COSTS} has no test_too: write the test"),
        ("TestIt::test_too", "TestIt", f"9: speed.test: {COSTS} has no TestIt: write the test"),
        ("TestIt::", "TestOther::", f"9: speed.test: {COSTS} has no TestOther::test_too"),
        ("TestIt::", "TestIt::test_it::", f"9: speed.test: {COSTS} has no TestIt::test_it::test_too"),
        ("bed/test_costs.py::test_it", "bed/test_other.py::test_it", "there is no tests/regression/bed/test_other.py"),
        ("::test_it", "::test_it[a]", "4: cost.test: 'tests/regression/bed/test_costs.py::test_it[a]' is not of"),
        ("tests/regression/bed/test_costs.py::test_it", "../x/test_x.py::test_x", "is not of the right form"),
        ("speed:", "cost:", "6: cost: it stands twice: keep one"),
        ("unit: ms", "unit: [", ": not YAML: "),
        ("unit: ms", "unit: 3", "2: cost.unit: Input should be a valid string: write it as text"),
    ],
)
def test_what_it_may_not_say(root: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    assert any(said in problem for problem in problems(root, GOOD.replace(old, new)))


def test_a_list_is_no_metrics(root: Path) -> None:
    assert problems(root, "- cost\n")[0].startswith("1: : it must be a mapping: write `metric: {unit: ...")


def test_a_test_that_is_no_python_is_named(root: Path) -> None:
    (root / COSTS).write_text("def test_it(:\n")
    assert f"4: cost.test: {COSTS} does not read as Python" in problems(root, GOOD)[0]


def test_only_guards_of_the_cpu_measure(root: Path) -> None:
    both = {f"{COSTS}::test_it", f"{COSTS}::TestIt::test_too"}
    assert len(read_metrics(write(root, GOOD), both)) == 2
    with pytest.raises(ConfigError) as caught:
        read_metrics(root, both - {f"{COSTS}::test_it"})
    said = f"is no guard of lane cpu: what other lanes measure stands in {OF_SCENARIOS}"
    assert caught.value.problems == [f"{root / FILE}:4: cost.test: {COSTS}::test_it {said}"]


def test_scenarios_have_a_file_of_their_own(root: Path) -> None:
    assert read_metrics(root, file=OF_SCENARIOS) == ()
    without = metrics_digest(write(root, GOOD))
    other = root / OF_SCENARIOS
    other.parent.mkdir(parents=True)
    other.write_text(GOOD.replace("higher", "equal"))
    assert read_metrics(root, file=OF_SCENARIOS)[0].test == f"{COSTS}::test_it"
    assert metrics_digest(root) != without
    with pytest.raises(ConfigError) as caught:
        read_metrics(root, (), file=OF_SCENARIOS)
    said = f"is no scenario of another lane than cpu: what guards measure stands in {FILE}"
    assert caught.value.problems[0] == f"{other}:4: cost.test: {COSTS}::test_it {said}"


def test_this_repositorys_own_is_read() -> None:
    assert {metric.file for metric in read_metrics(ROOT)} == {COSTS}
    named = {metric.file for metric in read_metrics(ROOT, file=OF_SCENARIOS)}
    assert named == {f"tests/regression/gpu/test_{name}.py" for name in ("accuracy", "colocate_soak", "throughput")}


def test_what_measures_is_a_suite_of_its_own(root: Path) -> None:
    metrics = read_metrics(write(root, GOOD))
    (root / "tests/regression/x").mkdir()
    (root / "tests/regression/x/test_x.py").write_text("")
    suites = (Suite("x", ("tests/regression/x",), "1"), Suite(BED_SUITE, ("tests/regression/bed",), "2"))
    (found,) = measuring(root, suites, metrics)
    assert found.suite == Suite(BED_SUITE, (f"{COSTS}::test_it", f"{COSTS}::TestIt::test_too"), "2")
    assert found.files == Suite(BED_SUITE, (COSTS,), "2")
    assert found.metrics == metrics
    assert measuring(root, suites[:1], metrics) == ()


# --- the bed's side ---


def test_the_bed_reads_the_same_tests(root: Path) -> None:
    assert declared(write(root, GOOD) / FILE) == {"cost": f"{COSTS}::test_it", "speed": f"{COSTS}::TestIt::test_too"}
    assert declared(root / "gone.yaml") is None


def test_only_the_test_that_is_to_measure_may_and_only_a_number() -> None:
    tests = {"cost": f"{COSTS}::test_it"}
    require_declared("cost", 1.5, f"{COSTS}::test_it", tests)
    require_declared("cost", 2, f"{COSTS}::test_it[a::b]", tests)
    with pytest.raises(NotDeclared, match=r"metrics\.yaml has no costs: add it, or mend its spelling"):
        require_declared("costs", 1.0, f"{COSTS}::test_it", tests)
    with pytest.raises(NotDeclared, match=r"has cost measured by .*test_it, and this is .*test_other"):
        require_declared("cost", 1.0, f"{COSTS}::test_other", tests)
    for value in (float("nan"), float("inf"), True, "7", None):
        with pytest.raises(NoNumber, match="cost is to be a finite number, and is"):
            require_declared("cost", value, f"{COSTS}::test_it", tests)  # type: ignore[arg-type]


# --- what numbers are measured on ---

CPU = "processor\t: 0\nmodel name\t: AMD  EPYC \u00e9 9554\nflags\t\t: fpu\n"


def machine(folder: Path, *, cpu: str = CPU, memory_kb: int = 24684084, limit: str = "", gpus: int = 0) -> str:
    proc, cgroup = folder / "proc", folder / "cgroup"
    cgroup.mkdir(parents=True)
    for number in range(gpus):
        card = proc / "driver/nvidia/gpus" / f"0000:0{number}:00.0" / "information"
        card.parent.mkdir(parents=True)
        card.write_text("Model: \t NVIDIA H200\nIRQ:   1\n")
    proc.mkdir(exist_ok=True)
    (proc / "cpuinfo").write_text(cpu)
    (proc / "meminfo").write_text(f"MemTotal:       {memory_kb} kB\n")
    if limit:
        (cgroup / "memory.max").write_text(f"{limit}\n")
    return describe_node(proc, cgroup).partition(" x ")[2]


def test_a_machine_says_what_makes_its_numbers_its_own(tmp_path: Path) -> None:
    assert machine(tmp_path / "a") == "AMD EPYC 9554, 24 GiB, no GPU"
    assert machine(tmp_path / "b", limit="max") == "AMD EPYC 9554, 24 GiB, no GPU"
    assert machine(tmp_path / "c", limit=str(8 << 30)) == "AMD EPYC 9554, 8 GiB, no GPU"
    assert machine(tmp_path / "d", gpus=2) == "AMD EPYC 9554, 24 GiB, NVIDIA H200, NVIDIA H200"


def test_one_start_of_a_kernel_is_as_the_next(tmp_path: Path) -> None:
    assert machine(tmp_path / "a", memory_kb=8125000) == machine(tmp_path / "b", memory_kb=8135000)


def test_a_processor_without_a_name_is_of_its_kind(tmp_path: Path) -> None:
    assert machine(tmp_path / "a", cpu="processor : 0\n").endswith(", 24 GiB, no GPU")
    assert not machine(tmp_path / "b", cpu="").startswith(",")


def test_this_machine_has_a_name() -> None:
    said = describe_node()
    assert said.isprintable()
    assert " GiB, " in said
