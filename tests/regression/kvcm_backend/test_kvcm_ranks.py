"""Several ranks, one manager: whatever fails, all ranks say the same, and none waits for another."""

from __future__ import annotations

import pytest

from testbed import Children
from testbed.kvcm_manager import Kind, KvcmManager
from testbed.kvcm_ranks import KvcmRanks, Refusal, block_key, keys, start

HANG_LIMIT_S = 15.0
"""For steps that hang in a mutant; the backend's own time-out is 120 s."""

NEVER = 10**9
"""A call that does not come."""

BAD_CONFIGURATIONS: tuple[tuple[str, object, str], ...] = (
    ("manager_url", "http://127.0.0.1:1", "Did you mean manager_uri?"),
    ("manager_uri", "127.0.0.1:80", "manager_uri"),
    ("manager_uri", None, "manager_uri is missing"),
    ("manager_uri", 6382, "manager_uri"),
    ("instance_id", "", "instance_id"),
    ("transfer_client", "tape", "native, file"),
    ("transfer_client", "native", "set transfer_client to file"),
    ("file_root", "/nowhere/at/all", "/nowhere/at/all"),
    ("file_root", "relative", "absolute"),
    ("file_root", None, "file_root is missing"),
    ("write_timeout_seconds", 0, "write_timeout_seconds"),
    ("write_timeout_seconds", True, "write_timeout_seconds"),
    ("read_timeout_seconds", "soon", "read_timeout_seconds"),
    ("collective_timeout_seconds", float("nan"), "collective_timeout_seconds"),
    ("interface_v1", 0, "interface_v1"),
    ("instance_group", "another", "the same"),
)
"""A key, its value on rank 1 alone, and what all ranks must be told."""


def assert_stored(kvcm: KvcmManager, page_hashes: list[str], stored: dict[str, list[bytes]]) -> None:
    """What lies in storage is what each rank had: ``stored`` is by location spec."""
    files = kvcm.files()
    for place, page_hash in enumerate(page_hashes):
        expected = {spec: pages[place] for spec, pages in stored.items()}
        assert files.get(block_key(page_hash)) == expected, f"page {place}"


def assert_works(ranks: KvcmRanks, kvcm: KvcmManager, name: str) -> None:
    """A write and a read of new pages, bytes compared; and SGLang's own group is where it was."""
    prompt = keys(name, 3)
    ranks.fill(prompt)
    everyone = len(ranks)
    assert ranks.set(prompt) == [[True] * 3] * everyone
    pages = ranks.pages(3)
    assert_stored(kvcm, prompt, {f"tp_{number}": pages[number] for number in range(everyone)})
    ranks.call("clear", 3)
    assert ranks.exists(prompt) == [3] * everyone
    assert ranks.get(prompt) == [[True] * 3] * everyone
    assert ranks.pages(3) == pages
    assert ranks.call("pair_up") == [everyone] * everyone
    assert ranks.disabled() == [None] * everyone


@pytest.mark.kills("every-rank-writes-for-rank-0")
@pytest.mark.parametrize("tp", [2, 4])
def test_each_rank_writes_and_reads_its_own(children: Children, kvcm: KvcmManager, tp: int) -> None:
    ranks = start(children, kvcm, tp=tp)
    assert_works(ranks, kvcm, "first")
    prompt = keys("first", 200)  # larger than anything before it, so are the URIs
    assert ranks.set(keys("first", 60, 3), 3, prompt[:3]) == [[True] * 60] * tp
    assert ranks.exists(prompt) == [63] * tp
    fault = kvcm.inject("finishWriteCache", Kind.INTERNAL_ERROR)
    assert ranks.set(keys("last", 2)) == [[False] * 2] * tp
    assert fault.injected == 1
    kvcm.clear_faults()
    assert_works(ranks, kvcm, "again")


