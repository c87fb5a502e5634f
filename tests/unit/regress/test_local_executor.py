"""This machine as an executor: real processes, given GPUs that they only hear of."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchstack.deadline import REASON, Deadline
from patchstack.model import Form, JobState, LaneJob, Sha, Shard
from patchstack.regress.executor import ANSWER, LOG, Begin, Place
from patchstack.regress.local import VISIBLE, Local, gpus_here

ANSWERS = f"""\
import os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder / "gpus").write_text(os.environ["{VISIBLE}"])
(folder / "{ANSWER}").write_text("{{}}")
"""


def place(folder: Path, number: int, *, gpus: int = 0, limit_s: float = 60.0) -> Place:
    """Job ``number`` in a folder of its own."""
    job = LaneJob(
        "run", "1-gpu", Shard(number, 9, ()), Sha("c" * 40), Sha("d" * 40), Form.DEVICE, "image", gpus, limit_s
    )
    (folder / str(number)).mkdir()
    return Place(job, folder / str(number))


def ends(
    code: str, *places: Place, gpus: tuple[str, ...] = (), retries: int = 1, deadline: Deadline | None = None
) -> list[tuple[JobState, str, int]]:
    """What becomes of jobs that are a Python program."""
    begin = Begin(
        lambda folder: [sys.executable, "-c", code, str(folder)], Path("/"), {"PATH": os.environ.get("PATH", "")}
    )
    found = Local(gpus).run(places, begin, retries=retries, deadline=deadline, progress=lambda _: None)
    assert [end.job for end in found] == [one.job for one in places]
    return [(end.state, end.detail, end.begun) for end in found]


def test_each_job_is_given_gpus_of_its_own(tmp_path: Path) -> None:
    places = [place(tmp_path, number, gpus=gpus) for number, gpus in ((1, 2), (2, 1), (3, 1), (4, 0))]
    assert ends(ANSWERS, *places, gpus=("GPU-a", "GPU-b")) == [(JobState.ANSWERED, "", 1)] * 4
    given = [(one.folder / "gpus").read_text().split(",") for one in places]
    assert (sorted(given[0]), [len(names) for names in given], given[3]) == (["GPU-a", "GPU-b"], [2, 1, 1, 1], [""])


def test_as_many_run_at_a_time_as_there_are_gpus_for(tmp_path: Path) -> None:
    """Of two and two neighbours each waits for the other; and no GPU is given to a job while another one has it."""
    code = f"""\
import os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
number = int(folder.name)
mine = folder.parent / os.environ["{VISIBLE}"]
mine.mkdir()
open(folder.parent / f"met-{{(number + 1) // 2}}", "r" if number % 2 else "w").close()
mine.rmdir()
(folder / "{ANSWER}").touch()
"""
    for pair in ("met-1", "met-2"):
        os.mkfifo(tmp_path / pair)
    places = [place(tmp_path, number, gpus=1) for number in (1, 2, 3, 4)]
    assert ends(code, *places, gpus=("GPU-a", "GPU-b")) == [(JobState.ANSWERED, "", 1)] * 4


def test_a_job_that_needs_more_than_there_is_is_refused_and_the_others_run(tmp_path: Path) -> None:
    places = [place(tmp_path, 1, gpus=2), place(tmp_path, 2, gpus=1)]
    assert ends(ANSWERS, *places, gpus=("GPU-a",)) == [
        (JobState.REFUSED, "it needs 2 GPUs, and this machine has 1", 0),
        (JobState.ANSWERED, "", 1),
    ]
    assert ends(ANSWERS, place(tmp_path, 3, gpus=1)) == [
        (JobState.REFUSED, "it needs 1 GPU, and this machine has none", 0)
    ]


def test_a_job_that_is_killed_begins_again_as_often_as_may_be(tmp_path: Path) -> None:
    once = f"""\
import os, pathlib, signal, sys
folder = pathlib.Path(sys.argv[1])
if (folder / "begun").exists():
    (folder / "{ANSWER}").touch()
