"""What is inside an image, as the registry has it, and how far it is verified; and how two of them differ.

Of an image only its manifest, its configuration and its small layers are read. Whatever does not fit together is an
`ImageError`: a part of an image that tells of another one is worth nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

from patchstack.contents import Contents, Item, Package
from patchstack.errors import ImageError
from patchstack.image import inventory
from patchstack.image.append import MOST_CONFIG_BYTES, MOST_INVENTORY_BYTES
from patchstack.image.contents import BASE_NAME, CONTENTS, FOLDER, SBOM, decode_contents, labels_of
from patchstack.image.layer import read_layer
from patchstack.image.manifest import labels_in
from patchstack.image.names import Reference
from patchstack.image.oci import Manifest, digest_of
from patchstack.image.registry import Registry
from patchstack.image.signing import PublicKey
from patchstack.image.statement import Verified, read_statements, verified
from patchstack.model import Kind, Reason, Sha

MOST_LAYER_BYTES = 64 << 20
"""A night's layer, gzipped: all of SGLang's Python has a tenth of that."""
MOST_UNPACKED_BYTES = 512 << 20


# --- what is inside ------------------------------------------------------------------------------------


class Signature(StrEnum):
    """How an image stands to its signed statement, where that is no error."""

    VERIFIED = "verified"
    NO_KEY = "no key"
    """It has a statement, and nobody said whose that should be."""
    NONE = "none"
    """It has none, and nobody asked for one."""


class Seen(StrEnum):
    """What was compared, or could not be."""

    LABELS = "labels"
    BILL = "bill of materials"
    PACKAGES = "packages"
    LAYERS = "layers"


@dataclass(frozen=True)
class Explained:
    repository: str
    digest: str
    contents: Contents
    labels: tuple[tuple[str, str], ...]
    layers: int
    size_bytes: int
    """What a machine pulls that has none of its layers."""
    night_bytes: int
    """What it pulls that has the dependency image's."""
    compared: tuple[Seen, ...]
    not_compared: tuple[Seen, ...]
    signature: Signature
    statement: Verified | None


def read_image(
    registry: Registry, reference: Reference, key: PublicKey | None, *, must_be_signed: bool = True
) -> Explained:
    """What the image holds and how far that is verified.

    With ``key`` its statement must be signed by it; with ``must_be_signed`` false one that has none is good, too.
    Raises `ImageError` for an image that is not there, is no night's, or of which any two parts tell different things.
    """
    name = reference.text
    digest = registry.resolve(reference.name)
    if digest is None:
        raise ImageError(f"there is no image {name}: mend the name, or ask `patchstack ledger` which there are")
    manifest = registry.manifest(digest)
    config = registry.blob(manifest.config.digest, MOST_CONFIG_BYTES)
    files = _night_files(registry, manifest, name)
    contents = decode_contents(files[f"{FOLDER}/{CONTENTS}"], name)
    labels = labels_in(config, manifest)
    _require_labels(name, labels, manifest, contents, digest_of(files[f"{FOLDER}/{CONTENTS}"]))
    _require_bill(name, files.get(f"{FOLDER}/{SBOM}", b""), contents)
    checks = {
        Seen.LABELS: True,
        Seen.BILL: True,
        Seen.PACKAGES: _same_packages(registry, manifest, name, contents),
        Seen.LAYERS: _same_layers(registry, manifest, name, contents),
    }
    signature, statement = _signature(registry, digest, key, must_be_signed)
    if statement is not None and statement.contents != digest_of(files[f"{FOLDER}/{CONTENTS}"]):
        raise ImageError(f"{name}: its statement is about other contents than it has: it states {statement.contents}")
    return Explained(
        repository=reference.place.name,
        digest=digest,
        contents=contents,
        labels=tuple(sorted(labels.items())),
        layers=len(manifest.layers),
        size_bytes=sum(layer.size for layer in manifest.layers),
        night_bytes=manifest.layers[-1].size,
        compared=tuple(seen for seen, looked_at in checks.items() if looked_at),
        not_compared=tuple(seen for seen, looked_at in checks.items() if not looked_at),
        signature=signature,
        statement=statement,
    )


