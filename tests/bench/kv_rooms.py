"""What the two processes of a Mooncake pair do for a sample: many rooms at once, and what that took them.

Runs in the bed, in prefill and in decode, by `testbed.mooncake_pair.SideHandle.call`.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.bench.measure import Cost

from testbed.mooncake_side import Side

READY = ("WaitingForInput", "Success", "Failed")
FINAL = ("Success", "Failed")
ROOM_LIMIT_S = 60.0


@dataclass(frozen=True)
class Batch:
    """Rooms that are under way at the same time, each with pages of its own."""

    first: int
    rooms: int
    chunks: int
    chunk_pages: int
    byte: int
    """What prefill's pages are full of."""

    @property
    def pages(self) -> int:
        """Of one room."""
        return self.chunks * self.chunk_pages

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.rooms)

    def pages_of(self, room: int) -> list[int]:
        """The same on both sides. Page 0 is nobody's: SGLang writes padding into it."""
        start = 1 + (room - self.first) * self.pages
        return list(range(start, start + self.pages))


class Watch:
    """Processor time of this process, all threads, and wall time, from its making on."""

    def __init__(self, engine: TimedEngine | None = None) -> None:
        """What the threads that call ``engine`` use within its calls is left out."""
        self._engine = engine
        self._cpu_s, self._wall_s = self._used_s(), time.perf_counter()

    def cost(self) -> Cost:
        return Cost(self._used_s() - self._cpu_s, time.perf_counter() - self._wall_s)

    def _used_s(self) -> float:
        return _cpu_s() - (self._engine.cpu_s if self._engine else 0.0)


class TimedEngine:
    """Mooncake's engine, and how much processor time its callers have used in it.

    A caller spins until its batch is done, so that on a busy machine this says how long others had the cores.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self.cpu_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def batch_transfer_sync_write(self, *args: Any) -> int:
        return self._timed(self._engine.batch_transfer_sync_write, args)

    def transfer_sync_write(self, *args: Any) -> int:
        return self._timed(self._engine.transfer_sync_write, args)

    def _timed(self, call: Callable[..., int], args: tuple[Any, ...]) -> int:
        begin_s = time.thread_time()
        try:
            return call(*args)
        finally:
            with self._lock:
                self.cpu_s += time.thread_time() - begin_s


def time_engine(side: Side) -> None:
    """Once a side: below what can fail and hold its transfers."""
    side.watched._engine = TimedEngine(side.watched._engine)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def prepare_prefill(side: Side, batch: Batch) -> None:
    for room in batch.numbers:
        side.fill("kv", batch.pages_of(room), batch.byte)


def prepare_decode(side: Side, batch: Batch) -> None:
    for room in batch.numbers:
        side.fill("kv", batch.pages_of(room), 0)


def send(side: Side, batch: Batch) -> tuple[Cost, list[str]]:
    """Prefill: all rooms in their chunks, and how each ended."""
    watch = Watch(side.watched._engine)
    for slot, room in enumerate(batch.numbers):
        side.open_sender(room, batch.pages, slot)
    for room in batch.numbers:
        side.wait_for(room, READY, ROOM_LIMIT_S)
        pages = batch.pages_of(room)
        for start in range(0, batch.pages, batch.chunk_pages):
            side.send(room, pages[start : start + batch.chunk_pages])
    ended = [side.wait_for(room, FINAL, ROOM_LIMIT_S) for room in batch.numbers]
    return watch.cost(), ended


def receive(side: Side, batch: Batch) -> tuple[Cost, list[str]]:
    """Decode: the other half."""
    watch = Watch()
    for slot, room in enumerate(batch.numbers):
        side.open_receiver(room, batch.pages_of(room), slot)
    ended = [side.wait_for(room, FINAL, ROOM_LIMIT_S) for room in batch.numbers]
    return watch.cost(), ended


def forget(side: Side, batch: Batch) -> None:
    """As the scheduler does with requests that have ended.

    Not with failed ones here: plain's transfer worker may die of a room that is cleared while a chunk of it waits.
    """
    for room in batch.numbers:
        side.rooms.pop(room).clear()


def fail_every(side: Side, kind: str, nth: int) -> None:
    """Prefill: `WatchedEngine.fail_every`."""
    side.watched.fail_every(kind, nth)


def whole_rooms(side: Side, batch: Batch) -> list[bool]:
    """Decode: of each room, whether every byte of its pages is prefill's."""
    return [right_pages(side, batch, room) == batch.pages for room in batch.numbers]


def right_pages(side: Side, batch: Batch, room: int) -> int:
    page = bytes([batch.byte]) * sum(area.item_length for area in side.areas["kv"])
    return sum(side.read("kv", number) == page for number in batch.pages_of(room))
