"""Makes the locks of the `cuda` runtime again; run by `make relock-image`, not by the night.

``recipe/locks/<release>/cuda.in`` says what is asked for and ``uv.toml`` as of which day; ``recipe/pip.in`` is
resolved as of today, for pip installs and is not in the image. The `cpu` runtime has the locks of the test bed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from patchstack import pins
from patchstack.image.recipe import FOLDER, INSTALLER, LOCK_CUDA, SIZES
from patchstack.image.wheels import PYTHON, fetch
from patchstack.store import cache_folder, write_whole

TARGET = "relock-image"


def relock(release: str, progress: Callable[[str], None]) -> None:
    """Write the lock of ``release`` again, pip's own, and what the wheels weigh: all of them are downloaded."""
    locks = FOLDER / "locks" / release
    with tempfile.TemporaryDirectory(prefix="patchstack-relock-") as name:
        scratch = Path(name)
        uv = pins.install_uv(scratch)
        progress("resolving")
        options = ("--config-file", str(locks / "uv.toml"))
        whole = pins.resolve(uv, scratch / "pylock.cuda.toml", [locks / "cuda.in"], PYTHON, *options)
        held = [pin for pin in pins.pins_of(whole, (PYTHON,), best_only=True) if pin.name != "sglang"]
        write_whole(locks / LOCK_CUDA, pins.render(held, "cuda.in and uv.toml", TARGET))
        tool = pins.resolve(uv, scratch / "pylock.pip.toml", [FOLDER / "pip.in"], PYTHON, "--no-config")
        installer = pins.pins_of(tool, (PYTHON,), best_only=True)
        write_whole(FOLDER / INSTALLER, pins.render(installer, "pip.in", TARGET))
    wheels = fetch([*held, *installer], cache_folder(), progress)
    write_whole(locks / SIZES, json.dumps(pins.sizes_of(wheel.path for wheel in wheels), indent=2) + "\n")
