"""No room takes the transfer worker of the others with it (AB-7; T1, T5, T6).

Each race forces its interleaving, and says how: they show what the code does then, not how often that is.
A worker that died is started again by the manager's own method, so that each race is proven by itself.
"""

from __future__ import annotations

import threading
from typing import Any

from testbed import Children, Ports, room_calls
from testbed.control_peer import DecodePeer, buffers
from testbed.control_wire import FAILED, LOOPBACK, drained, registration, status
from testbed.mooncake_pair import Side, start_side
from testbed.mooncake_side import wait_until

SETTLE_S = 10.0
WORKER = "(transfer_worker)"
READER = "(bootstrap_thread)"
ALIEN = 77


def another_session(peer: DecodePeer) -> str:
    """One whose port chooses the same queue, and that nobody has registered."""
    port = int(peer.buffers.session.rpartition(":")[2])
    return f"{LOOPBACK}:{port - 400 if port > 1000 else port + 400}"


def cleared_between_two_looks(peer: DecodePeer, room: int) -> None:
    """T1. The scheduler clears the room right after the worker has looked it up for the first time."""
    peer.publish(room, pages=[5])
    peer.prefill.call(vanish_when_looked_up, room)
    peer.prefill.call(room_calls.open_and_send, room, [[1]], 1)
    assert peer.prefill.call(has_vanished), "the room was not cleared between two looks"


def joined_while_it_is_sent(peer: DecodePeer, room: int) -> None:
    """T5. Metadata of one more session comes while the worker is at the room's first one."""
    peer.prefill.hold("kv")
    peer.publish(room, pages=[5])
    peer.prefill.call(room_calls.open_and_send, room, [[1]], 1)
    assert peer.prefill.wait_until_held()
    peer.publish(room, pages=[6], session=another_session(peer))
    assert peer.was_read()
    peer.prefill.release()


def never_registered(peer: DecodePeer, room: int) -> None:
    """T6. The room names a session that has never said where its memory is."""
    peer.publish(room, pages=[5], session=another_session(peer))
    peer.prefill.call(room_calls.open_and_send, room, [[1]], 1)


RACES = [cleared_between_two_looks, joined_while_it_is_sent, never_registered]


def test_a_room_that_cannot_be_sent_costs_no_other(children: Children, ports: Ports) -> None:
    prefill = start_side(children, ports, "prefill")
    killed = []
    with DecodePeer(prefill) as peer:
        peer.register()
        for room, race in enumerate(RACES, start=1):
            race(peer, room)
            peer.publish(room + 1000, pages=[6], aux=2)
            if not prefill.call(next_room_succeeds, room + 1000):
                killed.append(race.__name__)
                prefill.call(revive_worker)
        assert not killed, f"the transfer worker died of {killed}"

        joined = RACES.index(joined_while_it_is_sent) + 1
        assert prefill.wait(joined) == "Success", "the session that came too late is no reason to fail"

        # The one that could not be sent has failed, decode knows, and nobody is told that it has drained
        room = len(RACES)
        assert prefill.wait(room) == "Failed"
        peer.abort(room, generation=1)
        peer.abort(ALIEN, generation=2)
        heard = peer.receive_until(drained(ALIEN, 2))
        assert status(room, FAILED) in heard
        assert drained(room, 1) not in heard
        assert status(joined, FAILED) not in heard


class VanishingRooms(dict[int, Any]):
    """Prefill's rooms; one of them goes as soon as a transfer worker has looked it up."""

    def __init__(self, side: Side, room: int) -> None:
        super().__init__(side.manager.transfer_infos)
        self._side, self._room = side, room
        self.vanished = threading.Event()

    def __contains__(self, room: object) -> bool:
        return self._seen(room, super().__contains__(room))

    def __getitem__(self, room: int) -> Any:
        return self._seen(room, super().__getitem__(room))

    def get(self, room: int, default: Any = None) -> Any:
        return self._seen(room, super().get(room, default))

    def _seen(self, room: object, answer: Any) -> Any:
        if room == self._room and WORKER in threading.current_thread().name and not self.vanished.is_set():
            self.vanished.set()
            self.pop(self._room, None)
            self._side.manager.request_status.pop(self._room, None)
        return answer


