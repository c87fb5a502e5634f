"""`patchstack image`: the composed tree as one layer on the dependencies of its release, in the lane's registry.

On most nights the dependencies are in the registry already, and nothing but that layer is made and pushed. Where they
are not, they are built first, and the last step is the same: so one composition has one digest either way.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patchstack.config import BaseImage, Image
from patchstack.errors import ImageError, UsageError
from patchstack.image.append import Lower, append, read_base, read_dependencies
from patchstack.image.build import LABEL_RECIPE, build, builder_at_hand
from patchstack.image.delta import delta
from patchstack.image.embedded import PROGRAM, REPOSITORY, find_program, serve
from patchstack.image.layer import FileEntry, make_layer
from patchstack.image.login import login_for
from patchstack.image.names import Place, dependency_tag, immutable_tag, place_of, reference
from patchstack.image.recipe import Recipe, read_recipe
from patchstack.image.registry import Registry
from patchstack.image.signing import Signer
from patchstack.image.statement import push_statement
from patchstack.model import Composition, ImageRef, ImageResult, Kind, LedgerImage
from patchstack.patches.series import read_series
from patchstack.store import Run, now_utc
from patchstack.upstream.releases import fetch_wheel
from patchstack.upstream.wheel import Part, read_files
from patchstack.verbs.image_contents import Inside, describe
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
        recipe = _recipe(work, composition, settings)
        if isinstance(recipe, str):
            return recipe
        tag = dependency_tag(recipe.runtime, recipe.key)
        if registry.resolve(tag) is not None:
            return f"one layer on {settings.repository}:{tag}"
        if not _can_build(work, recipe):
            return _no_builder(settings, tag)
        return f"the dependencies, built as {settings.repository}:{tag}, and one layer on them"


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
            else _dependencies(work, registry, settings, composition, previous)
        )
        if isinstance(under, str):
            return ImageResult(None, under)
        made = _append(work, run, registry, settings, composition, under, signer)
        return ImageResult(_ref(settings, under, made, registry.bytes_sent))


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


@dataclass(frozen=True)
class _Under:
    """What tonight's layer goes on, and what that was made from."""

    lower: Lower
    recipe: str
    built: bool


@dataclass(frozen=True)
class _Made:
    digest: str
    tag: str
    labels: tuple[tuple[str, str], ...]
    provenance: str


def _ref(settings: Image, under: _Under, made: _Made, bytes_new: int) -> ImageRef:
    return ImageRef(
        repository=settings.repository,
        digest=made.digest,
        tag=made.tag,
        runtime=settings.runtime,
        recipe=under.recipe,
        dependencies=under.lower.digest,
        labels=made.labels,
        bytes_new=bytes_new,
        built=under.built,
        provenance=made.provenance,
    )


def _append(
    work: Workplace,
    run: Run,
    registry: Registry,
    settings: Image,
    composition: Composition,
    under: _Under,
    signer: Signer | None,
) -> _Made:
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
    return _Made(made.digest, made.tag, tuple(inside.labels.items()), made.provenance)


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


# --- what it stands on ---------------------------------------------------------------------------------


def _dependencies(
    work: Workplace, registry: Registry, settings: Image, composition: Composition, previous: LedgerImage | None
) -> _Under | str:
    """The dependency image of the release, built and pushed if the registry has none; or why there is none."""
    recipe = _recipe(work, composition, settings)
    if isinstance(recipe, str):
        return recipe
    tag = dependency_tag(recipe.runtime, recipe.key)
    name = f"{settings.repository}:{tag}"
    lower, built = read_dependencies(registry, tag, name), False
    if lower is None:
        if not _can_build(work, recipe):
            return _no_builder(settings, tag)
        lower, built = _build(work, registry, recipe, composition, tag, name), True
    else:
        _refuse_replaced(registry, settings, recipe, lower, tag, previous)
    _require_recipe(lower, recipe, name)
    return _Under(lower, recipe.key, built)


def _recipe(work: Workplace, composition: Composition, settings: Image) -> Recipe | str:
    return read_recipe(composition.base, settings.runtime, work.root, cache=work.cache, progress=work.progress)


def _build(work: Workplace, registry: Registry, recipe: Recipe, composition: Composition, tag: str, name: str) -> Lower:
    with work.progress.stage("build"):
        layout = build(recipe, composition.base, work.cache, work.progress)
    with work.progress.stage("push"):
        digest = registry.push_layout(layout, tag)
    lower = read_dependencies(registry, tag, name)
    if lower is None or lower.digest != digest:
        raise ImageError(
            f"{name} is {lower.digest if lower else 'not there'} after {digest} was pushed: somebody else writes there"
        )
    return lower


def _require_recipe(lower: Lower, recipe: Recipe, name: str) -> None:
    """The tag says what it was made from, and so does a label: that the two agree is no accident."""
    found = lower.labels.get(LABEL_RECIPE)
    if found != recipe.key:
        raise ImageError(
            f"{name} says that it was made by recipe {found or 'none'}, and its tag is that of {recipe.key}: it is not "
            "ours; delete the tag and run again, and it is built"
        )


def _refuse_replaced(
    registry: Registry, settings: Image, recipe: Recipe, lower: Lower, tag: str, previous: LedgerImage | None
) -> None:
    """Nobody builds an equal recipe twice while the first image is there: what stands in its place is somebody's."""
    if previous is None or (previous.repository, previous.recipe) != (settings.repository, recipe.key):
        return
    if previous.dependencies == lower.digest or previous.runtime != settings.runtime:
        return
    there = registry.resolve(previous.dependencies) is not None
    raise ImageError(
        f"tag {tag} of {settings.repository} is {lower.digest}, and the last promoted night stands on "
        f"{previous.dependencies} of the same recipe: somebody has replaced it; find out who. "
        + (
            f"To go on as before, tag {previous.dependencies} as {tag} again"
            if there
            else f"That image is gone; to have it built again from its recipe, delete the tag {tag}"
        )
        + ", and run again"
    )


def _somebody_elses(work: Workplace, registry: Registry, settings: Image, base: BaseImage) -> _Under:
    """The image that deploy.yaml names by its digest, with its layers in our repository."""
    wanted = reference(base.name, None)
    work.progress(f"having the layers of {base.name} in {settings.repository}")
    before = registry.bytes_sent
    with _registry_at(wanted.place, ours=wanted.place.host == registry.place.host) as source:
        lower = read_base(registry, source, wanted, base.root, work.cache / "images")
    recipe = hashlib.sha256(f"{base.name}\n{base.root}\n".encode()).hexdigest()
    return _Under(lower, recipe, registry.bytes_sent > before)


# --- why there is none ---------------------------------------------------------------------------------


def why_none(work: Workplace) -> str:
    """Why this machine makes no image for the lane, and what to do."""
    if _is_switched_off():
        return f"images are switched off for this night by {SWITCH}={OFF}: unset it"
    if not work.embedded:
        return f"lane {work.lane_name} has no image in deploy.yaml: add lanes.{work.lane_name}.image"
    return f"there is no registry on this machine for local nights: install it (apt-get install {PROGRAM})"


def _can_build(work: Workplace, recipe: Recipe) -> bool:
    """What was built here once is in the cache, and needs no builder."""
    return (work.cache / "images" / recipe.key / "index.json").is_file() or builder_at_hand() is not None


def _no_builder(settings: Image, tag: str) -> str:
    return (
        f"{settings.repository} has no {tag}, and no builder is at hand that could make it: install buildah "
        "and mmdebstrap (`make builder`)"
    )
