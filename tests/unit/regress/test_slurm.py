"""What is given to sbatch, and what squeue says; `tests/e2e/test_slurm.py` has the real ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from patchstack.config import Slurm as Settings
from patchstack.config import load
from patchstack.errors import ConfigError, MachineError
from patchstack.ids import Sha
from patchstack.image.devices import asked_gpus
from patchstack.model import Form, LaneJob
from patchstack.queued import FOLDER, cancel_left, named
from patchstack.regress.executor import LOG, Begin, Place
from patchstack.regress.slurm import Slurm, require_programs
from patchstack.regress.slurm_queue import UNSEEN, Stand, Task, read_queue, script, submission
from patchstack.results import Shard

ODD = "it's $HOME; %j \\n a=b\n*"


def job(gpus: int = 2, limit_s: float = 90) -> LaneJob:
    sha = Sha("0" * 40)
    return LaneJob("run", "1-gpu", Shard(1, 1, ("test_it.py",)), sha, sha, Form.DEVICE, "", gpus, limit_s)


def test_what_a_job_is_given_with() -> None:
    settings = Settings(partition="h100", account="ml", gres="gpu:h100:{gpus}", options=("--qos=night", "--mem=64G"))
    assert submission(settings, job(), "patchstack-1-gpu-12", [0, 3]) == [
        *("sbatch", "--qos=night", "--mem=64G", "--partition=h100", "--account=ml", "--gres=gpu:h100:2", "--time=2"),
        *("--nodes=1", "--ntasks=1", "--array=0,3", "--job-name=patchstack-1-gpu-12", "--output=/dev/null"),
        *("--propagate=NONE", "--no-requeue", "--parsable"),
    ]
    assert submission(Settings(), job(gpus=0, limit_s=60), "x", [0])[1] == "--time=1"


def run_script(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment["PATH"] = "/usr/bin:/bin"
    return subprocess.run(["/bin/sh"], input=text, env=environment, capture_output=True, text=True, check=False)


def test_each_number_does_its_own_job_with_any_characters_in_paths(tmp_path: Path) -> None:
    root = tmp_path / ODD
    program = root / "job=1.sh"
    places = [(number, Place(job(), root / f"{number}")) for number in (0, 3)]
    for _, place in places:
        place.folder.mkdir(parents=True)
    program.write_text(
        '#!/bin/sh\nprintf "%s|%s|%s|%s" "$1" "$WORDS" "$CUDA_VISIBLE_DEVICES" "${SECRET-none}"\nexit 5\n'
    )
    program.chmod(0o755)
    text = script(places, Begin(lambda folder: [str(program), str(folder)], root, {"WORDS": ODD}))
    ended = run_script(text, SLURM_ARRAY_TASK_ID="3", CUDA_VISIBLE_DEVICES="1", SECRET="x")
    assert (ended.returncode, ended.stdout, ended.stderr) == (5, "", "")
    assert (root / "3" / LOG).read_text() == f"{root / '3'}|{ODD}|1|none"
    assert not (root / "0" / LOG).exists()


def test_a_place_that_is_not_there_says_so_by_its_code(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    for place, cwd in (("2", tmp_path), ("1", tmp_path / "none")):
        begin = Begin(lambda folder: ["/bin/true"], cwd, {})
        text = script([(0, Place(job(), tmp_path / place))], begin)
        assert run_script(text, SLURM_ARRAY_TASK_ID="0").returncode == UNSEEN


def test_the_log_is_gone_on_with_and_a_job_without_gpus_is_told_so(tmp_path: Path) -> None:
    place = Place(job(gpus=0), tmp_path)
    text = script([(0, place)], Begin(lambda folder: ["/usr/bin/env"], tmp_path, {}))
    for node in ("n1", "n2"):
        assert run_script(text, SLURM_ARRAY_TASK_ID="0", SLURMD_NODENAME=node, CUDA_VISIBLE_DEVICES="7").returncode == 0
    lines = [line for line in (tmp_path / LOG).read_text().splitlines() if not line.startswith(("PWD=", "OLDPWD="))]
    assert lines == ["CUDA_VISIBLE_DEVICES=", "SLURMD_NODENAME=n1", "CUDA_VISIBLE_DEVICES=", "SLURMD_NODENAME=n2"]


@pytest.mark.parametrize("of_node", [{}, {"XDG_RUNTIME_DIR": "/run/user/7"}], ids=["none", "its own"])
def test_a_job_has_the_folders_of_its_node_s_session_and_not_those_of_ours(
    tmp_path: Path, of_node: dict[str, str]
) -> None:
    """Ours is of a login here: on a node nobody has made it, and podman would be refused there."""
    begin = Begin(lambda folder: ["/usr/bin/env"], tmp_path, {"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/home/ann"})
    text = script([(0, Place(job(), tmp_path))], begin)
    assert run_script(text, SLURM_ARRAY_TASK_ID="0", **of_node).returncode == 0
    seen = dict(line.partition("=")[::2] for line in (tmp_path / LOG).read_text().splitlines())
    assert {name: seen[name] for name in ("HOME", "XDG_RUNTIME_DIR") if name in seen} == {
        "HOME": "/home/ann",
        **of_node,
    }


def test_a_job_is_told_which_gpus_of_its_node_it_was_given(tmp_path: Path) -> None:
    """Where Slurm shows a job its own devices alone it counts them anew; a container must be given the real ones."""
    text = script([(0, Place(job(), tmp_path))], Begin(lambda folder: ["/usr/bin/env"], tmp_path, {}))
    given = {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_GPUS": "4,5"}
    assert run_script(text, SLURM_ARRAY_TASK_ID="0", **given).returncode == 0
    seen = dict(line.partition("=")[::2] for line in (tmp_path / LOG).read_text().splitlines())
    assert asked_gpus(2, seen) == ("4", "5")


SEEN = """\
11      |1   |FAILED      |1792  |n1     |NonZeroExitCode
11      |2   |FAILED      |9     |n2     |JobLaunchFailure
11      |4   |PENDING     |0     |       |Nodes required for job are DOWN, DRAINED or reserved

