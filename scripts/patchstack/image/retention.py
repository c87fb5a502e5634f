"""Which images of a repository may go. Pure.

What was promoted stays for ever, and so does whatever anybody gave a name of their own. What goes is what nobody
needs any more: images that were made and never promoted, once they are old, each with its signed statement; and
dependency images that no image that stays was made on, and tonight's would not be either.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from patchstack.errors import ImageError
from patchstack.image.names import NIGHTLY, STABLE, lane_prefix, statement_tag

BASE_DIGEST = "org.opencontainers.image.base.digest"
"""The annotation of an image that names what it was made on."""

_NIGHT = re.compile(r"(?P<kind>[a-z0-9]+)-(?P<day>[0-9]{8})-[0-9a-f]{7}(?:-[0-9]+)?")
_DEPENDENCIES = re.compile(r"deps-[a-z0-9]+-[0-9a-f]{16}")
_STATEMENT = re.compile(r"sha256-[0-9a-f]{64}\.att")
_KINDS = (NIGHTLY, "cpu")
"""How tags of nights begin, behind the lane: by runtime."""


@dataclass(frozen=True)
class Holding:
    """What a repository holds."""

    tags: Mapping[str, str]
    """Every tag, with the digest of what it names."""
    made_on: Mapping[str, str]
    """The digest of each image that says what it was made on, with the digest of that."""
    unread: tuple[str, ...] = ()
    """Tags of somebody's of which it is not known what they were made on: all dependency images stay."""


@dataclass(frozen=True)
class Needed:
    """What must stay."""

    promoted: Collection[str]
    """The digest of every image in the ledger of any lane of the repository."""
    promoted_on: Collection[str]
    """The digests of the dependency images of these."""
    recipes: Collection[str]
    """The tags of the dependency images that tonight's images would be made on."""


@dataclass(frozen=True)
class Retired:
    digest: str
    tags: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Retirement:
    """What goes, in this order: a statement goes before its image, so that what fails can be done again."""

    statements: tuple[Retired, ...]
    images: tuple[Retired, ...]
    dependencies: tuple[Retired, ...]

    @property
    def all(self) -> tuple[Retired, ...]:
        return (*self.statements, *self.images, *self.dependencies)


def night_of(lane: str, tag: str) -> date | None:
    """The day in an immutable tag of ``lane``; None for any other tag."""
    prefix = lane_prefix(lane)
    found = _NIGHT.fullmatch(tag.removeprefix(prefix)) if tag.startswith(prefix) else None
    if found is None or found["kind"] not in _KINDS:
        return None
    try:
        return datetime.strptime(found["day"], "%Y%m%d").date()  # noqa: DTZ007 - a day, not a moment
    except ValueError:
        return None


def is_dependencies(tag: str) -> bool:
    return _DEPENDENCIES.fullmatch(tag) is not None


def follows_ledger(lane: str) -> tuple[str, ...]:
    """The moving tags that a lane can have."""
    names = (NIGHTLY, STABLE, "previous", "cpu-latest", "cpu-previous")
    return tuple(f"{lane_prefix(lane)}{name}" for name in names)


def is_worth_pulling(tag: str) -> bool:
    return not (is_dependencies(tag) or is_statement(tag))


def is_statement(tag: str) -> bool:
    return _STATEMENT.fullmatch(tag) is not None


def retire(
    holding: Holding, needed: Needed, *, lane: str, lanes: Collection[str], today: date, keep_days: int
) -> Retirement:
    """What may go of ``lane``'s images, and of the dependency images of all ``lanes`` that share the repository.

    Raises `ImageError` where a moving tag names an image that no ledger does: then it is not the whole ledger that
    was read, and what it lacks must not be taken for never promoted.
    """
    _require_the_whole_ledger(holding, needed, lanes)
    by_digest: dict[str, list[str]] = {}
    for tag, digest in sorted(holding.tags.items()):
        by_digest.setdefault(digest, []).append(tag)
    oldest = today - timedelta(days=keep_days)
    images = tuple(
        Retired(digest, tuple(tags), f"of {_newest(lane, tags):%Y-%m-%d}, and never promoted")
        for digest, tags in by_digest.items()
        if digest not in needed.promoted and _are_old(lane, tags, oldest)
    )
    gone = {image.digest for image in images}
    statements = tuple(
        Retired(held, (name,), f"the statement on {image.tags[0]}")
        for image in images
        if (held := holding.tags.get(name := statement_tag(image.digest))) is not None
        and by_digest[held] == [name]
        and held not in needed.promoted
    )
    below_those = (below for image, below in holding.made_on.items() if image not in gone)
    used = {*needed.promoted, *needed.promoted_on, *below_those}
    dependencies = tuple(
        Retired(digest, tuple(tags), "no image that stays was made on it")
        for digest, tags in by_digest.items()
        if all(map(is_dependencies, tags)) and not {*tags} & {*needed.recipes} and digest not in used
    )
    return Retirement(statements, images, () if holding.unread else dependencies)


def _are_old(lane: str, tags: Collection[str], oldest: date) -> bool:
    """Whether all names of an image are of nights before ``oldest``: any other one is somebody's who needs it."""
    days = [night_of(lane, tag) for tag in tags]
    return all(day is not None and day < oldest for day in days)


def _newest(lane: str, tags: Collection[str]) -> date:
    return max(day for tag in tags if (day := night_of(lane, tag)) is not None)


def _require_the_whole_ledger(holding: Holding, needed: Needed, lanes: Collection[str]) -> None:
    for tag in (tag for lane in lanes for tag in follows_ledger(lane)):
        digest = holding.tags.get(tag)
        if digest is not None and digest not in needed.promoted:
            raise ImageError(
                f"tag {tag} is {digest}, an image that the ledger does not name: nothing is deleted, for what was "
                "promoted cannot be told from what was not; is this the right remote, and its deploy branch whole?"
            )
