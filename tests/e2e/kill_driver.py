"""`patchstack`, in processes that are killed at a moment that was chosen before; their guards are said to be green.

A line of JSON on standard input begins one (`Order`); its process id is printed, and its exit code once it has ended.
Each is a fork of this process, which has imported everything and done nothing: that saves most of a second a night.

A moment is right before or right after the process starts a program, makes a folder or moves a file to its place.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

LIVES = -1


@dataclass(frozen=True)
class Order:
    cwd: str
    argv: list[str]
    env: dict[str, str]
    number: int
    """The moment of its death, from 0; `LIVES`: it lives."""
    who: str
    """``process``: it alone is killed; ``group``: all that it started, too."""
    log: str
    """Gets a line a moment; ``.out`` and ``.err`` beside it are what it prints."""


def serve() -> None:
    """Read orders until the end of standard input."""
    from tests.unit.verbs.night_bench import green

    from patchstack import cli
    from patchstack.verbs import rounds

    rounds.run_guards = green  # type: ignore[assignment]
    for line in sys.stdin:
        order = Order(**json.loads(line))
        child = os.fork()
        if child == 0:
            become(order, cli.main)
        say(child)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def become(order: Order, main: Callable[[], NoReturn]) -> NoReturn:
    code = 70
    try:
        os.setsid()
        os.chdir(order.cwd)
        os.environ.update(order.env)
        for stream, place in ((0, os.devnull), (1, f"{order.log}.out"), (2, f"{order.log}.err")):
            os.dup2(os.open(place, os.O_RDWR | os.O_CREAT, 0o644), stream)
        watch(order)
        sys.argv = ["patchstack", *order.argv]
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def watch(order: Order) -> None:
    """Count the moments, and die at the one that was ordered."""
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    passed = 0

    def moment(what: str) -> None:
        nonlocal passed
        os.write(log, f"{what}\n".encode())
        if passed == order.number:
            if order.who == "group":
                os.killpg(os.getpgid(0), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def watched(done: Callable[..., Any], said: Callable[..., str]) -> Callable[..., Any]:
        def do(*args: Any, **kwargs: Any) -> Any:
            what = said(*args)
            moment(f"before {what}")
            result = done(*args, **kwargs)
            moment(f"after {what}")
            return result

        return do

    for name in ("rename", "replace"):
        setattr(os, name, watched(getattr(os, name), lambda here, there, *_: f"moving {Path(there).name}"))
    os.mkdir = watched(os.mkdir, lambda path, *_: f"making {Path(path).name}")
    subprocess.Popen.__init__ = watched(subprocess.Popen.__init__, program)  # type: ignore[method-assign]


def program(_: object, argv: list[str], *__: object) -> str:
    words = [str(word) for word in argv]
    words = words[words.index("git") :] if "git" in words else words
    return f"starting {' '.join([word for word in words if not word.startswith('-') and '=' not in word][:3])}"


if __name__ == "__main__":
    serve()
