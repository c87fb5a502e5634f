"""The messages that a rank sends to one other rank and does not wait for, counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Sends:
    """Counts what goes through `torch.distributed.isend`: a send is under way until somebody has waited for it.

    That is gloo's own view: it keeps a send, and what it sends, until then.
    """

    def __init__(self) -> None:
        import torch.distributed

        self.sent = 0
        self.most_under_way = 0
        self._under_way = 0
        self._send = torch.distributed.isend
        torch.distributed.isend = self._counting

    def _counting(self, *args: Any, **options: Any) -> Any:
        work = self._send(*args, **options)
        self.sent += 1
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        return _CountedWork(work, self._waited_for)

    def _waited_for(self) -> None:
        self._under_way -= 1


class _CountedWork:
    """A `Work` of torch.distributed that says when it was waited for the first time."""

    def __init__(self, work: Any, waited_for: Callable[[], None]) -> None:
        self._work = work
        self._waited_for: Callable[[], None] | None = waited_for

    def wait(self, *args: Any, **options: Any) -> Any:
        done = self._work.wait(*args, **options)
        if self._waited_for is not None:
            self._waited_for()
            self._waited_for = None
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)
