"""An OCI layout: an image as a folder, as buildah and skopeo write it.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import json
from pathlib import Path

from patchstack.errors import ImageError
from patchstack.image.names import is_digest
from patchstack.image.oci import Descriptor, Manifest, digest_of, parse_manifest


def read_layout(folder: Path) -> Manifest:
    """The manifest of the one image in ``folder``; `ImageError` where there is none, or more than one."""
    index = folder / "index.json"
    try:
        (entry,) = json.loads(index.read_bytes())["manifests"]
        digest, media_type = str(entry["digest"]), str(entry["mediaType"])
        raw = _path(folder, digest).read_bytes()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ImageError(f"{folder} is no layout of one image ({error}); remove it, and it is built again") from error
    if digest_of(raw) != digest:
        raise ImageError(f"{folder} is damaged: {digest} is {digest_of(raw)}; remove it, and it is built again")
    return parse_manifest(raw, media_type, str(folder))


def blob_of_layout(folder: Path, blob: Descriptor) -> Path:
    """The file of a blob; `ImageError` where it is not there, or not as long as its image says."""
    path = _path(folder, blob.digest)
    size = path.stat().st_size if path.is_file() else None
    if size != blob.size:
        there = "missing" if size is None else f"{size:,} bytes long"
        raise ImageError(
            f"{folder} is damaged: {blob.digest}, of {blob.size:,} bytes, is {there}; remove it, and it is built again"
        )
    return path


def _path(folder: Path, digest: str) -> Path:
    if not is_digest(digest):
        raise ValueError(f"{digest!r} is no digest")
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
