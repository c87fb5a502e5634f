"""A manifest is its bytes, and a layout is a folder of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.image_registry import small_image

from patchstack.errors import ImageError
from patchstack.image.layout import blob_of_layout, read_layout
from patchstack.image.oci import (
    CONFIG,
    DOCKER_MANIFEST,
    INDEX,
    LAYER_GZIP,
    MANIFEST,
    Descriptor,
    Manifest,
    digest_of,
    parse_manifest,
)

IMAGE = small_image()
LAYER = {"mediaType": LAYER_GZIP, "digest": digest_of(b"layer"), "size": 5}
BODY: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": MANIFEST,
    "config": {"mediaType": CONFIG, "digest": digest_of(b"{}"), "size": 2},
    "layers": [LAYER, {**LAYER, "annotations": {"b": "2", "a": "1"}}],
    "annotations": {"y": "2", "x": "1"},
}


def parsed(body: object, media_type: str = MANIFEST) -> Manifest:
    return parse_manifest(json.dumps(body, indent=3).encode(), media_type, "the image")


def test_a_manifest_is_its_very_bytes_and_what_they_say() -> None:
    found = parsed(BODY)
    assert found == Manifest(
        raw=json.dumps(BODY, indent=3).encode(),
        media_type=MANIFEST,
        config=Descriptor(CONFIG, digest_of(b"{}"), 2),
        layers=(
            Descriptor(LAYER_GZIP, digest_of(b"layer"), 5),
            Descriptor(LAYER_GZIP, digest_of(b"layer"), 5, (("a", "1"), ("b", "2"))),
        ),
        annotations=(("x", "1"), ("y", "2")),
    )
    assert found.digest == digest_of(found.raw)
    assert [blob.encode() for blob in found.layers] == BODY["layers"]


def test_what_a_manifest_says_of_its_kind_counts_before_what_a_server_says() -> None:
    assert parsed({**BODY, "mediaType": DOCKER_MANIFEST}, "text/plain").media_type == DOCKER_MANIFEST
    assert parsed({name: text for name, text in BODY.items() if name != "mediaType"}).media_type == MANIFEST
    with pytest.raises(ImageError, match=re.escape(f"the image is no image that can be used: it is of type '{INDEX}'")):
        parsed({**BODY, "mediaType": INDEX}, MANIFEST)


@pytest.mark.parametrize(
    "changed",
    [
        {"config": None},
        {"config": {**BODY["config"], "digest": "sha256:1"}},
        {"config": {**BODY["config"], "digest": f"sha256:../../{'a' * 58}"}},
        {"config": {**BODY["config"], "size": -1}},
        {"config": {**BODY["config"], "size": True}},
        {"config": {**BODY["config"], "size": "2"}},
        {"config": {"digest": digest_of(b"{}"), "size": 2}},
        {"layers": None},
        {"layers": {}, "config": []},
        {"layers": [{**LAYER, "digest": f"sha512:{'a' * 128}"}]},
        {"layers": [{**LAYER, "annotations": ["x"]}]},
        {"layers": [None]},
        {"annotations": ["x"]},
        {"mediaType": None},
        {"mediaType": []},
    ],
    ids=str,
)
def test_what_is_no_manifest_is_refused(changed: Mapping[str, object]) -> None:
    with pytest.raises(ImageError, match="the image is no image that can be used: "):
        parsed({**BODY, **changed})


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"1", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ImageError, match="the image is no image"):
        parse_manifest(raw, MANIFEST, "the image")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(st.text(max_size=5), deeper, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(BODY)), JSON))
def test_whatever_comes_is_a_manifest_or_an_error(changed: dict[str, Any]) -> None:
    try:
        found = parsed({**BODY, **changed})
    except ImageError:
        return
    assert found.media_type in {MANIFEST, DOCKER_MANIFEST}


# --- layouts ---


def write_layout(folder: Path) -> Path:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for data in (IMAGE.config, IMAGE.layer, IMAGE.manifest):
        (blobs / digest_of(data).removeprefix("sha256:")).write_bytes(data)
    entry = {"mediaType": MANIFEST, "digest": IMAGE.digest, "size": len(IMAGE.manifest)}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return folder


def test_a_layout_is_the_image_in_it(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout")
    manifest = read_layout(layout)
    assert manifest.raw == IMAGE.manifest
    assert blob_of_layout(layout, manifest.config).read_bytes() == IMAGE.config
    assert [blob_of_layout(layout, blob).read_bytes() for blob in manifest.layers] == [IMAGE.layer]


def _index(body: object) -> Callable[[Path], None]:
    def change(layout: Path) -> None:
        (layout / "index.json").write_text(json.dumps(body))

    return change


def _blob(data: bytes, text: bytes | None) -> Callable[[Path], None]:
    def change(layout: Path) -> None:
        file = layout / "blobs" / "sha256" / digest_of(data).removeprefix("sha256:")
        file.unlink() if text is None else file.write_bytes(text)

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda layout: (layout / "index.json").unlink(), "is no layout of one image"),
        (_index([]), "is no layout of one image"),
        (_index({"manifests": []}), "is no layout of one image"),
        (_index({"manifests": [{"digest": IMAGE.digest, "mediaType": MANIFEST}] * 2}), "is no layout of one image"),
        (_index({"manifests": [{"digest": "sha256:../../x", "mediaType": MANIFEST}]}), "is no layout of one image"),
        (_blob(IMAGE.manifest, None), "is no layout of one image"),
        (_blob(IMAGE.manifest, b"{}"), "is damaged: "),
        (_blob(IMAGE.layer, None), "is missing; remove it, and it is built again"),
        (_blob(IMAGE.layer, b"short"), "is 5 bytes long; remove it, and it is built again"),
    ],
    ids=["no index", "list", "none", "two", "outside", "no manifest", "another manifest", "no layer", "half a layer"],
)
def test_a_damaged_layout_is_told(tmp_path: Path, change: Callable[[Path], None], told: str) -> None:
    layout = write_layout(tmp_path / "layout")
    change(layout)
    with pytest.raises(ImageError) as caught:
        [blob_of_layout(layout, blob) for blob in read_layout(layout).layers]
    assert str(layout) in str(caught.value)
    assert told in str(caught.value)
