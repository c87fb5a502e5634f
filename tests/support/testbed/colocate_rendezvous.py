"""A client that waits at a rendezvous, an owner that comes, and what others put in its place.

The folder, the files, the processes and the servers are real; what moves is the client's clock, which a test turns
from one look of the client to the next::

    with Meeting(tmp_path) as meeting:
        meeting.put(meeting.record(nonce="0" * 32, url=meeting.neighbour.url))
        assert meeting.wait([meeting.publish]) == "owner"

The neighbour is a server that answers in every way as the owner's does: whom a client has joined is then only a
question of what it has looked at.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from testbed.assertions import is_by_the_test
from testbed.colocate_server import PeerServer

if TYPE_CHECKING:
    from sglang.srt.colocate.process_identity import ProcessIdentity
    from sglang.srt.colocate.rendezvous import OwnerFile

JOB = "night-train"
NONCE = "0123456789abcdef" * 2
KEY = "the-owner's-key"
TOKENS = ("2", "5")
MOST_LOOKS = 10_000
"""A client that looks more often waits for ever."""


class Clock:
    """Time that passes only while the client pauses."""

    def __init__(self, happens: Sequence[Callable[[], object]] = ()) -> None:
        self.now_s = 1000.0
        self.pauses = 0
        self._happens = list(happens)

    def read(self) -> float:
        return self.now_s

    def then(self, happens: Callable[[], object]) -> None:
        """One more thing that happens while the client pauses."""
        self._happens.append(happens)

    def pause(self, seconds: float) -> None:
        """What happens next does so while the client waits for its next look."""
        self.pauses += 1
        assert self.pauses < MOST_LOOKS, "the client waits for ever"
        self.now_s += seconds
        if self._happens:
            self._happens.pop(0)()


class Meeting:
    """One job's rendezvous below ``root``. The owner is this process, unless another is given."""

    def __init__(self, root: Path, owner: int | None = None) -> None:
        from sglang.srt.colocate.process_identity import ProcessIdentity
        from sglang.srt.colocate.rendezvous import Folder, record_name
        from sglang.srt.colocate.settings import Settings
        from sglang.srt.colocate.topology import Topology

        root.chmod(0o700)
        self.root = root
        self.owner: ProcessIdentity = ProcessIdentity.of(owner or os.getpid())
        self.topology = Topology(JOB, len(TOKENS), 0, TOKENS, self.owner, NONCE)
        self.name: str = record_name(JOB, self.topology.key)
        self.settings = Settings.from_env({"SGLANG_COLOCATE_ROOT": str(root)})
        self.folder = Folder.open(str(root))
        self.server, self.neighbour = PeerServer(KEY, len(TOKENS)), PeerServer(KEY, len(TOKENS))
        self._owners: list[OwnerFile] = []

    @property
    def path(self) -> Path:
        return self.root / f"sglang-colocate-{os.geteuid()}" / self.name

    def record(self, **changes: object) -> dict[str, Any]:
        """What the owner's file says when its server is up; ``changes`` are fields of it."""
        return {
            "version": 1,
            "status": "ready",
            "error": "",
            "url": self.server.url,
            "pid": self.owner.pid,
            "pid_start_time": self.owner.start_time_ticks,
            "boot_id": self.owner.boot_id,
            "server_pid": self.owner.pid,
            "server_pid_start_time": self.owner.start_time_ticks,
            "devices": list(TOKENS),
            "tp_size": len(TOKENS),
            "nonce": NONCE,
            "api_key": KEY,
            "offloaded": False,
            **changes,
        }

    def fake(self, **changes: object) -> dict[str, Any]:
        """The same, but for the address: that of the neighbour."""
        return self.record(**{"url": self.neighbour.url, **changes})

    def starting(self) -> dict[str, Any]:
        """What the owner's file says until its server is up."""
        return self.record(status="starting", url="", server_pid=None, server_pid_start_time=None, api_key="")

    def failed(self, error: str, **changes: object) -> dict[str, Any]:
        return {**self.starting(), "status": "failed", "error": error, **changes}

    def put(self, said: Mapping[str, Any] | bytes, mode: int = 0o600) -> Path:
        """Lay a file where the owner's would be."""
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.path.write_bytes(data)
        self.path.chmod(mode)
        return self.path

    def publish(self, **changes: object) -> OwnerFile:
        """What the owner does when its server is up, by SGLang's own means."""
        from sglang.srt.colocate.record import Record
        from sglang.srt.colocate.rendezvous import OwnerFile

        owner = OwnerFile(self.folder, self.name, NONCE)
        owner.acquire()
        self._owners.append(owner)
        owner.publish(Record.from_bytes(json.dumps(self.record(**changes)).encode()))
        return owner

    def wait(self, happens: Sequence[Callable[[], object]] = (), clock: Clock | None = None) -> str:
        """Whom the client joins, ``owner`` or ``neighbour``, or the name of what it raises.

        ``happens`` are what others do while it pauses, one thing a pause.
        """
        from sglang.srt.colocate.client_wait import ClientWait

        clock = clock or Clock(happens)
        waiting = ClientWait(self.folder, self.name, self.topology, self.settings, clock=clock.read, pause=clock.pause)
        try:
            url: str = waiting.wait().url
        except Exception as error:
            if is_by_the_test(error):
                raise
            sys.stderr.write(f"the client: {error}\n")
            return type(error).__name__
        return {self.server.url: "owner", self.neighbour.url: "neighbour"}.get(url, url)

    def __enter__(self) -> Self:
        self.server.__enter__()
        self.neighbour.__enter__()
        return self

    def __exit__(self, *how: type[BaseException] | BaseException | TracebackType | None) -> None:
        for owner in self._owners:
            owner.remove()
        self.folder.close()
        self.server.__exit__(None, None, None)
        self.neighbour.__exit__(None, None, None)
