"""Builds a dependency image: an OCI layout at ``images/<key>`` in the cache, whole or not at all.

All that a build needs is in one folder beside it: context, the builder's store, what it writes meanwhile. The folder
is removed in every case; what a killed build left, the next one ends and removes.
"""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import shutil
import signal
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from patchstack import process
from patchstack.credential import inherited
from patchstack.errors import ImageError
from patchstack.image.builder import Builder, Folders, builder_at_hand
from patchstack.image.debian import make_debian
from patchstack.image.inventory import PATH, Inventory, decode_inventory, problems
from patchstack.image.oci import MANIFEST, parse_manifest
from patchstack.image.recipe import Recipe
from patchstack.image.wheels import LockedWheel, are_there, fetch, last_lines
from patchstack.model import Base
from patchstack.pins import Pin

__all__ = ["build", "builder_at_hand"]

LABEL_RECIPE = "internal.patchstack.recipe"
"""What it says it was made from. The domain `internal` is nobody's: equal recipes give equal images in all forks."""

LIMIT_S = 7200.0
LAYOUTS_KEPT = 3
"""So that two lanes, and one that just changed its recipe, find theirs."""
DEBIAN_BYTES = 1_500_000_000
"""What Debian takes as a tar archive, unpacked and compressed, with a compiler."""

Progress = Callable[[str], None]
MakeDebian = Callable[[Sequence[str], Path], None]


def build(
    recipe: Recipe,
    base: Base,
    cache: Path,
    progress: Progress,
    *,
    builder: Builder | None = None,
    debian: MakeDebian = make_debian,
) -> Path:
    """The OCI layout of ``recipe``, from the cache or built.

    Raises `ImageError` when there is no builder, too little disk, when a wheel cannot be had as it is locked, when
    Debian, pip or the builder fails (with its last lines), or when the image holds other packages than the recipe.
    """
    if recipe.release != base.version:
        raise ImageError(f"the recipe is of {recipe.release} and the base is {base.version}: read the recipe again")
    images = cache / "images"
    layout = images / recipe.key
    try:
        images.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(images, progress):
            if not (layout / "index.json").is_file():
                builder = builder or builder_at_hand()
                if builder is None:
                    raise ImageError("no builder is at hand: install buildah and mmdebstrap (`make builder`)")
                _sweep(images, builder)
                _build(recipe, builder, debian, cache, layout, progress)
            os.utime(layout)
            _forget_old(images)
    except OSError as error:
        raise ImageError(f"the image cannot be built in {images}: {error}") from error
    return layout


