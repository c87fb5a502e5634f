"""What tonight's image says of itself: composition, patches and dependencies as one value, and as its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from patchstack.contents import Contents, Package
from patchstack.image.contents import PatchSource, contents_digest, contents_of, files_of, labels_of
from patchstack.image.sbom import sbom
from patchstack.model import Composition
from patchstack.patches.header import HEADER_NAME, Patch
from patchstack.patches.series import read_series
from patchstack.report.inside import render_inside
from patchstack.workplace import Workplace


@dataclass(frozen=True)
class Inside:
    contents: Contents
    files: Mapping[str, bytes]
    """By path, without a slash in front."""
    labels: Mapping[str, str]


def describe(
    work: Workplace,
    composition: Composition,
    *,
    runtime: str,
    recipe: str,
    dependencies: str,
    dependency_name: str,
    packages: Sequence[Package],
) -> Inside:
    """What the image of ``composition`` says of itself.

    ``dependencies`` is the digest of the image that its layer goes on, ``dependency_name`` what that is called, and
    ``recipe`` the key that it was made by.
    """
    seconds = int(work.store().show(composition.commit, "%ct").strip())
    version = composition.base.version
    sources = tuple(_source(patch, version) for patch in read_series(work.patches_folder))
    contents = contents_of(
        composition,
        sources,
        fork=work.config.fork.repo,
        runtime=runtime,
        recipe=recipe,
        dependencies=dependencies,
        packages=packages,
        created=datetime.fromtimestamp(seconds, UTC),
    )
    files = files_of(contents, sources, night=render_inside(contents), sbom=sbom(contents))
    return Inside(contents, files, labels_of(contents, contents_digest(contents), dependency_name))


def _source(patch: Patch, version: str) -> PatchSource:
    variant = patch.variant_for(version)
    paths = [patch.folder / HEADER_NAME, *([variant.path] if variant else [])]
    files = tuple((path.name, path.read_bytes()) for path in paths)
    return PatchSource(patch.slug, patch.kill_switch, patch.upstream_status, files)
