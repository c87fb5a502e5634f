"""CO-8, CO-11: what a client leaves to the owner, and what it says when the owner is gone."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from testbed.colocate_callers import CallerHandle, Colocation, Said, wait_for_end

ONCE: dict[str, tuple[str, dict[str, Any]]] = {
    "release_memory_occupation": ("/release_memory_occupation", {}),
    "resume_memory_occupation": ("/resume_memory_occupation", {}),
    "flush_cache": ("/flush_cache", {}),
    "init_weights_update_group": ("/init_weights_update_group", {"master_address": "127.0.0.1", "master_port": 1}),
    "update_weights_from_distributed": ("/update_weights_from_distributed", {"names": ["w"]}),
    "destroy_weights_update_group": ("/destroy_weights_update_group", {"group_name": "trainer"}),
    "update_weights_from_disk": ("/update_weights_from_disk", {"model_path": "checkpoint"}),
    "load_lora_adapter": ("/load_lora_adapter", {"lora_name": "poet", "lora_path": "poet/", "pinned": False}),
    "unload_lora_adapter": ("/unload_lora_adapter", {"lora_name": "poet"}),
}
"""What the server is asked once, whatever the number of its callers: method, path, arguments."""


@pytest.mark.kills("no-op-serialises")
def test_what_is_done_once_is_done_by_the_owner(colocate: Colocation) -> None:
    owner, client = colocate.start()
    answers = {name: client.ask(name, **arguments) for name, (_, arguments) in ONCE.items()}
    assert answers == dict.fromkeys(ONCE, Said(True))
    assert [asked.path for asked in colocate.requests if asked.method == "POST"] == []
    answers = {name: owner.ask(name, **arguments) for name, (_, arguments) in ONCE.items()}
    assert answers == dict.fromkeys(ONCE, Said({"success": True, "message": "Success"}))
    said = [(asked.path, dict(asked.body)) for asked in colocate.requests if asked.method == "POST"]
    assert said == list(ONCE.values())


def health(ranks: list[CallerHandle]) -> list[Any]:
    return [rank.ask("health_check").value for rank in ranks]


@pytest.mark.kills("health-ignores-owner")
def test_a_server_whose_memory_is_released_is_healthy(colocate: Colocation) -> None:
    """It cannot generate, and SGLang's health check generates: only that it lives can be asked."""
    ranks = colocate.start()
    held = colocate.notes / "hold"
    held.touch()
    assert health(ranks) == [False, False]
    held.unlink()
    assert health(ranks) == [True, True]
    ranks[0].ask("release_memory_occupation", tags=["kv_cache"])
    held.touch()
    assert health(ranks) == [True, True]
    ranks[0].ask("resume_memory_occupation")
    assert health(ranks) == [False, False]


def lost(rank: CallerHandle) -> dict[str, str]:
    """What each call comes to."""
    calls: dict[str, dict[str, Any]] = {"generate": {"prompt": "x"}, **{name: args for name, (_, args) in ONCE.items()}}
    return {name: rank.ask(name, **arguments).error for name, arguments in calls.items()}


@pytest.mark.kills("health-ignores-owner")
def test_an_owner_that_is_killed_is_lost(colocate: Colocation) -> None:
    """And its server ends with it, however it ends: kill -9 leaves it no time to say anything."""
    owner, client = colocate.start()
    assert health([owner, client]) == [True, True]
    assert len(colocate.launches) == 1
    server = colocate.launches[0].pid
    owner.child.end()
    said = lost(client)
    assert (health([client]), said) == ([False], dict.fromkeys(said, "ColocateOwnerLost"))
    assert wait_for_end(server)


@pytest.mark.kills("health-ignores-owner")
def test_a_server_that_is_killed_is_lost_to_all(colocate: Colocation) -> None:
    ranks = colocate.start()
    assert len(colocate.launches) == 1
    server = colocate.launches[0].pid
    os.kill(server, signal.SIGKILL)
    assert wait_for_end(server)
    for rank in ranks:
        said = lost(rank)
        assert (health([rank]), said) == ([False], dict.fromkeys(said, "ColocateOwnerLost"))
