"""Wheels by real pip, from a folder: each comes once, and only with the bytes that are locked."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from patchstack.errors import ImageError
from patchstack.image.wheels import can_be_had, fetch
from patchstack.pins import Pin


def wheel(folder: Path, name: str, tag: str = "py3-none-any", text: str = "") -> str:
    """Put a wheel of version 1.0 into ``folder``; its digest."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", text)
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip, which asks no index here, takes wheels from."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def test_wheels_lie_by_their_content_and_come_once(tmp_path: Path, index: Path) -> None:
    pins = [Pin(name, "1.0", "", (wheel(index, name),)) for name in ("one", "two")]
    said: list[str] = []
    got = fetch(pins, tmp_path / "cache", said.append)
    assert [one.path for one in got] == [
        tmp_path / "cache" / "wheels" / pin.sha256[0] / f"{pin.name}-1.0-py3-none-any.whl" for pin in pins
    ]
    assert said == ["image: wheels 1 to 2 of 2, one and on"]
    for path in index.iterdir():
        path.unlink()
    assert fetch(pins, tmp_path / "cache", said.append) == got
    assert len(said) == 1


def test_a_wheel_for_debians_python_is_taken_whatever_runs_here(tmp_path: Path, index: Path) -> None:
    wanted = wheel(index, "one", "cp311-cp311-manylinux_2_28_x86_64")
    digests = [
        wanted,
        wheel(index, "one", "py3-none-any"),
        wheel(index, "one", "cp311-cp311-manylinux_2_39_x86_64"),
        wheel(index, "one", "cp312-cp312-manylinux_2_28_x86_64"),
        wheel(index, "one", "cp311-cp311-manylinux_2_28_aarch64"),
    ]
    (got,) = fetch([Pin("one", "1.0", "", tuple(digests))], tmp_path / "cache", print)
    assert got.sha256 == wanted


def test_of_several_wheels_in_the_cache_the_best_is_taken(tmp_path: Path, index: Path) -> None:
    digests = []
    for tag in ("py3-none-any", "cp311-cp311-manylinux_2_28_x86_64"):
        digests.append(wheel(index, "one", tag))
        fetch([Pin("one", "1.0", "", (digests[-1],))], tmp_path / "cache", print)
    for order in (digests, digests[::-1]):
        (got,) = fetch([Pin("one", "1.0", "", tuple(order))], tmp_path / "cache", print)
        assert got.sha256 == digests[1]


def test_other_bytes_than_are_locked_are_an_error_and_are_not_kept(tmp_path: Path, index: Path) -> None:
    sha256 = wheel(index, "one")
    wheel(index, "one", text="other")
    with pytest.raises(
        ImageError, match=r"pip could not fetch what the image's lock names \(one and on\)(?s:.*)HASHES"
    ):
        fetch([Pin("one", "1.0", "", (sha256,))], tmp_path / "cache", print)
    assert [path.name for path in (tmp_path / "cache" / "wheels").iterdir()] == [".image.lock"]


def test_a_wheel_that_was_damaged_in_the_cache_is_fetched_again(tmp_path: Path, index: Path) -> None:
    pin = Pin("one", "1.0", "", (wheel(index, "one"),))
    (got,) = fetch([pin], tmp_path / "cache", print)
    got.path.write_bytes(b"")
    assert fetch([pin], tmp_path / "cache", print) == (got,)
    assert hashlib.sha256(got.path.read_bytes()).hexdigest() == pin.sha256[0]


def test_what_a_killed_run_left_is_removed(tmp_path: Path, index: Path) -> None:
    left = tmp_path / "cache" / "wheels" / ".image-left"
    left.mkdir(parents=True)
    fetch([Pin("one", "1.0", "", (wheel(index, "one"),))], tmp_path / "cache", print)
    assert not left.exists()


def test_whether_pip_knows_a_wheel(tmp_path: Path, index: Path) -> None:
    pin = Pin("one", "1.0", "", (wheel(index, "one"),))
    assert can_be_had([pin], tmp_path / "cache", print)
    assert not can_be_had([Pin("one", "1.0+cpu", "", ("0" * 64,))], tmp_path / "cache", print)
