"""OCI's own terms: digests, media types, and a manifest as the bytes that a registry holds.

https://github.com/opencontainers/image-spec
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from patchstack.errors import ImageError
from patchstack.image.names import is_digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_TYPES = (MANIFEST, DOCKER_MANIFEST)
"""An index of several platforms is neither: what is extended or promoted is one image."""
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Descriptor:
    """What a manifest says of a blob (https://github.com/opencontainers/image-spec/blob/main/descriptor.md)."""

    media_type: str
    digest: str
    size: int
    annotations: tuple[tuple[str, str], ...] = ()

    def encode(self) -> dict[str, Any]:
        body: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return {**body, "annotations": dict(self.annotations)} if self.annotations else body


@dataclass(frozen=True)
class Manifest:
    """One image's manifest: the very bytes, for its digest is that of the bytes, and what they say."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        return digest_of(self.raw)


def parse_manifest(raw: bytes, media_type: str, what: str) -> Manifest:
    """The manifest in ``raw``; `ImageError` names ``what`` when it is none."""
    try:
        body = json.loads(raw)
        media_type = body.get("mediaType", media_type)
        if media_type not in MANIFEST_TYPES:
            raise ValueError(f"it is of type {media_type!r}, not one image's manifest")
        layers = tuple(_descriptor(layer) for layer in body["layers"])
        notes = tuple(sorted((str(key), str(text)) for key, text in (body.get("annotations") or {}).items()))
        return Manifest(raw, media_type, _descriptor(body["config"]), layers, notes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImageError(f"{what} is no image that can be used: {error}") from error


def _descriptor(body: dict[str, Any]) -> Descriptor:
    digest, size = body["digest"], body["size"]
    if not isinstance(digest, str) or not is_digest(digest) or type(size) is not int or size < 0:
        raise ValueError(f"{digest!r} of {size!r} bytes is no blob")
    notes = tuple(sorted((str(key), str(text)) for key, text in (body.get("annotations") or {}).items()))
    return Descriptor(str(body["mediaType"]), digest, size, notes)
