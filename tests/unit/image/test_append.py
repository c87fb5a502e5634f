"""In which order an image is pushed, read back and named; a real registry is in tests/e2e/test_image_append.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from patchstack.contents import Package
from patchstack.errors import ImageError
from patchstack.image import append as module
from patchstack.image.append import INVENTORY, Appended, Lower, append, read_base, read_dependencies
from patchstack.image.inventory import Inventory
from patchstack.image.layer import FileEntry, Layer, make_layer
from patchstack.image.manifest import Extended, extend
from patchstack.image.names import Place, Reference
from patchstack.image.oci import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, Manifest, digest_of, parse_manifest

INVENTORY_OF = Inventory((Package("python", "torch", "2.9.1"),), "/opt/site")
LAYER = make_layer({"opt/x": FileEntry(b"x")})
LABELS = {"a": "1", "b": "2"}
CREATED = "2026-11-20T00:00:00Z"


OURS = Place("registry.example.com", "acme/sglang")


@dataclass
class Shelf:
    """What append needs of a registry, with each call written down."""

    place: Place = OURS
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    mounts: bool = True

    def has_blob(self, digest: str) -> bool:
        return digest in self.blobs

    def blob(self, digest: str, most_bytes: int) -> bytes:
        self.said.append("read blob")
        assert len(self.blobs[digest]) <= most_bytes
        return self.blobs[digest]

    def fetch_blob(self, blob: Descriptor, file: Path) -> None:
        file.write_bytes(self.blobs[blob.digest])

    def push_blob(self, data: bytes | Path, digest: str) -> int:
        self.said.append(f"push {'file' if isinstance(data, Path) else 'blob'}")
        self.blobs[digest] = data.read_bytes() if isinstance(data, Path) else data
        return len(self.blobs[digest])

    def mount_blob(self, digest: str, from_path: str) -> bool:
        self.said.append(f"mount from {from_path}")
        if self.mounts:
            self.blobs[digest] = b"mounted"
        return self.mounts

    def push_manifest(self, raw: bytes, media_type: str, tag: str | None = None) -> str:
        assert tag is None
        self.said.append("push manifest")
        made = parse_manifest(raw, media_type, "it")
        self.manifests[made.digest] = made
        return made.digest

    def manifest(self, name: str) -> Manifest:
        self.said.append("read manifest")
        return self.manifests[self.tags.get(name, name)]

    def resolve(self, name: str) -> str | None:
        return self.tags.get(name)

    def tag(self, digest: str, name: str, *, move: bool = False) -> None:
        assert not move
        self.said.append(f"tag {name}")
        self.tags[name] = digest


def image(*layers: Layer) -> tuple[Manifest, bytes]:
    config = json.dumps({"config": {}, "rootfs": {"diff_ids": [layer.diff_id for layer in layers]}}).encode()
    raw = json.dumps(
        {
            "mediaType": MANIFEST,
            "config": Descriptor(CONFIG, digest_of(config), len(config)).encode(),
            "layers": [Descriptor(LAYER_GZIP, layer.digest, layer.size).encode() for layer in layers],
        }
    ).encode()
    return parse_manifest(raw, MANIFEST, "it"), config


def shelf(*layers: Layer, tag: str = "deps") -> Shelf:
    manifest, config = image(*layers)
    held = {layer.digest: layer.data for layer in layers} | {manifest.config.digest: config}
    return Shelf(blobs=held, manifests={manifest.digest: manifest}, tags={tag: manifest.digest})


def listed(data: bytes | None = None) -> Layer:
    return make_layer({INVENTORY: FileEntry(INVENTORY_OF.encode() if data is None else data)})


BELOW = make_layer({"usr/bin/python3": FileEntry(b"#!")})


def lower(held: Shelf) -> Lower:
    found = read_dependencies(held, "deps", "r/sglang:deps")  # type: ignore[arg-type]
    assert found is not None
    held.said.clear()
    return found


def attempt(
    held: Shelf, under: Lower, tag_for: Callable[[str], str] = lambda digest: "nightly-1", **more: Callable[[str], str]
) -> Appended:
    return append(held, under, LAYER, LABELS, CREATED, tag_for, **more)  # type: ignore[arg-type]


# --- the dependency image ---


def test_the_inventory_is_read_and_no_other_layer() -> None:
    held = shelf(BELOW, listed())
    del held.blobs[BELOW.digest]
    found = read_dependencies(held, "deps", "r/sglang:deps")  # type: ignore[arg-type]
    assert found is not None
    assert (found.name, found.inventory, found.digest) == ("r/sglang:deps", INVENTORY_OF, held.tags["deps"])


def test_no_dependency_image() -> None:
    assert read_dependencies(Shelf(), "deps", "n") is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ((BELOW,), "the last layer of r/sglang:deps holds no opt/patchstack/dependencies.json"),
        ((listed(), BELOW), "the last layer of r/sglang:deps holds no opt/patchstack/dependencies.json"),
        ((BELOW, listed(b"{")), "opt/patchstack/dependencies.json of r/sglang:deps cannot be read as an inventory"),
        ((), "deps does not end with a small layer"),
    ],
    ids=["none", "not last", "damaged", "no layers"],
)
def test_an_image_that_does_not_tell_what_it_has_is_refused(layers: tuple[Layer, ...], said: str) -> None:
    with pytest.raises(ImageError) as error:
        read_dependencies(shelf(*layers), "deps", "r/sglang:deps")  # type: ignore[arg-type]
    assert said in str(error.value)


def test_a_large_last_layer_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_INVENTORY_BYTES", 10)
    held = shelf(BELOW, listed())
    with pytest.raises(ImageError, match="does not end with a small layer"):
        read_dependencies(held, "deps", "r/sglang:deps")  # type: ignore[arg-type]
    assert held.said == ["read manifest", "read blob"]  # the configuration


# --- somebody else's ---

BASE = Reference(Place("elsewhere.example.com", "lmsys/sglang"), "sha256:" + "0" * 64)


def taken_over(tmp_path: Path, source: Shelf, own: Shelf) -> Lower:
    manifest = next(iter(source.manifests.values()))
    base = Reference(source.place, manifest.digest)
    return read_base(own, source, base, "/site", tmp_path)  # type: ignore[arg-type]


def test_the_layers_of_somebody_elses_image_are_copied_by_way_of_a_file_that_goes(tmp_path: Path) -> None:
    source, own = shelf(BELOW, LAYER), Shelf(blobs={LAYER.digest: LAYER.data})
    source.place = BASE.place
    found = taken_over(tmp_path / "scratch", source, own)
    assert found.name == f"elsewhere.example.com/lmsys/sglang@{found.digest}"
    assert found.inventory == Inventory((), "/site")
    assert own.said == ["push file"]
    assert own.blobs == {layer.digest: layer.data for layer in (LAYER, BELOW)}
    assert list((tmp_path / "scratch").iterdir()) == []


def test_on_one_host_they_are_mounted(tmp_path: Path) -> None:
    source, own = shelf(BELOW), Shelf()
    source.place = Place(own.place.host, "lmsys/sglang")
    taken_over(tmp_path, source, own)
    assert own.said == ["mount from lmsys/sglang"]
    own = Shelf(mounts=False)
    taken_over(tmp_path, source, own)
    assert own.said == ["mount from lmsys/sglang", "push file"]


# --- the image ---


def test_blobs_then_manifest_then_all_read_back_then_signed_then_named() -> None:
    held = shelf(BELOW, listed())
    under = lower(held)
    asked: list[str] = []

    def tag_for(digest: str) -> str:
        asked.append(digest)
        return "nightly-1"

    def sign(digest: str) -> str:
        held.said.append("sign")
        return f"statement on {digest}"

    made = attempt(held, under, tag_for, sign=sign)

    assert held.said == [
        *("push blob", "push blob", "push manifest"),
        *("read manifest", "read blob"),
        *("sign", "tag nightly-1"),
    ]
    assert asked == [made.digest]
    assert made == Appended(held.tags["nightly-1"], "nightly-1", f"statement on {made.digest}")


def unfaithful(change: Callable[[Extended], Extended]) -> Callable[..., Extended]:
    """`extend`, with a fault in what it makes."""

    def made(*arguments: object) -> Extended:
        return change(extend(*arguments))  # type: ignore[arg-type]

    return made


def relabelled(made: Extended, annotations: bool = False) -> Extended:
    config, manifest = json.loads(made.config), json.loads(made.manifest.raw)
    if annotations:
        manifest["annotations"] = {**LABELS, "a": "other", "c": "3"}
    else:
        config["config"]["Labels"] = {"b": "2"}
    raw = json.dumps(config).encode()
    manifest["config"] = Descriptor(CONFIG, digest_of(raw), len(raw)).encode()
    return Extended(parse_manifest(json.dumps(manifest).encode(), MANIFEST, "it"), raw)


def without_a_layer(made: Extended) -> Extended:
    config, manifest = json.loads(made.config), json.loads(made.manifest.raw)
    del manifest["layers"][0], config["rootfs"]["diff_ids"][0]
    raw = json.dumps(config).encode()
    manifest["config"] = Descriptor(CONFIG, digest_of(raw), len(raw)).encode()
    return Extended(parse_manifest(json.dumps(manifest).encode(), MANIFEST, "it"), raw)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (relabelled, "label a is None and not '1'"),
        (
            lambda made: relabelled(made, annotations=True),
            "annotation a is 'other' and not '1'; annotation c is '3' and not None",
        ),
        (without_a_layer, "its layers are others"),
    ],
    ids=["a label", "annotations", "a layer"],
)
def test_what_is_read_back_and_was_not_meant_is_named_and_nothing_is_tagged(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Extended], Extended], said: str
) -> None:
    held = shelf(BELOW, listed())
    under = lower(held)
    monkeypatch.setattr(module, "extend", unfaithful(change))
    with pytest.raises(ImageError) as error:
        attempt(held, under, sign=lambda digest: pytest.fail("signed"))
    assert "does not hold image sha256:" in str(error.value)
    assert said in str(error.value)
    assert set(held.tags) == {"deps"}


def test_a_layer_that_the_registry_lost_is_named() -> None:
    held = shelf(BELOW, listed())
    under = lower(held)
    del held.blobs[BELOW.digest]
    with pytest.raises(ImageError, match=f"layer {BELOW.digest} is not there; nothing is tagged"):
        attempt(held, under)
    assert set(held.tags) == {"deps"}


def test_a_tag_that_is_another_images_behind_our_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    held = shelf(BELOW, listed())
    under = lower(held)
    monkeypatch.setattr(held, "tag", lambda digest, name, move: held.tags.update({name: "sha256:other"}))
    with pytest.raises(ImageError, match=r"tag nightly-1 is sha256:other after sha256:[0-9a-f]{64} got it"):
        attempt(held, under)