def _night_files(registry: Registry, manifest: Manifest, name: str) -> dict[str, bytes]:
    """The files of the last layer, which a night puts on its dependencies."""
    if not manifest.layers or manifest.layers[-1].size > MOST_LAYER_BYTES:
        raise ImageError(f"{name} is no image of a night: it does not end with a small layer")
    files = read_layer(registry.blob(manifest.layers[-1].digest, MOST_LAYER_BYTES), MOST_UNPACKED_BYTES)
    if f"{FOLDER}/{CONTENTS}" not in files:
        raise ImageError(f"{name} is no image of a night: its last layer has no /{FOLDER}/{CONTENTS}")
    return files


def _require_labels(
    name: str, labels: Mapping[str, str], manifest: Manifest, contents: Contents, contents_digest: str
) -> None:
    meant = labels_of(contents, contents_digest, labels.get(BASE_NAME, ""))
    problems = _differences("label", meant, labels) + _differences("annotation", meant, dict(manifest.annotations))
    if problems:
        raise ImageError(f"{name} does not fit together: by its {CONTENTS} {'; '.join(problems)}")


def _differences(kind: str, meant: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    return [
        f"{kind} {key} must be {meant.get(key)!r} and is {found.get(key)!r}"
        for key in sorted(meant.keys() | found.keys())
        if meant.get(key) != found.get(key)
    ]


def _require_bill(name: str, data: bytes, contents: Contents) -> None:
    """The bill of materials lists exactly the packages of ``contents``, and the composed SGLang."""
    try:
        components = json.loads(data)["components"]
        listed = Counter((str(one["name"]), str(one["version"])) for one in components if one["bom-ref"] != "sglang")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ImageError(f"{name} does not fit together: its {SBOM} does not read") from error
    wanted = Counter((package.name, package.version) for package in dict.fromkeys(contents.packages))
    if listed != wanted:
        odd = sorted({*(listed - wanted), *(wanted - listed)})
        named = ", ".join(f"{one} {version}" for one, version in odd[:5])
        raise ImageError(
            f"{name} does not fit together: its {SBOM} and its {CONTENTS} differ in {len(odd)} packages: {named}"
        )


def _same_packages(registry: Registry, manifest: Manifest, name: str, contents: Contents) -> bool:
    """Whether the dependency image's own list could be compared: somebody else's image has none."""
    if not contents.packages or len(manifest.layers) < 2 or manifest.layers[-2].size > MOST_INVENTORY_BYTES:
        return False
    files = read_layer(registry.blob(manifest.layers[-2].digest, MOST_INVENTORY_BYTES), MOST_UNPACKED_BYTES)
    if inventory.PATH not in files:
        return False
    if set(inventory.decode_inventory(files[inventory.PATH], name).packages) != set(contents.packages):
        raise ImageError(f"{name} does not fit together: its {CONTENTS} and its dependencies list other packages")
    return True


def _same_layers(registry: Registry, manifest: Manifest, name: str, contents: Contents) -> bool:
    """Whether the dependency image is there to compare with: what is below the night's layer must be that."""
    if registry.resolve(contents.dependencies) is None:
        return False
    below = registry.manifest(contents.dependencies)
    if [layer.digest for layer in below.layers] != [layer.digest for layer in manifest.layers[:-1]]:
        raise ImageError(f"{name} does not fit together: it is not made on {contents.dependencies}, as it says")
    return True


def _signature(
    registry: Registry, digest: str, key: PublicKey | None, must_be_signed: bool
) -> tuple[Signature, Verified | None]:
    envelopes = read_statements(registry, digest)
    if key is not None and (envelopes or must_be_signed):
        return Signature.VERIFIED, verified(envelopes, key, digest)
    return (Signature.NO_KEY if envelopes else Signature.NONE), None


# --- how two differ ------------------------------------------------------------------------------------


class Change(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True)
class ItemChange:
    """One patch or pull request in which two images differ."""

    name: str
    kind: Kind
    change: Change
    title: str
    before: Sha | None
    after: Sha | None
    url: str = ""
    kill_switch: str = ""
    said: tuple[str, ...] = ()
    """With equal heads: what is said otherwise of it."""
    why: Reason | None = None
    """Why it is not in the newer one, where that says so."""


@dataclass(frozen=True)
class PackageChange:
    kind: str
    name: str
    before: tuple[str, ...]
    """Its versions; none where it was not there."""
    after: tuple[str, ...]


@dataclass(frozen=True)
class ValueChange:
    """One value of both, such as the base."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Difference:
    """From image ``a`` to image ``b``."""

    a: str
    b: str
    values: tuple[ValueChange, ...]
    items: tuple[ItemChange, ...]
    packages: tuple[PackageChange, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.values or self.items or self.packages)


_VALUES = ("fork", "lane", "runtime", "base", "base_tree", "tree", "recipe", "dependencies")


def compare(a: Explained, b: Explained) -> Difference:
    """What differs from ``a`` to ``b``. What was left out counts for the reason why something is gone, and no more."""
    values = ((name, str(getattr(a.contents, name)), str(getattr(b.contents, name))) for name in _VALUES)
    return Difference(
        a=f"{a.repository}@{a.digest}",
        b=f"{b.repository}@{b.digest}",
        values=tuple(ValueChange(name, before, after) for name, before, after in values if before != after),
        items=_items(a.contents, b.contents),
        packages=_packages(a.contents.packages, b.contents.packages),
    )


def _items(a: Contents, b: Contents) -> tuple[ItemChange, ...]:
    """What is in ``b`` in its order, and then what was in ``a`` alone."""
    before, after = ({(item.kind, item.name): item for item in one.items} for one in (a, b))
    reasons = {item.name: item.reason for item in b.left_out}
    found = []
    for key, item in after.items():
        old = before.get(key)
        if old is None:
            found.append(_change(item, Change.ADDED, None, item.head))
        elif old.head != item.head:
            found.append(_change(item, Change.CHANGED, old.head, item.head))
        elif said := _said(old, item):
            found.append(_change(item, Change.CHANGED, old.head, item.head, said=said))
    gone = [item for key, item in before.items() if key not in after]
    return (*found, *(_change(item, Change.REMOVED, item.head, None, why=reasons.get(item.name)) for item in gone))


def _said(old: Item, new: Item) -> tuple[str, ...]:
    return tuple(field.name for field in fields(Item) if getattr(old, field.name) != getattr(new, field.name))


def _change(
    item: Item,
    change: Change,
    before: Sha | None,
    after: Sha | None,
    *,
    said: tuple[str, ...] = (),
    why: Reason | None = None,
) -> ItemChange:
    return ItemChange(
        item.name, item.kind, change, item.title, before, after, item.url, item.kill_switch, said=said, why=why
    )


def _packages(a: Sequence[Package], b: Sequence[Package]) -> tuple[PackageChange, ...]:
    before, after = _versions(a), _versions(b)
    return tuple(
        PackageChange(kind, name, before.get((kind, name), ()), after.get((kind, name), ()))
        for kind, name in sorted(before.keys() | after.keys(), key=lambda key: (key[0] != "python", key))
        if before.get((kind, name)) != after.get((kind, name))
    )


def _versions(packages: Sequence[Package]) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], set[str]] = {}
    for package in packages:
        found.setdefault((package.kind, package.name), set()).add(package.version)
    return {key: tuple(sorted(versions)) for key, versions in found.items()}
