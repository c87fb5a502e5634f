"""Tests that run inside the real cpu image, pulled from a real registry: what they see, what comes back, what is left.

The image is made once, of one quick patch, on the dependency image of the cache (or one that is built: minutes).
"""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.e2e.image_check_bench import left_behind
from tests.e2e.test_night import ROOT, SLUG, Place, copy_workplace

from patchstack.errors import MachineError
from patchstack.image.engine import RUNNERS
from patchstack.image.storage import containers_folder
from patchstack.model import Composition, Form, GuardOutcome, ImageResult, LaneJob, Sha, Shard
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
SCENARIO = "test_scenario.py"
MODELS = "PATCHSTACK_MODELS"


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
    job: LaneJob = field(init=False)
    base: Sha = field(init=False)

    def run(self, code: str, *, name: str = SCENARIO, stop: Stop | None = None, **more: object) -> HeardInside:
        """What a file of tests with ``code`` says inside tonight's image; ``more`` is of its job."""
        path = self.place.root / FOLDER / name
        path.write_text(f'import pytest\n\npytestmark = pytest.mark.lane("{LANE}")\n\n{textwrap.dedent(code)}')
        return self.run_file(name, stop=stop, **more)

    def run_file(self, name: str, *, stop: Stop | None = None, **more: object) -> HeardInside:
        file = f"{FOLDER}/{name}"
        job = replace(self.job, shard=Shard(1, 1, (file,)), **more)
        return run_inside(self.work, job, [Suite("mine", (file,), "d")], self.logs, stop=stop)

    def made(self) -> LaneJob:
        """A job of no tests in one more image, of the patches and of all that is proposed."""
        made = self.place.run("--local", "image", "--json", PATCHSTACK_IMAGE="")
        assert made.code == 0, made.err
        run = self.work.newest(ImageResult)
        assert run is not None
        image, composition = run.read(ImageResult).image, run.read(Composition)
        assert image is not None
        self.base = composition.base.commit
        named = f"{image.repository}@{image.digest}"
        shard, form = Shard(1, 1, ()), Form.REHEARSAL
        return LaneJob(run.id, LANE, shard, composition.commit, composition.tree, form, named, gpus=0, limit_s=150.0)

    @property
    def logs(self) -> Path:
        return self.place.root / "job" / "logs"

    @property
    def log(self) -> str:
        return (self.logs / "tests-regression-gpu-test_scenario.log").read_text()


@pytest.fixture(scope="module")
def bench(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    place = copy_workplace(tmp_path_factory.mktemp("inside") / "fork", SLUG)
    work = open_workplace(
        config_path=place.root / "deploy.yaml",
        state_folder=place.root / ".patchstack",
        lane=None,
        remote=None,
        local=True,
        offline=False,
        progress=Silent(),
    )
    made = Bench(place, work)
    made.job = made.made()
    (place.root / FOLDER).mkdir()
    yield made
    runners = containers_folder(work.cache) / RUNNERS
    assert left_behind(runners) == []
    assert list(runners.iterdir()) == []


@pytest.fixture(autouse=True)
def image_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATCHSTACK_IMAGE")


def contents(folder: Path) -> dict[str, str]:
    """Every file but the scenario that the test itself wrote, with the digest of its bytes."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != SCENARIO]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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
    monkeypatch.setenv(MODELS, str(models))
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
    assert contents(bench.place.root / "tests") == before


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


@pytest.mark.thorough
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
    told = " ".join([hangs.reason, *(end.reason for end in hangs.attempts)])
    names = re.findall(r"logs/stacks/[^\s,]+\.txt", told)
    assert any("test_hangs" in (bench.logs.parent / name).read_text() for name in names), told


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


@pytest.mark.thorough
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


# --- several images, and several jobs ------------------------------------------------------------------


def test_two_jobs_of_a_machine_run_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv(MODELS, str(tmp_path))
    waits = """
        import os, time

        def test_waits():
            while not os.path.exists(f"{os.environ['PATCHSTACK_MODELS']}/go"):
                time.sleep(0.1)
    """
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(bench.run, waits, name="test_waits.py")
        second = bench.run("def test_it():\n    pass\n")
        was_running = not first.done()
        (tmp_path / "go").touch()
        assert (outcomes(second), was_running) == ({"test_it": PASS}, True)
        assert outcomes(first.result()) == {"test_waits": PASS}


def test_what_measures_runs_in_the_last_promoted_image_too(bench: Bench) -> None:
    shutil.rmtree(bench.place.root / FOLDER)  # a night asks more of its tests than these have
    store, branch = bench.place.root / ".patchstack" / "store.git", "refs/heads/base/production"
    argv = ["git", "--git-dir", str(store), "push", "--quiet", str(bench.place.remote), f"{bench.base}:{branch}"]
    subprocess.run(argv, check=True)
    bench.place.propose(7, "python/sglang/version_of_ours.py", "OURS = 7\n")
    tonight = bench.made()
    assert tonight.image != bench.job.image
    metrics = bench.place.root / FOLDER / "metrics.yaml"
    metrics.parent.mkdir()
    metrics.write_text(
        f"mine: {{unit: files, better: higher, test: {FOLDER}/{SCENARIO}::test_measures, floor_share: 0.1}}\n"
    )
    heard = bench.run(
        """
        import os

        def test_measures(measure):
            measure("mine", float(os.path.exists(f"{os.environ['PATCHSTACK_TREE']}/sglang/version_of_ours.py")))

        def test_beside_it():
            pass
        """,
        run=tonight.run,
        composition=tonight.composition,
        tree=tonight.tree,
        image=tonight.image,
        last_promoted=bench.job.image,
    )
    metrics.unlink()
    assert outcomes(heard) == {"test_measures": PASS, "test_beside_it": PASS}
    assert [sample.value for sample in heard.results[0].samples] == [1.0, 1.0]
    (beside,) = heard.beside
    assert (beside.test, [sample.value for sample in beside.samples]) == (heard.results[0].test, [0.0, 0.0])


@pytest.mark.thorough
def test_a_real_scenario_rehearses_inside(bench: Bench) -> None:
    """Real SGLang, as the image has it, on the tiny model: the code that a GPU machine runs."""
    for name in ("forms.yaml", "metrics.yaml", "test_throughput.py"):
        shutil.copy2(ROOT / FOLDER / name, bench.place.root / FOLDER / name)
    heard = bench.run_file("test_throughput.py", limit_s=900.0)
    assert outcomes(heard) == {"test_one_server": PASS, "test_prefill_and_decode": PASS}, heard.results
    assert all(said.samples for said in heard.results)
    assert [one.test for one in heard.settings] == [said.test for said in heard.results]


def test_what_nobody_can_read_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv(MODELS, str(tmp_path))
    with pytest.raises(MachineError, match=f"{tmp_path} is readable to its owner alone: `chmod -R go"):
        bench.run("")
