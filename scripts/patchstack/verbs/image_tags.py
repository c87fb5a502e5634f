"""Moving image tags, made to follow the ledger: after a promotion, and at the start of each night for what was lost.

`deploy` is the commit point, the registry is told after it. A tag can therefore lag behind, never be ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from patchstack.errors import ImageError, UsageError
from patchstack.image.build import builder_at_hand
from patchstack.image.embedded import find_program
from patchstack.image.engine import engine_at_hand
from patchstack.image.names import PromotedImage, moving_tags
from patchstack.image.recipe import CPU, Recipe, recipe_of
from patchstack.image.registry import Registry
from patchstack.model import Base, ImageRef, ImageResult, LedgerImage, LedgerLine
from patchstack.release.ledger import Entry, History
from patchstack.store import Run
from patchstack.verbs.image import image_settings, lane_image, open_registry
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class ImageTag:
    """A moving tag, and what the registry holds under its name."""

    name: str
    wanted: str
    """The digest that the ledger gives it."""
    found: str | None

    @property
    def lags(self) -> bool:
        return self.found != self.wanted


@dataclass(frozen=True)
class Followed:
    """What was done so that a lane's moving tags follow its ledger."""

    moved: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    """Tags whose image the registry does not hold any more: nothing can be done about them here."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a night is told."""
        return (
            *(f"image tag {name} follows the ledger now" for name in self.moved),
            *(
                f"image tag {name} stays where it is: the registry has lost the image of its night"
                for name in self.lost
            ),
        )


def ledger_image(image: ImageRef) -> LedgerImage:
    return LedgerImage(image.repository, image.digest, image.tag, image.runtime, image.recipe, image.dependencies)


def require_pullable(registry: Registry, image: LedgerImage) -> None:
    """`ImageError` unless the registry still has the image under the tag that it was tested by."""
    found = registry.resolve(image.tag)
    if found != image.digest:
        raise ImageError(
            f"tag {image.tag} of {image.repository} is {found or 'gone'} where {image.digest} was tested: somebody "
            "changed it since; nothing was moved: run `patchstack nightly --force`"
        )


def wanted_tags(work: Workplace, standing: Sequence[Entry]) -> dict[str, str]:
    """The digest of each moving tag by the nights that stand; of images in the lane's repository of today.

    They follow them on a night without an image, too.
    """
    settings = lane_image(work)
    if settings is None:
        return {}
    nights = [
        PromotedImage(night.line.channels, night.line.image)
        for night in standing
        if night.line.image is not None and night.line.image.repository == settings.repository
    ]
    return moving_tags(work.lane_name, nights)


def left_behind(work: Workplace, history: History, to: Entry) -> tuple[str, ...]:
    """What to say of tags that a rollback to ``to`` takes from every night that then stands: nothing moves them."""
    below = history.standing[history.standing.index(to) :]
    before, then = wanted_tags(work, history.standing), wanted_tags(work, below)
    return tuple(
        f"image tag {name} stays at {digest}, which is taken back: no night that stands has an image for it"
        for name, digest in before.items()
        if name not in then
    )


@contextmanager
def _looked_at(work: Workplace, history: History) -> Iterator[tuple[Registry | None, tuple[ImageTag, ...]]]:
    """The lane's moving tags as they stand, with their registry; nothing is asked where the ledger names no image."""
    wanted = wanted_tags(work, history.standing)
    if not wanted:
        yield None, ()
        return
    with open_registry(work) as registry:
        if registry is None:
            yield None, ()
        else:
            yield (
                registry,
                tuple(ImageTag(name, digest, registry.resolve(name)) for name, digest in sorted(wanted.items())),
            )


def follow_ledger(work: Workplace, history: History) -> Followed:
    """Set every tag that lags to the digest that the ledger gives it, if the registry has that image.

    Raises `ImageError` at the first that the registry refuses; those before it have moved, and the next night goes on.
    """
    moved, lost = [], []
    with _looked_at(work, history) as (registry, tags):
        for tag in tags:
            if registry is None or not tag.lags:
                continue
            if registry.resolve(tag.wanted) is None:
                lost.append(tag.name)
            else:
                registry.tag(tag.wanted, tag.name, move=True)
                moved.append(tag.name)
    return Followed(tuple(moved), tuple(lost))


def lagging_tags(work: Workplace, history: History) -> tuple[ImageTag, ...]:
    """The tags that are not where the ledger says."""
    with _looked_at(work, history) as (_, tags):
        return tuple(tag for tag in tags if tag.lags)


def tags_to_move(work: Workplace, history: History) -> tuple[str, ...]:
    """The tags that `follow_ledger` would move now; not those whose image is lost, for it cannot."""
    with _looked_at(work, history) as (registry, tags):
        if registry is None:
            return ()
        return tuple(tag.name for tag in tags if tag.lags and registry.resolve(tag.wanted) is not None)


def image_is_due(work: Workplace, line: LedgerLine, base: Base) -> bool:
    """Whether this machine can make the image that a promoted night on ``base`` lacks.

    Wherever it is known beforehand that there will be none this is false, or else no night would ever be the last.
    """
    settings = image_settings(work)
    if settings is None or line.image is not None or (work.embedded and find_program() is None):
        return False
    if engine_at_hand() is None or _was_made_in_vain(work, line.night):
        return False
    if settings.base is not None:
        return True
    return isinstance(recipe_of(base, settings.runtime, work.root, CPU), Recipe) and builder_at_hand() is not None


def _was_made_in_vain(work: Workplace, night: str) -> bool:
    """Whether that night made an image here which then was not promoted: an engine that does not work, say."""
    run = Run(work.state.runs / night)
    try:
        return run.has(ImageResult) and run.read(ImageResult).image is not None
    except UsageError:  # another version's, or damaged: it may go well this time
        return False
