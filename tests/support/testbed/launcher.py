"""The first process of a program: a server of the tree under test, or the load balancer.

Two ways lead here. `serve` runs in a process forked from a warm one (`testbed.warm`), and then SGLang's own
children (schedulers, detokenizer) are forked from it as well: a whole server starts for the price of none of
its three imports of SGLang. And ``python -m testbed.launcher`` starts it as production does: a fresh
interpreter, whose children are fresh interpreters that import this module again. That is why what each of them
needs (the stand-ins, stacks on demand, faults around the engine) is done in the import, and the server is
started under the guard below.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed import engine_control, hicache_events, program
from testbed.child import Link
from testbed.standins import activate


def serve(_link: Link, arguments: Sequence[str], settings: Mapping[str, str]) -> None:
    """Run a program in a forked process; ``settings`` are the bed's own environment variables."""
    os.environ.update(settings)
    program.enter()
    os.register_at_fork(after_in_child=_enter_as_child)
    multiprocessing.set_start_method = _fork_whatever_is_asked_for
    try:
        main(*arguments)
    except Exception:
        traceback.print_exc()  # as an interpreter does that ends so
        raise


def main(what: str, *flags: str) -> None:
    import setproctitle

    setproctitle.setproctitle(f"sglang::{what}")  # its children set theirs
    if what == "router":
        from sglang_router.launch_router import launch_router, parse_router_args

        launch_router(parse_router_args(list(flags)))
        return
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args

    run_server(prepare_server_args(list(flags)))


def _enter_as_child() -> None:
    """In a scheduler, detokenizer, ...: only they may load the Mooncake engine, for it starts threads."""
    program.enter()
    engine_control.install()
    hicache_events.install_in_server()


def _fork_whatever_is_asked_for(_method: str | None, force: bool = False) -> None:
    """SGLang asks for ``spawn``, right before it starts its processes."""
    _require_no_threads()
    multiprocessing.context._default_context.set_start_method("fork", force)


def _require_no_threads() -> None:
    """A fork has only the thread that forks; what others held stays locked in it."""
    running = {thread.name for thread in threading.enumerate()} - {"MainThread", "testbed-link"}
    tasks = len(list(Path("/proc/self/task").iterdir()))
    if running or tasks > threading.active_count():
        raise RuntimeError(f"{tasks} threads run ({', '.join(running) or 'none of Python'}): start this server fresh")


if __name__ in ("__main__", "__mp_main__"):
    program.enter()
    activate()
if __name__ == "__mp_main__":
    engine_control.install()
    hicache_events.install_in_server()
if __name__ == "__main__":
    program.end_with_the_test()
    main(*sys.argv[1:])
