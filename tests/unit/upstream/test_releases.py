"""Releases come by pip once, and are kept by their digest. pip is the real one, the index a folder or loopback."""

from __future__ import annotations

import hashlib
import json
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from patchstack.errors import ConfigError, MachineError, RemoteError
from patchstack.model import Native
from patchstack.upstream.releases import fetch_wheel
from patchstack.upstream.wheel import Wheel

RELEASE = "sglang==0.5.12.post1"
NAME = "sglang-0.5.12.post1-py3-none-any.whl"


class Loopback(Protocol):
    """The fixture of that name."""

    filename: str
    answers: list[tuple[int, bytes]]


WriteWheel = Callable[..., Path]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _held(cache: Path) -> list[str]:
    """Every file in the cache of wheels but the lock and the records."""
    wheels = cache / "wheels"
    files = [path.relative_to(wheels).as_posix() for path in wheels.rglob("*") if path.is_file()]
    return sorted(name for name in files if name != ".lock" and not name.startswith("records/"))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("sglang/__init__.py")
    data = bytearray(path.read_bytes())
    data[entry.header_offset + 30 + len(entry.filename) + 4] ^= 0xFF
    path.write_bytes(data)


@pytest.fixture
def closed_port() -> int:
    """A port on loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_a_release_is_fetched_into_its_digests_folder(index: Path, cache: Path, write_wheel: WriteWheel) -> None:
    digest = _sha256(write_wheel(index))
    said: list[str] = []

    wheel = fetch_wheel(RELEASE, cache, progress=said.append)

    place = cache / "wheels" / digest / NAME
    assert wheel == Wheel(place, digest, Native("py3", "any", NAME, digest), "sglang", "0.5.12.post1")
    assert _sha256(place) == digest
    assert _held(cache) == [f"{digest}/{NAME}"]
    assert said == [f"fetching {RELEASE} from the package index", f"fetched {NAME}, 0.0 MB"]


def test_what_lies_in_the_current_folder_is_not_run(
    index: Path, cache: Path, write_wheel: WriteWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(index)
    (tmp_path / "pip.py").write_text("raise SystemExit('planted')\n")
    monkeypatch.chdir(tmp_path)
    assert fetch_wheel(RELEASE, cache).version == "0.5.12.post1"


def test_once_cached_no_index_is_asked(index: Path, cache: Path, write_wheel: WriteWheel) -> None:
    source = write_wheel(index)
    first = fetch_wheel(RELEASE, cache)
    source.unlink()
    said: list[str] = []

    assert fetch_wheel(RELEASE, cache, progress=said.append) == first
    assert fetch_wheel(RELEASE, cache, offline=True) == first
    assert said == []


@pytest.mark.parametrize("harm", [_cut, _flip], ids=["cut short", "a byte flipped"])
def test_a_damaged_wheel_is_removed_and_fetched_again(
    index: Path, cache: Path, write_wheel: WriteWheel, harm: Callable[[Path], None]
) -> None:
    digest = _sha256(write_wheel(index))
    wheel = fetch_wheel(RELEASE, cache)
    harm(wheel.path)
    said: list[str] = []

    assert fetch_wheel(RELEASE, cache, progress=said.append) == wheel
    assert _sha256(wheel.path) == digest
    assert said[0] == f"{NAME} in the cache is damaged; it is removed and fetched again"


def test_a_damaged_wheel_is_not_handed_out_when_it_cannot_be_fetched_again(
    index: Path, cache: Path, write_wheel: WriteWheel
) -> None:
    write_wheel(index)
    _cut(fetch_wheel(RELEASE, cache).path)

    with pytest.raises(RemoteError, match=r"sglang==0\.5\.12\.post1 is not in the cache .* network is not to be used"):
        fetch_wheel(RELEASE, cache, offline=True)
    assert _held(cache) == []


def test_other_bytes_under_the_same_name_are_refused(index: Path, cache: Path, write_wheel: WriteWheel) -> None:
    write_wheel(index)
    recorded = fetch_wheel(RELEASE, cache)
    recorded.path.unlink()
    changed = _sha256(write_wheel(index, metadata="Summary: changed\n"))

    with pytest.raises(RemoteError) as caught:
        fetch_wheel(RELEASE, cache)

    assert f"sha256 {changed}, recorded {recorded.sha256}" in str(caught.value)
    assert _held(cache) == []


@pytest.mark.parametrize(
    "content",
    ["not json", json.dumps({"filename": "../../x.whl", "sha256": "a" * 64})],
    ids=["no json", "leads out"],
)
def test_a_record_that_cannot_be_read_is_written_again(
    index: Path, cache: Path, write_wheel: WriteWheel, content: str
) -> None:
    write_wheel(index)
    wheel = fetch_wheel(RELEASE, cache)
    (record,) = (cache / "wheels" / "records").iterdir()
    good = record.read_text()
    record.write_text(content)

    assert fetch_wheel(RELEASE, cache) == wheel
    assert record.read_text() == good


def test_what_a_killed_run_left_is_removed(index: Path, cache: Path, write_wheel: WriteWheel) -> None:
    write_wheel(index)
    left = cache / "wheels" / ".partial-abc" / "wheel"
    left.mkdir(parents=True)
    (left / NAME).write_bytes(b"half")

    wheel = fetch_wheel(RELEASE, cache)

    assert _held(cache) == [f"{wheel.sha256}/{NAME}"]


def test_an_unreachable_index_is_named(cache: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://reader:secret@127.0.0.1:{closed_port}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")

    with pytest.raises(RemoteError) as caught:
        fetch_wheel(RELEASE, cache)

    assert str(caught.value) == (
        f"{RELEASE} is not in the cache, and the package index cannot be reached: "
        f"http://reader:****@127.0.0.1:{closed_port}/simple/sglang/ "
        "(Failed to establish a new connection: [Errno 111] Connection refused); "
        "check the network and `pip config list`, and run again"
    )
    assert caught.value.exit_code == 8
    assert _held(cache) == []


def test_a_release_that_no_index_has_is_a_fault_of_the_configuration(
    index: Path, cache: Path, write_wheel: WriteWheel
) -> None:
    for version in ("0.5.11", "0.5.12", "0.5.13", "0.5.14"):
        write_wheel(index, version=version)

    with pytest.raises(
        ConfigError, match=r"no package index has a wheel of .*newest there: 0\.5\.12, 0\.5\.13, 0\.5\.14"
    ):
        fetch_wheel(RELEASE, cache)


def test_a_release_for_another_python_only_is_a_fault_of_the_configuration(
    index: Path, cache: Path, write_wheel: WriteWheel
) -> None:
    write_wheel(index, tags="cp27-cp27mu-manylinux1_x86_64")
    with pytest.raises(ConfigError, match="run with a Python that it has a wheel for"):
        fetch_wheel(RELEASE, cache)


@pytest.mark.parametrize("requirement", ["sglang", "sglang>=0.5", "sglang==0.5.*", "sglang==1,==2", "sglang =="])
def test_only_one_exact_release_is_taken(cache: Path, requirement: str) -> None:
    with pytest.raises(ConfigError, match=r"upstream\.pypi: .*write it as sglang==0\.5\.12\.post1"):
        fetch_wheel(requirement, cache)
    assert not cache.exists()


def test_a_download_that_breaks_off_is_repeated(
    loopback: Loopback, cache: Path, tmp_path: Path, write_wheel: WriteWheel
) -> None:
    whole = write_wheel(tmp_path / "made").read_bytes()
    loopback.filename, loopback.answers = NAME, [(len(whole), whole[:200]), (len(whole), whole)]
    said: list[str] = []

    wheel = fetch_wheel(RELEASE, cache, progress=said.append)

    assert wheel.path.read_bytes() == whole
    assert said[1].endswith("; it is fetched again")


def test_half_a_wheel_twice_is_refused(
    loopback: Loopback, cache: Path, tmp_path: Path, write_wheel: WriteWheel
) -> None:
    whole = write_wheel(tmp_path / "made").read_bytes()
    loopback.filename, loopback.answers = NAME, [(200, whole[:200])] * 2

    with pytest.raises(RemoteError, match=rf"{RELEASE} arrived damaged twice: .*Nothing was kept"):
        fetch_wheel(RELEASE, cache)
    assert _held(cache) == []


def test_a_wheel_with_a_wrong_checksum_inside_is_refused(index: Path, cache: Path, write_wheel: WriteWheel) -> None:
    _flip(write_wheel(index))
    with pytest.raises(RemoteError, match="arrived damaged twice"):
        fetch_wheel(RELEASE, cache)
    assert _held(cache) == []


def test_a_cache_that_cannot_be_made_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(MachineError, match="set PATCHSTACK_CACHE"):
        fetch_wheel(RELEASE, tmp_path / "cache")
