"""A registry of this machine alone: ``docker-registry`` on loopback, for as long as it is needed.

Its data outlive it in their folder, and so does the log of its last time. It listens on a port that the kernel picks
and that it writes into its log: one picked beforehand could be another's by then.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from patchstack import process
from patchstack.errors import ImageError, MachineError
from patchstack.image.names import Place

PROGRAM = "docker-registry"
REPOSITORY = "sglang"
"""How the one repository in it is called."""
LOG = "registry.log"
LOOPBACK = "127.0.0.1"
START_LIMIT_S = 60.0
COLLECT_LIMIT_S = 600.0

_POLL_S = 0.05
_LISTENING = "listening on "
_TAIL_LINES = 8


def find_program() -> Path | None:
    """The registry's program; None where it is not installed."""
    found = shutil.which(PROGRAM)
    return Path(found) if found else None


@contextmanager
def serve(folder: Path, *, port: int = 0) -> Iterator[Place]:
    """Serve the registry in ``folder`` until the end of the block; ``port`` 0: any that is free.

    It ends with us, also when we are killed. Raises `MachineError` where the program is not installed, and
    `ImageError` when it does not come up.
    """
    with run(folder, configuration(folder, port)) as host:
        yield Place(host, REPOSITORY)


def configuration(folder: Path, port: int = 0) -> dict[str, object]:
    """What the registry in ``folder`` is configured with (https://distribution.github.io/distribution/about/configuration/)."""
    return {
        "version": "0.1",
        "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder.resolve())}, "delete": {"enabled": True}},
        "http": {"addr": f"{LOOPBACK}:{port}"},
    }


@contextmanager
def run(folder: Path, configured: Mapping[str, object]) -> Iterator[str]:
    """Run a registry so configured; the block is given its host and port once it answers."""
    program = _program()
    _make(folder)
    with _configured(configured) as path:
        # Not in ``folder`` while it is written: a verb that only reads may start a second registry there meanwhile.
        log = path.with_name(LOG)
        try:
            with process.beside([str(program), "serve", str(path)], env=_environment(), log=log) as child:
                yield _wait_until_up(child, log)
        finally:
            if log.exists():
                shutil.move(log, folder / LOG)


def collect_garbage(folder: Path) -> None:
    """Remove from the registry in ``folder`` what no manifest names any more; nobody may push to it meanwhile."""
    program = _program()
    if not (folder / "docker").is_dir():
        return  # the program takes a registry that nothing was pushed to yet for a broken one
    with _configured(configuration(folder)) as path:
        argv = [str(program), "garbage-collect", str(path)]
        process.run(argv, env=_environment(), timeout_s=COLLECT_LIMIT_S)


def _program() -> Path:
    program = find_program()
    if program is None:
        raise MachineError(f"{PROGRAM} is not installed: the local registry needs it (apt-get install {PROGRAM})")
    return program


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"the local registry cannot be written to: {error}; give it another folder") from error


@contextmanager
def _configured(configured: Mapping[str, object]) -> Iterator[Path]:
    """The configuration as a file of its own, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="patchstack-registry-") as scratch:
        path = Path(scratch) / "config.yml"
        path.write_text(json.dumps(configured, indent=1))  # JSON is YAML, and quotes any path rightly
        yield path


def _environment() -> dict[str, str]:
    """Nothing of ours: a ``REGISTRY_`` variable overrides a setting, and podman's ``REGISTRY_AUTH_FILE`` is one."""
    return {"PATH": os.environ.get("PATH", os.defpath)}


def _wait_until_up(child: process.Beside, log: Path) -> str:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        host = _listening_on(log)
        if host is not None and _answers(host):
            return host
        code = child.ended_within(_POLL_S)
        if code is not None:
            raise ImageError(f"the local registry did not start: {PROGRAM} ended with {code}:\n{_said(log)}")
        if time.monotonic() > deadline:
            raise ImageError(f"the local registry did not answer within {START_LIMIT_S:.0f} s:\n{_said(log)}")


def _listening_on(log: Path) -> str | None:
    """The address that it has bound, once its log names it."""
    for line in log.read_text(errors="replace").splitlines():
        message = _message(line)
        if message.startswith(_LISTENING):
            return message.removeprefix(_LISTENING).partition(",")[0]
    return None


def _message(line: str) -> str:
    """What a line of the log says; the line itself where it is no record, or not yet whole."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    return str(record.get("msg", line)) if isinstance(record, dict) else line


def _said(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(map(_message, lines[-_TAIL_LINES:])) or "(it said nothing)"


def _answers(host: str) -> bool:
    """Whether a registry answers there; one that asks for a login does, too."""
    connection = http.client.HTTPConnection(host, timeout=5)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status in {200, 401}
    except OSError:
        return False
    finally:
        connection.close()
