"""What the two processes of a decode pair do for a sample: requests that come and go, some of them aborted.

Decode's pool, request slots and metadata slots are just large enough for those that are under way, so that a
request that is held keeps the next one out. Runs in the bed, by `testbed.mooncake_pair.SideHandle.call`.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from tests.bench.kv_rooms import FINAL, Watch
from tests.bench.measure import Cost

from testbed.decode_pair import FIRST_TOKEN, DecodeSide
from testbed.mooncake_side import Side

STEP_S = 0.001
"""Between two rounds of an event loop; a forward pass takes at least that long."""
SAMPLE_LIMIT_S = 240.0
SEED = 27372


@dataclass(frozen=True)
class Requests:
    """All with the same prompt length; their rooms have the numbers from ``first`` on."""

    first: int
    count: int
    pages: int
    at_once: int
    """How many wait or are under way at the same time, on each side."""
    aborted_percent: int
    byte: int

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.count)

    @property
    def aborted(self) -> frozenset[int]:
        """The same ones in every sample."""
        drawn = random.Random(SEED).sample(range(self.count), self.count * self.aborted_percent // 100)
        return frozenset(self.first + index for index in drawn)


@dataclass(frozen=True)
class Served:
    """What decode did."""

    cost: Cost
    answered: int
    """Requests that were not to be aborted and got their bytes."""
    most_held: int


class Pause:
    """Between two rounds; raises TimeoutError when a sample takes too long."""

    def __init__(self) -> None:
        self._wait = threading.Event().wait
        self._ends_at = time.monotonic() + SAMPLE_LIMIT_S

    def __call__(self, left: int) -> None:
        if time.monotonic() > self._ends_at:
            raise TimeoutError(f"{left} requests have not ended after {SAMPLE_LIMIT_S:.0f} s")
        self._wait(STEP_S)


def name_of(room: int) -> str:
    """Of one length, for an abort is of every request whose name begins with its own."""
    return f"{room:09d}"


def prepare_source(side: Side, requests: Requests) -> None:
    side.fill("kv", range(1, requests.pages + 1), requests.byte)


def compute(side: Side, requests: Requests) -> Cost:
    """Prefill: what is computed is there at once; each request is sent in one chunk."""
    watch, pause = Watch(side.watched._engine), Pause()
    waiting, slots = deque(requests.numbers), deque(range(requests.at_once))
    unsent: dict[int, int] = {}
    under_way: dict[int, int] = {}
    while waiting or unsent or under_way:
        while waiting and slots:
            room, slot = waiting.popleft(), slots.popleft()
            side.write_metadata(slot, room, FIRST_TOKEN)
            side.open_sender(room, requests.pages, slot)
            unsent[room] = slot
        for room in [room for room in unsent if side.poll(room) != "Bootstrapping"]:
            under_way[room] = unsent.pop(room)
            if side.poll(room) not in FINAL:
                side.send(room, list(range(1, requests.pages + 1)))
        for room in [room for room in under_way if side.poll(room) in FINAL]:
            slots.append(under_way.pop(room))
            side.rooms.pop(room).clear()
        pause(len(waiting) + len(unsent) + len(under_way))
    return watch.cost()


def serve(side: DecodeSide, requests: Requests) -> Served:
    """Decode: until every request has ended and nothing is held."""
    watch, pause = Watch(), Pause()
    waiting, here = deque(requests.numbers), set[int]()
    to_abort = set(requests.aborted)
    answered = most_held = 0
    while waiting or here or not side.scheduler.is_fully_idle():
        while waiting and len(here) < requests.at_once:
            room = waiting.popleft()
            side.submit(name_of(room), room, requests.pages)
            here.add(room)
        side.step()
        most_held = max(most_held, held_by(side))
        for room in list(here):
            state = side.state(name_of(room))
            if state == "Transferring" and room in to_abort:
                to_abort.remove(room)
                side.abort_request(name_of(room))
            elif state == "Ready":
                whole = finish(side, requests, room)  # also one whose abort came too late
                answered += whole and room not in requests.aborted
                here.remove(room)
            elif state == "Aborted":
                here.remove(room)
        pause(len(waiting) + len(here))
    return Served(watch.cost(), answered, most_held)


def held_by(side: DecodeSide) -> int:
    """How many requests decode has answered and keeps."""
    queue: Any = side.scheduler.disagg_decode_transfer_queue
    return len(queue.held_releases)


def finish(side: DecodeSide, requests: Requests, room: int) -> bool:
    """Let a request that is ready end here, as one that has said its last token; whether it has its bytes."""
    from sglang.srt.mem_cache.common import release_kv_cache

    page = bytes([requests.byte]) * sum(area.item_length for area in side.areas["kv"])
    whole = all(side.read("kv", number) == page for number in side.pages_of(name_of(room)))
    req = side.requests.pop(name_of(room))
    side.scheduler.waiting_queue.remove(req)
    release_kv_cache(req, side.scheduler.tree_cache, is_insert=False)
    return whole
