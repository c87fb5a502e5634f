"""What the ranks say to each other for one kvcm batch: the backend's own sequence, and two that agree on no commit.

Those end with an `all_reduce` of the flags, after the backend's own header or after a `broadcast_object_list` of the
manager's answer, as the manager project's connector does. No manager and no storage: their calls are the same
whichever way. Runs in the bed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.bench.kvcm_found import KINDS, KvcmOrder
from tests.bench.measure import Cost, Patience, measured

from testbed.gloo import Rank

LEASE_S = 30.0

Batch = Callable[[int], bool]
"""Runs the nth batch; whether this rank knows what it must know then."""


def measure_all(rank: Rank, order: KvcmOrder) -> tuple[dict[str, list[Cost]], int]:
    """One rank's samples of each kind, in turns, and its right batches; another kind begins each time.

    Rank 0 says when it is enough.
    """
    import torch
    import torch.distributed

    makers = (_agreeing, _reducing, _with_objects)
    kinds = {name: make(rank, order.pages) for name, make in zip(KINDS, makers, strict=True)}
    for batch in kinds.values():
        batch(0)
    samples: dict[str, list[Cost]] = {name: [] for name in KINDS}
    right = done = 0
    patience = Patience(order.repeats, time.monotonic() + order.budget_s)
    while True:
        more = torch.tensor(int(patience.may_repeat(done)))
        torch.distributed.broadcast(more, src=0)
        if not more:
            return samples, right
        first = done % len(KINDS)
        for name in (*KINDS[first:], *KINDS[:first]):
            good, cost = _several(rank, kinds[name], order.batches)
            right += good
            samples[name].append(cost)
        done += 1


def _several(rank: Rank, batch: Batch, count: int) -> tuple[int, Cost]:
    """How many were right, and what one took. All ranks begin each together: none is ahead by what it left undone."""
    right, costs = 0, []
    for number in range(count):
        rank.barrier()
        good, cost = measured(batch, number)
        right += good
        costs.append(cost)
    return right, Cost(sum(cost.cpu_s for cost in costs) / count, sum(cost.wall_s for cost in costs) / count)


def _uris(rank: int, pages: int) -> list[str]:
    return [f"file:///mnt/kv/instance/session-1/tp_{rank}_{page:016x}?offset=0&size=4096" for page in range(pages)]


def _stored(rank: Rank, pages: int, number: int) -> list[bool]:
    """What one rank could store: all, or all but a page that is another one for each rank."""
    flags = [True] * pages
    if number % 4 == 3:
        flags[rank.number] = False
    return flags


def _everywhere(rank: Rank, pages: int, number: int) -> list[bool]:
    return [page >= rank.size for page in range(pages)] if number % 4 == 3 else [True] * pages


def _writes(rank: Rank, pages: int) -> tuple[Any, Callable[[], Any]]:
    """A coordinator with a group of its own, and its header for a batch."""
    import torch.distributed
    from sglang.srt.mem_cache.storage.kvcm.coordinator import Outcome, WriteCoordinator, batch_digest
    from sglang.srt.mem_cache.storage.kvcm.locations import WritePlan

    writes = WriteCoordinator(torch.distributed.new_group(backend="gloo"), rank.number, rank.size)
    hashes = [f"{page:064x}" for page in range(pages)]
    uris = tuple(zip(*(_uris(number, pages) for number in range(rank.size)), strict=True))
    plan = WritePlan("session-1", tuple(range(pages)), uris) if writes.leads else None
    return writes, lambda: writes.share_plan(Outcome.STORE, plan, LEASE_S, batch_digest([], hashes))


def _agreeing(rank: Rank, pages: int) -> Batch:
    writes, share = _writes(rank, pages)
    own = tuple(_uris(rank.number, pages))

    def batch(number: int) -> bool:
        header = share()
        published, together = writes.settle(_stored(rank, pages, number), header.same_batch, list)
        return header.uris == own and together and published == _everywhere(rank, pages, number)

    return batch


def _reducing(rank: Rank, pages: int) -> Batch:
    import torch.distributed

    _, share = _writes(rank, pages)
    group = torch.distributed.new_group(backend="gloo")
    own = tuple(_uris(rank.number, pages))

    def batch(number: int) -> bool:
        header = share()
        return header.uris == own and _reduced(rank, pages, number, group) == _everywhere(rank, pages, number)

    return batch


def _with_objects(rank: Rank, pages: int) -> Batch:
    import torch.distributed

    group = torch.distributed.new_group(backend="gloo")
    answer = {
        "write_session_id": "session-1",
        "block_mask": {"offset": 0},
        "locations": [
            {"location_specs": [{"name": f"tp_{number}", "uri": uri} for number, uri in enumerate(uris)]}
            for uris in zip(*(_uris(number, pages) for number in range(rank.size)), strict=True)
        ],
    }
    own = _uris(rank.number, pages)

    def batch(number: int) -> bool:
        said: list[Any] = [answer if rank.number == 0 else None]
        torch.distributed.broadcast_object_list(said, src=0, group=group)
        specs = [spec for location in said[0]["locations"] for spec in location["location_specs"]]
        mine = [spec["uri"] for spec in specs if spec["name"] == f"tp_{rank.number}"]
        return mine == own and _reduced(rank, pages, number, group) == _everywhere(rank, pages, number)

    return batch


def _reduced(rank: Rank, pages: int, number: int, group: Any) -> list[bool]:
    import torch
    import torch.distributed

    flags = torch.tensor(_stored(rank, pages, number), dtype=torch.int32)
    torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MIN, group=group)
    return [bool(flag) for flag in flags.tolist()]
