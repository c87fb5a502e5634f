"""A prefill whose decode rank is the test: half the processes of a pair, and the same transfers.

Prefill writes over Mooncake's real TCP into other pages of its own pool::

    with lone_prefill(children, ports, {"SGLANG_DISAGG_TRANSFER_RETRIES": "1"}) as bench:
        bench.prefill.fill("kv", [1, 2], 7)
        bench.transfer(room=1, source=[1, 2], target=[5, 6])
        assert bench.end_of(1) == "Success"
        assert bench.prefill.holds("kv", 5) == {7}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from testbed.control_peer import DecodePeer
from testbed.mooncake_pair import FINAL, PairShape, SideHandle, start_side
from testbed.mooncake_side import Side
from testbed.ports import Ports
from testbed.processes import Children
from testbed.transfers import Transfer


@dataclass(frozen=True)
class LonePrefill:
    prefill: SideHandle
    peer: DecodePeer

    def open(self, room: int, target: Sequence[int], *, pages: int | None = None) -> None:
        """Open a room; ``pages`` is how many prefill will send, as many as ``target`` if left out."""
        self.prefill.call(_open_sender, room, len(target) if pages is None else pages)
        self.peer.publish(room, target)
        self.wait_until_open(room)

    def wait_until_open(self, room: int) -> None:
        """Wait until prefill has heard from all decode ranks where the room's pages go."""
        self.prefill.wait(room, ("WaitingForInput", *FINAL))

    def send(self, room: int, source: Sequence[int]) -> None:
        """Hand a chunk of pages over."""
        self.prefill.call(_send, room, source)

    def transfer(self, room: int, source: Sequence[int], target: Sequence[int]) -> None:
        """`open` and `send` in one chunk."""
        self.open(room, target)
        self.send(room, source)

    def end_of(self, room: int, limit_s: float = 30.0) -> str:
        """The room's final state in prefill, or its last one if the time is up."""
        return self.prefill.wait(room, FINAL, limit_s)

    def calls(self, since: int = 0) -> list[Transfer]:
        """What reached the engine, from the call with this number on."""
        return self.prefill.transfers()[since:]

    def log(self) -> str:
        """All that prefill has written to its output."""
        return self.prefill.child.log.read_text(errors="replace")


@contextmanager
def lone_prefill(children: Children, ports: Ports, env: dict[str, str] | None = None) -> Iterator[LonePrefill]:
    """Start prefill with ``env`` laid over its environment, and register the test as its decode rank."""
    prefill = start_side(children, ports, "prefill", PairShape(env=env or {}))
    with DecodePeer(prefill) as peer:
        peer.register()
        if not peer.was_read():
            raise ConnectionError("prefill's bootstrap thread does not read the registration")
        yield LonePrefill(prefill, peer)


def _open_sender(side: Side, room: int, pages: int) -> None:
    side.open_sender(room, pages, aux_slot=0)


def _send(side: Side, room: int, pages: Sequence[int]) -> None:
    side.send(room, pages)
