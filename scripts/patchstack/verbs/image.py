"""`patchstack image`: the composed tree as one layer on the dependencies of its release, in the lane's registry.

On most nights the dependencies are in the registry already, and nothing but that layer is made and pushed. Where they
are not, they are built first, and the last step is the same: so one composition has one digest either way.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchstack.config import BaseImage, Image
from patchstack.errors import UsageError
from patchstack.image.append import append, read_base
from patchstack.image.delta import delta
from patchstack.image.embedded import PROGRAM, REPOSITORY, find_program, serve
from patchstack.image.layer import FileEntry, make_layer
from patchstack.image.login import login_for
from patchstack.image.names import Place, immutable_tag, place_of, reference
from patchstack.image.registry import Registry
from patchstack.image.signing import Signer
from patchstack.image.statement import push_statement
from patchstack.model import Composition, ImageRef, ImageResult, Kind, LedgerImage
from patchstack.patches.series import read_series
from patchstack.store import Run, now_utc
from patchstack.upstream.releases import fetch_wheel
from patchstack.upstream.wheel import Part, read_files
from patchstack.verbs.image_contents import Inside, describe
from patchstack.verbs.image_dependencies import Under, dependencies_of, would_stand_on
from patchstack.verbs.remote import open_remote
from patchstack.verbs.signing import signer_for
from patchstack.workplace import Workplace

SWITCH, OFF = "PATCHSTACK_IMAGE", "none"


# --- what is configured --------------------------------------------------------------------------------


def image_settings(work: Workplace) -> Image | None:
    """What tonight's image is to be; None where the lane has none, or images are switched off for this night."""
    return None if _is_switched_off() else lane_image(work)


def lane_image(work: Workplace) -> Image | None:
    """What the lane's images are, whatever becomes of tonight's.

    On a remote of this machine alone it is the small image in a registry of this machine alone, for every lane.
    """
    configured = work.lane.image
    if not work.embedded:
        return configured
    local = Image(repository=REPOSITORY, runtime="cpu")
    return local.model_copy(update={"keep_days": configured.keep_days}) if configured else local


def _is_switched_off() -> bool:
    value = os.environ.get(SWITCH, "").strip()
    if value not in {"", OFF}:
        raise UsageError(f"{SWITCH} is {value!r}: set it to `{OFF}` for a night without an image, or unset it")
    return value == OFF


@contextmanager
def open_registry(work: Workplace) -> Iterator[Registry | None]:
    """The lane's registry, or this machine's own for the time of the block; None where there is neither."""
    settings = lane_image(work)
    if settings is None or (work.embedded and find_program() is None):
        yield None
    elif work.embedded:
        with serve(registry_folder(work)) as place, Registry.at(place) as registry:
            yield registry
    else:
        with _registry_at(place_of(settings.repository), ours=True) as registry:
            yield registry


def registry_folder(work: Workplace) -> Path:
    return work.state.root / "registry"


def _registry_at(place: Place, *, ours: bool) -> Registry:
    return Registry.at(place, login_for(place.host, os.environ, Path.home(), ours=ours))


# --- tonight's image -----------------------------------------------------------------------------------


def make_image(work: Workplace, run: Run, composition: Composition, previous: LedgerImage | None) -> ImageResult:
    """Make, push and read back the image of ``composition``, and write what became of it into ``run``.

    ``previous`` is the image of the last promoted night. Where none can be made here, the result says why and what to
    do. Raises `ImageError`, with nothing tagged, when what is begun fails.
    """
    result = _attempt(work, run, composition, previous)
    run.write(result)
    return result


def would_make(work: Workplace, composition: Composition) -> str:
    """What `make_image` would do, in a sentence; or why it would make none. Nothing is pushed or built."""
    settings = image_settings(work)
    with open_registry(work) as registry:
        if settings is None or registry is None:
            return why_none(work)
        if settings.base is not None:
            return f"one layer on {settings.base.name}, in {settings.repository}"
        return would_stand_on(work, registry, settings, composition)


def previous_image(work: Workplace) -> LedgerImage | None:
    """The image of the last promoted night."""
    last = open_remote(work).history.last
    return last.line.image if last else None


def _attempt(work: Workplace, run: Run, composition: Composition, previous: LedgerImage | None) -> ImageResult:
    settings = image_settings(work)
    if settings is None:
        return ImageResult(None, why_none(work))
    signer = signer_for(work)
    _require_planned_patches(work, composition)
    with open_registry(work) as registry:
        if registry is None:
            return ImageResult(None, why_none(work))
        under = (
            _somebody_elses(work, registry, settings, settings.base)
            if settings.base is not None
            else dependencies_of(work, registry, settings, composition, previous)
        )
        if isinstance(under, str):
            return ImageResult(None, under)
        return ImageResult(_append(work, run, registry, settings, composition, under, signer))


