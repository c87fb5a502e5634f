"""Seals every unit and end-to-end test off from the machine: HOME, XDG, git's configuration, locale and clock.

The guards below `tests/regression` run in the test bed's Python, in an environment that their runner has
sealed already; nothing here may need more than pytest to load, and nothing is changed for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from patchstack.git import Repository

TESTS = Path(__file__).parent
NOW = "2026-11-21T02:00:00+00:00"
"""What `patchstack.store.now_utc` answers in a test."""

_REAL_HOME = Path.home()
_REAL_CONFIG = Path(os.environ.get("XDG_CONFIG_HOME") or _REAL_HOME / ".config")
_REAL_CACHE = Path(
    os.environ.get("PATCHSTACK_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or _REAL_HOME / ".cache") / "patchstack"
)

_GITCONFIG = """\
[user]
	name = Tester
	email = tester@example.com
[init]
	defaultBranch = main
[commit]
	gpgSign = false
"""


@pytest.fixture(autouse=True)
def sealed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The test's own HOME, or None where nothing is sealed (regression guards).

    A unit test cannot reach a package index. An end-to-end test keeps pip's configuration of this machine
    and its cache of downloads, so that a release is fetched once and not once a test.
    """
    kind = request.path.relative_to(TESTS).parts[0]
    if kind == "regression":
        return None
    return _seal(request.getfixturevalue("monkeypatch"), tmp_path_factory.mktemp("home"), kind)


@pytest.fixture(scope="module")
def sealed_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same for a fixture that a whole module of end-to-end tests shares: `sealed` comes after it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield _seal(monkeypatch, tmp_path_factory.mktemp("home"), "e2e")


def _seal(monkeypatch: pytest.MonkeyPatch, home: Path, kind: str) -> Path:
    (home / ".gitconfig").write_text(_GITCONFIG)
    # A workflow's own GITHUB_ and GH_ settings, its token among them, are no business of a test.
    dropped = ("GIT_", "GITHUB_", "GH_", "XDG_", "LC_", "PATCHSTACK_", *(() if kind == "e2e" else ("PIP_",)))
    for name in [name for name in os.environ if name.startswith(dropped)]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local" / "share"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_EDITOR": "false",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PATCHSTACK_NOW": NOW,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # A night makes an image where a builder is at hand; only tests of images have a use for it.
        "PATCHSTACK_IMAGE": "none",
    }.items():
        monkeypatch.setenv(name, value)
    if kind == "e2e":
        _keep_pip_configuration(home)
        monkeypatch.setenv("PATCHSTACK_CACHE", str(_REAL_CACHE))
    else:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PATCHSTACK_CACHE", str(home / "patchstack-cache"))
    return home


def _keep_pip_configuration(home: Path) -> None:
    for real, own in ((_REAL_CONFIG / "pip", home / ".config" / "pip"), (_REAL_HOME / ".pip", home / ".pip")):
        if real.is_dir():
            own.parent.mkdir(exist_ok=True)
            own.symlink_to(real)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty store in the test's own folder."""
    from patchstack.git import Repository

    return Repository.init(tmp_path / "store.git")
