"""Device events that say "not yet" for a while: how far a DMA copy is, without a device.

On a CPU the copies between device pool and host pool are done when the call
returns, and `torch.cpu.Event.query` always says True. What a GPU adds is that
each rank learns of the end of its copies at a time of its own. That is all that
is put in its place here; pools, copies, controllers and collectives are real.
"""

from __future__ import annotations

import os
import random
import types
from collections.abc import Callable

COPY_POLLS = "TESTBED_COPY_POLLS"
"""Environment variable of a server: how many polls a copy takes, by pipeline stage, with commas."""

Lag = Callable[[], int]
"""Asked once a recorded event: how often `query` says no before it says yes."""


def no_lag() -> int:
    """Every copy is done at once."""
    return 0


def lag_of(queries: int) -> Lag:
    """Every copy takes `queries` polls."""
    return lambda: queries


def random_lag(seed: int, most: int) -> Lag:
    """Every copy takes 0 to `most` polls, drawn from `seed`."""
    draw = random.Random(seed)
    return lambda: draw.randint(0, most)


class DmaClock:
    """The lag of the copies of this process; `lag` may be changed at any time."""

    def __init__(self) -> None:
        self.lag: Lag = no_lag


def lagging_device_module(clock: DmaClock) -> types.ModuleType:
    """`torch.cpu` with an `Event` that follows `clock`."""
    import torch

    class LaggingEvent(torch.cpu.Event):
        def __init__(self, *args: object, **kwargs: object) -> None:
            self._polls_left = 0

        def record(self, stream: object = None) -> None:
            self._polls_left = clock.lag()

        def query(self) -> bool:
            if self._polls_left == 0:
                return True
            self._polls_left -= 1
            return False

        def synchronize(self) -> None:
            self._polls_left = 0

    class PatientStream(torch.cpu.Stream):
        """A forward pass that waits for the layers that are loaded for it is not over before they are."""

        def wait_event(self, event: LaggingEvent) -> None:
            event.synchronize()

    module = types.ModuleType("torch.cpu with lagging events")
    module.__dict__.update(vars(torch.cpu))
    module.Event = LaggingEvent  # type: ignore[attr-defined]
    module.current_stream = lambda device=None: PatientStream()  # type: ignore[attr-defined]
    return module


def install(clock: DmaClock) -> None:
    """Give the cache controllers of this process events that follow `clock`."""
    from sglang.srt.managers import cache_controller
    from sglang.srt.mem_cache.hybrid_cache import hybrid_cache_controller

    module = lagging_device_module(clock)
    for controller in (cache_controller, hybrid_cache_controller):
        controller.device_module = module


def install_in_server() -> None:
    """Let the copies of this scheduler take the polls that `COPY_POLLS` says for its pipeline stage."""
    polls = [int(part) for part in os.environ.get(COPY_POLLS, "").split(",") if part]
    if not polls:
        return
    from sglang.srt.distributed.parallel_state import get_pp_group

    clock = DmaClock()
    clock.lag = lambda: polls[get_pp_group().rank_in_group]
    install(clock)
