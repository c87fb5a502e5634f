"""What an image says of itself: its contents as a value, as labels, and as files in it. Pure.

Nothing here knows the run or the clock, so that equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from patchstack.contents import Contents, Item, ItemLeftOut, Package
from patchstack.errors import ImageError, UsageError
from patchstack.image.oci import digest_of
from patchstack.model import Composition, LeftOut, Outcome, Topic
from patchstack.store import decode, encode

FOLDER = "opt/patchstack"
"""Where the files of this page are in an image; without a slash in front, as in a layer."""
CONTENTS, NIGHT, SBOM, PATCHES = "contents.json", "NIGHT.md", "sbom.cdx.json", "patches"

LICENSE = "Apache-2.0"
"""SGLang's and its patches'; packages have their own."""

_OCI = "org.opencontainers.image"


@dataclass(frozen=True)
class PatchSource:
    """What the patches stage knows of a patch besides its topic."""

    slug: str
    kill_switch: str
    upstream_status: str
    files: tuple[tuple[str, bytes], ...]
    """Each file's name in the patch's folder: its page, and its diff for this release."""


# --- the value -----------------------------------------------------------------------------------------


def contents_of(
    composition: Composition,
    sources: Sequence[PatchSource],
    *,
    fork: str,
    runtime: str,
    recipe: str,
    dependencies: str,
    packages: Sequence[Package],
    created: datetime,
) -> Contents:
    """The contents of the image of ``composition``.

    ``recipe`` and ``dependencies`` are the dependency image's key and digest, ``created`` the date of the
    composition's commit. What has gone since the last night is no part of it: it tells of two nights.
    """
    base, by_slug = composition.base, {source.slug: source for source in sources}
    return Contents(
        fork=fork,
        lane=composition.lane,
        runtime=runtime,
        base=base.name,
        release=base.version,
        base_commit=base.commit,
        base_tree=base.tree,
        composition=composition.commit,
        tree=composition.tree,
        fingerprint=composition.fingerprint.digest,
        created=f"{created.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        recipe=recipe,
        dependencies=dependencies,
        items=tuple(_item(topic, by_slug.get(topic.name)) for topic in composition.included),
        left_out=tuple(_left_out(item) for item in composition.left_out if item.outcome is not Outcome.GONE),
        packages=tuple(sorted(packages, key=lambda package: (package.kind, package.name, package.version))),
    )


def _item(topic: Topic, source: PatchSource | None) -> Item:
    return Item(
        name=topic.name,
        kind=topic.kind,
        title=topic.title,
        author=topic.author,
        head=topic.head,
        paths=topic.paths,
        url=topic.url,
        requires=topic.requires,
        kill_switch=source.kill_switch if source else "",
        upstream_status=source.upstream_status if source else "",
    )


def _left_out(item: LeftOut) -> ItemLeftOut:
    return ItemLeftOut(item.name, item.outcome, item.reason, item.detail, item.twins)


# --- labels --------------------------------------------------------------------------------------------


def version_of(contents: Contents) -> str:
    """A PEP 440 local version of the release: ``0.5.12.post1+c65aba1``."""
    return f"{contents.release}+{contents.tree[:7]}"


def label_prefix(fork: str) -> str:
    """A reverse-DNS name that the fork's owner holds: that of its pages on GitHub."""
    return f"io.github.{fork.partition('/')[0].lower()}.patchstack"


def labels_of(contents: Contents, contents_digest: str, dependency_name: str) -> dict[str, str]:
    """An image's labels, by name. ``dependency_name`` is the dependency image's, as a registry's user writes it.

    https://github.com/opencontainers/image-spec/blob/main/annotations.md
    """
    own = label_prefix(contents.fork)
    return dict(
        sorted(
            {
                f"{_OCI}.created": contents.created,
                f"{_OCI}.source": f"https://github.com/{contents.fork}",
                f"{_OCI}.revision": contents.composition,
                f"{_OCI}.version": version_of(contents),
                f"{_OCI}.title": f"SGLang {contents.release}, {contents.lane}, {contents.runtime}",
                f"{_OCI}.licenses": LICENSE,
                f"{_OCI}.base.name": dependency_name,
                f"{_OCI}.base.digest": contents.dependencies,
                f"{own}.lane": contents.lane,
                f"{own}.runtime": contents.runtime,
                f"{own}.tree": contents.tree,
                f"{own}.base-tree": contents.base_tree,
                f"{own}.fingerprint": contents.fingerprint,
                f"{own}.recipe": contents.recipe,
                f"{own}.contents": contents_digest,
            }.items()
        )
    )


BASE_NAME = f"{_OCI}.base.name"
"""The one label that the contents do not tell: in which repository the dependency image was."""


# --- files ---------------------------------------------------------------------------------------------


def encode_contents(contents: Contents) -> bytes:
    return encode(contents).encode()


def decode_contents(data: bytes, what: str) -> Contents:
    """What `encode_contents` wrote; `ImageError` names ``what`` when it is something else."""
    try:
        return decode(Contents, data.decode(), what)
    except (UnicodeDecodeError, UsageError) as error:
        raise ImageError(
            f"{what}: its {CONTENTS} does not read: it is damaged, or was made by another version of patchstack"
        ) from error


def contents_digest(contents: Contents) -> str:
    return digest_of(encode_contents(contents))


def files_of(
    contents: Contents, sources: Sequence[PatchSource], *, night: str, sbom: bytes, folder: str = FOLDER
) -> Mapping[str, bytes]:
    """The files of an image that tell of it, by path; ``night`` is the text of NIGHT.md.

    Of the patches' sources only those of patches that are in the image.
    """
    included = {item.name for item in contents.items}
    texts = {
        f"{PATCHES}/{source.slug}/{name}": data
        for source in sources
        if source.slug in included
        for name, data in source.files
    }
    files = {NIGHT: night.encode(), CONTENTS: encode_contents(contents), SBOM: sbom, **texts}
    return {f"{folder}/{name}": data for name, data in sorted(files.items())}
