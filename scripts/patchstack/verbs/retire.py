"""`patchstack retire`: images that were never promoted go when they are old, and dependencies that nobody needs."""

from __future__ import annotations

from collections.abc import Mapping

from patchstack.errors import ImageError, UsageError
from patchstack.image.embedded import collect_garbage
from patchstack.image.names import dependency_tag
from patchstack.image.recipe import read_recipe
from patchstack.image.registry import Registry
from patchstack.image.retention import (
    BASE_DIGEST,
    Holding,
    Needed,
    Retirement,
    is_dependencies,
    is_statement,
    night_of,
    retire,
)
from patchstack.model import LedgerImage
from patchstack.release.remote import read_remote
from patchstack.store import now_utc
from patchstack.verbs.author import base_of
from patchstack.verbs.image import lane_image, open_registry, registry_folder, why_none
from patchstack.verbs.remote import list_remote, naming_the_way_out, open_remote
from patchstack.workplace import Workplace


def retire_images(work: Workplace, *, dry_run: bool = False) -> Retirement:
    """Decide what may go, and unless ``dry_run`` delete it; the caller holds the lock.

    Raises `UsageError` where the lane has no registry, `RemoteError` when the ledger cannot be read, and `ImageError`
    when the registry fails or holds what the ledger cannot explain. What is deleted then is only what was decided.
    """
    settings = lane_image(work)
    with open_registry(work) as registry:
        if settings is None or registry is None:
            raise UsageError(f"no registry to clear: {why_none(work)}")
        lanes = _lanes_of_the_repository(work)
        decided = retire(
            _holding(registry, lanes),
            _needed(work, lanes),
            lane=work.lane_name,
            lanes=lanes,
            today=now_utc().date(),
            keep_days=settings.keep_days,
        )
        if dry_run:
            return decided
        for item in decided.all:
            registry.delete_manifest(item.digest)
            work.progress(f"deleted {', '.join(item.tags)}")
    if work.embedded and decided.all:
        collect_garbage(registry_folder(work))
    return decided


def _lanes_of_the_repository(work: Workplace) -> tuple[str, ...]:
    """The lanes whose images are in the same repository; in the embedded registry all are."""
    settings = lane_image(work)
    same = {
        name
        for name, lane in work.config.lanes.items()
        if work.embedded or (lane.image and settings and lane.image.repository == settings.repository)
    }
    return tuple(name for name in work.config.lanes if name in same)


def _holding(registry: Registry, lanes: tuple[str, ...]) -> Holding:
    found = {tag: registry.resolve(tag) for tag in registry.tags()}
    tags = {tag: digest for tag, digest in found.items() if digest is not None}
    made_on: dict[str, str] = {}
    unread = []
    for tag, digest in tags.items():
        if is_dependencies(tag) or is_statement(tag) or digest in made_on:
            continue
        try:
            below = dict(registry.manifest(digest).annotations).get(BASE_DIGEST)
        except ImageError:
            if any(night_of(lane, tag) for lane in lanes):
                raise
            unread.append(tag)  # such as an index of several platforms, which somebody put there
            continue
        if below is not None:
            made_on[digest] = below
    return Holding(tags, made_on, tuple(unread))


def _needed(work: Workplace, lanes: tuple[str, ...]) -> Needed:
    images = [image for name in lanes for image in _promoted(work, name)]
    return Needed(
        promoted={image.digest for image in images},
        promoted_on={image.dependencies for image in images},
        recipes=set(_recipes(work, lanes).values()),
    )


def _promoted(work: Workplace, lane: str) -> list[LedgerImage]:
    """The image of every night in a lane's ledger."""
    if lane == work.lane_name:
        history = open_remote(work, list_remote(work)).history
    else:
        branch = work.config.lanes[lane].branch
        with naming_the_way_out(work):
            history = read_remote(work.store(), work.remote, lane=lane, branch=branch).history
    return [night.line.image for night in history.nights if night.line.image is not None]


def _recipes(work: Workplace, lanes: tuple[str, ...]) -> Mapping[str, str]:
    """The tag of the dependency image of each lane, by lane; a lane without a recipe has none."""
    found = {}
    for name in lanes:
        settings = lane_image(work) if work.embedded else work.config.lanes[name].image
        if settings is None or settings.base is not None:
            continue
        recipe = read_recipe(base_of(work, work.store(), name), settings.runtime, work.root, cache=work.cache)
        if not isinstance(recipe, str):
            found[name] = dependency_tag(recipe.runtime, recipe.key)
    return found