@pytest.mark.kills("start-failure-not-shared")
def test_a_start_that_fails_holds_up_no_rank(children: Children, kvcm: KvcmManager) -> None:
    ranks = start(children, kvcm, config={"read_timeout_seconds": 3.0})
    for kind in (Kind.INTERNAL_ERROR, Kind.HTTP_500, Kind.RESET, Kind.NO_ANSWER, Kind.HELD):
        fault = kvcm.inject("startWriteCache", kind)
        assert ranks.call("set", keys(f"start {kind}", 3), limit_s=HANG_LIMIT_S) == [[False] * 3] * 2, kind
        assert fault.injected == 1, kind
    kvcm.clear_faults()
    assert kvcm.files() == {}
    assert_works(ranks, kvcm, "then")


@pytest.mark.kills("commit-not-shared")
def test_a_commit_that_fails_is_known_to_all_ranks(children: Children, kvcm: KvcmManager) -> None:
    """And pages that are there already need no commit."""
    ranks = start(children, kvcm)
    for kind in (Kind.INTERNAL_ERROR, Kind.HTTP_500, Kind.RESET):
        fault = kvcm.inject("finishWriteCache", kind)
        assert ranks.set(keys(f"finish {kind}", 3)) == [[False] * 3] * 2, kind
        assert fault.injected > 0
    fault = kvcm.inject("finishWriteCache", Kind.NO_ANSWER, at_call=1)
    lost = keys("lost answer", 3)
    assert ranks.set(lost) == [[False] * 3] * 2
    assert fault.injected == 1
    kvcm.clear_faults()
    assert ranks.exists(lost) == [3] * 2  # it was committed all the same; a lookup may find it

    assert_works(ranks, kvcm, "then")
    there, new = keys("then", 3), keys("new", 1)
    fault = kvcm.inject("finishWriteCache", Kind.INTERNAL_ERROR)
    assert ranks.set(there) == [[True] * 3] * 2
    assert ranks.set([*there[:1], *new, *there[1:]]) == [[False] * 4] * 2
    assert fault.injected > 0
    assert ranks.disabled() == [None] * 2


@pytest.mark.kills("save-errors-escape")
def test_a_save_that_fails_on_one_rank_fails_on_all(children: Children, kvcm: KvcmManager) -> None:
    ranks = start(children, kvcm)
    for failing in (0, 1):
        for mode in ("raise", "refuse", "short"):
            ranks.call_one(failing, "fail_saves", mode)
            prompt = keys(f"{mode} {failing}", 3)
            assert ranks.call("set", prompt, limit_s=HANG_LIMIT_S) == [[False] * 3] * 2, (mode, failing)
            finished = kvcm.calls("finishWriteCache")[-1].request["success_blocks"]
            assert finished == {"bool_masks": {"values": [False] * 3}}, (mode, failing)
            assert ranks.disabled() == [None] * 2, (mode, failing)
        assert ranks.call_one(failing, "saves")[1] == 3
        assert "KVCM invariant violated: 2 results for 3 blocks" in ranks.output(failing)
        ranks.call_one(failing, "fail_saves", "work")
        assert kvcm.files() == {}
    assert_works(ranks, kvcm, "then")


@pytest.mark.kills("global-rank-src")
def test_a_group_without_global_rank_0(children: Children, kvcm: KvcmManager) -> None:
    """Two stages of two ranks: the second stage's group is ranks 2 and 3."""
    ranks = start(children, kvcm, tp=2, pp=2)
    prompt = keys("stages", 3)
    ranks.fill(prompt)
    assert ranks.call("set", prompt, limit_s=HANG_LIMIT_S) == [[True] * 3] * 4
    pages = ranks.pages(3)
    specs = [f"pp{stage}_tp_{number}" for stage in (0, 1) for number in (0, 1)]
    assert_stored(kvcm, prompt, dict(zip(specs, pages, strict=True)))
    ranks.call("clear", 3)
    assert ranks.get(prompt) == [[True] * 3] * 4
    assert ranks.pages(3) == pages
    fault = kvcm.inject("finishWriteCache", Kind.INTERNAL_ERROR)
    assert ranks.set(keys("fault", 2)) == [[False] * 2] * 4
    assert fault.injected == 2  # one a stage
    assert ranks.disabled() == [None] * 4


