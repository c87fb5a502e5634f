"""`python -m tests.bench.kv_driver ORDER FOUND` in the bed's Python: every KV sample, both trees in turns.

Real managers, ZMQ, bootstrap server and Mooncake over TCP, in two processes a tree (`testbed.mooncake_pair`) and
two a setting of the hold (`testbed.decode_pair`). Injected are the engine's return code and a pause before it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import kv_rooms
from tests.bench.hold_driver import GEOMETRY, measure_hold
from tests.bench.kv_found import Aborted, Faults, KvFound, KvOrder, Sending, read_order, write_json
from tests.bench.kv_rooms import Batch
from tests.bench.measure import Cost, Patience

from testbed import Ports, network
from testbed.child import die_with_parent
from testbed.mooncake_pair import MooncakePair, PairShape, start_pair
from testbed.processes import Children
from testbed.warm import WarmProcesses

CHUNKS, CHUNK_PAGES = 4, 4

FAILS_EVERY = 100
ABORT_CHUNKS = 16
TOLD_LIMIT_S = 3.0
"""How long prefill may take to hear of an abort; on plain it never does."""

SIDE_LIMIT_S = 600.0


def main() -> None:
    order, found = read_order(Path(sys.argv[1])), Path(sys.argv[2])
    die_with_parent()
    network.make_private()
    with tempfile.TemporaryDirectory(prefix="kv-bench-", ignore_cleanup_errors=True) as folder:
        logs = Path(folder) / "warm"
        logs.mkdir()
        warm, ports = WarmProcesses(logs, os.environ), Ports()
        try:
            write_json(found, measure(order, Path(folder), warm, ports))
        finally:
            warm.close()
            ports.close()


def measure(order: KvOrder, folder: Path, warm: WarmProcesses, ports: Ports) -> KvFound:
    with running_pairs(order, folder, warm, ports) as trees:
        sending = measure_sending(order, trees)
        aborted = [abort_one(tree) for tree in trees]
        faults = [fail_some(order, tree) for tree in trees]
    return KvFound(
        plain_sending=sending[0],
        composed_sending=sending[1],
        plain_faults=faults[0],
        composed_faults=faults[1],
        plain_aborted=aborted[0],
        composed_aborted=aborted[1],
        holding=measure_hold(order, folder, warm, ports),
    )


@dataclass
class Tree:
    """A running pair of one tree, and the number of its next room."""

    pair: MooncakePair
    next_room: int = 1

    def batch(self, rooms: int, chunks: int = CHUNKS, chunk_pages: int = CHUNK_PAGES) -> Batch:
        """New rooms, with bytes that the last ones did not have; decode's pages are empty."""
        first = self.next_room
        self.next_room += rooms
        batch = Batch(first, rooms, chunks, chunk_pages, byte=1 + first % 255)
        self.pair.prefill.call(kv_rooms.prepare_prefill, batch)
        self.pair.decode.call(kv_rooms.prepare_decode, batch)
        return batch

    def run(self, batch: Batch) -> tuple[Cost, list[bool]]:
        """Both sides at once: processor time of both, the longer wall time, and which rooms arrived whole."""
        decode, prefill = self.pair.decode, self.pair.prefill
        decode.begin(kv_rooms.receive, batch)
        prefill.begin(kv_rooms.send, batch)
        sent, at_prefill = prefill.finish(SIDE_LIMIT_S)
        received, at_decode = decode.finish(SIDE_LIMIT_S)
        whole: list[bool] = decode.call(kv_rooms.whole_rooms, batch)
        good = [
            here == there == "Success" and bytes_too
            for here, there, bytes_too in zip(at_prefill, at_decode, whole, strict=True)
        ]
        return Cost(sent.cpu_s + received.cpu_s, max(sent.wall_s, received.wall_s)), good

    def forget(self, batch: Batch) -> None:
        for side in (self.pair.prefill, self.pair.decode):
            side.call(kv_rooms.forget, batch)


@contextmanager
def running_pairs(order: KvOrder, folder: Path, warm: WarmProcesses, ports: Ports) -> Iterator[list[Tree]]:
    """Plain, then composed."""
    shape = PairShape(pages=order.rooms * CHUNKS * CHUNK_PAGES, aux_slots=order.rooms, **GEOMETRY)
    with ExitStack() as stack:
        trees = []
        for name, environment in (("plain", order.plain_env), ("composed", order.composed_env)):
            children = stack.enter_context(closing(Children(folder / name, warm)))
            pair = start_pair(children, ports, dataclasses.replace(shape, env=environment))
            pair.prefill.call(kv_rooms.time_engine)
            trees.append(Tree(pair))
        yield trees


def measure_sending(order: KvOrder, trees: list[Tree]) -> list[Sending]:
    """A round of each to get going, then samples of both in turns; who comes first changes."""
    for tree in trees:
        batch = tree.batch(order.rooms)
        tree.run(batch)
        tree.forget(batch)
    samples: list[list[Cost]] = [[] for _ in trees]
    right = [0 for _ in trees]
    patience = Patience(order.repeats, time.monotonic() + order.budget_s)
    while patience.may_repeat(done := len(samples[0])):
        for place in (0, 1) if done % 2 else (1, 0):
            batch = trees[place].batch(order.rooms)
            cost, whole = trees[place].run(batch)
            trees[place].forget(batch)
            samples[place].append(Cost(cost.cpu_s / batch.rooms, cost.wall_s / batch.rooms))
            right[place] += sum(whole)
    return [
        Sending(of_tree, whole_rooms, len(of_tree) * order.rooms)
        for of_tree, whole_rooms in zip(samples, right, strict=True)
    ]


def abort_one(tree: Tree) -> Aborted:
    """Decode aborts a room of many chunks while the first is in the engine, which then goes on.

    A room that is sent next ends after all that was queued before, for each decode session has one queue.
    """
    prefill = tree.pair.prefill
    start = len(prefill.transfers())
    tree.run(tree.batch(1))
    alone_bytes = sum(t.bytes for t in prefill.transfers()[start:])
    batch = tree.batch(1, chunks=ABORT_CHUNKS, chunk_pages=1)
    room, pages = batch.first, batch.pages_of(batch.first)
    start = len(prefill.transfers())
    prefill.hold("kv")
    tree.pair.open(room, pages)
    for page in pages:
        tree.pair.send(room, [page])
    if not prefill.wait_until_held():
        raise ValueError("no chunk came to the engine")
    tree.pair.decode.abort(room)
    prefill.wait(room, limit_s=TOLD_LIMIT_S)
    prefill.release()
    tree.run(tree.batch(1))
    sent = prefill.transfers()[start:]
    in_engine = sent[0].bytes
    return Aborted(in_engine, sum(t.bytes for t in sent) - alone_bytes, ABORT_CHUNKS * in_engine)


def fail_some(order: KvOrder, tree: Tree) -> Faults:
    """One session, and a hundredth of its transfers fail. It comes last, for plain's session is lost by it."""
    prefill = tree.pair.prefill
    start = len(prefill.transfers())
    prefill.call(kv_rooms.fail_every, "kv", FAILS_EVERY)
    left, completed = order.fault_rooms, 0
    while left > 0:
        batch = tree.batch(min(left, order.rooms))
        _, whole = tree.run(batch)
        completed += sum(whole)
        left -= batch.rooms
    injected = sum(t.injected for t in prefill.transfers()[start:])
    if not injected:
        raise ValueError(f"none of the transfers of {order.fault_rooms} rooms was made to fail")
    return Faults(order.fault_rooms, completed, injected)


if __name__ == "__main__":
    main()
