"""Programs are ended with what they started, and nobody waits for what they leave behind."""

from __future__ import annotations

import os
import select
import sys

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
