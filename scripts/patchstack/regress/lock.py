"""Makes a test bed's locks from what its folder asks for; run by `make relock-bed`, not by the night.

The folder holds ``shared.in`` (resolved with their needs), ``shared-no-deps.in`` (taken alone: their needs
pin other versions, or CUDA) and ``torch.in``. uv resolves them for every Python below; what comes out is
pip's own format with exact pins and the hashes of the wheels for those Pythons on Linux x86-64. No address
of an index is written: the lock holds wherever the same files are.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from packaging.pylock import Pylock

from patchstack import pins, process
from patchstack.pins import Pin
from patchstack.regress.bed import SHARED, SIZES, TORCH_CPU, TORCH_PYPI
from patchstack.store import write_whole

PYTHONS = ((3, 11), (3, 12), (3, 13))

TORCH_FAMILIES = ("torch", "nvidia-", "cuda-")
"""Packages of torch's CUDA build: torch itself by its name, its libraries by the beginning of theirs."""


def is_torch(pin: Pin) -> bool:
    return pin.name == TORCH_FAMILIES[0] or pin.name.startswith(TORCH_FAMILIES[1:])


def relock(locks_dir: Path, progress: Callable[[str], None]) -> None:
    """Write every lock of ``locks_dir`` again, and the sizes of what this Python downloads for each.

    ``torch-cpu.txt`` is written where pip finds the CPU build, else left as it is. Downloads everything
    once, which also shows that the locks can be installed: about 4 GB.
    """
    torch_version = _version_in(locks_dir / "torch.in")
    with tempfile.TemporaryDirectory(prefix="patchstack-relock-") as scratch:
        uv = pins.install_uv(Path(scratch))
        progress("resolving")
        whole = _resolve(uv, Path(scratch) / "pylock.whole.toml", [locks_dir / "shared.in", locks_dir / "torch.in"])
        alone = _resolve(uv, Path(scratch) / "pylock.alone.toml", [locks_dir / "shared-no-deps.in"], "--no-deps")
        held = [*pins_of(whole), *pins_of(alone)]
        write_whole(
            locks_dir / SHARED, render((pin for pin in held if not is_torch(pin)), "shared.in and shared-no-deps.in")
        )
        write_whole(locks_dir / TORCH_PYPI, render((pin for pin in held if is_torch(pin)), "torch.in"))
        cpu = _cpu_build(Path(scratch), torch_version)
        if cpu is not None:
            write_whole(locks_dir / TORCH_CPU, render([cpu], "torch.in, for the CPU"))
        else:
            progress(f"pip finds no CPU build of torch here: {TORCH_CPU} stays as it is")
        sizes = {}
        for name in (SHARED, TORCH_PYPI, *([TORCH_CPU] if cpu else [])):
            progress(f"downloading what {name} locks, to measure it")
            sizes[name] = pins.measure(locks_dir / name)
        known = json.loads((locks_dir / SIZES).read_text()) if (locks_dir / SIZES).is_file() else {}
        write_whole(locks_dir / SIZES, json.dumps({**known, **sizes}, indent=2, sort_keys=True) + "\n")


def pins_of(lock: Pylock) -> list[Pin]:
    """The packages that one of our Pythons needs on Linux x86-64, with the wheels that it can take."""
    return pins.pins_of(lock, PYTHONS)


def render(held: Iterable[Pin], source: str) -> str:
    """A lock as pip reads it."""
    return pins.render(held, source, "relock-bed")


def _resolve(uv: Path, output: Path, inputs: list[Path], *options: str) -> Pylock:
    return pins.resolve(uv, output, inputs, PYTHONS[0], "--no-config", *options)


def _version_in(path: Path) -> str:
    return path.read_text().strip().partition("==")[2]


def _cpu_build(scratch: Path, version: str) -> Pin | None:
    """The CPU build of torch that this machine's pip finds; None if it finds none."""
    folder = scratch / "torch-cpu"
    requirement = f"torch=={version}+cpu"
    done = process.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement],
        check=False,
    )
    if done.returncode != 0:
        return None
    (wheel,) = folder.iterdir()
    with wheel.open("rb") as stream:
        return Pin("torch", f"{version}+cpu", "", (hashlib.file_digest(stream, "sha256").hexdigest(),))