11      |0   |RUNNING     |0     |n1     |None
"""
"""As squeue of 22.05 says it, in narrower columns."""


def test_squeue_is_read() -> None:
    waits = "Nodes required for job are DOWN, DRAINED or reserved"
    tasks = read_queue(SEEN)
    assert tasks == (
        Task("11", 1, "FAILED", 1792, "n1", "NonZeroExitCode"),
        Task("11", 2, "FAILED", 9, "n2", "JobLaunchFailure"),
        Task("11", 4, "PENDING", 0, "", waits),
        Task("11", 0, "RUNNING", 0, "n1", "None"),
    )
    assert [(task.stand, task.code, task.signal) for task in tasks] == [
        (Stand.ENDED, 7, 0),
        (Stand.KILLED, 0, 9),
        (Stand.WAITS, 0, 0),
        (Stand.RUNS, 0, 0),
    ]


@pytest.mark.parametrize("line", ["CLUSTER: other", "11|x|RUNNING|0|n1|None", "11|1|FAILED|1:0|n1|None"])
def test_what_is_not_squeues_is_an_error(line: str) -> None:
    with pytest.raises(MachineError, match=r"squeue said .* which is not what Slurm's says since version 22.05"):
        read_queue(f"{SEEN}{line}\n")


@pytest.mark.parametrize(
    ("state", "reason", "node", "stand"),
    [
        ("PENDING", "Resources", "", Stand.WAITS),
        ("PENDING", "JobHeldUser", "", Stand.WAITS),
        ("PENDING", "ReqNodeNotAvail, UnavailableNodes:n1", "", Stand.WAITS),
        ("PENDING", "QOSGrpGRES", "", Stand.WAITS),
        ("PENDING", "QOSMinGRES", "", Stand.HOPELESS),
        ("PENDING", "QOSMaxGRESPerJob", "", Stand.HOPELESS),
        ("PENDING", "AssocMaxWallDurationPerJobLimit", "", Stand.HOPELESS),
        ("PENDING", "BadConstraints", "", Stand.HOPELESS),
        ("CONFIGURING", "None", "n1", Stand.RUNS),
        ("COMPLETING", "None", "n1", Stand.RUNS),
        ("A_NEW_ONE", "None", "n1", Stand.RUNS),
        ("COMPLETED", "None", "n1", Stand.ENDED),
        ("NODE_FAIL", "NodeDown", "n1", Stand.KILLED),
        ("PREEMPTED", "None", "n1", Stand.KILLED),
        ("OUT_OF_MEMORY", "OutOfMemory", "n1", Stand.KILLED),
        ("TIMEOUT", "TimeLimit", "n1", Stand.OVERTIME),
        ("CANCELLED", "None", "n1", Stand.CANCELLED),
    ],
)
def test_where_a_job_stands(state: str, reason: str, node: str, stand: Stand) -> None:
    assert Task("11", 0, state, 0, node, reason).stand is stand


def test_what_slurm_gave_up_before_it_began_is_hopeless() -> None:
    assert Task("11", 0, "FAILED", 1, "", "BadConstraints").stand is Stand.HOPELESS


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("gres", "gpu", "'gpu' does not say how many GPUs; write {gpus} where their number belongs"),
        ("gres", "'{gpus}{x}'", "'{gpus}{x}' does not say how many GPUs"),
        ("options", "['--qos', night]", "'night' is not an option of sbatch on its own; write it as --name=value"),
        ("options", "[-p x]", "'-p x' is not an option of sbatch on its own"),
        ("options", "[--array=1-9]", "sbatch's --array is set by the night itself; take it out"),
        ("options", "[--req]", "sbatch's --req is set by the night itself"),
        ("options", "[--clusters=all]", "sbatch's --clusters is set by the night itself"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, key: str, value: str, said: str) -> None:
    file = tmp_path / "deploy.yaml"
    tests = f"tests:\n  slurm:\n    {key}: {value}\n"
    text = (Path(__file__).parents[3] / "deploy.yaml").read_text()
    file.write_text(text.replace("tests:\n", tests, 1))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert said in str(caught.value)


def test_a_machine_without_slurm_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = r"needs sbatch, squeue, scancel on the PATH: install Slurm's client .* SLURM_CONF .* or say --executor local"
    with pytest.raises(MachineError, match=said):
        Slurm(Settings(), tmp_path).run(
            (), Begin(lambda folder: [], tmp_path, {}), retries=0, deadline=None, progress=print
        )
    assert list(tmp_path.iterdir()) == []


def test_a_slurm_conf_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("sbatch", "squeue", "scancel"):
        (tmp_path / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    with pytest.raises(MachineError, match=r"SLURM_CONF is /nowhere/slurm.conf, and there is no such file"):
        require_programs()


def test_a_name_that_could_not_be_cancelled_stays_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    with named(tmp_path, "a lane/1", said.append) as name:
        assert name.startswith("patchstack-a-lane-1-")
        assert [file.name for file in (tmp_path / FOLDER).iterdir()] == [name]
    assert [file.name for file in (tmp_path / FOLDER).iterdir()] == [name]
    (left,) = said
    assert left.startswith(f"jobs called {name} may still be in Slurm's queue: the next run cancels them, or `scancel")
    assert cancel_left(tmp_path) == (left,)


def test_where_nothing_is_queued_no_program_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert cancel_left(tmp_path) == ()
