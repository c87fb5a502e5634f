"""Images of a few bytes, which are whole all the same."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from patchstack.image.oci import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, digest_of
from patchstack.image.registry import Registry


@dataclass(frozen=True)
class Blobs:
    """An image that is in no registry yet."""

    config: bytes
    layer: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    def push(self, registry: Registry, tag: str | None = None) -> str:
        for blob in (self.config, self.layer):
            registry.push_blob(blob, digest_of(blob))
        return registry.push_manifest(self.manifest, MANIFEST, tag)


def small_image(files: Mapping[str, bytes] | None = None) -> Blobs:
    """An image of one layer with these files in it; equal files make an equal image."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in sorted((files or {"hello": b"hello\n"}).items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    layer = gzip.compress(tar.getvalue(), mtime=0)
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar.getvalue())]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": Descriptor(CONFIG, digest_of(config), len(config)).encode(),
            "layers": [Descriptor(LAYER_GZIP, digest_of(layer), len(layer)).encode()],
        }
    )
    return Blobs(config, layer, manifest)


def _json(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
