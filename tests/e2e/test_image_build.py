"""The dependency image by real mmdebstrap, pip and buildah: tiny wheels, on as little of Debian as runs Python."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from patchstack import process
from patchstack.errors import ImageError
from patchstack.image.build import LABEL_RECIPE, build, read_inventory
from patchstack.image.debian import make_debian
from patchstack.image.inventory import PATH
from patchstack.image.recipe import CONTAINERFILE, CPU, EPOCH_S, FOLDER, INSTALLER, SCRIPTS, SMOKE, Group, Recipe
from patchstack.image.wheels import PYTHON, fetch
from patchstack.model import Base, Native, Sha
from patchstack.pins import Pin, read_pins
from patchstack.store import cache_folder

BASE = Base("sglang==1.0", "1.0", Sha("a" * 40), Sha("b" * 40))

# The build's own check runs it: what a step of a build sees of the machine is judged in there.
LOOKS_AROUND = """
import os, socket
assert [name for _, name in socket.if_nameindex()] == ["lo"], socket.if_nameindex()
allowed = {"HOME", "HOSTNAME", "PATH", "LANG", "PWD", "PYTHONDONTWRITEBYTECODE", "CUDA_VISIBLE_DEVICES", "OLDPWD"}
allowed |= {"SGLANG_USE_CPU_ENGINE", "MC_FORCE_TCP", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "TRITON_INTERPRET"}
assert set(os.environ) <= allowed, sorted(set(os.environ) - allowed)
"""

Debian = Callable[[Sequence[str], Path], None]


# --- a recipe in a few kilobytes -----------------------------------------------------------------------


def wheel(cache: Path, name: str, files: Mapping[str, str] | None = None, version: str = "1.0") -> Pin:
    """Put a wheel into ``cache``; the line that locks it."""
    info = f"{name}-{version}.dist-info"
    held = {
        **(files or {f"{name}/__init__.py": ""}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = io.StringIO()
    for path, text in held.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        csv.writer(rows).writerow([path, f"sha256={digest}", len(text.encode())])
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for path, text in {**held, f"{info}/RECORD": f"{rows.getvalue()}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    sha256 = hashlib.sha256(raw.getvalue()).hexdigest()
    place = cache / "wheels" / sha256 / f"{name}-{version}-py3-none-any.whl"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(raw.getvalue())
    return Pin(name, version, "", (sha256,))


@pytest.fixture(scope="module")
def shared(sealed_module: Path) -> Path:
    """What takes long to fetch, in the machine's own cache: pip's wheel, and a Debian that is only unpacked."""
    folder = cache_folder()
    fetch(installer(), folder, print)
    debian = folder / "tests" / "debian-bookworm-1.tar"
    if not debian.is_file():
        debian.parent.mkdir(exist_ok=True)
        partial = debian.with_name(f"{os.getpid()}.tar")
        argv = ["mmdebstrap", "--quiet", "--variant=extract", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"]
        argv += ["--include=python3.11,dash,coreutils,findutils,libc-bin,base-files"]
        argv += ['--customize-hook=rm -rf "$1"/usr/share/{doc,locale,man} "$1"/etc/hostname "$1"/etc/resolv.conf']
        process.run([*argv, "bookworm", str(partial)], env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH_S)})
        partial.replace(debian)
    return folder


def installer() -> tuple[Pin, ...]:
    return read_pins((FOLDER / INSTALLER).read_text(), PYTHON, INSTALLER)


@pytest.fixture
def debian(shared: Path) -> Debian:
    def copy(_packages: Sequence[str], target: Path) -> None:
        shutil.copyfile(shared / "tests" / "debian-bookworm-1.tar", target)

    return copy


@pytest.fixture
def cache(tmp_path: Path, shared: Path) -> Path:
    return seeded(tmp_path / "cache", shared)


def seeded(cache: Path, shared: Path) -> Path:
    """An empty cache but for pip's wheel."""
    for pin in installer():
        shutil.copytree(shared / "wheels" / pin.sha256[0], cache / "wheels" / pin.sha256[0])
    return cache


