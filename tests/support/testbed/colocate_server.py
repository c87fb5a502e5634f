"""What a colocated trainer's engine talks to, as small as it can be: an HTTP server without SGLang behind it.

It answers what a trainer asks of an SGLang server (health, server info, text, weights, memory), to those who have its
key, and keeps what it was asked. In the test's own process it is the neighbour that a rendezvous file may lead to::

    with PeerServer(api_key="right", tp_size=2) as peer:
        ...
        assert peer.asked("/generate") == []

As a program, ``python -m testbed.colocate_server``, it is what an owner starts in the place of SGLang's: it takes
SGLang's command line, writes down how it was started, and lives until it is told to end, at most `LIFE_S`. A folder
(`FOLDER` in its environment) says what it is to do, and gets its notes::

    launches/PID.json      one for each start: arguments, environment, process
    requests/PORT.jsonl    one line for each request that had the right key
    die                    if there: say so on stderr and end with code 3, before anything is answered
    hold                   while there: be up, and not healthy (503)
    refuse-weights         while there: say no to new weights (400)
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LOOPBACK = "127.0.0.1"
FOLDER = "COLOCATE_BED_FOLDER"
LIFE_S = 300.0
DIED = "the model does not fit into this device"
DIED_CODE = 3
REFUSED = "these weights are of another model"


@dataclass(frozen=True)
class Launch:
    """How the program was started."""

    pid: int
    parent: int
    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    def flag(self, name: str) -> str | None:
        """The value of a flag, as ``--name value`` or ``--name=value``; None if it was not given."""
        return _flag(self.arguments, name)


@dataclass(frozen=True)
class Asked:
    """One request that had the right key."""

    method: str
    path: str
    body: Mapping[str, Any]


@dataclass
class Answers:
    """What a server says, and to whom."""

    api_key: str | None
    """None: it takes no notice of keys, as a server of somebody else's."""
    tp_size: int
    folder: Path | None = None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length)
        self._serve(json.loads(text) if text else {})

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self, body: dict[str, Any]) -> None:
        answers, path = self.server.answers, self.path.partition("?")[0]
        is_health = path.startswith("/health")
        if answers.api_key is not None and self.headers.get("Authorization") != f"Bearer {answers.api_key}":
            # SGLang lets everybody ask for /health, whatever the key.
            if not is_health:
                self._answer(401, {"error": "Unauthorized"})
                return
        else:
            self.server.note(Asked(self.command, path, body))
        if is_health:
            held = answers.folder is not None and (answers.folder / "hold").exists()
            self._answer(503 if held else 200, {})
        elif path in ("/server_info", "/get_server_info"):
            self._answer(200, {"tp_size": answers.tp_size, "version": "0"})
        elif path == "/generate":
            self._answer(200, {"text": f"answer to {body.get('text')}", "meta_info": {}})
        elif path.startswith("/update_weights"):
            ok = answers.folder is None or not (answers.folder / "refuse-weights").exists()
            self._answer(200 if ok else 400, {"success": ok, "message": "Success" if ok else REFUSED})
        else:
            self._answer(200, {"success": True, "message": "Success"})

    def _answer(self, status: int, body: Mapping[str, Any]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, answers: Answers) -> None:
        self.answers = answers
        self.noted: list[Asked] = []
        self._noting = threading.Lock()
        super().__init__((LOOPBACK, port), _Handler)

    def note(self, asked: Asked) -> None:
        with self._noting:
            self.noted.append(asked)
            if self.answers.folder is not None:
                path = self.answers.folder / "requests" / f"{self.server_address[1]}.jsonl"
                path.parent.mkdir(exist_ok=True)
                with path.open("a") as file:
                    file.write(json.dumps(asdict(asked)) + "\n")


class PeerServer:
    """Such a server in a thread of this process."""

    def __init__(self, api_key: str | None = None, tp_size: int = 2, port: int = 0) -> None:
        self._server = _Server(port, Answers(api_key, tp_size))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def asked(self, path: str) -> list[Asked]:
        """The requests for this path that had the right key."""
        return [asked for asked in self._server.noted if asked.path == path]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def read_launches(folder: Path) -> list[Launch]:
    """All starts of the program so far, by process id."""
    return [
        Launch(said["pid"], said["parent"], tuple(said["arguments"]), said["environment"])
        for said in (json.loads(path.read_text()) for path in sorted((folder / "launches").glob("*.json")))
    ]


def read_requests(folder: Path) -> list[Asked]:
    """What all of them were asked by those who had the right key."""
    return [
        Asked(**json.loads(line))
        for path in sorted((folder / "requests").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def main(arguments: Sequence[str]) -> None:
    folder = Path(os.environ[FOLDER])
    _note_launch(folder, arguments)
    if (folder / "die").exists():
        sys.stderr.write(DIED + "\n")
        sys.exit(DIED_CODE)
    end = threading.Timer(LIFE_S, os._exit, [0])
    end.daemon = True
    end.start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    port, tp_size = _flag(arguments, "--port"), _flag(arguments, "--tp-size")
    if port is None or tp_size is None:
        raise SystemExit(f"--port and --tp-size are needed: {arguments}")
    _Server(int(port), Answers(_flag(arguments, "--api-key"), int(tp_size), folder)).serve_forever()


def _flag(arguments: Sequence[str], name: str) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == name:
            return arguments[position + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def _note_launch(folder: Path, arguments: Sequence[str]) -> None:
    launch = Launch(os.getpid(), os.getppid(), tuple(arguments), dict(os.environ))
    (folder / "launches").mkdir(parents=True, exist_ok=True)
    path = folder / "launches" / f"{os.getpid()}.json"
    written = path.with_suffix(".writing")
    written.write_text(json.dumps(asdict(launch)))
    written.rename(path)


if __name__ == "__main__":
    main(sys.argv[1:])
