"""The one place where a Mooncake pair can be made to fail: around the engine's transfer call.

`WatchedEngine` stands where SGLang's `MooncakeTransferEngine` keeps the engine of the mooncake package. It
hands every call on to it, keeps a list of the transfers, and can make the next ones fail or wait. SGLang's
own wrapper around the engine, with its handling of errors, is thus under test too.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

ENGINE_FAILED = -1
"""What the engine returns for a failed batch."""

FAULT_LIMIT_S = 120.0
"""A held transfer goes on by itself after this time, so that a forgotten one cannot block a test for good."""


@dataclass(frozen=True)
class Transfer:
    """One call of the engine."""

    kind: str
    """``kv``, ``state`` or ``aux``: the area in which its first source address lies; ``other`` if in none."""
    session: str
    blocks: int
    bytes: int
    returned: int
    injected: bool
    """Whether the result is ours: the real engine was not called."""


class WatchedEngine:
    """The mooncake package's engine, with every write noted and, on demand, held or failed.

    ``kind_of`` names the area of a source address.
    """

    def __init__(self, engine: Any, kind_of: Callable[[int], str]) -> None:
        self._engine = engine
        self._kind_of = kind_of
        self._changed = threading.Condition()
        self._done: list[Transfer] = []
        self._to_fail: dict[str, Iterator[bool]] = {}
        """For each transfer of a kind, whether it is to fail; none any more when it is at its end."""
        self._held_kind: str | None = None
        self._let_pass = 0
        self._waiting = 0
        self.on_call: Callable[[bool], None] = lambda injected: None
        """Called on the transfer's thread before each call; ``injected`` tells whether it will fail."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    # What SGLang calls

    def batch_transfer_sync_write(
        self, session: str, sources: Sequence[int], targets: Sequence[int], lengths: Sequence[int]
    ) -> int:
        def call() -> int:
            return int(self._engine.batch_transfer_sync_write(session, sources, targets, lengths))

        return self._pass_on(session, sources, lengths, call)

    def transfer_sync_write(self, session: str, source: int, target: int, length: int) -> int:
        def call() -> int:
            return int(self._engine.transfer_sync_write(session, source, target, length))

        return self._pass_on(session, [source], [length], call)

    # What a test calls

    def fail_next(self, kind: str, times: int = 1, after: int = 0) -> None:
        """Let ``times`` transfers of this kind return -1 at once, without the engine: the next after ``after``."""
        with self._changed:
            self._to_fail[kind] = iter([*[False] * after, *[True] * times])

    def fail_every(self, kind: str, nth: int) -> None:
        """From now on, let each ``nth`` transfer of this kind return -1 at once; `fail_next` ends that."""
        with self._changed:
            self._to_fail[kind] = itertools.cycle([*[False] * (nth - 1), True])

    def hold(self, kind: str, after: int = 0) -> None:
        """Let transfers of this kind wait, before the engine is called, until `release`; all but the next ``after``."""
        with self._changed:
            self._held_kind = kind
            self._let_pass = after

    def wait_until_held(self, limit_s: float = 30.0) -> bool:
        """Whether a transfer has come to wait within ``limit_s`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting > 0, limit_s)

    def release(self) -> None:
        with self._changed:
            self._held_kind = None
            self._changed.notify_all()

    def transfers(self) -> list[Transfer]:
        """All transfers so far, in the order in which they ended."""
        with self._changed:
            return list(self._done)

    def wait_for_transfers(self, count: int, limit_s: float = 30.0) -> bool:
        """Whether ``count`` transfers have ended within ``limit_s`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._done) >= count, limit_s)

    def _pass_on(self, session: str, sources: Sequence[int], lengths: Sequence[int], call: Callable[[], int]) -> int:
        kind = self._kind_of(sources[0]) if sources else "other"
        injected = self._hold_or_fail(kind)
        self.on_call(injected)
        returned = ENGINE_FAILED if injected else call()
        with self._changed:
            self._done.append(Transfer(kind, str(session), len(sources), sum(lengths), returned, injected))
            self._changed.notify_all()
        return returned

    def _hold_or_fail(self, kind: str) -> bool:
        """Wait if this kind is held; then whether the transfer is to fail."""
        with self._changed:
            if self._held_kind == kind and self._let_pass > 0:
                self._let_pass -= 1
            elif self._held_kind == kind:
                self._waiting += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._held_kind != kind, FAULT_LIMIT_S)
                self._waiting -= 1
            return next(self._to_fail.get(kind, iter(())), False)
