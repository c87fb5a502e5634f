"""What tonight's image stands on: the dependency image of its release, in the registry or built for it."""

from __future__ import annotations

from dataclasses import dataclass

from patchstack.config import Image
from patchstack.errors import ImageError
from patchstack.image.append import Lower, read_dependencies
from patchstack.image.build import LABEL_RECIPE, build, builder_at_hand
from patchstack.image.names import dependency_tag
from patchstack.image.recipe import Recipe, read_recipe
from patchstack.image.registry import Registry
from patchstack.model import Composition, LedgerImage
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class Under:
    """What tonight's layer goes on, and what that was made from."""

    lower: Lower
    recipe: str
    built: bool
    """It was not in the repository before."""


def would_stand_on(work: Workplace, registry: Registry, settings: Image, composition: Composition) -> str:
    """What `dependencies_of` would find or do, in a sentence; nothing is built."""
    recipe = _recipe(work, composition, settings)
    if isinstance(recipe, str):
        return recipe
    tag = dependency_tag(recipe.runtime, recipe.key)
    if registry.resolve(tag) is not None:
        return f"one layer on {settings.repository}:{tag}"
    if not _can_build(work, recipe):
        return _no_builder(settings, tag)
    return f"the dependencies, built as {settings.repository}:{tag}, and one layer on them"


def dependencies_of(
    work: Workplace, registry: Registry, settings: Image, composition: Composition, previous: LedgerImage | None
) -> Under | str:
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
    return Under(lower, recipe.key, built)


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


def _can_build(work: Workplace, recipe: Recipe) -> bool:
    """What was built here once is in the cache, and needs no builder."""
    return (work.cache / "images" / recipe.key / "index.json").is_file() or builder_at_hand() is not None


def _no_builder(settings: Image, tag: str) -> str:
    return (
        f"{settings.repository} has no {tag}, and no builder is at hand that could make it: install buildah "
        "and mmdebstrap (`make builder`)"
    )
