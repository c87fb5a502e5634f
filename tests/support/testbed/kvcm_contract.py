"""What `HiCacheKVCM` relies on in a manager, asked over plain HTTP: of the bed's manager, and of a real one.

`CONTRACT` runs as controls on the bed's own (``kvcm_backend/test_kvcm_contract.py``), which is worth as much as a real
one says the same (``gpu/test_kvcm_manager.py``, the lane ``kvcm-manager``).
"""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from typing import Any

Body = dict[str, Any]

CALL_LIMIT_S = 10.0
SPECS = ("tp_0", "tp_1")


class ManagerUnderContract:
    """A manager, and an instance there that is this test's own."""

    def __init__(self, url: str, debug_url: str, group: str = "default") -> None:
        self.url, self.debug_url = url, debug_url
        self.name = f"contract-{uuid.uuid4().hex}"
        self.first_key = uuid.uuid4().int % 2**62
        self.registration: Body = {
            "trace_id": "contract",
            "instance_group": group,
            "instance_id": self.name,
            "block_size": 16,
            "model_deployment": {
                "model_name": "contract",
                "dtype": "float32",
                "use_mla": False,
                "tp_size": len(SPECS),
                "dp_size": 1,
                "pp_size": 1,
            },
            "location_spec_infos": [{"name": name, "size": 4096} for name in SPECS],
        }
        said = self.call("registerInstance", self.registration)
        assert code_of(said) == "OK", said
        assert isinstance(json.loads(said["storage_configs"]), list), said

    def keys(self, *numbers: int) -> list[int]:
        """Block keys, negative ones too, that no other test has."""
        return [(-1) ** number * (self.first_key + number) for number in numbers]

    def call(self, api: str, body: Body) -> Body:
        return _post(f"{self.url}/api/{api}", body)

    def debug(self, api: str, body: Body) -> None:
        said = _post(f"{self.debug_url}/api/{api}", body)
        assert code_of(said) == "OK", said

    def start(self, keys: Sequence[int]) -> Body:
        body = {"block_keys": list(keys), "token_ids": [], "write_timeout_seconds": 30}
        return self.call("startWriteCache", {"trace_id": "contract", "instance_id": self.name, **body})

    def finish(self, session: str, written: Sequence[bool]) -> Body:
        mask = {"bool_masks": {"values": list(written)}}
        body = {"instance_id": self.name, "write_session_id": session, "success_blocks": mask}
        return self.call("finishWriteCache", {"trace_id": "contract", **body})

    def found(self, keys: Sequence[int], prefix: int = 0) -> int:
        """How many keys behind the prefix can be read."""
        body = {"query_type": "QT_PREFIX_MATCH", "block_keys": list(keys), "block_mask": {"offset": prefix}}
        said = self.call("getCacheLocation", {"trace_id": "contract", "instance_id": self.name, **body})
        assert code_of(said) == "OK", said
        for location in said["locations"]:
            assert {spec["name"] for spec in location["location_specs"]} == set(SPECS), location
        return len(said["locations"])


def code_of(answer: Body) -> str:
    return str(answer["header"]["status"]["code"])


def open_places(answer: Body, count: int) -> list[int]:
    """Which of ``count`` keys a start leaves to be written, whichever form its mask has."""
    mask = answer["block_mask"]
    if "bool_masks" in mask:
        assert len(mask["bool_masks"]["values"]) == count, answer
        return [place for place, there in enumerate(mask["bool_masks"]["values"]) if not there]
    return list(range(mask.get("offset", 0), count))


def written_blocks_are_found(manager: ManagerUnderContract) -> None:
    """Not before they are committed, and one by one as they were written."""
    keys = manager.keys(0, 1, 2, 3)
    assert manager.found(keys) == 0
    started = manager.start(keys)
    assert code_of(started) == "OK", started
    assert open_places(started, 4) == [0, 1, 2, 3]
    assert len(started["locations"]) == 4
    for location in started["locations"]:
        uris = {spec["name"]: spec["uri"] for spec in location["location_specs"]}
        assert set(uris) == set(SPECS), location
        assert len(set(uris.values())) == len(SPECS), location
    assert manager.found(keys) == 0
    assert code_of(manager.finish(started["write_session_id"], [True, True, True, False])) == "OK"
    assert manager.found(keys) == 3
    assert manager.found(keys, prefix=2) == 1


def what_is_there_is_not_written_again(manager: ManagerUnderContract) -> None:
    """The mask has a place for every key, the prefix too, and the locations are for the open ones."""
    keys = manager.keys(0, 1, 2, 3, 4)
    first = manager.start([keys[0], keys[1], keys[3]])
    assert code_of(manager.finish(first["write_session_id"], [True] * 3)) == "OK"
    again = manager.start(keys)
    assert open_places(again, 5) == [2, 4]
    assert len(again["locations"]) == 2
    all_there = manager.start(keys[:2])
    assert open_places(all_there, 2) == []
    assert not all_there.get("locations")


def a_session_ends_once(manager: ManagerUnderContract) -> None:
    """A commit that is said again is refused, and takes nothing back."""
    keys = manager.keys(0, 1)
    session = manager.start(keys)["write_session_id"]
    assert code_of(manager.finish(session, [True, True])) == "OK"
    assert code_of(manager.finish(session, [False, False])) != "OK"
    assert manager.found(keys) == 2


def an_instance_is_registered_once(manager: ManagerUnderContract) -> None:
    """With the same data by every rank; other data are refused."""
    assert code_of(manager.call("registerInstance", manager.registration)) == "OK"
    assert code_of(manager.call("registerInstance", {**manager.registration, "block_size": 32})) != "OK"


def faults_are_injected(manager: ManagerUnderContract) -> None:
    """A refused call is not done."""
    keys = manager.keys(0, 1)
    faults = {"fault_type": "FT_INTERNAL_ERROR", "fault_trigger_strategy": "ALWAYS"}
    manager.debug("injectFault", {"api_name": "StartWriteCache", **faults})
    assert code_of(manager.start(keys)) != "OK"
    manager.debug("removeFault", {"api_name": "StartWriteCache"})
    session = manager.start(keys)["write_session_id"]
    manager.debug("injectFault", {"api_name": "FinishWriteCache", **faults})
    assert code_of(manager.finish(session, [True, True])) != "OK"
    assert manager.found(keys) == 0
    manager.debug("clearFaults", {})


CONTRACT: tuple[Callable[[ManagerUnderContract], None], ...] = (
    written_blocks_are_found,
    what_is_there_is_not_written_again,
    a_session_ends_once,
    an_instance_is_registered_once,
    faults_are_injected,
)


def _post(url: str, body: Body) -> Body:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=CALL_LIMIT_S) as answer:
        said: Body = json.loads(answer.read())
        return said
