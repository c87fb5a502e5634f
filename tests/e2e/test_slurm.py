"""Executor `slurm` on a real Slurm cluster of two nodes on loopback; jobs are small scripts.

`test_slurm_lanes.py` has the command line's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.slurm import Cluster, cluster, until

from patchstack.config import Slurm as Settings
from patchstack.deadline import Deadline
from patchstack.errors import LaneUnavailable, MachineError
from patchstack.ids import Sha
from patchstack.model import Form, JobEnd, JobState, LaneJob
from patchstack.queued import FOLDER, cancel_left
from patchstack.regress.executor import ANSWER, LOG, Begin, Place
from patchstack.regress.slurm import Slurm
from patchstack.results import Shard

ODD = 'it\'s $HOME; 50%j \\n a=b\n#SBATCH --hold "ü" *'
WORDS = "it's `more`\nthan $one line, a=b"

REFUSED = "Slurm refuses it"
NOPE = "--partition=nope --gres=gpu:1 --time=10"

ANSWERS = f"""\
printf '{{}}' > "$1/{ANSWER}.part"
mv "$1/{ANSWER}.part" "$1/{ANSWER}"
exit 0
"""
BEGINS = """\
echo "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES" > "$1/began.part"
mv "$1/began.part" "$1/began"
"""
WAITS = 'read -r go < "$1/go"\n'
"""Until the test says so; an interpreter that waits in a system call, as one does that tests."""
AGAIN_ANSWERS = f'if [ -e "$1/began" ]; then\n{ANSWERS}fi\n'


@pytest.fixture(scope="module")
def shared(sealed_module: Path) -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture
def bench(shared: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """On a cluster that other tests use too: none of them leaves anything in its queue."""
    monkeypatch.setenv("SLURM_CONF", str(shared.conf))
    until(shared.is_idle, "the nodes are idle")
    yield Bench(shared, tmp_path / ODD)
    assert shared.queue == []


@pytest.fixture
def own_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """On a cluster that the test may break, and that soon knows it."""
    with cluster(node_silence_s=5) as made:
        monkeypatch.setenv("SLURM_CONF", str(made.conf))
        yield Bench(made, tmp_path / ODD)


@dataclass
class Bench:
    cluster: Cluster
    root: Path
    said: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.root / ".patchstack"

    def places(self, count: int, do: str, *, gpus: int = 1, limit_s: float = 600) -> list[Place]:
        """``count`` jobs that do the shell's lines ``do``; ``$1`` is the job's folder."""
        made = []
        for number in range(1, count + 1):
            folder = self.root / "lanes" / "1-gpu" / str(number)
            folder.mkdir(parents=True)
            os.mkfifo(folder / "go")
            (folder / "do").write_text(do)
            shard, sha = Shard(number, count, (f"test_{number}.py",)), Sha("0" * 40)
            made.append(Place(LaneJob("run", "1-gpu", shard, sha, sha, Form.DEVICE, "", gpus, limit_s), folder))
        return made

    def begin(self) -> Begin:
        program = self.root / "job.sh"
        program.write_text('printf "in %s: %s\\n" "$PWD" "$1"\n. "$1/do"\n')
        return Begin(
            lambda folder: ["/bin/sh", str(program), str(folder)], self.root, {"PATH": "/usr/bin:/bin", "WORDS": WORDS}
        )

    def run(
        self,
        places: Sequence[Place],
        *,
        retries: int = 1,
        deadline: Deadline | None = None,
        when: dict[str, Callable[[], None]] | None = None,
        settings: Settings | None = None,
        patience_s: float = 60,
        begin: Begin | None = None,
    ) -> list[tuple[JobState, str, str, int]]:
        """What became of them. ``when`` does something once, at the first line of progress that has its words."""
        waiting = dict(when or {})

        def progress(line: str) -> None:
            self.said.append(line)
            for words in [words for words in waiting if words in line]:
                waiting.pop(words)()

        executor = Slurm(settings or Settings(), self.state, look_every_s=0.5, patience_s=patience_s, arrival_s=1)
        deadline = deadline or Deadline.after(3)  # what waits for ever is late, and no test waits with it
        ends = executor.run(places, begin or self.begin(), retries=retries, deadline=deadline, progress=progress)
        assert waiting == {}, self.said
        assert [end.job for end in ends] == [place.job for place in places]
        assert not (self.state / FOLDER).exists()
        return [_told(end) for end in ends]


def _told(end: JobEnd) -> tuple[JobState, str, str, int]:
    return end.state, end.detail, end.node, end.begun


def began(places: Sequence[Place]) -> None:
    until(lambda: all((place.folder / "began").exists() for place in places), "the jobs have begun")


def go(place: Place) -> None:
    """Let it go on: it waits at its pipe, so that somebody reads this."""
    descriptor = os.open(place.folder / "go", os.O_WRONLY)
    os.write(descriptor, b"\n")
    os.close(descriptor)


def node_and_gpu(place: Place) -> tuple[str, ...]:
    return tuple((place.folder / "began").read_text().split())


def test_an_array_is_spread_over_both_nodes_a_gpu_each(bench: Bench) -> None:
    places = bench.places(4, BEGINS + WAITS + ANSWERS)

    def at_a_time() -> None:
        began(places)
        for place in places:
            go(place)

    ends = bench.run(places, when={"4 run on n1, n2": at_a_time})
    assert ends == [(JobState.ANSWERED, "", node_and_gpu(place)[0], 1) for place in places]
    assert sorted(map(node_and_gpu, places)) == [("n1", "0"), ("n1", "1"), ("n2", "0"), ("n2", "1")]
    assert bench.said[-1] == "1-gpu, by Slurm: 4 ended"


def test_a_job_sees_what_it_is_begun_with_and_its_node_and_writes_its_log(bench: Bench) -> None:
    (place,) = bench.places(1, 'env -0 > "$1/env"; echo "to its log" >&2\n' + ANSWERS)
    assert bench.run([place])[0][0] is JobState.ANSWERED
    seen = dict(line.split("=", 1) for line in (place.folder / "env").read_text().split("\0") if line)
    assert set(seen) - {"PWD", "OLDPWD"} == {
        *("PATH", "WORDS", "CUDA_VISIBLE_DEVICES"),
        *("SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURMD_NODENAME", "SLURM_CLUSTER_NAME"),
    }
    assert (seen["WORDS"], seen["CUDA_VISIBLE_DEVICES"]) == (WORDS, "0")
    assert (place.folder / LOG).read_text() == f"in {bench.root}: {place.folder}\nto its log\n"
    assert {path.name for path in place.folder.iterdir()} == {ANSWER, LOG, "do", "env", "go"}


def test_jobs_without_a_gpu_see_none(bench: Bench) -> None:
    places = bench.places(2, BEGINS + ANSWERS, gpus=0)
    assert [end[0] for end in bench.run(places)] == [JobState.ANSWERED] * 2
    assert [node_and_gpu(place)[1:] for place in places] == [(), ()]


def test_what_a_lost_node_had_is_begun_again_on_another(own_bench: Bench) -> None:
    bench = own_bench
    places = bench.places(4, AGAIN_ANSWERS + BEGINS + WAITS + ANSWERS)
    on_n1: list[Place] = []

    def half_way() -> None:
        began(places)
        bench.cluster.nodes["n1"].dies()
        for place in places:
            if node_and_gpu(place)[0] == "n1":
                on_n1.append(place)
            else:
                go(place)

    ends = bench.run(places, when={"4 run on n1, n2": half_way})
    assert len(on_n1) == 2
    assert ends == [
        (JobState.ANSWERED, "it was begun 2 times" if place in on_n1 else "", "n2", 2 if place in on_n1 else 1)
        for place in places
    ]
    begun = f"in {bench.root}: "
    assert [(place.folder / LOG).read_text().count(begun) for place in places] == [end[3] for end in ends]
    assert bench.cluster.states() == {"n1": "down*", "n2": "idle"}
    assert bench.cluster.queue == []


def test_what_is_lost_too_often_is_said_to_be(own_bench: Bench) -> None:
    bench = own_bench
    (place,) = bench.places(1, BEGINS + WAITS)

    def half_way() -> None:
        began([place])
        bench.cluster.nodes["n1"].dies()

    ends = bench.run([place], retries=0, when={"1 run on n1": half_way}, settings=Settings(partition="one"))
    assert ends == [(JobState.LOST, "node n1 lost it: Slurm says NODE_FAIL, NodeDown", "n1", 1)]
    assert bench.cluster.queue == []


def test_a_job_that_was_killed_is_begun_again(bench: Bench) -> None:
    (place,) = bench.places(1, AGAIN_ANSWERS + BEGINS + "kill -9 $$\n")
    ((state, detail, _, begun),) = bench.run([place])
    assert (state, detail, begun) == (JobState.ANSWERED, "it was begun 2 times", 2)


def test_and_as_often_as_may_be(bench: Bench) -> None:
    (place,) = bench.places(1, "kill -9 $$\n")
    ((state, detail, node, begun),) = bench.run([place], retries=2)
    assert (state, begun) == (JobState.LOST, 3)
    assert detail == f"it was killed on node {node} (SIGKILL; Slurm says JobLaunchFailure)"


def test_a_job_that_gave_up_by_itself_is_not(bench: Bench) -> None:
    places = bench.places(3, "exit 0\n")
    (places[0].folder / "do").write_text("echo patchstack: a bug; exit 70\n")
    (places[1].folder / "do").write_text(f"echo patchstack: no image here; exit {LaneUnavailable.exit_code}\n")
    ends = bench.run(places)
    assert [(end[0], end[3]) for end in ends] == [(JobState.LOST, 1), (JobState.REFUSED, 1), (JobState.LOST, 1)]
    assert [end[1] for end in ends] == [
        "it ended with 70, without an answer: a bug",
        "no image here",
        f"it ended well, and no answer is seen here in {places[2].folder}",
    ]


def test_a_node_that_does_not_see_the_folder(bench: Bench) -> None:
    (place,) = bench.places(1, ANSWERS)
    elsewhere = Begin(bench.begin().argv, bench.root / "not shared", {})
    ((state, detail, node, begun),) = bench.run([place], begin=elsewhere)
    assert (state, begun) == (JobState.LOST, 2)
    assert detail == f"node {node} does not see {place.folder} or {bench.root / 'not shared'}"


@pytest.mark.parametrize(
    ("gpus", "limit_s", "settings", "why"),
    [
        (
            *(3, 600, Settings(options=("--comment=night",))),
            f"{REFUSED}: Requested node configuration is not available (--comment=night --gres=gpu:3 --time=10)",
        ),
        (
            *(1, 90, Settings(gres="gpu:h100:{gpus}")),
            f"{REFUSED}: Requested node configuration is not available (--gres=gpu:h100:1 --time=2)",
        ),
        (
            *(1, 600, Settings(partition="nope")),
            f"{REFUSED}: invalid partition specified: nope; Invalid partition name specified ({NOPE})",
        ),
        (
            *(1, 600, Settings(options=("--cpus-per-task=9",))),
            "no node can ever take it: Slurm says PartitionConfig (--cpus-per-task=9 --gres=gpu:1 --time=10)",
        ),
    ],
)
def test_what_no_node_can_take_is_refused_at_once(
    bench: Bench, gpus: int, limit_s: float, settings: Settings, why: str
) -> None:
    places = bench.places(2, ANSWERS, gpus=gpus, limit_s=limit_s)
    assert bench.run(places, settings=settings) == [(JobState.REFUSED, why, "", 0)] * 2


def test_what_takes_longer_than_a_partition_allows_is_refused(bench: Bench) -> None:
    ((state, detail, _, begun),) = bench.run(bench.places(1, ANSWERS, limit_s=7200))
    assert (state, begun) == (JobState.REFUSED, 0)
    said = "no node can ever take it: Slurm says {} (--gres=gpu:1 --time=120)"
    # The one until the scheduler has looked closer.
    assert detail in {said.format("PartitionConfig"), said.format("PartitionTimeLimit")}


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    def passes(self) -> None:
        self.now_s += 3600


def test_at_the_deadline_what_waits_and_what_runs_is_late_and_cancelled(bench: Bench) -> None:
    places, clock = bench.places(5, BEGINS + WAITS), Clock()
    ends = bench.run(
        places, deadline=Deadline.after(30, monotonic=clock), when={"1 of 5 jobs wait (Resources)": clock.passes}
    )
    late = {end[1] for end in ends if end[3] == 1}
    waited = [end for end in ends if end[3] == 0]
    assert {end[0] for end in ends} == {JobState.LATE}
    assert late == {"the night's deadline was over, and it was ended"}
    assert waited == [(JobState.LATE, "the night's deadline was over before it began: Slurm says Resources", "", 0)]


def test_an_interrupt_leaves_nothing_in_the_queue(bench: Bench) -> None:
    places = bench.places(5, BEGINS + WAITS)

    def interrupt() -> None:
        began(places[:4])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(places, when={"4 run": interrupt})
    assert bench.cluster.queue == []
    assert not (bench.state / FOLDER).exists()


def test_what_somebody_cancels_is_not_begun_again(bench: Bench) -> None:
    (place,) = bench.places(1, BEGINS + WAITS)

    def cancel() -> None:
        began([place])
        bench.cluster.ask("scancel", f"--name={bench.cluster.queue[0]}")

    ((state, detail, _, begun),) = bench.run([place], retries=3, when={"1 run": cancel})
    assert (state, detail, begun) == (JobState.LOST, "somebody cancelled it in Slurm's queue", 1)


def test_a_controller_that_is_begun_anew_loses_nothing(own_bench: Bench) -> None:
    bench = own_bench
    (place,) = bench.places(1, BEGINS + WAITS + ANSWERS)

    def away() -> None:
        began([place])
        bench.cluster.stop_controller()

    def back() -> None:
        bench.cluster.start_controller()
        go(place)

    ((state, detail, _, begun),) = bench.run([place], when={"1 run on": away, "Slurm does not answer": back})
    assert (state, detail, begun) == (JobState.ANSWERED, "", 1)
    assert bench.cluster.queue == []


def test_one_that_stays_away_is_an_error_and_the_next_run_cancels_what_it_had(own_bench: Bench) -> None:
    bench = own_bench
    (place,) = bench.places(1, BEGINS + WAITS + ANSWERS)

    def away() -> None:
        began([place])
        bench.cluster.stop_controller()

    with pytest.raises(MachineError, match="Slurm did not answer for 0 s: Unable to contact slurm controller"):
        bench.run([place], when={"1 run on": away}, patience_s=0)
    (left,) = (bench.state / FOLDER).iterdir()
    assert f"jobs called {left.name} may still be in Slurm's queue" in bench.said[-1]
    with pytest.raises(MachineError, match="Slurm does not answer: see that `sinfo` lists the nodes here, and that"):
        bench.run([place])
    bench.cluster.start_controller()
    until(lambda: bench.cluster.queue == [left.name], "the controller knows its job again")
    assert cancel_left(bench.state) == (f"Slurm's queue has nothing more of {left.name}, a killed run's",)
    assert bench.cluster.queue == []
    assert not (bench.state / FOLDER).exists()


@pytest.mark.thorough
def test_a_job_that_takes_longer_than_it_may_is_late(bench: Bench) -> None:
    (place,) = bench.places(1, BEGINS + WAITS, limit_s=60)
    ((state, detail, _, begun),) = bench.run([place], retries=3)
    assert (state, detail, begun) == (JobState.LATE, "its limit of 1 min was over, and it was ended", 1)
