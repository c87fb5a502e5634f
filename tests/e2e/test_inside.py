"""Tests that run inside the real cpu image, pulled from a real registry: what they see, what comes back, what is left.

The image is made once, of one quick patch, on the dependency image of the cache (or one that is built: minutes).
"""

from __future__ import annotations

import hashlib
import platform
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.e2e.image_check_bench import left_behind
from tests.e2e.test_night import SLUG, Place, copy_workplace

from patchstack.errors import MachineError
from patchstack.model import Composition, Form, GuardOutcome, ImageResult, LaneJob, Shard
from patchstack.process import Stop
from patchstack.regress.inside import GRACE_S, OUTPUT_BYTES
from patchstack.regress.suites import Suite
from patchstack.verbs.inside import HeardInside, run_inside
from patchstack.workplace import Workplace, open_workplace

pytestmark = pytest.mark.usefixtures("sealed_module")

PASS, FAIL, TIMEOUT, CRASH, MISSING = (
    GuardOutcome.PASS,
    GuardOutcome.FAIL,
    GuardOutcome.TIMEOUT,
    GuardOutcome.CRASH,
    GuardOutcome.MISSING,
)
LANE = "1-gpu"
FOLDER = "tests/regression/gpu"


class Silent:
    """Nobody listens."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, message: str, /) -> None:
        self.said.append(message)

    def stage(self, name: str) -> object:
        raise NotImplementedError(name)


@dataclass
class Bench:
    place: Place
    work: Workplace
    job: LaneJob

    def run(self, code: str, *, limit_s: float = 150.0, **more: object) -> HeardInside:
        """What a file of tests with ``code`` says inside tonight's image."""
        file = f"{FOLDER}/test_scenario.py"
        path = self.place.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        marks = f'import pytest\n\npytestmark = pytest.mark.lane("{LANE}")\n\n'
        path.write_text(marks + textwrap.dedent(code))
        job = replace(self.job, limit_s=limit_s, shard=Shard(1, 1, (file,)))
        return run_inside(self.work, job, [Suite("mine", (file,), "d")], self.logs, **more)

    @property
    def logs(self) -> Path:
        return self.place.root / "job" / "logs"

    @property
    def log(self) -> str:
        return (self.logs / "tests-regression-gpu-test_scenario.log").read_text()


