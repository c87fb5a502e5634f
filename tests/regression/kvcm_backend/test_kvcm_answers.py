"""What a manager says is not trusted: neither its shape nor its paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed import Children
from testbed.kvcm_manager import Kind, KvcmManager
from testbed.kvcm_ranks import keys, start

Edit = Callable[[dict[str, Any]], Any]
LIMIT_S = 15.0
MASK, VALUES = "block_mask", "bool_masks"


def put(name: str, value: object) -> Edit:
    """The answer with another value."""
    return lambda answer: {**answer, name: value}


def without(name: str) -> Edit:
    return lambda answer: {key: value for key, value in answer.items() if key != name}


def locations(change: Callable[[list[Any]], Any]) -> Edit:
    return lambda answer: {**answer, "locations": change(answer["locations"])}


def specs(change: Callable[[list[Any]], Any]) -> Edit:
    """The answer with other specs in its last location."""
    return locations(lambda found: [*found[:-1], {**found[-1], "location_specs": change(found[-1]["location_specs"])}])


ANY_CALL: dict[str, Edit] = {
    "no JSON": lambda _: b"<html>\xff</html>",
    "cut off": lambda _: b'{"header": {"status": {"code": "OK"',
    "no object": lambda answer: [answer],
    "nothing": lambda _: b"",
    "deep": lambda _: b"[" * 100_000,
    "no header": without("header"),
    "no status": put("header", {}),
    "a code that is no text": put("header", {"status": {"code": 0}}),
    "a status that is no object": put("header", {"status": "OK"}),
    "too large": lambda answer: {**answer, "more": "x" * 100_000},
}
START: dict[str, Edit] = {
    "no mask": without(MASK),
    "an empty mask": put(MASK, {}),
    "a mask that is no object": put(MASK, [True, True, True]),
    "an offset that is no number": put(MASK, {"offset": "0"}),
    "an offset that is a bool": put(MASK, {"offset": False}),
    "an offset below 0": put(MASK, {"offset": -1}),
    "an offset past the end": put(MASK, {"offset": 4}),
    "an offset that no integer holds": put(MASK, {"offset": 2**80}),
    "fewer values than keys": put(MASK, {VALUES: {"values": [False, False]}}),
    "more values than keys": put(MASK, {VALUES: {"values": [False] * 4}}),
    "values that are no bools": put(MASK, {VALUES: {"values": [0, 0, 0]}}),
    "values that are no list": put(MASK, {VALUES: {"values": "000"}}),
    "a mask for other locations": put(MASK, {VALUES: {"values": [True, False, False]}}),
    "no locations": without("locations"),
    "locations that are no list": put("locations", {"0": 1}),
    "fewer locations": locations(lambda found: found[:-1]),
    "more locations": locations(lambda found: [*found, found[0]]),
    "a location that is none": locations(lambda found: [*found[:-1], None]),
    "no specs": specs(lambda _: []),
    "no spec of rank 1": specs(lambda found: found[:1]),
    "a spec twice": specs(lambda found: [*found, found[0]]),
    "a spec without a name": specs(lambda found: [{"uri": found[0]["uri"]}, *found[1:]]),
    "a spec without a uri": specs(lambda found: [{"name": found[0]["name"]}, *found[1:]]),
    "a uri that is a number": specs(lambda found: [{**found[0], "uri": 7}, *found[1:]]),
    "a uri without an end": specs(lambda found: [{**found[0], "uri": "file:///" + "x" * 20_000}, *found[1:]]),
    "no session": without("write_session_id"),
    "a session that is no text": put("write_session_id", 5),
}
LOOKUP: dict[str, Edit] = {
    "locations that are no list": put("locations", "all"),
    "more locations than keys": locations(lambda found: [*found, found[0]]),
    "a location that is none": locations(lambda found: [7, *found[1:]]),
    "specs that are no list": specs(lambda _: None),
    "a uri that is a number": specs(lambda found: [{**found[0], "uri": 7}, *found[1:]]),
}


@pytest.mark.kills("answer-checked-after-the-try")
def test_answers_that_cannot_be_used(children: Children, kvcm: KvcmManager) -> None:
    """Each fails one call, on all ranks alike; none raises, hangs or stops the backend."""
    ranks = start(children, kvcm, config={"max_response_bytes": 65_536})
    there = keys("there", 3)
    ranks.fill(there)
    assert ranks.set(there) == [[True] * 3] * 2
    for name, edit in (ANY_CALL | START).items():
        fault = kvcm.inject("startWriteCache", Kind.EDITED, edit=edit)
        assert ranks.call("set", keys(name, 3), limit_s=LIMIT_S) == [[False] * 3] * 2, name
        assert fault.injected == 1, name
    kvcm.clear_faults()
    for name, edit in (ANY_CALL | LOOKUP).items():
        fault = kvcm.inject("getCacheLocation", Kind.EDITED, edit=edit)
        assert ranks.get(there, 8) == [[False] * 3] * 2, name
        assert ranks.exists(there) == [0] * 2, name
        assert fault.injected == 4, name
    kvcm.clear_faults()
    for name, edit in ANY_CALL.items():
        fault = kvcm.inject("finishWriteCache", Kind.EDITED, edit=edit)
        assert ranks.set(keys(f"finish {name}", 3)) == [[False] * 3] * 2, name
        assert fault.injected == 2, name
    kvcm.clear_faults()
    assert ranks.disabled() == [None] * 2
    assert ranks.get(there, 8) == [[True] * 3] * 2
    assert ranks.set(keys("then", 3)) == [[True] * 3] * 2


@pytest.mark.kills("uri-not-checked")
def test_files_outside_of_the_folder(children: Children, kvcm: KvcmManager, tmp_path: Path) -> None:
    """One page's path leads out of the folder: that page fails, and nothing out there is written or read."""
    root, outside = kvcm.blocks.root, tmp_path / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    ranks = start(children, kvcm)
    hostile = {
        "absolute": f"file://{outside}/page",
        "up": f"file://{root}/../outside/page",
        "escaped up": f"file://{root}/%2e%2e/outside/page",
        "up from nowhere": f"file://{root}/none/../../outside/page",
        "by a link": f"file://{root}/link/page",
        "a name that begins alike": f"file://{root}-outside/page",
        "relative": "file:page",
        "another host": f"file://elsewhere{root}/page",
        "no file": f"http://127.0.0.1{root}/page",
        "a zero": f"file://{root}/page%00",
        "a folder": f"file://{root}/",
        "the folder": f"file://{root}",
        "nothing": "file://",
        "no uri": "::",
        "a broken host": "file://[::1/page",
    }
    for name, uri in hostile.items():
        bad = specs(lambda found, uri=uri: [found[0], {**found[1], "uri": uri}])
        fault = kvcm.inject("startWriteCache", Kind.EDITED, edit=bad)
        prompt = keys(name, 3)
        assert ranks.call("set", prompt, limit_s=LIMIT_S) == [[True, True, False]] * 2, name
        assert fault.injected == 1, name
        assert list(outside.iterdir()) == [], name
    kvcm.clear_faults()

    there = keys("there", 3)
    ranks.fill(there)
    assert ranks.set(there) == [[True] * 3] * 2
    page = ranks.pages(3)[1][2]
    for place in (outside / "page", Path(f"{root}-outside") / "page"):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(page)
    ranks.call("clear", 3, 8)
    for name, uri in hostile.items():
        bad = specs(lambda found, uri=uri: [found[0], {**found[1], "uri": uri}])
        fault = kvcm.inject("getCacheLocation", Kind.EDITED, edit=bad)
        assert ranks.call_one(1, "get", there, 8) == [True, True, False], name
        assert fault.injected == 1, name
    assert set(ranks.call_one(1, "pages", 1, 10)[0]) == {0}
    kvcm.clear_faults()
    assert ranks.get(there, 8) == [[True] * 3] * 2
    assert ranks.disabled() == [None] * 2
