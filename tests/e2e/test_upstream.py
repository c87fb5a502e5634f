"""The real release from the package index: imported alike everywhere, checked, laid out, refused when it is not whole.

The wheel (8 MB) is fetched once into this machine's cache; nothing else here needs the network.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import shutil
import socket
import stat
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchstack import process, store
from patchstack.errors import ConfigError, RemoteError
from patchstack.git import Repository
from patchstack.model import Base
from patchstack.upstream.importer import import_ref, import_release
from patchstack.upstream.lay import materialise
from patchstack.upstream.provider import resolve_base
from patchstack.upstream.releases import fetch_wheel
from patchstack.upstream.wheel import Wheel

RELEASE = "sglang==0.5.12.post1"
TREE = "c65aba1567fe6cef93554f72c44493b99b01029b"
COMMIT = "45969e4bdabd71d93d689052734e40dc9df4d52c"

IMPORT_ELSEWHERE = """
import json, os, sys
from pathlib import Path
from patchstack.git import Repository
from patchstack.upstream.importer import import_release
from patchstack.upstream.releases import fetch_wheel
os.umask(int(sys.argv[1], 8))
wheel = fetch_wheel("sglang==0.5.12.post1", Path(sys.argv[2]), offline=True)
base = import_release(Repository.init(Path("store.git")), wheel)
print(json.dumps([base.commit, base.tree, sys.getfilesystemencoding()]))
"""


@dataclass(frozen=True)
class Source:
    pypi: str | None = None
    git: str | None = None
    ref: str | None = None
    tree: str | None = None


@pytest.fixture
def release() -> Wheel:
    return fetch_wheel(RELEASE, store.cache_folder())


@pytest.fixture
def base(repository: Repository, release: Wheel) -> Base:
    return import_release(repository, release)


@pytest.fixture
def own_cache(tmp_path: Path, release: Wheel) -> Path:
    """A cache of the test's own that holds the release."""
    wheels = tmp_path / "cache" / "wheels"
    shutil.copytree(release.path.parent, wheels / release.sha256)
    shutil.copytree(release.path.parent.parent / "records", wheels / "records")
    return tmp_path / "cache"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> str:
    """pip knows one index only, on a port of loopback where nobody listens; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/simple"
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("PIP_RETRIES", "0")
    return url


def test_the_release_is_the_known_tree(repository: Repository, base: Base) -> None:
    assert (base.name, base.commit, base.tree) == (RELEASE, COMMIT, TREE)
    entries = repository.list_tree(base.tree)
    assert len(entries) == 2643
    assert {entry.path.split("/")[1] for entry in entries} == {"sglang", "tools"}
    assert {entry.mode for entry in entries} == {"100644", "100755"}
    assert not [entry.path for entry in entries if entry.path.endswith(".so") or ".dist-info/" in entry.path]
    modes = {entry.path: entry.mode for entry in entries}
    assert modes["python/sglang/srt/managers/schedule_batch.py"] == "100755"
    assert modes["python/sglang/srt/managers/scheduler.py"] == "100644"


def test_two_folders_under_other_settings_give_one_commit(tmp_path: Path, sealed: Path, own_cache: Path) -> None:
    child = [sys.executable, "-c", IMPORT_ELSEWHERE]
    plain, other, home = tmp_path / "plain", tmp_path / "other", tmp_path / "other-home"
    for folder in (plain, other, home):
        folder.mkdir()
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Somebody\n[core]\n\tautocrlf = true\n\tattributesFile = ~/attributes\n\tfileMode = false\n"
        "[init]\n\tdefaultObjectFormat = sha256\n[i18n]\n\tcommitEncoding = latin1\n[commit]\n\tgpgSign = true\n"
    )
    (home / "attributes").write_text("* text eol=crlf ident\n*.py working-tree-encoding=UTF-16\n")
    strange = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "POSIX",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "GIT_AUTHOR_NAME": "Somebody",
        "GIT_AUTHOR_DATE": "@1700000000 +0530",
        "GIT_COMMITTER_DATE": "@1700000000 +0530",
        "GIT_DIR": str(home / "elsewhere.git"),
        "GIT_DEFAULT_HASH": "sha256",
    }

    ours = process.run([*child, "022", str(own_cache)], cwd=plain).stdout
    theirs = process.run([*child, "077", str(own_cache)], cwd=other, env=strange).stdout

    assert json.loads(ours) == [COMMIT, TREE, "utf-8"]
    assert json.loads(theirs) == [COMMIT, TREE, "ascii"]


def test_once_cached_nothing_comes_from_the_network(
    repository: Repository, own_cache: Path, release: Wheel, no_network: str
) -> None:
    base = resolve_base(Source(pypi=RELEASE, tree=TREE), repository, own_cache)
    assert (base.commit, base.natives) == (COMMIT, (release.native,))


def test_an_index_that_cannot_be_reached_is_said_plainly(
    repository: Repository, tmp_path: Path, no_network: str
) -> None:
    with pytest.raises(RemoteError) as caught:
        resolve_base(Source(pypi=RELEASE), repository, tmp_path / "empty")
    assert str(caught.value).startswith(
        f"{RELEASE} is not in the cache, and the package index cannot be reached: {no_network}/sglang/ ("
    )
    assert "Connection refused" in str(caught.value)
    assert caught.value.exit_code == 8
    assert repository.refs() == {}


def _cut(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)


def _scramble(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        data = stream.read(256)
        stream.seek(-256, os.SEEK_CUR)
        stream.write(bytes(byte ^ 0xFF for byte in data))


@pytest.mark.parametrize("harm", [_cut, _scramble], ids=["cut short", "scrambled"])
def test_a_damaged_release_is_fetched_again(
    own_cache: Path, release: Wheel, no_network: str, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None]
) -> None:
    place = own_cache / "wheels" / release.sha256 / release.path.name
    harm(place)
    with pytest.raises(RemoteError, match="cannot be reached"):
        fetch_wheel(RELEASE, own_cache)
    assert not place.exists()

    place.parent.mkdir(exist_ok=True)
    shutil.copy(release.path, place)
    harm(place)
    monkeypatch.setenv("PIP_FIND_LINKS", str(release.path.parent))
    assert fetch_wheel(RELEASE, own_cache).path == place
    assert hashlib.sha256(place.read_bytes()).hexdigest() == release.sha256


def test_a_damaged_index_is_refused(
    tmp_path: Path, release: Wheel, no_network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    _scramble(Path(shutil.copy(release.path, index)))
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(RemoteError, match="arrived damaged twice"):
        fetch_wheel(RELEASE, tmp_path / "empty")
    assert list((tmp_path / "empty").rglob("*.whl")) == []


def test_another_tree_than_the_pinned_one_is_refused(repository: Repository) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_base(Source(pypi=RELEASE, tree="0" * 40), repository, store.cache_folder(), where="lanes.x.upstream")
    assert f"lanes.x.upstream.tree: {RELEASE} has tree {TREE}, and {'0' * 40} is pinned" in str(caught.value)


def _with_entry(release: Wheel, folder: Path, name: str, data: bytes, mode: int) -> Wheel:
    path = Path(shutil.copy(release.path, folder))
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo(name)
        entry.create_system = 3
        entry.external_attr = mode << 16
        archive.writestr(entry, data)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(path, digest, release.native, release.name, release.version)


def test_an_executable_entry_stays_executable(repository: Repository, release: Wheel, tmp_path: Path) -> None:
    wheel = _with_entry(release, tmp_path, "sglang/run.sh", b"#!/bin/sh\n", stat.S_IFREG | 0o755)
    base = import_release(repository, wheel)
    (change,) = repository.changes(import_release(repository, release).tree, base.tree)
    assert (change.path, change.status, change.new_mode) == ("python/sglang/run.sh", "A", "100755")


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("../../evil.py", stat.S_IFREG, "'../../evil.py' leads out of its folder"),
        ("/etc/evil.py", stat.S_IFREG, "'/etc/evil.py' is an absolute path"),
        ("sglang/evil.py", stat.S_IFLNK, "'sglang/evil.py' is a symbolic link"),
        ("sglang/.git/config", stat.S_IFREG, "leads into a .git folder"),
        pytest.param(
            "sglang/version.py",
            stat.S_IFREG,
            "'sglang/version.py' is there twice",
            marks=pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning"),
        ),
    ],
)
def test_a_release_with_a_planted_entry_is_refused(
    repository: Repository, release: Wheel, tmp_path: Path, name: str, kind: int, problem: str
) -> None:
    with pytest.raises(RemoteError) as caught:
        import_release(repository, _with_entry(release, tmp_path, name, b"../../secret", kind | 0o644))
    assert problem in str(caught.value)
    assert repository.refs() == {}


def test_both_providers_give_the_same_paths(repository: Repository, base: Base, tmp_path: Path) -> None:
    """Upstream's repository, as far as this machine has it: the release's sources, and what a wheel never holds."""
    upstream = Repository.init(tmp_path / "upstream.git")
    upstream.fetch(str(repository.folder), [f"{base.commit}:refs/heads/release"])
    extra = [("100644", upstream.write_blob(b"x\n"), path) for path in (".github/workflows/ci.yml", "test/test_a.py")]
    commit = upstream.commit(upstream.edit_tree(base.tree, extra), (), "0.5.12.post1")
    upstream.set_refs({"refs/tags/v0.5.12.post1": commit})

    other = import_ref(repository, str(upstream.folder), "v0.5.12.post1")

    assert other.version == base.version
    assert repository.parents(other.commit) == (commit,)
    (change,) = repository.changes(base.tree, other.tree)
    assert (change.path, change.status) == ("test/test_a.py", "A")


def test_what_is_laid_on_disk_is_the_release(
    repository: Repository, base: Base, release: Wheel, tmp_path: Path
) -> None:
    """Held against the digests that the release's own RECORD lists."""
    folder = tmp_path / "tree"
    assert materialise(repository, base.tree, folder, natives=release).written
    assert not materialise(repository, base.tree, folder, natives=release).written

    python = folder / "python"
    rows = csv.reader((python / "sglang-0.5.12.post1.dist-info" / "RECORD").read_text().splitlines())
    recorded = {path: digest for path, digest, _ in rows if digest}
    laid = {
        path.relative_to(python).as_posix(): "sha256="
        + base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
        for path in python.rglob("*")
        if path.is_file() and path.name != "RECORD"
    }
    assert laid == recorded
    assert [path.name for path in folder.iterdir()] == ["python"]

    asked = "import importlib.metadata; print(importlib.metadata.version('sglang'))"
    said = process.run([sys.executable, "-c", asked], env={**os.environ, "PYTHONPATH": str(python)}, cwd=tmp_path)
    assert said.stdout == "0.5.12.post1\n"
