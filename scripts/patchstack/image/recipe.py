"""What a dependency image is made from, as one value and its key: equal recipes give equal images on one day.

`recipe/` has the Containerfile, its scripts, and for `cuda` the locks of each release. `cpu` is installed from the
locks of the test bed, so that what the guards proved is what runs. Only Debian's packages have no versions here: old
ones leave the mirrors, so the image records which ones it got.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from patchstack.errors import ImageError, MachineError
from patchstack.image.wheels import PYTHON, can_be_had
from patchstack.model import Base, Native
from patchstack.pins import Pin, read_pins
from patchstack.store import cache_folder

FOLDER = Path(__file__).with_name("recipe")
REPOSITORY = Path(__file__).parents[3]
CONTAINERFILE, LAYERS, INSTALLER, LOCK_CUDA, SIZES = (
    "Containerfile",
    "layers.toml",
    "pip.txt",
    "cuda.txt",
    "sizes.json",
)
SCRIPTS = ("begin.sh", "install.sh", "cuda.sh", "cpu.sh", "end.sh", "smoke.py", "collect.py")
SMOKE = "smoke.txt"
BED_LOCK, BED_TORCH = "shared.txt", {"cpu": "torch-cpu.txt", "pypi": "torch-pypi.txt"}
CPU, CUDA = "cpu", "cuda"
REST, RELEASE = "rest", "release"
EPOCH_S = 315532800
"""The time of every file and of the image itself, 1980-01-01: a zip archive knows no earlier one."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Group:
    """The wheels of one layer."""

    name: str
    pins: tuple[Pin, ...]


@dataclass(frozen=True)
class Recipe:
    runtime: str
    release: str
    native: Native
    """The release's own wheel."""
    groups: tuple[Group, ...]
    """In the order of their layers; the last is the release."""
    installer: tuple[Pin, ...]
    """pip, which is in no layer."""
    debian: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]
    """The small files of the build's context, by path."""
    download_bytes: int
    disk_bytes: int

    @property
    def locked(self) -> tuple[Pin, ...]:
        """Every wheel that is installed."""
        return tuple(pin for group in self.groups for pin in group.pins)

    @property
    def key(self) -> str:
        """64 hexadecimal digits over all that an image is made from, what it weighs left out."""
        said = {
            "runtime": self.runtime,
            "release": self.release,
            "native": self.native.sha256,
            "groups": [[group.name, [pin.text() for pin in group.pins]] for group in self.groups],
            "installer": [pin.text() for pin in self.installer],
            "debian": self.debian,
            "files": [[path, hashlib.sha256(data).hexdigest()] for path, data in self.files],
            "epoch_s": EPOCH_S,
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_recipe(
    base: Base,
    runtime: str,
    root: Path = REPOSITORY,
    *,
    cache: Path | None = None,
    progress: Progress = lambda _: None,
) -> Recipe | str:
    """The recipe of ``base`` for a runtime, or why there is none, with what to do.

    ``root`` is the folder of the tests, whose bed `cpu` is. There pip is asked whether it has torch for the CPU, which
    most indexes have not, and if so that is fetched (190 MB, once); the image for the CPU then is 3 GB smaller.
    """
    torch = CPU
    locks = bed_locks(root, base.version)
    if runtime == CPU and locks.is_dir():
        pins = _pins(locks / BED_TORCH[CPU])
        torch = CPU if can_be_had(pins, cache or cache_folder(), progress) else "pypi"
    return recipe_of(base, runtime, root, torch)


def recipe_of(base: Base, runtime: str, root: Path, torch: str, folder: Path = FOLDER) -> Recipe | str:
    """The same with the build of torch given, ``cpu`` or ``pypi``, which only the runtime `cpu` asks for."""
    native = _native(base)
    if native is None:
        had = ", ".join(one.filename for one in base.natives) or "none"
        return (
            f"the image of {base.name} needs the release's wheel for Python 3.11 on Linux x86-64 (there: {had}): "
            "run the night by Python 3.11 on a release, or name a base of your own in lanes.<lane>.image.base"
        )
    locks = folder / "locks" / base.version if runtime == CUDA else bed_locks(root, base.version)
    names = (LOCK_CUDA,) if runtime == CUDA else (BED_LOCK, BED_TORCH[torch])
    if not all((locks / name).is_file() for name in (*names, SIZES)):
        known = ", ".join(sorted(path.name for path in locks.parent.glob("*") if path.is_dir())) or "none"
        how = "cuda.in and uv.toml, then `make relock-image`" if runtime == CUDA else "the locks of a test bed"
        return f"{locks} has no lock for the {runtime} image of {base.version} (there are: {known}): add {how}"
    pins = [pin for name in names for pin in _pins(locks / name)]
    sizes = json.loads((locks / SIZES).read_text())
    weights = [sizes] if runtime == CUDA else [sizes[name] for name in names]
    release = Pin("sglang", base.version, "", (native.sha256,))
    return Recipe(
        runtime,
        base.version,
        native,
        (*_groups(pins, folder), Group(RELEASE, (release,))),
        _pins(folder / INSTALLER),
        _names(folder / f"debian.{runtime}.txt"),
        _files(runtime, root, folder),
        sum(weight["download_bytes"] for weight in weights),
        sum(weight["disk_bytes"] for weight in weights),
    )


def bed_locks(root: Path, release: str) -> Path:
    return root / "tests" / "support" / "locks" / release


def _native(base: Base) -> Native | None:
    found = (one for one in base.natives if one.python == "cp311" and one.platform.endswith("x86_64"))
    return next(found, None)


def _pins(lock: Path) -> tuple[Pin, ...]:
    try:
        return read_pins(lock.read_text(), PYTHON, str(lock))
    except MachineError as error:
        raise ImageError(str(error)) from error


def _groups(pins: Iterable[Pin], folder: Path) -> tuple[Group, ...]:
    """The wheels by their layers; each kind by name, for the order of a lock's lines says nothing."""
    layers: dict[str, list[str]] = tomllib.loads((folder / LAYERS).read_text())
    sorted_in: dict[str, list[Pin]] = {name: [] for name in (*layers, REST)}
    for pin in sorted(pins, key=lambda pin: pin.name):
        kinds = (name for name, patterns in layers.items() if any(fnmatchcase(pin.name, one) for one in patterns))
        sorted_in[next(kinds, REST)].append(pin)
    return tuple(Group(name, tuple(held)) for name, held in sorted_in.items())


def _names(path: Path) -> tuple[str, ...]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return tuple(line for line in lines if line)


def _files(runtime: str, root: Path, folder: Path) -> tuple[tuple[str, bytes], ...]:
    found = {name: (folder / name).read_bytes() for name in (CONTAINERFILE, *SCRIPTS)}
    found[SMOKE] = (folder / f"smoke.{runtime}.txt").read_bytes()
    if runtime == CPU:
        standins = root / "tests" / "support" / "standins"
        for path in standins.rglob("*.py"):
            found[f"standins/{path.relative_to(standins).as_posix()}"] = path.read_bytes()
    return tuple(sorted(found.items()))
