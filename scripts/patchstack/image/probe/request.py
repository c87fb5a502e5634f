"""Starts a real server on a model of a few kilobytes, without a GPU, and asks it for a few tokens.

In: ``{"make_model": source of a module with make_tiny_model(folder), "flags": […], "environment": {…}, "tokens": 8,
"prompt": [ids], "limit_s": 300}``. Out: ``{"stage": "model" | "start" | "request" | "answered", "ended": null, "late":
false, "status": 200, "tokens": [ids], "words": "", "noise": ""}``. ``stage`` is how far it came, ``ended`` the status
of a process that ended by itself, ``words`` what an answer said that is none, ``noise`` the end of what was printed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

POLL_S = 0.5
MAKE = "import sys, making; from pathlib import Path; making.make_tiny_model(Path(sys.argv[1]))"


class Ended(Exception):
    """A process ended where it should not."""


class Late(Exception):
    pass


@dataclass
class Found:
    stage: str = "model"
    ended: int | None = None
    late: bool = False
    status: int = 0
    tokens: list[int] = field(default_factory=list)
    words: str = ""
    noise: str = ""


class Clock:
    def __init__(self, limit_s: float) -> None:
        self._ends_s = time.monotonic() + limit_s

    def left_s(self) -> float:
        seconds = self._ends_s - time.monotonic()
        if seconds <= 0:
            raise Late
        return seconds


def main() -> None:
    asked = json.load(sys.stdin)
    answer = os.dup(1)
    os.dup2(2, 1)
    found, clock = Found(), Clock(asked["limit_s"])
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as noise:
        try:
            model = make_model(Path(name), asked, noise, clock)
            found.stage = "start"
            serve_and_ask(model, asked, noise, clock, found)
        except Late:
            found.late = True
        except Ended as ended:
            found.ended = ended.args[0]
        end = noise.seek(0, os.SEEK_END)
        noise.seek(max(0, end - 3000))
        found.noise = noise.read(3000).decode(errors="replace")
    with os.fdopen(answer, "w") as out:
        json.dump(asdict(found), out)


@contextlib.contextmanager
def started(
    argv: list[str], asked: dict[str, Any], noise: IO[bytes], cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, which is ended at the end of the block with all that it started."""
    environment = {**asked["environment"], **os.environ}
    child = subprocess.Popen(
        [sys.executable, *argv],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=noise,
        stderr=noise,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, 9)
        child.wait()


def make_model(folder: Path, asked: dict[str, Any], noise: IO[bytes], clock: Clock) -> Path:
    (folder / "making.py").write_text(asked["make_model"])
    with started(["-c", MAKE, str(folder / "model")], asked, noise, folder) as child:
        try:
            child.wait(clock.left_s())
        except subprocess.TimeoutExpired:
            raise Late from None
        if child.returncode != 0:
            raise Ended(child.returncode)
    return folder / "model"


def serve_and_ask(model: Path, asked: dict[str, Any], noise: IO[bytes], clock: Clock, found: Found) -> None:
    port = free_port()
    where = ["--model-path", str(model), "--host", "127.0.0.1", "--port", str(port)]
    with started(["-m", "sglang.launch_server", *where, *asked["flags"]], asked, noise) as server:
        while call(port, "GET", "/health", None, POLL_S * 10)[0] != 200:
            require_running(server, min(POLL_S, clock.left_s()))
        found.stage = "request"
        sampling = {"temperature": 0, "max_new_tokens": asked["tokens"], "ignore_eos": True}
        body = {"input_ids": asked["prompt"], "sampling_params": sampling}
        found.status, words = call(port, "POST", "/generate", body, clock.left_s())
        if found.status == 0:
            clock.left_s()
            require_running(server, POLL_S)
        tokens = tokens_in(words) if found.status == 200 else None
        if tokens is None:
            found.words = words[:500]
        else:
            found.stage, found.tokens = "answered", tokens


def require_running(server: subprocess.Popen[bytes], for_s: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        raise Ended(server.wait(for_s))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def call(port: int, method: str, path: str, body: object, limit_s: float) -> tuple[int, str]:
    """Status and words of the answer; 0 where there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit_s)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read(100_000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def tokens_in(words: str) -> list[int] | None:
    try:
        return [int(token) for token in json.loads(words)["output_ids"]]
    except (ValueError, KeyError, TypeError):
        return None


if __name__ == "__main__":
    main()