def recipe_in(cache: Path, *wheels: Pin, sglang: str = "", **scripts: str) -> Recipe:
    """The real Containerfile and scripts, with ``sglang/__init__.py`` as given, and ``install`` for install.sh."""
    release = wheel(cache, "sglang", {"sglang/__init__.py": sglang})
    files = {name: (FOLDER / name).read_bytes() for name in (CONTAINERFILE, *SCRIPTS)}
    files |= {SMOKE: b"sglang\n", "standins/cuda_standins.py": b"def install(): pass\n"}
    files |= {f"{name}.sh": text.encode() for name, text in scripts.items()}
    groups = [Group(name, ()) for name in ("torch", "kernels")] + [Group("rest", wheels), Group("release", (release,))]
    native = Native("cp311", "any", "sglang-1.0-py3-none-any.whl", release.sha256[0])
    weights = {"download_bytes": 0, "disk_bytes": 0}
    packages = ("usr-is-merged",)
    return Recipe(CPU, "1.0", native, tuple(groups), installer(), packages, tuple(sorted(files.items())), **weights)


# --- what came out -------------------------------------------------------------------------------------


def digest(layout: Path) -> str:
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    return str(entry["digest"])


def layers(layout: Path) -> Iterator[list[tarfile.TarInfo]]:
    def blob(name: str) -> Path:
        return layout / "blobs" / "sha256" / name.removeprefix("sha256:")

    for layer in json.loads(blob(digest(layout)).read_text())["layers"]:
        with tarfile.open(blob(layer["digest"])) as archive:
            yield archive.getmembers()


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "images").iterdir())


def running_in(folder: Path) -> list[str]:
    found = []
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = arguments.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"{folder}/images/.build-" in said:
            found.append(said)
    return found


# --- tests ---------------------------------------------------------------------------------------------


def test_two_builds_in_clean_stores_give_the_same_image(tmp_path: Path, shared: Path, debian: Debian) -> None:
    made = []
    for name in ("one", "two"):
        cache = seeded(tmp_path / name, shared)
        recipe = recipe_in(cache, wheel(cache, "numpy"), sglang=LOOKS_AROUND)
        made.append(build(recipe, BASE, cache, print, debian=debian))
        assert left(cache) == [".lock", recipe.key]
    assert digest(made[0]) == digest(made[1])

    config = json.loads(process.run(["skopeo", "inspect", "--config", f"oci:{made[0]}"]).stdout)
    assert config["created"] == "1980-01-01T00:00:00Z"
    assert config["config"]["Labels"] == {LABEL_RECIPE: recipe.key}
    assert "SGLANG_USE_CPU_ENGINE=1" in config["config"]["Env"]
    inventory = read_inventory(made[0])
    assert inventory.root == "/opt/sglang/lib/python3.11/site-packages"
    assert inventory.versions("python") == {"numpy": "1.0", "sglang": "1.0"}
    assert inventory.versions("debian") == {"usr-is-merged": "1"}

    found = list(layers(made[0]))
    assert [member.name for member in found[-1] if not member.isdir()] == [PATH]
    members = [member for layer in found for member in layer]
    assert {member.mtime for member in members} == {EPOCH_S}
    names = {member.name for member in members}
    assert not {name for name in names if name.endswith((".pyc", ".whl")) or "__pycache__" in name or ".wh." in name}
    assert not {name for name in names if name.startswith(("context", "tmp/")) or name == "etc/hosts"}