def vanish_when_looked_up(side: Side, room: int) -> None:
    wait_until(lambda: room in side.manager.transfer_infos, bool, SETTLE_S)
    side.manager.transfer_infos = VanishingRooms(side, room)


def has_vanished(side: Side) -> bool:
    return bool(side.manager.transfer_infos.vanished.wait(SETTLE_S))


def threads(name: str) -> int:
    return sum(name in thread.name for thread in threading.enumerate())


def next_room_succeeds(side: Side, room: int) -> bool:
    """Whether the next room of the same queue does; False as soon as a worker is dead."""
    workers = len(side.manager.transfer_queues)
    room_calls.open_and_send(side, room, [[1]], 1)

    def settled() -> bool:
        return side.poll(room) in ("Success", "Failed") or threads(WORKER) < workers

    wait_until(settled, bool, SETTLE_S)
    return side.poll(room) == "Success"


def revive_worker(side: Side) -> None:
    """Give the queue that all rooms of this test go to a worker again."""
    manager = side.manager
    index = int(manager.get_session_id().rpartition(":")[2]) % len(manager.transfer_queues)
    work = (manager.transfer_queues[index], manager.executors[index], None)
    threading.Thread(target=manager.transfer_worker, args=work, daemon=True).start()


def test_a_registration_may_come_before_prefill_is_complete(children: Children, ports: Ports) -> None:
    """A decode rank registers once; if that is lost, all its rooms fail.

    Forced: the registration is there when the manager makes its table of failed sessions, and is given time to be
    read.
    """
    prefill = start_side(children, ports, "prefill")
    registered, alive, dropped = prefill.call(register_while_a_manager_starts)
    assert (registered, alive, dropped) == (True, True, {})


def register_while_a_manager_starts(side: Side) -> tuple[bool, bool, dict[str, int]]:
    """Whether a second manager of this process has the session and its thread in the end, and what it dropped."""
    import zmq
    from sglang.srt.disaggregation.common import conn as common
    from sglang.srt.disaggregation.mooncake import conn as mooncake
    from sglang.srt.disaggregation.utils import DisaggregationMode

    ports: list[int] = []
    readers = threads(READER)
    frames = registration(9, buffers(side))
    outbox = zmq.Context.instance().socket(zmq.PUSH)
    bind, table = common.get_zmq_socket_on_host, mooncake.defaultdict

    def noted_bind(*args: Any, **kwargs: Any) -> Any:
        bound = bind(*args, **kwargs)
        ports.append(bound[0])
        return bound

    def late_table(*args: Any) -> Any:
        if not sent.is_set():
            sent.set()
            outbox.connect(f"tcp://{LOOPBACK}:{ports[-1]}")
            outbox.send_multipart(frames)
            # Read by now, if there is a thread that reads: it has the session, or is dead.
            wait_until(lambda: threads(READER) <= readers, lambda _: False, 1.0)
        return table(*args)

    sent = threading.Event()
    common.get_zmq_socket_on_host, mooncake.defaultdict = noted_bind, late_table
    try:
        old = side.manager
        manager = type(old)(old.kv_args, DisaggregationMode.PREFILL, old.server_args, False)
    finally:
        common.get_zmq_socket_on_host, mooncake.defaultdict = bind, table
    assert sent.is_set(), "the manager made no table of failed sessions"
    wait_until(lambda: manager.decode_kv_args_table or threads(READER) <= readers, bool, SETTLE_S)
    dropped = dict(getattr(manager, "control_drops", {}))
    return bool(manager.decode_kv_args_table), threads(READER) > readers, dropped
