"""Decode's throughput with its hold on and off, in turns: the composed tree twice, in the bed's Python.

Every request has 512 KiB to be sent, and what is computed is there at once: requests wait for decode's pages
alone. Decode has room for eight, and there are always four more, so that one that is held keeps another out.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path

from tests.bench import hold_requests, kv_rooms
from tests.bench.hold_requests import Requests, Served
from tests.bench.kv_found import Holding, KvOrder
from tests.bench.measure import Cost, Patience

from testbed import Ports
from testbed.decode_pair import DecodePair, DecodeShape, start_decode_pair
from testbed.processes import Children
from testbed.warm import WarmProcesses

GEOMETRY = {"page_size": 16, "layers": 4, "heads": 2, "head_dim": 64}
"""64 KiB a page."""
REQUEST_PAGES, FITTING, AT_ONCE = 8, 8, 12
ABORTED_PERCENT = (0, 30)
HOLD = "SGLANG_DISAGGREGATION_DEFERRED_DECODE_KV_RELEASE"
SIDE_LIMIT_S = 300.0
BYTE = 7


def measure_hold(order: KvOrder, folder: Path, warm: WarmProcesses, ports: Ports) -> list[Holding]:
    with ExitStack() as stack:
        pairs = {}
        for name, value in (("on", "1"), ("off", "0")):
            children = stack.enter_context(closing(Children(folder / f"hold-{name}", warm)))
            shape = DecodeShape(
                pages=FITTING * REQUEST_PAGES,
                running=FITTING // 2,
                preallocated=FITTING - FITTING // 2,
                prefill_pages=REQUEST_PAGES,
                aux_slots=AT_ONCE,
                env={**order.composed_env, HOLD: value},
                **GEOMETRY,
            )
            pairs[name] = Decoder(start_decode_pair(children, ports, shape))
        return [_measure_one(order, pairs["on"], pairs["off"], percent) for percent in ABORTED_PERCENT]


class Decoder:
    """A running pair, and the number of its next request."""

    def __init__(self, pair: DecodePair) -> None:
        self._pair = pair
        self._next = 1
        pair.prefill.call(kv_rooms.time_engine)

    def run(self, count: int, aborted_percent: int) -> tuple[Cost, Served]:
        """Both sides at once: processor time of both, and decode's wall time."""
        requests = Requests(self._next, count, REQUEST_PAGES, AT_ONCE, aborted_percent, BYTE)
        self._next += count
        prefill, decode = self._pair.prefill, self._pair.decode
        prefill.call(hold_requests.prepare_source, requests)
        prefill.begin(hold_requests.compute, requests)
        decode.begin(hold_requests.serve, requests)
        served: Served = decode.finish(SIDE_LIMIT_S)
        computed: Cost = prefill.finish(SIDE_LIMIT_S)
        cpu_s = (served.cost.cpu_s + computed.cpu_s) / count
        return Cost(cpu_s, served.cost.wall_s / count), served


def _measure_one(order: KvOrder, on: Decoder, off: Decoder, aborted_percent: int) -> Holding:
    """A round of each to get going, then samples of both in turns; who comes first changes."""
    for decoder in (on, off):
        decoder.run(order.requests, aborted_percent)
    costs: dict[Decoder, list[Cost]] = {on: [], off: []}
    answered: dict[Decoder, list[int]] = {on: [], off: []}
    most_held = 0
    patience = Patience(order.repeats, time.monotonic() + order.budget_s)
    while patience.may_repeat(done := len(costs[on])):
        for decoder in (on, off) if done % 2 else (off, on):
            cost, served = decoder.run(order.requests, aborted_percent)
            costs[decoder].append(cost)
            answered[decoder].append(served.answered)
            most_held = max(most_held, served.most_held)
    expected = order.requests - order.requests * aborted_percent // 100
    return Holding(aborted_percent, costs[on], costs[off], answered[on], answered[off], expected, most_held)
