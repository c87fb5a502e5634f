"""Runs pytest by the image's own Python, and hands out what it writes down while it runs.

In: ``{"argv": […], "environment": {…}, "support": "…", "harness": "…", "ours": […], "record": "…", "stacks": "…",
"most_bytes": {"record": …, "stacks": …, "output": …}, "limit_s": 600}``. Out, one JSON object a line:
``{"record": "a line of the record"}`` as it comes, at the end ``{"stacks": "NAME", "base64": "…"}`` for each file, and
at last ``{"ended": 1, "late": false}``. What pytest prints goes to the error output, its beginning and its end where it
is much. Below ``harness`` is one folder a package: those of ``ours`` are put before what the image has, the others
only where it has none, for what is tested is the image.

In its container it is the first process: who is left without a parent is its child, and what it ends with ends all.
"""

from __future__ import annotations

import base64
import collections
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

Say = Callable[[dict[str, object]], None]

LOOK_EVERY_S = 0.5
CHUNK_BYTES = 1 << 16


def environment(asked: dict[str, Any]) -> dict[str, str]:
    """What pytest sees: the image's own, what was asked for, and where the packages are."""
    path = [asked["support"]]
    for package in sorted(Path(asked["harness"]).iterdir()):
        if package.name in asked["ours"] or importlib.util.find_spec(package.name) is None:
            path.append(str(package))
    seen = {**os.environ, **asked["environment"], "PYTHONPATH": os.pathsep.join(path)}
    found = importlib.util.find_spec("sglang")
    if found is not None and found.origin:
        seen["PATCHSTACK_TREE"] = str(Path(found.origin).parents[1])
    Path(seen["HOME"]).mkdir(parents=True, exist_ok=True)
    return seen


def write(to: int, data: bytes) -> None:
    while data:
        data = data[os.write(to, data) :]


class Output:
    """The beginning of what is printed goes out at once, the end when all is said, what is between nowhere."""

    def __init__(self, stream: IO[bytes], most_bytes: int) -> None:
        self.stream, self.left, self.most_tail = stream, most_bytes // 2, most_bytes // 2
        self.tail: collections.deque[bytes] = collections.deque()
        self.held = self.dropped = 0
        self.thread = threading.Thread(target=self.pump, daemon=True)
        self.thread.start()

    def pump(self) -> None:
        while chunk := os.read(self.stream.fileno(), CHUNK_BYTES):
            head, rest = chunk[: self.left], chunk[self.left :]
            self.left -= len(head)
            write(2, head)
            self.tail.append(rest)
            self.held += len(rest)
            while self.held > self.most_tail:
                gone = len(self.tail.popleft())
                self.held -= gone
                self.dropped += gone

    def finish(self) -> None:
        # What a child of pytest's has left may hold the pipe open, and go on printing.
        self.thread.join(2.0)
        if self.dropped:
            write(2, b"\n... %d bytes are left out ...\n" % self.dropped)
        write(2, b"".join(tuple(self.tail)))


class Record:
    """The record's lines as they come; one that is no line where there are more than anybody writes."""

    def __init__(self, path: Path, most_bytes: int, say: Say) -> None:
        self.path, self.left, self.say = path, most_bytes, say
        self.at, self.part = 0, b""

    def look(self) -> None:
        if self.left < 0:
            return
        try:
            with self.path.open("rb") as file:
                file.seek(self.at)
                found = file.read(self.left + 1)
        except OSError:
            return  # nobody has written yet, or something else is in its place
        self.at += len(found)
        self.left -= len(found)
        *lines, self.part = (self.part + found).split(b"\n")
        for line in lines:
            self.say({"record": line.decode(errors="replace")})
        if self.left < 0:
            self.say({"record": "{}"})

    def finish(self) -> None:
        self.look()
        if self.part and self.left >= 0:
            self.say({"record": self.part.decode(errors="replace")})


def stacks(folder: Path, most_bytes: int, say: Say) -> None:
    """Plain files, by name; how many of them count is decided outside."""
    paths = sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []
    for path in paths:
        try:
            # Whoever ran here may have left anything: no link is followed, and nothing is waited for.
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(file, "rb") as stream:
                text = stream.read(most_bytes)
        except OSError:
            continue
        if text:
            most_bytes -= len(text)
            say({"stacks": path.name, "base64": base64.b64encode(text).decode()})


def ended(child: int) -> int | None:
    """The child's return code once it has one; whoever else has ended is buried, too."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return None
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def main() -> None:
    asked = json.load(sys.stdin)
    answer = os.dup(1)
    os.dup2(2, 1)
    most = asked["most_bytes"]
    ends_s = time.monotonic() + asked["limit_s"]

    def say(entry: dict[str, object]) -> None:
        write(answer, json.dumps(entry).encode() + b"\n")

    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    child = subprocess.Popen(
        [sys.executable, *asked["argv"]],
        env=environment(asked),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert child.stdout is not None
    output = Output(child.stdout, most["output"])
    record = Record(Path(asked["record"]), most["record"], say)
    late = False
    while (code := ended(child.pid)) is None:
        record.look()
        if not late and time.monotonic() > ends_s:
            late = True
            os.killpg(child.pid, signal.SIGKILL)
        if select.select([woken], [], [], LOOK_EVERY_S)[0]:
            os.read(woken, CHUNK_BYTES)
    record.finish()
    stacks(Path(asked["stacks"]), most["stacks"], say)
    say({"ended": code, "late": late})
    output.finish()
    # Nobody waits for what is left: with the first process of a container they all end.
    os._exit(0)


if __name__ == "__main__":
    main()
