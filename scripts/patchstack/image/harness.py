"""pytest, laid beside an image: what runs tests in it is not part of what is tested.

The packages are pure Python, from the wheels that the test bed's lock names by their hashes; each lies in a folder of
its own, for an image that has one of them keeps its own. In the cache, ``harness/<key>`` is a whole set or not there.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from patchstack.errors import ImageError, MachineError
from patchstack.image.wheels import PYTHON, LockedWheel, fetch
from patchstack.pins import read_pins

OURS = ("pytest", "pluggy", "iniconfig")
"""Always the locked ones."""
PACKAGES = (*OURS, "packaging", "pygments")
"""pytest and all that it needs, by the names that they are imported by, too."""
FOLDER = "harness"


def harness(lock: Path, cache: Path, progress: Callable[[str], None]) -> Path:
    """A folder with one folder for each of `PACKAGES`, from ``lock``.

    Raises `MachineError` where the lock does not name them or they are not to be had.
    """
    if not lock.is_file():
        raise MachineError(f"{lock} is not there, which says which pytest runs in an image: restore it")
    pins = {pin.name: pin for pin in read_pins(lock.read_text(), PYTHON, str(lock))}
    lost = [name for name in PACKAGES if name not in pins]
    if lost:
        raise MachineError(f"{lock} does not lock {', '.join(lost)}: make it again (`make relock-bed`)")
    wanted = [pins[name] for name in PACKAGES]
    key = hashlib.sha256("".join(pin.text() for pin in wanted).encode()).hexdigest()
    place = cache / FOLDER / key
    if not place.is_dir():
        try:
            _lay(fetch(wanted, cache, progress), place)
        except (OSError, zipfile.BadZipFile, ImageError) as error:
            raise MachineError(f"pytest cannot be laid beside the image: {error}") from error
    return place


def _lay(wheels: Sequence[LockedWheel], place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".laid-", dir=place.parent))
    try:
        for name, wheel in zip(PACKAGES, wheels, strict=True):
            with zipfile.ZipFile(wheel.path) as archive:
                archive.extractall(scratch / name)
        _show(scratch)
        scratch.rename(place)
    except OSError:
        if not place.is_dir():  # else another process was faster, with the same files
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _show(folder: Path) -> None:
    """Whoever runs in a container is nobody here, and must be able to read it."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
