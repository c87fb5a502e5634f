"""What `testbed.program` runs: ``python -m testbed.launcher server FLAGS`` or ``... router FLAGS``.

SGLang's server starts its scheduler and detokenizer by importing its main module again in a fresh process. So
what every one of them needs (the stand-ins, stacks on demand, faults around the engine) is done when this module
is imported, and the server itself is started under the guard below.
"""

from __future__ import annotations

import sys

import setproctitle

from testbed import engine_control, program
from testbed.standins import activate

program.enter()
activate()
if __name__ == "__mp_main__":  # a process that the server has spawned; its own has no engine
    engine_control.install()


def main(what: str, flags: list[str]) -> None:
    program.end_with_the_test()
    setproctitle.setproctitle(f"sglang::{what}")  # its children set theirs
    if what == "router":
        from sglang_router.launch_router import launch_router, parse_router_args

        launch_router(parse_router_args(flags))
        return
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args

    run_server(prepare_server_args(flags))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
