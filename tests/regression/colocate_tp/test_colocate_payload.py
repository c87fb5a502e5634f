"""CO-5, CO-6: each rank of the server gets a payload of its own; a client makes none, and keeps in step."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest

from testbed import Children, Link
from testbed.colocate_callers import Caller, Colocation, Said, do_all, said_by

AUTHKEY = b"consumers and producer are of one family"
BUCKETS = 3
HANG_LIMIT_S = 20.0


def serve_payloads(link: Link) -> None:
    """A trainer: it holds the tensors until the test has ended."""
    import torch
    from sglang.srt.colocate.payload import serialise

    multiprocessing.current_process().authkey = AUTHKEY
    named_tensors = [("weight", torch.arange(4096.0)), ("bias", torch.ones(3))]
    link.send(serialise(named_tensors, 2))
    link.receive(None)


def open_payload(link: Link, payload: str) -> dict[str, float] | str:
    """A rank of the server."""
    from sglang.srt.utils import MultiprocessingSerializer

    multiprocessing.current_process().authkey = AUTHKEY
    try:
        return {name: float(tensor.sum()) for name, tensor in MultiprocessingSerializer.deserialize(payload)}
    except (EOFError, OSError, RuntimeError) as error:
        return type(error).__name__


@pytest.mark.kills("one-payload-for-all-ranks")
def test_each_rank_opens_a_payload_of_its_own(children: Children) -> None:
    """What is serialised once can be opened once: its storage is counted down by whoever opens it."""
    trainer = children.start(serve_payloads)
    for payload in trainer.receive():
        children.start(open_payload, payload)
    trainer.send("end")
    weights = {"weight": 4095 * 4096 / 2, "bias": 3.0}
    assert children.join(60).values()[1:] == [weights, weights]


def sync_and_count(caller: Caller) -> int:
    """Buckets that all ranks gather together, as a sharded trainer does; how often a tensor was serialised."""
    from multiprocessing.reduction import ForkingPickler

    import torch
    from torch.multiprocessing.reductions import reduce_tensor

    class Counted(torch.Tensor):
        """One whose serialisations are counted; all else about them is torch's."""

    serialised = 0

    def reduce_and_count(tensor: Counted) -> Any:
        nonlocal serialised
        serialised += 1
        return reduce_tensor(tensor.as_subclass(torch.Tensor))

    ForkingPickler.register(Counted, reduce_and_count)
    trainers = torch.distributed.new_group()  # the trainer's own, not the one that the engine was given

    def gathered() -> Iterator[list[tuple[str, Any]]]:
        for number in range(BUCKETS):
            shards = [torch.empty(4) for _ in range(caller.rank.size)]
            torch.distributed.all_gather(shards, torch.full((4,), float(number)), group=trainers)
            yield [("weight", torch.cat(shards).as_subclass(Counted))]

    assert caller.engine.sync_weights(gathered()) is True
    return serialised


@pytest.mark.kills("client-skips-gather", "no-op-serialises")
def test_a_client_gathers_with_the_owner_and_serialises_nothing(colocate: Colocation) -> None:
    ranks = colocate.start()
    for rank in ranks:
        rank.begin(sync_and_count)
    assert said_by(ranks, HANG_LIMIT_S) == [Said(2 * BUCKETS), Said(0)]
    sent = [asked for asked in colocate.requests if asked.method == "POST"]
    assert [asked.path for asked in sent] == ["/update_weights_from_tensor"] * BUCKETS + ["/flush_cache"]
    payloads = [payload for asked in sent[:-1] for payload in asked.body["serialized_named_tensors"]]
    assert len(set(payloads)) == 2 * BUCKETS
    assert not any(asked.body["flush_cache"] for asked in sent[:-1])


def sync(caller: Caller, buckets: int, fails_at: int | None = None) -> bool:
    """Buckets that every rank has to itself."""
    import torch

    def source() -> Iterator[list[tuple[str, torch.Tensor]]]:
        for number in range(buckets):
            if number == fails_at:
                raise MemoryError("this rank has no room for a full tensor")
            yield [("weight", torch.full((4,), float(number)))]

    done: bool = caller.engine.sync_weights(source())
    return done


def sync_all(colocate: Colocation, ranks: Any, *plans: tuple[int, int | None]) -> tuple[list[str], list[str]]:
    """What came of a sync on each rank, and what the server was asked."""
    before = len(colocate.requests)
    for rank, plan in zip(ranks, plans, strict=True):
        rank.begin(sync, *plan)
    said = said_by(ranks, HANG_LIMIT_S)
    return [each.error for each in said], [asked.path for asked in colocate.requests[before:] if asked.method == "POST"]


UPDATE, FLUSH = "/update_weights_from_tensor", "/flush_cache"


@pytest.mark.kills("failure-stays-on-its-rank")
@pytest.mark.parametrize("failing", [0, 1], ids=["the-owner", "a-client"])
def test_a_failure_on_one_rank_ends_the_sync_on_all(colocate: Colocation, failing: int) -> None:
    ranks = colocate.start()
    whole, broken = (BUCKETS, None), (BUCKETS, 1)
    plans = [broken if rank == failing else whole for rank in range(2)]
    assert sync_all(colocate, ranks, *plans) == (["WeightSyncAborted"] * 2, [UPDATE])
    assert sync_all(colocate, ranks, whole, whole) == (["", ""], [UPDATE] * BUCKETS + [FLUSH])


@pytest.mark.kills("failure-stays-on-its-rank")
def test_weights_that_the_server_refuses_end_the_sync_on_all(colocate: Colocation) -> None:
    ranks = colocate.start()
    refuse = colocate.notes / "refuse-weights"
    refuse.touch()
    whole = (BUCKETS, None)
    assert sync_all(colocate, ranks, whole, whole) == (["WeightSyncAborted"] * 2, [UPDATE])
    refuse.unlink()
    assert sync_all(colocate, ranks, whole, whole) == (["", ""], [UPDATE] * BUCKETS + [FLUSH])


@pytest.mark.kills("failure-stays-on-its-rank")
def test_ranks_with_more_and_fewer_buckets_end_the_sync_on_all(colocate: Colocation) -> None:
    ranks = colocate.start()
    assert sync_all(colocate, ranks, (2, None), (1, None)) == (["WeightSyncAborted"] * 2, [UPDATE])


def update(caller: Caller) -> Any:
    import torch

    return caller.engine.update_weights_from_tensor([("weight", torch.ones(4))], flush_cache=True)


@pytest.mark.kills("no-op-serialises")
def test_one_bucket_alone(colocate: Colocation) -> None:
    ranks = colocate.start()
    said = do_all(ranks, update)
    assert said == [Said({"success": True, "message": "Success"}), Said(True)]
    sent = [asked for asked in colocate.requests if asked.method == "POST"]
    assert [asked.path for asked in sent] == [UPDATE]
    assert (len(set(sent[0].body["serialized_named_tensors"])), sent[0].body["flush_cache"]) == (2, True)
