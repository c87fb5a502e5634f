"""How the registry of this machine is started and ended; a shell script takes its place.

The real one is started in tests/e2e/test_image_registry.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.image_registry import Reply, Web

from patchstack import process
from patchstack.errors import ImageError, MachineError
from patchstack.image import embedded
from patchstack.image.names import Place

Install = Callable[[str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a script as the only ``docker-registry``; it starts in a folder, and is called with its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def install(script: str) -> None:
        path = folder / "docker-registry"
        path.write_text(f"#!/bin/sh\ncd {folder}\n{script}\n")
        path.chmod(0o755)

    return install


def says(message: str) -> str:
    return f"echo '{json.dumps({'level': 'info', 'msg': message})}'"


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.find_program() is None
    for act in (embedded.serve(tmp_path / "registry").__enter__, lambda: embedded.collect_garbage(tmp_path)):
        with pytest.raises(MachineError) as caught:
            act()
        assert str(caught.value) == (
            "docker-registry is not installed: the local registry needs it (apt-get install docker-registry)"
        )
    assert not (tmp_path / "registry").exists()


def test_it_serves_where_it_says_that_it_listens(tmp_path: Path, program: Install) -> None:
    """And is asked there, before anybody else is told of it."""
    with Web(lambda _: Reply()) as web:
        program(f"echo $$ > pid; {says('redis not configured')}; {says(f'listening on {web.host}')}; exec sleep 60")
        with embedded.serve(tmp_path / "registry") as place:
            assert place == Place(web.host, "sglang")
            assert [asked.target for asked in web.asked] == ["/v2/"]
            pid = int((tmp_path / "bin" / "pid").read_text())
            assert not gone(pid)
        assert gone(pid)


def test_it_is_ended_when_the_block_fails(tmp_path: Path, program: Install) -> None:
    with Web(lambda _: Reply(401)) as web:
        program(f"echo $$ > pid; {says(f'listening on {web.host}')}; exec sleep 60")
        block = embedded.serve(tmp_path / "registry")
        block.__enter__()
        pid = int((tmp_path / "bin" / "pid").read_text())
        assert not block.__exit__(KeyError, KeyError(), None)
        assert gone(pid)


def test_it_has_nothing_of_our_environment(tmp_path: Path, program: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman's REGISTRY_AUTH_FILE would be a setting of the registry, and one that it does not start with."""
    for name in ("REGISTRY_AUTH_FILE", "PATCHSTACK_REGISTRY_PASSWORD", "GITHUB_TOKEN", "REGISTRY_HTTP_ADDR"):
        monkeypatch.setenv(name, "canary")
    with Web(lambda _: Reply()) as web:
        program(f"env > environment; {says(f'listening on {web.host}')}; exec sleep 60")
        with embedded.serve(tmp_path / "registry"):
            variables = (tmp_path / "bin" / "environment").read_text().splitlines()
    assert {line.partition("=")[0] for line in variables} <= {"PATH", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}


def test_one_that_ends_is_told_with_its_last_words(tmp_path: Path, program: Install) -> None:
    program(f"{says('bind: address already in use')}; echo panic; exit 3")
    with pytest.raises(ImageError) as caught:
        embedded.serve(tmp_path / "registry").__enter__()
    assert str(caught.value) == (
        "the local registry did not start: docker-registry ended with 3:\nbind: address already in use\npanic"
    )
    program("exit 0")
    with pytest.raises(ImageError, match=r"ended with 0:\n\(it said nothing\)"):
        embedded.serve(tmp_path / "registry").__enter__()


@pytest.mark.parametrize("listens", [False, True], ids=["says nothing", "does not answer"])
def test_one_that_does_not_come_up_is_ended(
    tmp_path: Path, program: Install, monkeypatch: pytest.MonkeyPatch, listens: bool
) -> None:
    pids: list[int] = []
    beside = process.beside

    @contextmanager
    def watched(*arguments: Any, **options: Any) -> Iterator[process.Beside]:
        with beside(*arguments, **options) as child:
            pids.append(child.pid)
            yield child

    monkeypatch.setattr(process, "beside", watched)
    monkeypatch.setattr(embedded, "START_LIMIT_S", 0.3)
    with Web(lambda _: Reply(500)) as web:
        program(f"{says(f'listening on {web.host}' if listens else 'starting')}; exec sleep 60")
        with pytest.raises(ImageError, match="the local registry did not answer within 0 s:\n"):
            embedded.serve(tmp_path / "registry").__enter__()
    assert [gone(pid) for pid in pids] == [True]


def test_a_folder_that_cannot_be_made(tmp_path: Path, program: Install) -> None:
    program("exit 0")
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"the local registry cannot be written to: .*; give it another folder"):
        embedded.serve(tmp_path / "file" / "registry").__enter__()


def test_what_it_is_configured_with(tmp_path: Path) -> None:
    configured = embedded.configuration(tmp_path / "a: b", 5000)
    assert configured["http"] == {"addr": "127.0.0.1:5000"}
    assert configured["storage"] == {
        "filesystem": {"rootdirectory": str(tmp_path / "a: b")},
        "delete": {"enabled": True},
    }


def test_its_log_is_kept_and_its_configuration_is_not(tmp_path: Path, program: Install) -> None:
    with Web(lambda _: Reply()) as web:
        program(f"cp $2 config; echo $2 > path; {says(f'listening on {web.host}')}; exec sleep 60")
        with embedded.serve(tmp_path / "registry"), embedded.serve(tmp_path / "registry"):
            assert list((tmp_path / "registry").iterdir()) == []
    assert [file.name for file in (tmp_path / "registry").iterdir()] == ["registry.log"]
    assert "listening on" in (tmp_path / "registry" / "registry.log").read_text()
    assert json.loads((tmp_path / "bin" / "config").read_text()) == embedded.configuration(tmp_path / "registry")
    assert not Path((tmp_path / "bin" / "path").read_text().strip()).parent.exists()


def test_there_is_no_garbage_where_nothing_was_pushed(tmp_path: Path, program: Install) -> None:
    program("echo $1 > ran")
    embedded.collect_garbage(tmp_path / "registry")
    assert not (tmp_path / "bin" / "ran").exists()
    (tmp_path / "registry" / "docker").mkdir(parents=True)
    embedded.collect_garbage(tmp_path / "registry")
    assert (tmp_path / "bin" / "ran").read_text() == "garbage-collect\n"