def _require_planned_patches(work: Workplace, composition: Composition) -> None:
    """The image holds the patches' own files: those of the plan, whatever has become of them since."""
    here = {f"patch {patch.slug}": patch.digest for patch in read_series(work.patches_folder)}
    planned = dict(composition.fingerprint.inputs)
    for topic in composition.included:
        name = f"patch {topic.name}"
        if topic.kind is Kind.PATCH and here.get(name) != planned.get(name):
            raise UsageError(
                f"{name} is not what it was when commit {composition.commit[:12]} was planned: its files in the image "
                "would be others than what is composed; plan again, or check out the patches of then"
            )


def _append(
    work: Workplace,
    run: Run,
    registry: Registry,
    settings: Image,
    composition: Composition,
    under: Under,
    signer: Signer | None,
) -> ImageRef:
    inside = describe(
        work,
        composition,
        runtime=settings.runtime,
        recipe=under.recipe,
        dependencies=under.lower.digest,
        dependency_name=under.lower.name,
        packages=under.lower.inventory.packages,
    )
    layer = make_layer(*_files(work, composition, under.lower.inventory.root, inside))
    work.progress(f"one layer of {layer.size:,} bytes on {under.lower.name}")
    day = (run.began or now_utc()).date()

    def tag_for(digest: str) -> str:
        name = immutable_tag(work.lane_name, settings.runtime, day, composition.tree, digest, {})
        there = {tag: registry.resolve(tag) for tag in registry.tags() if tag.startswith(name)}
        taken = {tag: found for tag, found in there.items() if found is not None}
        return immutable_tag(work.lane_name, settings.runtime, day, composition.tree, digest, taken)

    def sign(digest: str) -> str:
        return push_statement(registry, inside.contents, settings.repository, digest, signer) if signer else ""

    made = append(registry, under.lower, layer, inside.labels, inside.contents.created, tag_for, sign)
    return ImageRef(
        repository=settings.repository,
        digest=made.digest,
        tag=made.tag,
        runtime=settings.runtime,
        recipe=under.recipe,
        dependencies=under.lower.digest,
        labels=tuple(inside.labels.items()),
        bytes_new=registry.bytes_sent,
        built=under.built,
        provenance=made.provenance,
    )


def _files(
    work: Workplace, composition: Composition, root: str, inside: Inside
) -> tuple[dict[str, FileEntry], tuple[str, ...]]:
    """What tonight's layer puts into the image and takes out of it."""
    store, base = work.store(), composition.base.tree
    takes_away = any(change.status == "D" for change in store.changes(base, composition.tree))
    natives = _natives(work) if takes_away else ()
    changed = delta(store, base, composition.tree, root, natives)
    told = {path: FileEntry(data) for path, data in inside.files.items()}
    return {**changed.files, **told}, changed.deleted


def _natives(work: Workplace) -> tuple[str, ...]:
    """The release's compiled files, which no tree holds."""
    if work.lane.upstream.pypi is None:
        return ()
    wheel = fetch_wheel(work.lane.upstream.pypi, work.cache, offline=work.offline, progress=work.progress)
    return tuple(entry.path for entry, _ in read_files(wheel, Part.NATIVE))


def _somebody_elses(work: Workplace, registry: Registry, settings: Image, base: BaseImage) -> Under:
    """The image that deploy.yaml names by its digest, with its layers in our repository."""
    wanted = reference(base.name, None)
    work.progress(f"having the layers of {base.name} in {settings.repository}")
    before = registry.bytes_sent
    with _registry_at(wanted.place, ours=wanted.place.host == registry.place.host) as source:
        lower = read_base(registry, source, wanted, base.root, work.cache / "images")
    recipe = hashlib.sha256(f"{base.name}\n{base.root}\n".encode()).hexdigest()
    return Under(lower, recipe, registry.bytes_sent > before)


# --- why there is none ---------------------------------------------------------------------------------


def why_none(work: Workplace) -> str:
    """Why this machine makes no image for the lane, and what to do."""
    if _is_switched_off():
        return f"images are switched off for this night by {SWITCH}={OFF}: unset it"
    if not work.embedded:
        return f"lane {work.lane_name} has no image in deploy.yaml: add lanes.{work.lane_name}.image"
    return f"there is no registry on this machine for local nights: install it (apt-get install {PROGRAM})"
