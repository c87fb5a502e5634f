"""Small wheels made on the spot, and package indexes on disk and on loopback."""

from __future__ import annotations

import stat
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from patchstack.upstream.wheel import Wheel, named

FILE = stat.S_IFREG | 0o644
EXECUTABLE = stat.S_IFREG | 0o755
FOLDER = stat.S_IFDIR | 0o755

File = tuple[str, bytes, int]
"""An entry of a wheel: name, bytes, mode."""

SOURCES: tuple[File, ...] = (
    ("sglang/", b"", FOLDER),
    ("sglang/__init__.py", b"import sglang.srt\n", FILE),
    ("sglang/run.sh", b"#!/bin/sh\n", EXECUTABLE),
    ("sglang/srt/engine.py", b"ENGINE = 1\n", stat.S_IFREG | 0o664),
    ("sglang/.github/workflow.yml", b"on: push\n", FILE),
    ("tools/tag.py", b"print('tag')\n", FILE),
)
NATIVE: File = ("sglang/srt/_core.cpython-311-x86_64-linux-gnu.so", b"\x7fELF core", EXECUTABLE)


def _write_wheel(
    folder: Path,
    files: Sequence[File] = (*SOURCES, NATIVE),
    *,
    version: str = "0.5.12.post1",
    tags: str = "py3-none-any",
    metadata: str = "",
) -> Path:
    info = f"sglang-{version}.dist-info"
    everything = [
        *files,
        (f"{info}/METADATA", f"Metadata-Version: 2.1\nName: sglang\nVersion: {version}\n{metadata}".encode(), FILE),
        (f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n".encode(), FILE),
        (f"{info}/RECORD", b"", FILE),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"sglang-{version}-{tags}.whl"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore", UserWarning)  # a name that is there twice, where a test wants one
        for name, data, mode in everything:
            entry = zipfile.ZipInfo(name, (2026, 11, 21, 0, 0, 0))
            entry.filename = name  # zipfile mends names (NUL, backslash) that a test wants as they are
            entry.create_system = 3
            entry.external_attr = mode << 16
            archive.writestr(entry, data)
    return path


def _as_wheel(path: Path) -> Wheel:
    name, version, native = named(path)
    return Wheel(path, native.sha256, native, name, version)


@pytest.fixture
def write_wheel() -> Callable[..., Path]:
    """``write_wheel(folder, files, version=, tags=)``: a wheel of ``files`` that pip accepts."""
    return _write_wheel


@pytest.fixture
def make_wheel(tmp_path: Path) -> Callable[..., Wheel]:
    """``make_wheel(files, version=, tags=)``: such a wheel, as `fetch_wheel` would give it."""
    return lambda *args, **options: _as_wheel(_write_wheel(tmp_path / "made", *args, **options))


@pytest.fixture
def wheel(make_wheel: Callable[..., Wheel]) -> Wheel:
    """Two modules, a script, a tool, a workflow and a compiled part."""
    return make_wheel()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is the whole world to pip."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@dataclass
class Loopback:
    """A package index on 127.0.0.1: each request for the wheel gets the next of ``answers``."""

    url: str = ""
    filename: str = ""
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    """The length that is announced, and the bytes that are sent."""


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    served = Loopback()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/simple/sglang/":
                body = f'<a href="/files/{served.filename}">{served.filename}</a>'.encode()
                self.answer("text/html", len(body), body)
            elif self.path.startswith("/files/") and served.answers:
                self.answer("application/zip", *served.answers.pop(0))
            else:
                self.send_error(404)

        def answer(self, kind: str, length: int, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    monkeypatch.setenv("PIP_RETRIES", "0")
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
