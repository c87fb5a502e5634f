"""Programs are ended with what they started, and nobody waits for what they leave behind."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from pathlib import Path

import pytest

from patchstack import process
from patchstack.errors import MachineError

LEAVES_A_CHILD = """
import os, sys, signal
read, write = os.pipe()
if os.fork() == 0:
    {own_session}
    os.write(write, str(os.getpid()).encode())
    signal.alarm(60)  # it ends by itself, whatever happens to it
    signal.pause()
print(os.read(read, 20).decode(), flush=True)
{then}
"""


def python(code: str, **more: float) -> process.Completed:
    return process.run([sys.executable, "-c", code], check=False, **more)  # type: ignore[arg-type]


def ends(pid: int) -> bool:
    """Whether a process has ended, or does so now: a signal takes its moment."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 20.0)[0])
    finally:
        os.close(handle)


def test_a_child_that_leaves_a_process_behind_is_not_waited_for_and_the_process_is_ended() -> None:
    done = python(LEAVES_A_CHILD.format(own_session="pass", then=""), timeout_s=30.0)
    assert done.returncode == 0
    assert ends(int(done.stdout))


def test_a_daemon_in_a_session_of_its_own_holds_nobody_up() -> None:
    done = python(LEAVES_A_CHILD.format(own_session="os.setsid()", then=""), timeout_s=30.0)
    assert done.returncode == 0
    os.kill(int(done.stdout), 9)


def test_at_the_time_limit_what_was_said_is_kept_and_all_of_it_is_ended() -> None:
    with pytest.raises(process.ProcessTimeout) as late:
        python(LEAVES_A_CHILD.format(own_session="pass", then="signal.pause()"), timeout_s=2.0)
    assert ends(int(late.value.stdout))


def test_input_and_output_are_text_whatever_the_bytes() -> None:
    code = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data + b'\\xff'); sys.exit(3)"
    done = process.run([sys.executable, "-c", code], stdin="é\n", check=False)
    assert (done.returncode, done.stdout) == (3, "é\n\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("program", ["/nonexistent/program", "/", "/etc/passwd"])
def test_what_cannot_be_started_is_named(program: str) -> None:
    with pytest.raises(MachineError, match=f"`{program}` cannot be started"):
        process.run([program])


# --- what runs beside us ---


def test_what_runs_beside_us_ends_with_the_block(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shell = str(shutil.which("sh"))
    with process.beside([shell, "-c", "echo begun; echo failing >&2; exec sleep 60"], env={}, log=log) as child:
        while log.read_text().count("\n") < 2:
            assert child.ended_within(0.05) is None
    assert log.read_text() == "begun\nfailing\n"
    assert not Path(f"/proc/{child.pid}").exists()
    assert child.ended_within(0) == -signal.SIGKILL


def test_what_runs_beside_us_can_end_by_itself(tmp_path: Path) -> None:
    shell = str(shutil.which("sh"))
    with process.beside([shell, "-c", "echo $ONLY $HOME; exit 3"], env={"ONLY": "this"}, log=tmp_path / "log") as child:
        assert child.ended_within(60) == 3
    assert (tmp_path / "log").read_text() == "this\n"


def test_what_runs_beside_us_ends_when_we_are_killed(tmp_path: Path) -> None:
    pid_file, log = tmp_path / "pid", tmp_path / "log"
    code = f"""
import os, signal
from pathlib import Path
from patchstack import process
with process.beside(["/bin/sh", "-c", "echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 60"],
                    env={{"PATH": os.defpath}}, log=Path({str(log)!r})) as child:
    while not Path({str(pid_file)!r}).exists():
        assert child.ended_within(0.05) is None
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = process.run([sys.executable, "-c", code], timeout_s=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert ends(int(pid_file.read_text())), "it outlives whoever started it"


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"`sh` cannot be started: .*No such file or directory"):
        process.beside(["sh"], env={}, log=tmp_path / "a" / "b").__enter__()


# --- what prints more than anybody wants to keep ---


def test_a_program_that_prints_without_end_is_ended() -> None:
    with pytest.raises(process.OutputTooLong, match="more than 1000 bytes"):
        process.run([sys.executable, "-c", "while True: print('x' * 1000)"], timeout_s=60.0, most_output_bytes=1000)


def test_a_program_that_ends_before_it_was_measured_may_have_printed_too_much_all_the_same() -> None:
    with pytest.raises(process.OutputTooLong):
        process.run([sys.executable, "-c", "print('x' * 1001)"], timeout_s=60.0, most_output_bytes=1000)


def test_a_program_that_prints_little_is_heard() -> None:
    done = process.run([sys.executable, "-c", "print('hello')"], timeout_s=60.0, most_output_bytes=1000)
    assert (done.returncode, done.stdout) == (0, "hello\n")


def test_the_time_limit_holds_where_the_output_is_measured() -> None:
    with pytest.raises(process.ProcessTimeout):
        process.run([sys.executable, "-c", "import signal; signal.pause()"], timeout_s=0.5, most_output_bytes=1000)


def test_output_is_read_as_it_comes() -> None:
    waits = "import signal; print('first', flush=True); signal.pause()"
    with process.reading([sys.executable, "-c", waits], timeout_s=60.0) as (stream, _):
        assert stream.readline() == b"first\n"


def test_a_stream_that_was_cut_short_is_told_from_a_whole_one() -> None:
    with process.reading([sys.executable, "-c", "print('all')"], timeout_s=60.0) as (stream, ended):
        assert stream.read() == b"all\n"
        ended()
    more = "print('x' * 3_000_000)"
    with process.reading([sys.executable, "-c", more], timeout_s=60.0) as (stream, ended):
        assert stream.read(1) == b"x"
        ended()
    fails = "import sys; print('some'); sys.exit('no more')"
    with process.reading([sys.executable, "-c", fails], timeout_s=60.0) as (stream, ended):
        assert stream.read() == b"some\n"
        with pytest.raises(process.ProcessFailed, match="no more"):
            ended()
    hangs = "import signal; print('some', flush=True); signal.pause()"
    with process.reading([sys.executable, "-c", hangs], timeout_s=1.0) as (stream, ended):
        assert stream.read() == b"some\n"
        with pytest.raises(process.ProcessTimeout):
            ended()


def test_who_reads_no_further_ends_the_program() -> None:
    endless = "import os; print(os.getpid(), flush=True)\nwhile True: print('x' * 1000)"
    with process.reading([sys.executable, "-c", endless], timeout_s=60.0) as (stream, _):
        pid = int(stream.readline())
    assert ends(pid)
