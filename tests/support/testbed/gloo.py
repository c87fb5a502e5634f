"""N ranks as real processes with a real gloo group over loopback."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from testbed.child import Link, Task
from testbed.processes import Child, Children, Ended

if TYPE_CHECKING:
    import torch.distributed

GROUP_LIMIT_S = 1800.0
"""Gloo's own time-out, its default: a hang must show as a hang of the rank, not as an error of gloo's."""


class Rank:
    """What a function gets that runs as one rank."""

    def __init__(self, number: int, size: int, link: Link, rendezvous: str) -> None:
        self.number = number
        self.size = size
        self.link = link
        self.rendezvous = rendezvous
        """The ``init_method`` (a file) of the default group; for code that makes its own, see ``group=False``."""

    def gather(self, value: object) -> list[Any]:
        """Every rank's ``value``, in rank order, on every rank (a collective)."""
        import torch.distributed

        everyone: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(everyone, value)
        return everyone

    def barrier(self) -> None:
        import torch.distributed

        torch.distributed.barrier()

    @property
    def group(self) -> torch.distributed.ProcessGroup:
        """The default gloo group of all ranks."""
        import torch.distributed

        return torch.distributed.group.WORLD


def start_ranks(
    children: Children,
    function: Callable[..., Any],
    *args: object,
    size: int,
    env: dict[str, str] | None = None,
    group: bool = True,
    group_limit_s: float = GROUP_LIMIT_S,
) -> list[Child]:
    """Start ``function(rank, *args)`` in ``size`` processes named ``rank0`` and so on; join them yourself.

    With ``group``, the default process group (gloo, on loopback) is ready when the function is called and
    is not taken down after it; else the function makes it, with ``rank.rendezvous`` as its ``init_method``.
    """
    rendezvous = f"file://{children.folder.resolve()}/rendezvous-{uuid.uuid4().hex}"
    task = Task.of(function, args)
    return [
        children.start(
            _run_rank,
            task,
            number,
            size,
            rendezvous,
            group_limit_s if group else None,
            name=f"rank{number}",
            env={"GLOO_SOCKET_IFNAME": "lo", "RANK": str(number), "WORLD_SIZE": str(size), **(env or {})},
        )
        for number in range(size)
    ]


def run_ranks(
    children: Children,
    function: Callable[..., Any],
    *args: object,
    size: int,
    limit_s: float = 60.0,
    env: dict[str, str] | None = None,
    group: bool = True,
    group_limit_s: float = GROUP_LIMIT_S,
) -> Ended:
    """`start_ranks` and join: how each rank ended, with the stacks of all ranks that did not.

    ``limit_s`` includes the start of the processes and whatever they import: about 10 s for SGLang's caches
    on two busy cores.
    """
    start_ranks(children, function, *args, size=size, env=env, group=group, group_limit_s=group_limit_s)
    return children.join(limit_s)


def _run_rank(link: Link, task: Task, number: int, size: int, rendezvous: str, group_limit_s: float | None) -> Any:
    function, args = task.load()
    if group_limit_s is not None:
        import torch.distributed

        torch.distributed.init_process_group(
            "gloo",
            init_method=rendezvous,
            rank=number,
            world_size=size,
            timeout=datetime.timedelta(seconds=group_limit_s),
        )
    return function(Rank(number, size, link, rendezvous), *args)
