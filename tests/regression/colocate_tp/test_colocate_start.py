"""CO-1, CO-3, CO-9: one server for all callers, started without a trace in the trainer; or none, and all are told."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from testbed.child import Task
from testbed.colocate_callers import Caller, Colocation, ask_all, said_by
from testbed.colocate_server import FOLDER

Found = TypeVar("Found")

LAUNCHER_VARIABLES = {
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
    "TORCHELASTIC_RUN_ID": "7",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
"""What torchrun gives a trainer. A server that has them joins the trainer's store."""


@pytest.mark.kills("each-caller-launches")
def test_two_callers_share_one_server(colocate: Colocation) -> None:
    ranks = colocate.start()
    assert len(colocate.launches) == 1
    said = [rank.ask("generate", prompt=f"from {rank.number}").value for rank in ranks]
    assert [each["text"] for each in said] == ["answer to from 0", "answer to from 1"]
    assert [asked.body["text"] for asked in colocate.requests if asked.path == "/generate"] == ["from 0", "from 1"]
    assert [each.error for each in ask_all(ranks, "shutdown")] == ["", ""]
    assert (colocate.servers_left(), colocate.files()) == ([], [])


def only(found: Sequence[Found]) -> Found:
    assert len(found) == 1, found
    return found[0]


@pytest.mark.kills("mutates-parent-env")
def test_the_server_is_told_its_key_in_secret(colocate: Colocation) -> None:
    """Other users of the machine can read a command line, and an environment is inherited by everything."""
    colocate.start()
    launch, record = only(colocate.launches), only(colocate.records())
    key = launch.flag("--api-key") or ""  # as the server sees its arguments, not as the system does
    assert key
    assert f'"{key}"' in record.read_text()
    process = Path(f"/proc/{launch.pid}")
    started_with = [(process / name).read_bytes() for name in ("cmdline", "environ")]
    assert [key.encode() in said for said in started_with] == [False, False]


def note_environment(caller: Caller) -> None:
    """The trainer's environment while the server is being started, and is held until that has been noted."""
    launches = Path(os.environ[FOLDER]) / "launches"
    looked = threading.Event()
    while not list(launches.glob("*.json")):
        looked.wait(0.02)
    caller.kept["during"] = dict(os.environ)
    caller.rank.link.send("noted")


def environments(caller: Caller) -> tuple[dict[str, str], dict[str, str]]:
    return caller.kept["during"], dict(os.environ)


@pytest.mark.kills("mutates-parent-env")
def test_only_the_server_sees_all_cards(colocate: Colocation) -> None:
    """The trainer's own environment stays as it was, also for as long as the server's start takes."""
    (colocate.notes / "hold").touch()
    cards = [{"CUDA_VISIBLE_DEVICES": card} for card in ("7,5", "2")]
    ranks = colocate.begin(
        devices=[1, 0], each=cards, environ=LAUNCHER_VARIABLES, on_begin=Task.of(note_environment, ())
    )
    assert [rank.child.receive() for rank in ranks] == ["noted"] * 2
    (colocate.notes / "hold").unlink()
    assert [each.error for each in said_by(ranks)] == ["", ""]
    for rank, own in zip(ranks, cards, strict=True):
        during, after = rank.do(environments).value
        assert during == after
        assert {name: after[name] for name in (*own, *LAUNCHER_VARIABLES)} == {**own, **LAUNCHER_VARIABLES}
    launch = only(colocate.launches)
    assert launch.environment["CUDA_VISIBLE_DEVICES"] == "2,5"
    assert not {"RANK", "WORLD_SIZE", *LAUNCHER_VARIABLES} & launch.environment.keys()


@pytest.mark.kills("failed-status-ignored")
def test_a_server_that_dies_as_it_starts_fails_all_callers(colocate: Colocation) -> None:
    (colocate.notes / "die").touch()
    patience_s = {"SGLANG_COLOCATE_HEALTH_TIMEOUT_S": "20", "SGLANG_COLOCATE_CLIENT_MARGIN_S": "0"}
    said = said_by(colocate.begin(each=[{}, patience_s]))
    assert [each.error for each in said] == ["ColocateStartFailed"] * 2, said
    assert len(colocate.launches) == 1
    assert (colocate.servers_left(), colocate.files()) == ([], [])


@pytest.mark.kills("ranks-not-compared")
def test_switched_off_nothing_is_started(colocate: Colocation) -> None:
    """On one rank is enough: the other has to know."""
    said = said_by(colocate.begin(each=[{}, {"SGLANG_COLOCATE_TP": "0"}]))
    assert ([each.error for each in said], len(colocate.launches)) == (["ColocateDisabled"] * 2, 0), said