@pytest.fixture(scope="module")
def bench(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    place = copy_workplace(tmp_path_factory.mktemp("inside") / "fork", SLUG)
    made = place.run("--local", "image", "--json", PATCHSTACK_IMAGE="")
    assert made.code == 0, made.err
    work = open_workplace(
        config_path=place.root / "deploy.yaml",
        state_folder=place.root / ".patchstack",
        lane=None,
        remote=None,
        local=True,
        offline=False,
        progress=Silent(),
    )
    run = work.newest(ImageResult)
    assert run is not None
    image, composition = run.read(ImageResult).image, run.read(Composition)
    assert image is not None
    named = f"{image.repository}@{image.digest}"
    job = LaneJob(
        run.id,
        LANE,
        Shard(1, 1, ()),
        composition.commit,
        composition.tree,
        Form.REHEARSAL,
        named,
        gpus=0,
        limit_s=150.0,
    )
    yield Bench(place, work, job)
    assert left_behind(work.cache / "containers" / "tmp") == []


@pytest.fixture(autouse=True)
def image_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATCHSTACK_IMAGE")


def contents(folder: Path, below: str = "") -> set[tuple[str, str]]:
    """Every file with the digest of its bytes."""
    found = {(str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in folder.rglob("*") if path.is_file()}
    return {(name, digest) for name, digest in found if below in name}


def outcomes(heard: HeardInside) -> dict[str, GuardOutcome]:
    return {said.test.rpartition("::")[2]: said.outcome for said in heard.results}


def test_what_passes_and_what_fails(bench: Bench) -> None:
    heard = bench.run(
        """
        import importlib.util, os, sys

        def test_of_the_image():
            found = importlib.util.find_spec("sglang").origin
            assert found == f"{os.environ['PATCHSTACK_TREE']}/sglang/__init__.py"
            assert os.environ["PATCHSTACK_TREE"].startswith(sys.prefix)

        def test_wrong():
            assert 1 + 1 == 3, "arithmetic"

        def test_what_the_image_does_by_its_own_assertion():
            import numpy.testing
            numpy.testing.assert_equal(1, 2)

        @pytest.mark.lane("2-gpu")
        def test_of_another_lane():
            raise RuntimeError
        """
    )
    assert outcomes(heard) == {
        "test_of_the_image": PASS,
        "test_wrong": FAIL,
        "test_what_the_image_does_by_its_own_assertion": CRASH,
    }
    assert heard.results[1].reason == "arithmetic"
    assert heard.hardware is not None
    assert (heard.hardware.node, heard.hardware.gpus, heard.hardware.torch[:2]) == (platform.node(), (), "2.")
    assert "/patchstack/tests/regression/gpu/test_scenario.py" in bench.log


def test_nothing_of_the_machine_is_seen_and_nothing_outside_can_be_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CANARY_TOKEN", "canary-0123456789")
    models = tmp_path / "models"
    (models / "tiny").mkdir(parents=True)
    monkeypatch.setenv("PATCHSTACK_MODELS", str(models))
    before = contents(bench.place.root / "tests")
    heard = bench.run(
        f"""
        import os, pathlib, socket, sys

        def can(what):
            try:
                what()
            except OSError as error:
                return error.strerror
            return "yes"

        def test_environment():
            assert not [name for name, text in os.environ.items() if "canary" in text.lower() + name.lower()]
            assert os.environ["HOME"] == "/tmp/home"
            assert {str(Path.home())!r} not in pathlib.Path("/proc/mounts").read_text()
            assert not pathlib.Path({str(Path.home())!r}).exists()

        def test_rights():
            status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
            assert os.getuid() == 65534
            assert int(status["CapBnd"], 16) == 0
            assert status["NoNewPrivs"].strip() == "1"
            assert [name for _, name in socket.if_nameindex()] == ["lo"]

        @pytest.mark.parametrize("path", [
            "/usr/x", "/opt/sglang/x", f"{{os.environ['PATCHSTACK_TREE']}}/sglang/x.py", "/patchstack/tests/x",
            "/patchstack/harness/x", {str(models)!r} + "/x", __file__,
        ])
        def test_write(path):
            assert can(lambda: open(path, "a")) in ("Read-only file system", "Permission denied")

        def test_models():
            assert os.listdir(os.environ["PATCHSTACK_MODELS"]) == ["tiny"]

        def test_scratch(tmp_path):
            assert can(lambda: open("/tmp/x", "w")) == "yes"
            assert can(lambda: open(tmp_path / "x", "w")) == "yes"
            assert can(lambda: open("/dev/shm/x", "w")) == "yes"
        """
    )
    assert {said.test: said.reason for said in heard.results if said.outcome is not PASS} == {}
    assert len(heard.results) == 11
    assert contents(bench.place.root / "tests") == before | contents(bench.place.root / "tests", FOLDER)


def test_a_process_that_is_killed_takes_its_own_file_with_it(bench: Bench) -> None:
    heard = bench.run(
        """
        import os

        def test_before():
            pass

        def test_killed():
            os.kill(os.getpid(), 9)

        def test_after():
            pass
        """
    )
    assert outcomes(heard) == {"test_before": PASS, "test_killed": CRASH, "test_after": MISSING}
    killed, after = heard.results[1:]
    assert (killed.reason, killed.by_machine) == ("pytest ended with -9 while it ran", True)
    assert after.reason == "collected, not run: pytest ended with -9"
    assert sorted(path.name for path in bench.logs.glob("*again*")) == [
        "tests-regression-gpu-test_scenario-again-2.log"
    ]


def test_what_hangs_leaves_its_stacks(bench: Bench) -> None:
    heard = bench.run(
        """
        import signal

        def test_hangs():
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            signal.pause()
        """,
        limit_s=GRACE_S + 50.0,
    )
    (hangs,) = heard.results
    assert hangs.outcome is TIMEOUT
    names = re.findall(r"logs/stacks/\S+\.txt", hangs.reason)
    assert names, hangs
    assert "test_hangs" in (bench.logs.parent / names[-1].rstrip(",")).read_text()


def test_output_without_end_is_bounded(bench: Bench) -> None:
    heard = bench.run(
        """
        import os

        def test_prints():
            for _ in range(600):
                os.write(2, b"x" * (1 << 17))
            assert False, "the end is kept"
        """
    )
    assert outcomes(heard) == {"test_prints": FAIL}
    assert len(bench.log) < OUTPUT_BYTES + 1000
    assert "bytes are left out" in bench.log
    assert bench.log.rstrip().endswith("s")  # pytest's last line: 1 failed in 3.21s


SPEAKS_FOR_THE_PROGRAM = """
import os

def test_speaks():
    for number in os.listdir("/proc/1/fd"):
        try:
            if int(number) > 2 and "pipe" in os.readlink(f"/proc/1/fd/{number}"):
                with open(f"/proc/1/fd/{number}", "wb", buffering=0) as out:
                    WHAT
        except OSError:
            pass
"""


def test_who_speaks_for_the_program_is_a_crash(bench: Bench) -> None:
    heard = bench.run(SPEAKS_FOR_THE_PROGRAM.replace("WHAT", 'out.write(b"nonsense\\n")'))
    assert CRASH in outcomes(heard).values()
    assert any("is not the plugin's" in said.reason for said in heard.results)


def test_who_floods_past_the_program_is_a_crash(bench: Bench) -> None:
    heard = bench.run(SPEAKS_FOR_THE_PROGRAM.replace("WHAT", '[out.write(b"x" * (1 << 20)) for _ in range(2000)]'))
    (said,) = heard.results
    assert (said.test, said.outcome) == (f"{FOLDER}/test_scenario.py", CRASH)
    assert said.reason.startswith("it printed without end")


def test_a_stop_ends_it_and_says_why(bench: Bench) -> None:
    stop = Stop()
    stop.pull("the night's time is up")
    heard = bench.run("def test_it():\n    pass\n", stop=stop)
    assert [(said.outcome, said.reason) for said in heard.results] == [(MISSING, "the night's time is up")]


def test_a_file_that_cannot_be_read_says_why(bench: Bench) -> None:
    heard = bench.run("import nothing_of_this_name\n")
    (said,) = heard.results
    assert said.outcome is CRASH
    assert "No module named 'nothing_of_this_name'" in said.reason


def test_a_job_for_gpus_that_are_not_there_says_what_to_install(bench: Bench) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.fail("this test is for machines without a GPU")
    with pytest.raises(MachineError, match="no GPU 0 that a container could be given: install NVIDIA's driver"):
        run_inside(bench.work, replace(bench.job, gpus=1), [], bench.logs)