else:
    (folder / "begun").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert ends(once, place(tmp_path, 1)) == [(JobState.ANSWERED, "it was begun 2 times", 2)]
    assert ends(once, place(tmp_path, 2), retries=0) == [(JobState.LOST, "it was killed (SIGKILL)", 1)]
    always = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert ends(always, place(tmp_path, 3), retries=2) == [(JobState.LOST, "it was killed (SIGKILL)", 3)]


@pytest.mark.parametrize(
    ("code", "state", "detail"),
    [
        (2, JobState.LOST, "it ended with 2, without an answer: no such run"),
        (0, JobState.LOST, "it ended with 0, without an answer: no such run"),
        (9, JobState.REFUSED, "no such run"),
        (11, JobState.REFUSED, "no such run"),
    ],
)
def test_a_job_that_ends_by_itself_without_an_answer_is_not_begun_again(
    tmp_path: Path, code: int, state: JobState, detail: str
) -> None:
    says = f"import sys; print('patchstack: begins'); print('patchstack: no such run'); sys.exit({code})"
    one = place(tmp_path, 1)
    assert ends(says, one) == [(state, detail, 1)]
    assert (one.folder / LOG).read_text() == "patchstack: begins\npatchstack: no such run\n"


SLEEPS = "import signal; signal.pause()"


def test_a_job_that_is_late_is_ended(tmp_path: Path) -> None:
    assert ends(SLEEPS, place(tmp_path, 1, limit_s=0.5)) == [
        (JobState.LATE, "its limit of 0.00833333 min was over, and it was ended", 1)
    ]
    soon = Deadline.after(0.01)
    late = (JobState.LATE, f"{REASON} was over, and it was ended", 1)
    assert ends(SLEEPS, place(tmp_path, 2), place(tmp_path, 3), deadline=soon) == [
        late,
        (JobState.LATE, f"{REASON} was over before it began", 0),
    ]


@pytest.fixture
def at_a_terminal() -> Iterator[None]:
    """In the background of a script Ctrl-C is ignored, and a child inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_leaves_no_job_and_asks_each_to_end(tmp_path: Path, at_a_terminal: None) -> None:
    """It hears of it as of Ctrl-C, and has time for what it has begun."""
    one, two = place(tmp_path, 1), place(tmp_path, 2)
    code = """\
import os, pathlib, signal, sys
folder = pathlib.Path(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
(folder / "pid").write_text(str(os.getpid()))
(folder.parent / "fifo").open().read()
signal.sigwait([signal.SIGTERM])
(folder / "ended").touch()
sys.exit(130)
"""
    os.mkfifo(tmp_path / "fifo")
    begin = Begin(lambda folder: [sys.executable, "-c", code, str(folder)], Path("/"), {})

    def interrupt() -> None:
        (tmp_path / "fifo").open("w").close()  # it opens when the job does
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        Local(()).run([one, two], begin, retries=1, deadline=None, progress=lambda _: None)
    assert (one.folder / "ended").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((one.folder / "pid").read_text()), 0)
    assert not (two.folder / LOG).exists()


@pytest.mark.parametrize(
    ("environment", "gpus"),
    [
        ({VISIBLE: "0,2"}, ("0", "2")),
        ({VISIBLE: "GPU-8932f937, MIG-1"}, ("GPU-8932f937", "MIG-1")),
        ({VISIBLE: ""}, ()),
        ({VISIBLE: "-1"}, ()),
    ],
)
def test_the_gpus_of_this_machine_are_those_that_we_may_use(environment: dict[str, str], gpus: tuple[str, ...]) -> None:
    assert gpus_here(environment) == gpus


def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus_here({}) == ()
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho GPU-1\necho GPU-2\n")
    smi.chmod(0o755)
    assert gpus_here({}) == ("GPU-1", "GPU-2")
    smi.write_text("#!/bin/sh\necho failed\nexit 9\n")
    assert gpus_here({}) == ()


def test_a_signal_without_a_name_is_told_by_its_number(tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 1)"
    why = f"it was killed (signal {signal.SIGRTMIN + 1})"
    assert ends(code, place(tmp_path, 1), retries=0) == [(JobState.LOST, why, 1)]
