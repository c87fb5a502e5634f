"""Making the bed's environment: real pip and real environments, on small wheels instead of torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from patchstack.errors import MachineError, RemoteError
from patchstack.regress.bed import Bed, bed_key, prepare_bed


class Shelf:
    """Wheels that pip finds, and the locks that ask for them."""

    def __init__(self, folder: Path) -> None:
        self.wheels = folder / "wheels"
        self.locks = folder / "locks"
        self.cache = folder / "cache"
        self.said: list[str] = []
        for made in (self.wheels, self.locks):
            made.mkdir(parents=True)
        sizes = {"download_bytes": 2_533_000_000, "disk_bytes": 0}
        names = ("shared.txt", "torch-cpu.txt", "torch-pypi.txt")
        (self.locks / "sizes.json").write_text(json.dumps({name: {**sizes, "download_bytes": 1} for name in names}))
        self.set_size("torch-pypi.txt", 2_533_000_000)
        (self.locks / "debian.txt").write_text("# nothing\n")
        self.lock("torch-cpu.txt", "torch", "2.13.0+cpu")
        self.lock("torch-pypi.txt", "torch", "2.13.0")
        self.lock("shared.txt", "needed", "1.0")

    def set_size(self, lock: str, size: int) -> None:
        path = self.locks / "sizes.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), lock: {"download_bytes": size, "disk_bytes": 0}}))

    def lock(self, name: str, package: str, version: str, says: str | None = None) -> Path:
        """Put a wheel on the shelf, whose module says ``says`` (its version), and lock it."""
        wheel = self.wheels / f"{package}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            info = f"{package}-{version}.dist-info"
            archive.writestr(f"{package}/__init__.py", f"__version__ = {says or version!r}\n")
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        (self.locks / name).write_text(f"# made\n{package}=={version} \\\n    --hash=sha256:{digest}\n")
        return wheel

    def prepare(self) -> Bed:
        self.said.clear()
        return prepare_bed(self.locks, self.cache, progress=self.said.append)

    def attempts(self) -> list[Path]:
        return sorted(self.cache.glob("beds/*/attempt-*"))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf.wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return shelf


def test_a_bed_is_made_once(shelf: Shelf) -> None:
    made = shelf.prepare()
    assert made.torch == "2.13.0+cpu"
    assert made.key == f"{bed_key(shelf.locks)}-cpu"
    assert shelf.said[:2] == [
        "test bed: torch for the CPU (0 MB to download)",
        "test bed: what SGLang needs (0 MB to download)",
    ]
    shutil.rmtree(shelf.wheels)
    assert shelf.prepare() == made
    assert shelf.said == []
    for_everybody = made.python.parents[1]  # guards run as somebody else
    assert for_everybody.stat().st_mode & 0o777 == 0o755
    for_everybody.chmod(0o700)  # as earlier versions made it
    shelf.prepare()
    assert for_everybody.stat().st_mode & 0o777 == 0o755
    imported = subprocess.run([made.python, "-c", "import needed, torch"], check=False)
    assert imported.returncode == 0


def test_without_a_cpu_build_the_other_lock_is_taken_and_its_size_said_first(shelf: Shelf) -> None:
    (shelf.wheels / "torch-2.13.0+cpu-py3-none-any.whl").unlink()
    made = shelf.prepare()
    assert (made.torch, made.key) == ("2.13.0", f"{bed_key(shelf.locks)}-pypi")
    assert shelf.said[1] == (
        "test bed: pip knows no CPU build of torch on this machine; "
        "taking the CUDA build with its libraries (2,533 MB to download)"
    )


def test_another_file_than_the_locked_one_makes_no_bed(shelf: Shelf) -> None:
    with zipfile.ZipFile(shelf.wheels / "needed-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("needed/planted.py", "")
    with pytest.raises(RemoteError, match=r"shared\.txt locks"):
        shelf.prepare()
    assert not list(shelf.cache.glob("beds/*/READY"))


def test_a_torch_that_is_not_the_locked_one_makes_no_bed(shelf: Shelf) -> None:
    shelf.lock("torch-cpu.txt", "torch", "2.13.0+cpu", says="9.9")
    with pytest.raises(MachineError, match=r"torch 2\.13\.0\+cpu is locked and 9\.9 imports"):
        shelf.prepare()
    assert not list(shelf.cache.glob("beds/*/READY"))


def test_an_attempt_that_was_killed_is_not_trusted_and_goes(shelf: Shelf) -> None:
    script = (
        "import sys; from pathlib import Path; from patchstack.regress.bed import prepare_bed;"
        "prepare_bed(Path(sys.argv[1]), Path(sys.argv[2]), progress=lambda line: print(line, flush=True))"
    )
    argv = [sys.executable, "-c", script, str(shelf.locks), str(shelf.cache)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        while "what SGLang needs" not in killed.stdout.readline():
            assert killed.poll() is None
        killed.send_signal(signal.SIGKILL)
    (left,) = shelf.attempts()
    made = shelf.prepare()
    assert shelf.attempts() == [made.python.parents[1]]
    assert made.python.parents[1] != left


def test_missing_debian_packages_are_named_with_the_command_that_brings_them(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shelf.locks / "debian.txt").write_text("# why\nlibone  # because\nlibtwo\nlibthree\n")
    dpkg_query = tmp_path / "bin" / "dpkg-query"
    dpkg_query.parent.mkdir()
    dpkg_query.write_text('#!/bin/sh\ncase "$3" in libtwo) printf installed;; *) exit 1;; esac\n')
    dpkg_query.chmod(0o755)
    monkeypatch.setenv("PATH", f"{dpkg_query.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MachineError) as said:
        shelf.prepare()
    assert str(said.value) == (
        "the test bed needs Debian packages that are not installed: libone, libthree; run "
        "`sudo apt-get install --yes --no-install-recommends libone libthree`"
    )


def test_too_little_disk_is_said_before_anything_is_done(shelf: Shelf) -> None:
    shelf.set_size("shared.txt", 10**18)
    with pytest.raises(MachineError, match=r"takes 1000000000\.0 GB while it is made"):
        shelf.prepare()
    assert shelf.attempts() == []


def test_the_key_is_of_the_locks_the_python_and_the_platform(shelf: Shelf) -> None:
    key = bed_key(shelf.locks, "3.11.7", "linux-x86_64")
    assert key == bed_key(shelf.locks, "3.11.7", "linux-x86_64")
    assert key != bed_key(shelf.locks, "3.12.1", "linux-x86_64")
    assert key != bed_key(shelf.locks, "3.11.7", "linux-aarch64")
    for name in ("shared.txt", "torch-cpu.txt", "torch-pypi.txt"):
        before = (shelf.locks / name).read_text()
        (shelf.locks / name).write_text(before + "#\n")
        assert key != bed_key(shelf.locks, "3.11.7", "linux-x86_64")
        (shelf.locks / name).write_text(before)