@pytest.mark.kills("batches-not-compared")
@pytest.mark.parametrize(
    ("there", "start_fails"),
    [
        pytest.param(3, False, id="other-keys"),
        pytest.param(5, False, id="more-keys"),
        pytest.param(3, True, id="noticed-where-nothing-is-stored"),
    ],
)
def test_ranks_at_different_batches_store_nothing(
    children: Children, kvcm: KvcmManager, there: int, start_fails: bool
) -> None:
    """Their inputs have diverged, and nothing that one of them says of a page is true of the other's."""
    ranks = start(children, kvcm)
    fault = kvcm.inject("startWriteCache", Kind.INTERNAL_ERROR, at_call=1 if start_fails else NEVER)
    ranks.begin("set", (keys("here", 3),), (keys("there", there),))
    assert ranks.finish(HANG_LIMIT_S) == [[False] * 3, [False] * there]
    if start_fails:  # the ranks had nothing more to say to each other; they have at the next batch
        assert fault.injected == 1
        assert ranks.set(keys("next", 3)) == [[False] * 3] * 2
    assert kvcm.files() == {}
    assert all(ranks.disabled())
    calls = len(kvcm.calls())
    assert ranks.set(keys("later", 2)) == [[False] * 2] * 2
    assert ranks.exists(keys("later", 2)) == [0] * 2
    assert len(kvcm.calls()) == calls


@pytest.mark.kills("start-without-agreement")
def test_a_rank_that_cannot_start_starts_none(children: Children, kvcm: KvcmManager) -> None:
    ranks = start(children, kvcm, attach=False)
    fault = kvcm.inject("registerInstance", Kind.HTTP_500, at_call=2)
    said = ranks.attach()
    assert fault.injected == 1
    assert all(isinstance(reason, str) for reason in said), said
    assert ranks.call("set", keys("a", 2), limit_s=HANG_LIMIT_S) == [[False] * 2] * 2
    assert ranks.get(keys("a", 2)) == [[False] * 2] * 2
    assert ranks.exists(keys("a", 2)) == [0] * 2
    assert kvcm.calls("startWriteCache") == []
    kvcm.clear_faults()
    ranks.call("detach")
    assert ranks.attach() == [None] * 2
    assert_works(ranks, kvcm, "attached again")


@pytest.mark.kills("unknown-keys-ignored")
def test_what_one_rank_is_told_counts_for_all(children: Children, kvcm: KvcmManager) -> None:
    """A bad configuration is refused with its key and what to write instead; the kill switch switches all off."""
    ranks = start(children, kvcm, attach=False)
    for key, value, told in BAD_CONFIGURATIONS:
        said = ranks.attach({}, {}, {key: value})
        assert [type(refusal) for refusal in said] == [Refusal] * 2, (key, said)
        assert {refusal.type_name for refusal in said} == {"ValueError"}, (key, said)  # the controller's own word
        assert all(told in refusal.message for refusal in said), (key, said)
    ranks.call_one(1, "switch", "off")
    said = ranks.attach()
    assert [type(refusal) for refusal in said] == [Refusal] * 2, said
    ranks.call_one(1, "switch", "0")
    said = ranks.attach()
    assert all("SGLANG_KVCM_BACKEND=0" in reason for reason in said), said
    assert ranks.call("set", keys("a", 2), limit_s=HANG_LIMIT_S) == [[False] * 2] * 2
    assert ranks.exists(keys("a", 2)) == [0] * 2
    ranks.call("detach")
    assert kvcm.calls() == []
    ranks.call_one(1, "switch", "1")
    assert ranks.attach() == [None] * 2
    assert_works(ranks, kvcm, "then")
