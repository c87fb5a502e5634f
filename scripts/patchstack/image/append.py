"""One layer more in the registry: an image there is extended without pulling it, and read back before it has a name.

The order is what makes a failure harmless: blobs, then the manifest by its digest alone, then everything is read back
and compared with what was meant, and only then it gets its tag. What is left behind by a failure has no name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from patchstack.errors import ImageError
from patchstack.image.inventory import PATH as INVENTORY
from patchstack.image.inventory import Inventory, decode_inventory
from patchstack.image.layer import Layer, read_layer
from patchstack.image.manifest import Extended, extend, labels_in
from patchstack.image.names import Reference
from patchstack.image.oci import Descriptor, Manifest
from patchstack.image.registry import Registry

MOST_CONFIG_BYTES = 8 << 20
MOST_INVENTORY_BYTES = 16 << 20


@dataclass(frozen=True)
class Lower:
    """The image that the layer goes on."""

    name: str
    """As labels tell it: ``repository:tag``, or ``repository@sha256:…``."""
    manifest: Manifest
    config: bytes
    inventory: Inventory

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def labels(self) -> dict[str, str]:
        return labels_in(self.config, self.manifest)


@dataclass(frozen=True)
class Appended:
    digest: str
    tag: str
    provenance: str
    """What ``sign`` gave."""


# --- what the layer goes on ----------------------------------------------------------------------------


def read_dependencies(registry: Registry, tag: str, name: str) -> Lower | None:
    """The dependency image that ``tag`` names, or None where there is none.

    Of its layers only the last is read: it is tiny, and holds what the others have.
    """
    digest = registry.resolve(tag)
    if digest is None:
        return None
    manifest = registry.manifest(digest)
    config = registry.blob(manifest.config.digest, MOST_CONFIG_BYTES)
    files = read_layer(_last_layer(registry, manifest, tag), MOST_INVENTORY_BYTES)
    if INVENTORY not in files:
        raise ImageError(f"the last layer of {name} holds no {INVENTORY}: it is no dependency image; remove its tag")
    return Lower(name, manifest, config, decode_inventory(files[INVENTORY], f"{INVENTORY} of {name}"))


def _last_layer(registry: Registry, manifest: Manifest, tag: str) -> bytes:
    if not manifest.layers or manifest.layers[-1].size > MOST_INVENTORY_BYTES:
        raise ImageError(f"{tag} does not end with a small layer that tells what it has: remove its tag, run again")
    return registry.blob(manifest.layers[-1].digest, MOST_INVENTORY_BYTES)


def read_base(registry: Registry, source: Registry, base: Reference, root: str, scratch: Path) -> Lower:
    """Somebody else's image, with all its layers in our repository, so that what is made of it stays pullable.

    What cannot be taken over there goes by way of a file in ``scratch``. Which packages the image has cannot be known
    without pulling it: its inventory names none.
    """
    manifest = source.manifest(base.name)
    for blob in manifest.layers:
        copy_blob(registry, source, blob, scratch)
    config = source.blob(manifest.config.digest, MOST_CONFIG_BYTES)
    return Lower(base.text, manifest, config, Inventory((), root))


def copy_blob(registry: Registry, source: Registry, blob: Descriptor, scratch: Path) -> None:
    """Have ``blob`` in ``registry``: mounted where both are on one host, else by way of a file."""
    if registry.has_blob(blob.digest):
        return
    if registry.place.host == source.place.host and registry.mount_blob(blob.digest, source.place.path):
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".blob-") as folder:
        file = Path(folder) / "blob"
        source.fetch_blob(blob, file)
        registry.push_blob(file, blob.digest)


# --- the image -----------------------------------------------------------------------------------------


def append(
    registry: Registry,
    lower: Lower,
    layer: Layer,
    labels: Mapping[str, str],
    created: str,
    tag_for: Callable[[str], str],
    sign: Callable[[str], str] = lambda digest: "",
) -> Appended:
    """Push ``lower`` with ``layer`` on top, read it back, have ``sign`` state what it is, and tag it.

    ``tag_for`` says of its digest how it is tagged. Raises `ImageError`, with nothing tagged, when the registry does
    not take it or holds something else than was meant; and when the tag names another image already.
    """
    made = extend(lower.manifest, lower.config, layer, labels, created)
    registry.push_blob(layer.data, layer.digest)
    registry.push_blob(made.config, made.manifest.config.digest)
    pushed = registry.push_manifest(made.manifest.raw, made.manifest.media_type, None)
    if pushed != made.digest:
        raise ImageError(f"the registry calls the image {pushed} that was pushed as {made.digest}; nothing is tagged")
    read_back(registry, made, lower, layer, labels)
    provenance = sign(made.digest)  # before it has a name, so that what is named is signed
    tag = tag_for(made.digest)
    registry.tag(made.digest, tag, move=False)
    named = registry.resolve(tag)
    if named != made.digest:
        raise ImageError(f"tag {tag} is {named or 'not there'} after {made.digest} got it: somebody else writes there")
    return Appended(made.digest, tag, provenance)


def read_back(registry: Registry, made: Extended, lower: Lower, layer: Layer, labels: Mapping[str, str]) -> None:
    """Compare what the registry holds with what was meant; `ImageError` names every difference."""
    manifest = registry.manifest(made.digest)
    config = registry.blob(manifest.config.digest, MOST_CONFIG_BYTES)
    wanted = [*(below.digest for below in lower.manifest.layers), layer.digest]
    problems = _differences("label", dict(labels), labels_in(config, manifest))
    problems += _differences("annotation", dict(labels), dict(manifest.annotations))
    if [found.digest for found in manifest.layers] != wanted:
        problems.append("its layers are others")
    if config != made.config:
        problems.append("its configuration is another")
    problems += [f"layer {digest} is not there" for digest in wanted if not registry.has_blob(digest)]
    if problems:
        raise ImageError(
            f"the registry does not hold image {made.digest} as it was meant: {'; '.join(problems)}; nothing is tagged"
        )


def _differences(kind: str, meant: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    names = sorted(meant.keys() | found.keys())
    return [
        f"{kind} {name} is {found.get(name)!r} and not {meant.get(name)!r}"
        for name in names
        if found.get(name) != meant.get(name)
    ]