def _forget_old(images: Path) -> None:
    """Remove all layouts but those that were used last: each has 0.7 to 4.5 GB, and a new recipe makes a new one."""
    layouts = [path for path in images.iterdir() if (path / "index.json").is_file() and not path.name.startswith(".")]
    for path in sorted(layouts, key=lambda path: path.stat().st_mtime, reverse=True)[LAYOUTS_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _one_at_a_time(images: Path, progress: Progress) -> Iterator[None]:
    with (images / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("image: another patchstack is building one; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(recipe: Recipe, builder: Builder, debian: MakeDebian, cache: Path, layout: Path, progress: Progress) -> None:
    began_s = time.monotonic()
    _require_disk(recipe, cache)
    wheels = fetch([*recipe.installer, *recipe.locked], cache, progress)
    work = Path(tempfile.mkdtemp(prefix=".build-", dir=layout.parent))
    try:
        folders = Folders(work)
        for folder in (folders.context, folders.scratch):
            folder.mkdir()
        _lay_context(recipe, wheels, folders.context)
        progress(f"image: Debian with {len(recipe.debian)} packages and what they need")
        debian(recipe.debian, folders.context / "base.tar")
        for step in builder.steps(folders, recipe.runtime, {LABEL_RECIPE: recipe.key}):
            progress(f"image: {builder.name} is {step.what} {len(recipe.locked)} wheels, {_after(began_s)}")
            done = process.run(step.argv, env={**inherited(), **dict(step.adds)}, timeout_s=LIMIT_S, check=False)
            if done.returncode != 0:
                said = last_lines(f"{done.stdout}\n{done.stderr}")
                raise ImageError(f"{builder.name} failed while {step.what} the {recipe.runtime} image:\n{said}")
        _require_packages(recipe, read_inventory(folders.layout))
        folders.layout.replace(layout)
    finally:
        _remove(work, builder)
    weight = sum(path.stat().st_size for path in layout.rglob("*") if path.is_file())
    progress(f"image: {recipe.runtime} of {recipe.release} built, {weight / 1e6:,.0f} MB compressed, {_after(began_s)}")


def _after(began_s: float) -> str:
    return f"after {time.monotonic() - began_s:.0f} s"


def _require_disk(recipe: Recipe, cache: Path) -> None:
    """One clear error where it would not fit: the wheels, twice what they unpack to, and what that compresses to.

    Twice, for a layer is written from the folder that it was made in, and both are there until the end.
    """
    to_fetch = 0 if are_there([*recipe.installer, *recipe.locked], cache) else recipe.download_bytes
    needed = to_fetch + 2 * recipe.disk_bytes + recipe.download_bytes + DEBIAN_BYTES
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise ImageError(
            f"the {recipe.runtime} image takes {needed / 1e9:.1f} GB while it is built and {cache} has "
            f"{free / 1e9:.1f} GB free: make room, or set PATCHSTACK_CACHE to a folder on another disk"
        )


def _lay_context(recipe: Recipe, wheels: Sequence[LockedWheel], context: Path) -> None:
    for path, data in recipe.files:
        place = context / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    (context / "wheels").mkdir()
    taken = {wheel.pin: wheel for wheel in wheels}
    for wheel in wheels:
        place = context / "wheels" / wheel.path.name
        try:
            place.hardlink_to(wheel.path)
        except OSError:  # the cache is on a file system that knows none
            shutil.copyfile(wheel.path, place)
    (context / "locks").mkdir()
    for group in recipe.groups:
        lines = (Pin(pin.name, pin.version, "", (taken[pin].sha256,)).text() for pin in group.pins)
        (context / "locks" / f"{group.name}.txt").write_text("".join(lines))


# --- what came out -------------------------------------------------------------------------------------


def read_inventory(layout: Path) -> Inventory:
    """What the last layer of an OCI layout says is installed; it must hold that and nothing else."""
    try:
        (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
        manifest = parse_manifest(_blob(layout, entry["digest"]), MANIFEST, str(layout))
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(_blob(layout, manifest.layers[-1].digest)))) as archive:
            files = {member.name.removeprefix("./"): member for member in archive if not member.isdir()}
            if set(files) != {PATH}:
                others = ", ".join(sorted(set(files) - {PATH})[:5]) or "nothing"
                raise ImageError(f"the image's last layer must hold {PATH} and nothing else, and holds {others}")
            stream = archive.extractfile(files[PATH])
            assert stream is not None
            return decode_inventory(stream.read(), str(layout))
    except (ValueError, KeyError, IndexError, OSError, EOFError, tarfile.TarError) as error:
        raise ImageError(f"{layout} is no OCI layout that can be read: {error}") from error


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()


def _require_packages(recipe: Recipe, found: Inventory) -> None:
    said = problems(found, [(pin.name, pin.version) for pin in recipe.locked], recipe.debian)
    if said:
        more = f" and {len(said) - 10} more" if len(said) > 10 else ""
        raise ImageError(f"the image is not what its locks say: {'; '.join(said[:10])}{more}")


# --- what is left of one that was killed ----------------------------------------------------------------


def _sweep(images: Path, builder: Builder) -> None:
    """End and remove what killed builds left; we hold the lock, so nobody is waiting for them."""
    for work in sorted(images.glob(".build-*")):
        _end_orphans(work)
        _remove(work, builder)


def _end_orphans(work: Path) -> None:
    """End the programs of a build whose patchstack is gone: each has the folder's name, which is only its own."""
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError, ValueError):
            if str(work).encode() in arguments.read_bytes():
                os.kill(int(arguments.parent.name), signal.SIGKILL)


def _remove(work: Path, builder: Builder) -> None:
    """Remove a build's folder, but never what is mounted in it from elsewhere."""
    for place in _mounted_in(work):
        process.run(["umount", "--lazy", place], check=False)
    if not _mounted_in(work):
        shutil.rmtree(work, ignore_errors=True)
        if work.exists():
            process.run(builder.remove(work), check=False)
    if work.exists():
        raise ImageError(f"{work} cannot be removed: remove it by hand, for the next build needs its room")


def _mounted_in(work: Path) -> list[str]:
    """What is mounted below ``work``, the innermost first."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((place for place in places if place.startswith(f"{work}/")), reverse=True)
