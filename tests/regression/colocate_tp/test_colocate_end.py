"""CO-10: what an owner leaves behind, however it ends; and that its children are not it."""

from __future__ import annotations

import atexit
import json
import os
import signal

import pytest

from testbed import ChildEnded
from testbed.colocate_callers import Caller, CallerHandle, Colocation, ask_all, wait_for_end

SOON_S = 20.0
"""For what the kernel does by itself."""


def launched(colocate: Colocation) -> int:
    """The process id of the one server."""
    assert len(colocate.launches) == 1
    return colocate.launches[0].pid


def answers(rank: CallerHandle) -> str:
    return str(rank.ask("generate", prompt="x").value["text"])


@pytest.mark.kills("ends-untidily")
def test_an_owner_that_is_told_to_end_leaves_nothing(colocate: Colocation) -> None:
    """By SIGTERM, as a job is: it then still ends by that signal, as its launcher expects."""
    owner, client = colocate.start()
    server = launched(colocate)
    owner.child.signal(signal.SIGTERM)
    with pytest.raises(ChildEnded):
        owner.child.receive()
    assert colocate.files() == []
    assert owner.child.report().returncode == -signal.SIGTERM
    assert wait_for_end(server, SOON_S)
    assert client.ask("generate", prompt="x").error == "ColocateOwnerLost"


def have_a_worker(caller: Caller) -> int:
    """A child that outlives the trainer, as a data loader's may: until the test ends."""
    worker = os.fork()
    if worker == 0:
        while True:
            signal.pause()
    return worker


@pytest.mark.kills("ends-untidily")
def test_a_worker_of_a_killed_owner_keeps_nothing(colocate: Colocation) -> None:
    """Neither the server, which ends with the owner's end of a pipe, nor the lock of the rendezvous."""
    ranks = colocate.start()
    server = launched(colocate)
    worker = ranks[0].do(have_a_worker).value
    os.kill(ranks[0].child.pid, signal.SIGKILL)
    ended = wait_for_end(server, SOON_S)
    os.kill(worker, signal.SIGKILL)
    assert ended


def have_a_worker_that_exits(caller: Caller) -> int:
    worker = os.fork()
    if worker == 0:
        atexit._run_exitfuncs()
        os._exit(0)
    return os.waitpid(worker, 0)[1]


@pytest.mark.kills("ends-untidily")
def test_a_worker_that_exits_ends_nothing(colocate: Colocation) -> None:
    ranks = colocate.start()
    files = colocate.files()
    assert ranks[0].do(have_a_worker_that_exits).value == 0
    assert colocate.files() == files
    assert [rank.ask("health_check").value for rank in ranks] == [True, True]
    assert [answers(rank) for rank in ranks] == ["answer to x"] * 2


@pytest.mark.kills("owner-knows-no-other")
def test_an_engine_that_is_shut_down_leaves_its_successor_alone(colocate: Colocation) -> None:
    ranks = colocate.start()
    record = colocate.rendezvous / next(name for name in colocate.files() if name.endswith(".json"))
    successor = json.dumps({**json.loads(record.read_text()), "nonce": "0123456789abcdef" * 2})
    record.write_text(successor)
    assert [each.error for each in ask_all(ranks, "shutdown")] == ["", ""]
    assert record.exists()
    assert record.read_text() == successor
