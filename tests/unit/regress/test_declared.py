"""What guards say of themselves: lane, seconds, patches and owner, read from their files; and what is wrong there."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchstack.errors import ConfigError
from patchstack.model import Scenario
from patchstack.regress.declared import Declared, Guarding, bare, read_declared, scenarios_of

LANES = ("cpu", "1-gpu", "2-gpu", "rdma")
PD, KV = "@acme/pd", "@acme/kv"
PATCHES = (
    Guarding("pd-abort", PD, ("tests/regression/pd/", "tests/regression/gpu/test_pd.py")),
    Guarding("kv-sync", KV, ("tests/regression/kv", "tests/regression/pd/test_both.py")),
)

GPU = """\
import pytest
import torch_that_is_not_there

pytestmark = [
    pytest.mark.limit(900),
    pytest.mark.lane("1-gpu", est_s=60, guards=["pd-abort"], owner="@acme/pd"),
]


def test_plain() -> None: ...


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.lane("2-gpu", est_s=90.5)
async def test_two(size: int) -> None: ...


def helper() -> None: ...


@pytest.mark.lane("rdma")
class TestWire:
    pytestmark = pytest.mark.lane(est_s=7, owner="@solo")

    def test_it(self) -> None: ...

    @pytest.mark.lane(guards=["kv-sync", "pd-abort"])
    def test_both(self) -> None: ...

    class TestDeeper:
        @pytest.mark.lane("1-gpu")
        def test_it(self) -> None: ...
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "bed/conftest.py": 'OWNER = "@acme/bed"\n',
        "bed/test_bed.py": "import pytest\npytestmark = pytest.mark.control\ndef test_bed() -> None: ...\n",
        "pd/test_pd.py": "if True:\n    def test_pd() -> None: ...\n",
        "pd/test_both.py": "import pytest\n@pytest.mark.lane(est_s=5)\ndef test_it() -> None: ...\n",
        "pd/helper.py": "def test_helper() -> None: ...\n",
        "kv/deep/test_kv.py": 'import pytest\n@mark.lane("cpu", owner="@acme/x")\ndef test_kv() -> None: ...\n',
        "gpu/test_pd.py": GPU,
    }.items():
        write(tmp_path, name, text)
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / "tests/regression" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def problems(root: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_declared(root, LANES, PATCHES)
    return [problem.removeprefix("tests/regression/") for problem in caught.value.problems]


def problems_of(root: Path, name: str, text: str) -> list[str]:
    """Of one more file, beside the others in which all is right."""
    write(root, name, text)
    return [problem.removeprefix(f"{name}:") for problem in problems(root)]


def declared(name: str, lane: str, est_s: float | None, guards: tuple[str, ...], owner: str) -> Declared:
    return Declared(f"tests/regression/{name}", lane, est_s, guards, owner)


def test_the_nearest_mark_counts_key_by_key_and_a_patch_s_guard_needs_none(root: Path) -> None:
    gpu, wire = "gpu/test_pd.py", "gpu/test_pd.py::TestWire"
    found = read_declared(root, LANES, PATCHES)
    assert found == (
        declared("bed/test_bed.py::test_bed", "cpu", None, (), "@acme/bed"),
        declared(f"{gpu}::test_plain", "1-gpu", 60, ("pd-abort",), PD),
        declared(f"{gpu}::test_two", "2-gpu", 90.5, ("pd-abort",), PD),
        declared(f"{wire}::test_it", "rdma", 7, ("pd-abort",), "@solo"),
        declared(f"{wire}::test_both", "rdma", 7, ("kv-sync", "pd-abort"), "@solo"),
        declared(f"{wire}::TestDeeper::test_it", "1-gpu", 7, ("pd-abort",), "@solo"),
        declared("kv/deep/test_kv.py::test_kv", "cpu", None, ("kv-sync",), "@acme/x"),
        declared("pd/test_both.py::test_it", "cpu", 5, ("pd-abort", "kv-sync"), PD),
        declared("pd/test_pd.py::test_pd", "cpu", None, ("pd-abort",), PD),
    )
    assert scenarios_of(found, "cpu") == tuple(Scenario(test.lane, test.test) for test in found[1:6])
    assert [test.lane for test in scenarios_of(found, "1-gpu")] == ["cpu", "2-gpu", "rdma", "rdma", "cpu", "cpu", "cpu"]


def test_a_test_below_a_condition_is_promised_all_the_same(root: Path) -> None:
    text = """\
pytestmark: list = [pytest.mark.lane("cpu", est_s=3)]
try:
    import x
except ImportError:
    def test_without(): ...
else:
    def test_with(): ...
match NAME:
    case "a":
        def test_a(): ...
with x:
    for y in z:
        class TestIn:
            def test_in(self): ...
def helper():
    def test_no(): ...
"""
    write(root, "pd/test_x.py", text)
    found = [test for test in read_declared(root, LANES, PATCHES) if test.file.endswith("/pd/test_x.py")]
    assert [(test.test.partition("::")[2], test.est_s) for test in found] == [
        ("test_with", 3.0),
        ("test_without", 3.0),
        ("test_a", 3.0),
        ("TestIn::test_in", 3.0),
    ]


def test_nothing_is_declared_where_there_are_no_guards(tmp_path: Path) -> None:
    assert read_declared(tmp_path, LANES, ()) == ()


def test_a_bed_without_an_owner_has_none(root: Path) -> None:
    for text in ("", "OWNER: str\n", "def x(:\n"):
        write(root, "bed/conftest.py", text)
        assert read_declared(root, LANES, PATCHES)[0].owner == ""
    assert problems_of(root, "bed/conftest.py", "x = 1\nOWNER = 'pd'\n") == [
        '2: OWNER: it names nobody: write "@organisation/team"'
    ]


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("pytest.mark.lane", '1: lane: it says nothing: write lane("cpu"), or one of est_s, guards, owner'),
        ("pytest.mark.lane()", '1: lane: it says nothing: write lane("cpu"), or one of est_s, guards, owner'),
        (
            "pytest.mark.lane('8-gpu')",
            "1: pytest.mark.lane('8-gpu'): it is no lane of deploy.yaml: write one of cpu, 1-gpu, 2-gpu, rdma",
        ),
        (
            "mark.lane(LANE)",
            "1: mark.lane(LANE): it is no lane of deploy.yaml: write one of cpu, 1-gpu, 2-gpu, rdma",
        ),
        (
            "mark.lane('cpu', '1-gpu')",
            "1: mark.lane('cpu', '1-gpu'): it is no lane of deploy.yaml: write one of cpu, 1-gpu, 2-gpu, rdma",
        ),
        (
            "mark.lane('1-gpu')",
            "1: mark.lane('1-gpu'): lane cpu would run it here: move it below tests/regression/gpu",
        ),
        *(
            (f"mark.lane(est_s={value})", f"1: lane.est_s: {value} is no number of seconds above 0: write est_s=240")
            for value in ("0", "-1", "'9'", "True", "LONG", "1e309")
        ),
        *(
            (f"mark.lane(owner={value})", f'1: lane.owner: {value} names nobody: write "@organisation/team"')
            for value in ("'pd'", "7", "'@acme/pd\\n'", "'@'", "WHO")
        ),
        *(
            (
                f"mark.lane(guards={value})",
                f'1: lane.guards: {value} is no list of slugs: write guards=["pd-abort-notify"]',
            )
            for value in ("'pd-abort'", "[]", "['pd-abort', 7]", "SLUGS", "['pd-abort', NAME]")
        ),
        (
            "mark.lane(guards=['pd-abort', 'pd-abor'])",
            "1: lane.guards: ['pd-abort', 'pd-abor'] names no patch of the series: it has pd-abort, kv-sync",
        ),
        ("mark.lane(seconds=9)", "1: lane.seconds: the mark has no such key: write one of est_s, guards, owner"),
        ("mark.lane(**MORE)", "1: lane.**MORE: the mark has no such key: write one of est_s, guards, owner"),
    ],
)
def test_a_mark_that_cannot_be_read_is_named(root: Path, mark: str, said: str) -> None:
    assert problems_of(root, "pd/test_x.py", f"@{mark}\ndef test_it() -> None: ...\n") == [said]


