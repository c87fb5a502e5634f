"""An image with one layer more: its manifest and its configuration, from those of the image below. Pure.

https://github.com/opencontainers/image-spec/blob/main/config.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from patchstack.errors import ImageError
from patchstack.image.layer import Layer
from patchstack.image.oci import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, Manifest, digest_of, parse_manifest

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_LAYER_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar": _LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{_LAYER}+zstd",
    **{kind: kind for kind in (_LAYER, LAYER_GZIP, f"{_LAYER}+zstd")},
}
"""What a layer is called in an OCI manifest. One that may not be handed on (``foreign``) is in neither column."""


@dataclass(frozen=True)
class Extended:
    """An OCI image that is made but not pushed."""

    manifest: Manifest
    config: bytes

    @property
    def digest(self) -> str:
        return self.manifest.digest


def extend(lower: Manifest, config: bytes, layer: Layer, labels: Mapping[str, str], created: str) -> Extended:
    """``lower``, whose configuration is ``config``, with ``layer`` on top.

    How it is started (environment, entry point, user) stays as it is. Labels and annotations are exactly ``labels``:
    those of the image below tell of that one. ``created`` is ISO 8601 in UTC. An image in Docker's own format becomes
    one in OCI's, of the same layers. Raises `ImageError` for an image whose parts do not fit together.
    """
    said = parse_config(config, lower)
    history = [*said.get("history", [])]
    history.append({"created": created, "created_by": "patchstack image", "comment": "the composed tree"})
    body = {
        **said,
        "created": created,
        "config": {**said["config"], "Labels": dict(sorted(labels.items()))},
        "rootfs": {"type": "layers", "diff_ids": [*said["rootfs"]["diff_ids"], layer.diff_id]},
        # Without one for every layer below, a history of this one alone would tell of the wrong layer.
        **({"history": history} if said.get("history") else {}),
    }
    new_config = _json(body)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Descriptor(CONFIG, digest_of(new_config), len(new_config)).encode(),
        "layers": [
            *(_as_oci(below).encode() for below in lower.layers),
            Descriptor(LAYER_GZIP, layer.digest, layer.size).encode(),
        ],
        "annotations": dict(sorted(labels.items())),
    }
    return Extended(parse_manifest(_json(manifest), MANIFEST, "the new image"), new_config)


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def _as_oci(layer: Descriptor) -> Descriptor:
    kind = _LAYER_TYPES.get(layer.media_type)
    if kind is None:
        raise ImageError(
            f"layer {layer.digest} of the image below is of type {layer.media_type!r}, which cannot be handed on: "
            "choose another image"
        )
    return replace(layer, media_type=kind)


def parse_config(config: bytes, manifest: Manifest) -> dict[str, Any]:
    """The configuration of ``manifest``'s image; `ImageError` unless it tells of that image's layers.

    What is returned has a ``config`` that is a mapping, ``rootfs.diff_ids`` with one for each layer, and a history,
    if it has one, of as many layers.
    """
    try:
        body = json.loads(config)
        settings = body.get("config") or {}
        diff_ids = body["rootfs"]["diff_ids"]
        history = body.get("history") or []
        told = sum(not step.get("empty_layer", False) for step in history)
        labels = settings.get("Labels") or {}
        if not all(isinstance(text, str) for text in (*diff_ids, *labels.values())):
            raise ValueError("its labels and layers are no texts")
        if len(diff_ids) != len(manifest.layers):
            raise ValueError(f"it tells of {len(diff_ids)} layers, the manifest of {len(manifest.layers)}")
        if history and told != len(diff_ids):
            raise ValueError(f"its history tells of {told} layers, and it has {len(diff_ids)}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImageError(f"the configuration of image {manifest.digest} cannot be used: {error}") from error
    return {**body, "config": {**settings, "Labels": labels}}


def labels_in(config: bytes, manifest: Manifest) -> dict[str, str]:
    labels: dict[str, str] = parse_config(config, manifest)["config"]["Labels"]
    return labels
