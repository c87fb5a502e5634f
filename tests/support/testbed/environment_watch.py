"""Which environment variables code reads or writes while it is imported.

A process that is forked after the import cannot be given another value of such a variable: the old one may
be in any module by now. `testbed.zygote` watches its imports with this.

Seen is what goes through `os.environ` and `os.environb`, as `os.getenv` does. Native code asks libc and is not
seen; `testbed.warm` therefore lets only variables differ of which it knows that no library reads them as it
loads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

PREFIX_SCANS = {
    "fsspec": "FSSPEC_",
    "networkx": "NETWORKX_",
    "sglang.srt.environ": "SGL_",
    "tqdm": "TQDM_",
}
"""Modules that go through the whole environment as they are imported, and the only names that they look for."""


class EnvironmentWatch:
    """A context in which `names` and `scans` fill."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        """Variables that were asked for, set or deleted, also those that were not there."""
        self.scans: set[str] = set()
        """Modules outside `PREFIX_SCANS` that went through all variables: they may depend on any of them."""

    def __enter__(self) -> EnvironmentWatch:
        watched: Any = type("WatchedEnviron", (_WatchedEnviron,), {"watch": self})
        os.environ.__class__ = os.environb.__class__ = watched
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        os.environ.__class__ = os.environb.__class__ = os._Environ

    def note_scan(self, module: str) -> None:
        if not any(f"{module}.".startswith(f"{known}.") for known in PREFIX_SCANS):
            self.scans.add(module)


class _WatchedEnviron(os._Environ):  # type: ignore[type-arg]
    watch: EnvironmentWatch

    # `get`, `in`, `pop`, `setdefault` and the rest come down to these.

    def __getitem__(self, name: Any) -> Any:
        self._note(name)
        return super().__getitem__(name)

    def __setitem__(self, name: Any, value: Any) -> None:
        self._note(name)
        super().__setitem__(name, value)

    def __delitem__(self, name: Any) -> None:
        self._note(name)
        super().__delitem__(name)

    def __iter__(self) -> Iterator[Any]:
        self.watch.note_scan(_who_asks())
        return super().__iter__()

    def _note(self, name: Any) -> None:
        if isinstance(name, str | bytes):
            self.watch.names.add(os.fsdecode(name))


def _who_asks() -> str:
    """The module that went through the environment, past the machinery of mappings."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in (__name__, "os", "collections.abc"):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))