def test_a_scenario_may_be_for_no_patch_and_a_guard_may_not(root: Path) -> None:
    text = "@mark.lane('1-gpu', est_s=1, guards=[], owner='@x')\ndef test_it() -> None: ...\n"
    write(root, "gpu/test_whole.py", text)
    assert [test.guards for test in read_declared(root, LANES, PATCHES) if test.file.endswith("whole.py")] == [()]
    assert problems_of(root, "gpu/test_whole.py", text.replace("[]", "[''][:0]")) == [
        "1: lane.guards: [''][:0] is no list of slugs: write guards=[\"pd-abort-notify\"]"
    ]


def test_a_mark_is_named_once_however_many_tests_it_holds_for(root: Path) -> None:
    text = "pytestmark = mark.lane('x')\ndef test_a() -> None: ...\ndef test_b() -> None: ...\n"
    assert len(problems_of(root, "pd/test_x.py", text)) == 1
    two = (
        "@mark.lane(est_s=1)\n@mark.lane(est_s=2)\nclass TestX:\n    def test_a(self): ...\n    def test_b(self): ...\n"
    )
    assert len(problems_of(root, "pd/test_x.py", two)) == 1


TWICE = """\
class TestA:
    def test_it(self): ...
class TestB:
    def test_it(self): ...
class TestA:
    def test_x(self): ...
    def test_x(self): ...
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "def test_it() -> None: ...\ndef test_x() -> None: ...\ndef test_it() -> None: ...\n",
            ["3: test_it: it stands on line 1 already, and only the last one would run: rename one"],
        ),
        (
            "if X:\n    def test_it() -> None: ...\nelse:\n    async def test_it() -> None: ...\n",
            ["4: test_it: it stands on line 2 already, and only the last one would run: rename one"],
        ),
        (
            TWICE,
            [
                "5: TestA: it stands on line 1 already, and only the last one would run: rename one",
                "7: TestA::test_x: it stands on line 6 already, and only the last one would run: rename one",
            ],
        ),
        (
            "def test_it() -> None: ...\nfrom pd.helpers import check as test_it\n",
            ["2: test_it: it stands on line 1 already, and only the last one would run: rename one"],
        ),
        (
            "class TestA:\n    def test_it(self): ...\n    test_x, test_it = all_is_well, all_is_well\n",
            ["3: TestA::test_it: it stands on line 2 already, and only the last one would run: rename one"],
        ),
        ("x = 1\n", ["1: : it holds no test: write one, or remove the file"]),
        ("class TestX:\n    def check(self): ...\n", ["1: : it holds no test: write one, or remove the file"]),
        (
            "class Pd(unittest.TestCase):\n    def test_it(self): ...\ndef test_it(): ...\n",
            ["1: Pd: pytest runs its tests, and a reader does not see them: begin its name with Test"],
        ),
        (
            "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.lane('cpu'))])\ndef test_it(x): ...\n",
            ["1: lane: it holds for no test: put it on a test, a class, or into pytestmark"],
        ),
        (
            "GPU = mark.lane('1-gpu')\ndef test_it(): ...\n",
            ["1: lane: it holds for no test: put it on a test, a class, or into pytestmark"],
        ),
        (
            "@mark.lane(est_s=1)\n@mark.lane(est_s=2)\ndef test_it(): ...\n",
            ["2: lane.est_s: two marks of one place say it: keep one"],
        ),
    ],
)
def test_what_loses_a_test_unseen_is_named(root: Path, text: str, said: list[str]) -> None:
    assert problems_of(root, "pd/test_x.py", text) == said


@pytest.mark.parametrize("text", ["def test_it(:\n", "x = 1\0\n"])
def test_what_is_not_python_is_named(root: Path, text: str) -> None:
    (said,) = problems_of(root, "pd/test_x.py", text)
    assert said.startswith("1: : it is not Python (")


def test_a_file_that_nobody_runs_is_named(root: Path) -> None:
    test = "def test_it() -> None: ...\n"
    for name in ("test_top.py", "pdx/test_it.py", "kvx/test_it.py", "pd/it_test.py", "gpu/it_test.py"):
        write(root, name, test)
    assert problems(root) == [
        "gpu/it_test.py:1: : pytest takes it for tests, and a night does not: call it test_*.py",
        "kvx/test_it.py:1: : no patch names it, so that nobody runs it: name it under `guards` of a patch.md",
        "pd/it_test.py:1: : pytest takes it for tests, and a night does not: call it test_*.py",
        "pdx/test_it.py:1: : no patch names it, so that nobody runs it: name it under `guards` of a patch.md",
        "test_top.py:1: : no patch names it, so that nobody runs it: name it under `guards` of a patch.md",
    ]


def test_on_a_gpu_nothing_goes_without_saying(root: Path) -> None:
    example = '@pytest.mark.lane("1-gpu", est_s=240, guards=["slug"], owner="@organisation/team")'
    write(root, "gpu/test_pd.py", "def test_it() -> None: ...\n")
    write(root, "gpu/test_half.py", "@mark.lane('rdma', owner='@x')\ndef test_it() -> None: ...\n")
    write(root, "gpu/test_cpu.py", "@mark.lane('cpu', owner='@x')\ndef test_it() -> None: ...\n")
    cpu = "mark.lane('cpu', owner='@x'): no CPU lane looks below tests/regression/gpu: move it beside it"
    assert problems(root) == [
        f"gpu/test_cpu.py:1: {cpu}",
        f"gpu/test_half.py:2: test_it: it does not say its est_s, guards: write {example}",
        f"gpu/test_pd.py:1: test_it: it does not say its lane, est_s, guards, owner: write {example}",
    ]


def test_a_patch_names_no_scenario_that_does_not_guard_it(root: Path) -> None:
    said = "guards: no test of 'tests/regression/gpu/test_pd.py' says that it guards pd-abort"
    write(root, "gpu/test_pd.py", GPU.replace('"pd-abort"]', '"kv-sync"]'))
    fix = "add it to `guards` of the mark there, or take the path out"
    assert problems(root) == [f"patches/pd-abort/patch.md:1: {said}: {fix}"]


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("a.py::test_it", "a.py::test_it"),
        ("a.py::TestX::test_it[x::y[0]]", "a.py::TestX::test_it"),
        ("a[0]/b.py::test_it[1]", "a[0]/b.py::test_it"),
        ("a.py", "a.py"),
    ],
)
def test_a_test_is_known_whatever_its_parameters(test: str, said: str) -> None:
    assert bare(test) == said
