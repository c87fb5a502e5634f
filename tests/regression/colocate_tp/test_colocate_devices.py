"""CO-7: which cards the ranks of a trainer have, who owns the engine, and who may not share one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from testbed.colocate_callers import Colocation, said_by

UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
OTHER_UUID = "GPU-1af5b3c2-0b54-a1c4-87d2-93ff01a4d8f1"
MIG = "MIG-7f4c1d39-15f1-5a21-b5a2-9f3f0c2f5d3e"


def refused(function: Callable[..., object], *args: object) -> str:
    """What ColocateConfigError says, or nothing if the function returned."""
    from sglang.srt.colocate.errors import ColocateConfigError

    try:
        function(*args)
    except ColocateConfigError as error:
        return str(error)
    return ""


def visible(text: str | None) -> dict[str, str]:
    return {} if text is None else {"CUDA_VISIBLE_DEVICES": text}


@pytest.mark.kills("cards-by-rank")
def test_the_card_behind_an_index() -> None:
    from sglang.srt.colocate.devices import visible_token

    table: dict[tuple[str | None, int], str] = {
        (None, 0): "0",
        (None, 3): "3",
        ("3", 0): "3",
        ("2,5", 0): "2",
        ("2,5", 1): "5",
        (" 2 , 05 ", 1): "5",
        ("5,2,-1,7", 1): "2",
        (UUID, 0): UUID,
        (f"{OTHER_UUID},{UUID}", 1): UUID,
        ("GPU-8932f937", 0): "GPU-8932f937",
        (MIG, 0): MIG,
    }
    assert {row: visible_token(row[1], visible(row[0])) for row in table} == table


@pytest.mark.kills("cards-by-rank")
def test_no_card_behind_an_index() -> None:
    from sglang.srt.colocate.devices import visible_token

    rows: list[tuple[str | None, int]] = [
        ("3", 1),
        ("", 0),
        ("-1", 0),
        ("5,-1,7", 1),
        ("NoDevFiles", 0),
        ("2,2", 0),
        ("2,02", 1),
        (f"0,{UUID}", 0),
        (f"{UUID},GPU-8932f937", 0),
    ]
    accepted = [row for row in rows if not refused(visible_token, row[1], visible(row[0]))]
    assert accepted == []


@pytest.mark.kills("ranks-not-compared")
def test_cards_that_are_or_may_be_one() -> None:
    from sglang.srt.colocate.devices import require_distinct

    rows = [
        ["3", "3"],
        ["0", "1", "0"],
        [UUID, UUID],
        [UUID, UUID.lower().replace("gpu-", "GPU-")],
        [UUID, "GPU-8932f937"],
        ["GPU-8932f937", OTHER_UUID, UUID],
        ["0", UUID],
    ]
    assert [row for row in rows if not refused(require_distinct, row)] == []
    assert refused(require_distinct, ["2", "5"]) == refused(require_distinct, [UUID, OTHER_UUID]) == ""


@pytest.mark.kills("ranks-not-compared")
def test_slices_of_a_card_are_not_shared() -> None:
    """CUDA gives a process one MIG instance: an engine of two ranks cannot have two."""
    from sglang.srt.colocate.devices import require_whole_gpus

    rows = [[MIG, f"{MIG[:-1]}f"], [MIG, UUID]]
    assert [row for row in rows if not refused(require_whole_gpus, row)] == []
    assert refused(require_whole_gpus, [MIG]) == ""


@pytest.mark.kills("custom-all-reduce-by-default")
def test_no_custom_all_reduce_unless_asked_for_by_number() -> None:
    """SGLang's reads CUDA_VISIBLE_DEVICES as numbers, and dies of a UUID."""
    from sglang.srt.colocate.devices import custom_all_reduce_disabled

    named, numbered = [UUID, OTHER_UUID], ["2", "5"]
    assert [custom_all_reduce_disabled(tokens, None) for tokens in (named, numbered)] == [True, True]
    assert [custom_all_reduce_disabled(tokens, True) for tokens in (named, numbered)] == [True, True]
    assert custom_all_reduce_disabled(numbered, False) is False
    assert refused(custom_all_reduce_disabled, named, False)


@pytest.mark.kills("custom-all-reduce-by-default")
def test_the_server_of_cards_with_uuids(colocate: Colocation) -> None:
    colocate.start(devices=[0, 0], each=cards(UUID, OTHER_UUID))
    assert [launch.environment["CUDA_VISIBLE_DEVICES"] for launch in colocate.launches] == [f"{UUID},{OTHER_UUID}"]
    assert ["--disable-custom-all-reduce" in launch.arguments for launch in colocate.launches] == [True]


def cards(*tokens: str) -> list[Mapping[str, str | None]]:
    """The environment of each rank that has one card to itself."""
    return [{"CUDA_VISIBLE_DEVICES": token} for token in tokens]


@pytest.mark.kills("ranks-not-compared")
def test_ranks_on_one_card_are_refused(colocate: Colocation) -> None:
    """Each of them, and before anything is started."""
    said = said_by(colocate.begin(devices=[0, 0], each=cards("3", "03")))
    assert ([each.error for each in said], len(colocate.launches)) == (["ColocateConfigError"] * 2, 0), said
    assert "3" in said[0].text
    assert said[0].text == said[1].text


@pytest.mark.kills("cards-by-rank")
def test_who_owns_the_engine() -> None:
    from sglang.srt.colocate.process_identity import ProcessIdentity
    from sglang.srt.colocate.topology import Card, agree

    def owner_of(*tokens: str) -> tuple[int, int, tuple[str, ...]]:
        here = ("this machine",)
        found = agree(
            [
                Card(token, ProcessIdentity(100 + rank, 7, "boot"), f"{rank:032x}", "job", len(tokens), here)
                for rank, token in enumerate(tokens)
            ]
        )
        assert found.nonce == f"{found.owner_rank:032x}"
        return found.owner_rank, found.owner.pid, found.tokens

    assert owner_of("10", "9", "4") == (2, 102, ("4", "9", "10"))
    assert owner_of("5", "2") == (1, 101, ("2", "5"))
    assert owner_of(UUID, OTHER_UUID) == (0, 100, (UUID, OTHER_UUID))


@pytest.mark.kills("cards-by-rank")
def test_the_lowest_card_owns_the_engine(colocate: Colocation) -> None:
    """So that the server's first rank, and what it allocates for itself, is beside the owner's trainer."""
    ranks = colocate.start(devices=[0, 0, 0], size=3, each=cards("10", "9", "4"))
    assert [rank.do(is_owner).value for rank in ranks] == [False, False, True]
    assert [launch.environment["CUDA_VISIBLE_DEVICES"] for launch in colocate.launches] == ["4,9,10"]


def is_owner(caller: object) -> bool:
    return bool(caller.engine.is_owner)  # type: ignore[attr-defined]
