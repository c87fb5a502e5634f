"""One rank and a manager that fails: nothing is claimed that is not so, and nothing stays broken.

https://github.com/alibaba/tair-kvcache/pull/102
"""

from __future__ import annotations

import pytest

from testbed import Children
from testbed.kvcm_manager import Kind, KvcmManager
from testbed.kvcm_ranks import block_key, keys, start

PROMPT = keys("prompt", 8)
FIRST, MORE = PROMPT[:5], PROMPT[5:]


@pytest.mark.kills("unknown-commit-is-true")
def test_faults_of_each_call_and_recovery(children: Children, kvcm: KvcmManager) -> None:
    """Start, lookup and finish refused; then miss, set, hit; and the same behind a prefix."""
    ranks = start(children, kvcm, tp=1)
    ranks.fill(PROMPT)

    start_fault = kvcm.inject("startWriteCache", Kind.INTERNAL_ERROR)
    assert ranks.set(FIRST) == [[False] * 5]
    assert start_fault.injected == 1
    lookup_fault = kvcm.inject("getCacheLocation", Kind.INTERNAL_ERROR)
    assert ranks.get(FIRST) == [[False] * 5]
    assert ranks.exists(FIRST) == [0]
    assert lookup_fault.injected == 2
    kvcm.clear_faults()
    for kind, times in ((Kind.INTERNAL_ERROR, 1), (Kind.HTTP_500, 2), (Kind.NO_ANSWER, 1)):
        finish_fault = kvcm.inject("finishWriteCache", kind, at_call=1 if kind is Kind.NO_ANSWER else None)
        assert ranks.set(keys(f"finish {kind}", 2)) == [[False] * 2], kind
        assert finish_fault.injected == times, kind
    kvcm.clear_faults()

    assert ranks.exists(FIRST) == [0]
    assert ranks.get(FIRST) == [[False] * 5]
    assert ranks.set(FIRST) == [[True] * 5]
    assert ranks.exists(FIRST) == [5]

    start_fault = kvcm.inject("startWriteCache", Kind.INTERNAL_ERROR)
    assert ranks.set(MORE, 5, FIRST) == [[False] * 3]
    lookup_fault = kvcm.inject("getCacheLocation", Kind.INTERNAL_ERROR)
    assert ranks.get(MORE, 5, FIRST) == [[False] * 3]
    assert (start_fault.injected, lookup_fault.injected) == (1, 1)
    kvcm.clear_faults()
    assert ranks.exists(MORE, FIRST) == [0]
    assert ranks.set(MORE, 5, FIRST) == [[True] * 3]
    assert ranks.exists(MORE, FIRST) == [3]
    [here] = ranks.pages(8)
    assert ranks.get(PROMPT, 16) == [[True] * 8]
    assert ranks.pages(8, 16) == [here]
    assert ranks.disabled() == [None]


@pytest.mark.kills("finish-not-retried")
def test_a_commit_is_asked_for_twice_and_a_session_once(children: Children, kvcm: KvcmManager) -> None:
    """An answer that is lost or late: finish may be said again, start may not, for that would be another session."""
    ranks = start(children, kvcm, tp=1, config={"read_timeout_seconds": 3.0})
    for kind in (Kind.RESET, Kind.HTTP_500, Kind.HELD):
        fault = kvcm.inject("finishWriteCache", kind, at_call=1)
        assert ranks.set(keys(f"finish {kind}", 2)) == [[True] * 2], kind
        assert (fault.injected, fault.calls) == (1, 2), kind
        kvcm.clear_faults()
    for kind in (Kind.RESET, Kind.HTTP_500, Kind.NO_ANSWER, Kind.HELD):
        fault = kvcm.inject("startWriteCache", kind, at_call=1)
        assert ranks.set(keys(f"start {kind}", 2)) == [[False] * 2], kind
        assert (fault.injected, fault.calls) == (1, 1), kind
        kvcm.clear_faults()
    assert ranks.disabled() == [None]


@pytest.mark.kills("loaded-all-true")
def test_only_pages_that_were_loaded_count(children: Children, kvcm: KvcmManager) -> None:
    """Pages go between exists and get: what the manager knows, and what it does not."""
    ranks = start(children, kvcm, tp=1)
    ranks.fill(PROMPT)
    assert ranks.set(PROMPT) == [[True] * 8]
    assert ranks.exists(PROMPT) == [8]
    [stored] = ranks.pages(8)
    ranks.call("clear", 8, 16)
    [empty] = ranks.pages(8, 16)

    kvcm.evict([block_key(PROMPT[5])])
    assert ranks.get(PROMPT, 16) == [[True] * 5 + [False] * 3]
    assert ranks.pages(8, 16) == [stored[:5] + empty[5:]]

    ranks.call("clear", 8, 16)
    kvcm.lose(block_key(PROMPT[2]), "tp_0")
    [loaded] = ranks.get(PROMPT, 16)
    assert loaded == [True] * 2 + [False] * 6
    assert ranks.pages(2, 16) == [stored[:2]]
    assert ranks.pages(1, 18) == [empty[2:3]]