def test_packages_that_are_missing_or_extra_fail_the_build_by_name(cache: Path, debian: Debian) -> None:
    hidden = "carrier-1.0.data/purelib/stowaway-2.0.dist-info/METADATA"
    extra = wheel(cache, "carrier", {hidden: "Metadata-Version: 2.1\nName: stowaway\nVersion: 2.0\n"})
    without_torch = f'[ "$1" != torch ] || exit 0\n{(FOLDER / "install.sh").read_text()}'
    recipe = recipe_in(cache, extra, install=without_torch)
    lost = Group("torch", (wheel(cache, "torch"),))
    recipe = replace(recipe, groups=(lost, *recipe.groups[1:]), debian=("usr-is-merged", "gcc"))
    with pytest.raises(ImageError) as raised:
        build(recipe, BASE, cache, print, debian=debian)
    assert str(raised.value) == (
        "the image is not what its locks say: Debian's gcc is asked for and not installed; "
        "stowaway 2.0 is installed and not locked; torch 1.0 is locked and not installed"
    )
    assert left(cache) == [".lock"]


def test_a_wheel_with_other_bytes_than_are_locked_is_not_installed(cache: Path, debian: Debian) -> None:
    def tampering(packages: Sequence[str], target: Path) -> None:
        debian(packages, target)
        (tampered,) = (target.parent / "wheels").glob("numpy-*.whl")
        data = tampered.read_bytes()
        tampered.unlink()
        tampered.write_bytes(data + b"\0")

    recipe = recipe_in(cache, wheel(cache, "numpy"))
    with pytest.raises(ImageError, match=r"buildah failed while installing the cpu image:(?s:.*)HASHES"):
        build(recipe, BASE, cache, print, debian=tampering)
    assert left(cache) == [".lock"]


def test_an_image_in_which_sglang_does_not_import_is_none(cache: Path, debian: Debian) -> None:
    with pytest.raises(ImageError, match=r"ModuleNotFoundError: No module named 'absent'"):
        build(recipe_in(cache, sglang="import absent\n"), BASE, cache, print, debian=debian)
    assert left(cache) == [".lock"]


KILLED = """
import shutil, sys
from pathlib import Path
from tests.e2e.test_image_build import BASE, build, recipe_in
cache, debian = map(Path, sys.argv[1:])
recipe = recipe_in(cache, sglang="import time; time.sleep(600)\\n")
def copy(_, target):
    shutil.copyfile(debian, target)
build(recipe, BASE, cache, lambda said: print(said, flush=True), debian=copy)
"""


def test_a_killed_build_leaves_nothing_that_the_next_one_does_not_end_and_remove(
    cache: Path, shared: Path, debian: Debian
) -> None:
    argv = [sys.executable, "-c", KILLED, str(cache), str(shared / "tests" / "debian-bookworm-1.tar")]
    root = Path(__file__).parents[2]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=root) as child:
        assert child.stdout is not None
        assert any("installing" in line for line in child.stdout)
        for _ in range(600):
            if any(cache.glob("images/.build-*/store/overlay-layers/layers.json")):
                break
            threading.Event().wait(0.1)
        child.send_signal(signal.SIGKILL)
    assert running_in(cache)
    assert [name for name in left(cache) if name.startswith(".build-")]

    recipe = recipe_in(cache)
    layout = build(recipe, BASE, cache, print, debian=debian)
    assert running_in(cache) == []
    assert left(cache) == [".lock", recipe.key]
    assert str(cache) not in Path("/proc/self/mountinfo").read_text()
    assert read_inventory(layout).versions("python") == {"sglang": "1.0"}


def test_debian_comes_with_what_is_asked_for_and_nothing_of_this_machine(tmp_path: Path) -> None:
    make_debian(["python3.11", "ca-certificates"], tmp_path / "base.tar")
    with tarfile.open(tmp_path / "base.tar") as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert {"usr/bin/python3.11", "etc/ssl/certs/ca-certificates.crt", "usr/share/doc/python3.11/copyright"} <= names
    assert not names & {"etc/hostname", "etc/resolv.conf", "var/cache/ldconfig"}
    assert not {name for name in names if "__pycache__" in name or name.startswith("usr/share/man/man1/")}
    assert not {name for name in names if name.startswith("var/lib/apt/lists/deb.")}


def test_what_mmdebstrap_says_of_its_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"mmdebstrap could not make the image's Debian:\n(?s:.*)base\.tar"):
        make_debian(["python3.11"], tmp_path / "absent" / "base.tar")
