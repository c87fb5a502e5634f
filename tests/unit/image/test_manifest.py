"""One layer more: what changes in a manifest and a configuration, and what must not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from patchstack.errors import ImageError
from patchstack.image.layer import FileEntry, make_layer
from patchstack.image.manifest import Extended, extend, labels_in
from patchstack.image.oci import CONFIG, DOCKER_MANIFEST, LAYER_GZIP, MANIFEST, Manifest, digest_of, parse_manifest

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
BELOW = "sha256:" + "b" * 64
LAYER = make_layer({"opt/x": FileEntry(b"x")})
LABELS = {"org.opencontainers.image.version": "2", "io.github.acme.patchstack.tree": "c" * 40}
CREATED = "2026-11-20T00:00:00Z"

SETTINGS = {
    "Env": ["PATH=/usr/bin", "LANG=C.UTF-8"],
    "Entrypoint": ["python3", "-m"],
    "Cmd": ["sglang.launch_server"],
    "WorkingDir": "/",
    "User": "sglang",
}
BODY: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "created": "1980-01-01T00:00:00Z",
    "config": {**SETTINGS, "Labels": {"org.opencontainers.image.title": "dependencies", "maintainer": "somebody"}},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "d" * 64]},
    "history": [
        {"created": "1980-01-01T00:00:00Z", "created_by": "COPY", "empty_layer": False},
        {"created": "1980-01-01T00:00:00Z", "created_by": "ENV", "empty_layer": True},
    ],
}


def image(
    body: object = None, kind: str = MANIFEST, layer: str = LAYER_GZIP, layers: int = 1
) -> tuple[Manifest, bytes]:
    config = json.dumps(BODY if body is None else body).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": layer, "digest": BELOW, "size": 7, "annotations": {"a": "b"}}] * layers,
        "annotations": {"org.opencontainers.image.title": "dependencies"},
    }
    return parse_manifest(json.dumps(manifest).encode(), kind, "the image"), config


def extended(lower: tuple[Manifest, bytes]) -> Extended:
    return extend(*lower, LAYER, LABELS, CREATED)


def test_a_layer_labels_and_a_date_are_all_that_changes() -> None:
    made = extended(image())
    assert json.loads(made.config) == {
        **BODY,
        "created": CREATED,
        "config": {**SETTINGS, "Labels": LABELS},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "d" * 64, LAYER.diff_id]},
        "history": [
            *BODY["history"],
            {"created": CREATED, "created_by": "patchstack image", "comment": "the composed tree"},
        ],
    }
    assert json.loads(made.manifest.raw) == {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(made.config), "size": len(made.config)},
        "layers": [
            {"mediaType": LAYER_GZIP, "digest": BELOW, "size": 7, "annotations": {"a": "b"}},
            {"mediaType": LAYER_GZIP, "digest": LAYER.digest, "size": LAYER.size},
        ],
        "annotations": LABELS,
    }
    assert made.digest == digest_of(made.manifest.raw)
    assert labels_in(made.config, made.manifest) == LABELS


def test_the_order_in_which_things_are_said_decides_nothing() -> None:
    lower, config = image()
    turned = json.dumps(dict(reversed(json.loads(config).items()))).encode()
    swapped = extend(lower, turned, LAYER, dict(reversed(LABELS.items())), CREATED)
    assert swapped == extended(image())


def test_an_image_of_dockers_format_becomes_one_of_oci_with_the_same_layers() -> None:
    made = extended(image(kind=DOCKER_MANIFEST, layer=DOCKER_LAYER))
    said = json.loads(made.manifest.raw)
    assert (made.manifest.media_type, said["mediaType"], said["config"]["mediaType"]) == (MANIFEST, MANIFEST, CONFIG)
    assert [(layer["mediaType"], layer["digest"]) for layer in said["layers"]] == [
        (LAYER_GZIP, BELOW),
        (LAYER_GZIP, LAYER.digest),
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "text/plain",
    ],
)
def test_a_layer_that_cannot_be_handed_on_is_refused(kind: str) -> None:
    with pytest.raises(ImageError, match=f"layer {BELOW} of the image below is of type '{kind}'".replace("+", r"\+")):
        extended(image(layer=kind))


def test_an_image_without_a_history_gets_none() -> None:
    bare = {key: value for key, value in BODY.items() if key != "history"}
    assert "history" not in json.loads(extended(image(bare)).config)
    assert json.loads(extended(image({**BODY, "history": []})).config)["history"] == []


def test_an_image_without_settings_gets_labels_only() -> None:
    bare = {**BODY, "config": None}
    assert json.loads(extended(image(bare)).config)["config"] == {"Labels": LABELS}


@pytest.mark.parametrize(
    ("body", "layers", "said"),
    [
        (BODY, 2, "it tells of 1 layers, the manifest of 2"),
        ({**BODY, "history": BODY["history"][1:]}, 1, "its history tells of 0 layers, and it has 1"),
        ({**BODY, "rootfs": {}}, 1, "'diff_ids'"),
        ({**BODY, "rootfs": {"diff_ids": [1]}}, 1, "no texts"),
        ({**BODY, "config": {"Labels": {"a": 1}}}, 1, "no texts"),
        ({**BODY, "config": {"Labels": ["a"]}}, 1, "cannot be used"),
        ({**BODY, "config": "x"}, 1, "cannot be used"),
        ({**BODY, "history": [1]}, 1, "cannot be used"),
        ([], 1, "cannot be used"),
        ("x", 1, "cannot be used"),
    ],
)
def test_a_configuration_that_tells_of_another_image_is_refused(body: object, layers: int, said: str) -> None:
    with pytest.raises(ImageError) as error:
        extended(image(body, layers=layers))
    assert "the configuration of image sha256:" in str(error.value)
    assert said in str(error.value)


def test_a_configuration_that_is_no_json_is_refused() -> None:
    lower, _ = image()
    with pytest.raises(ImageError, match="cannot be used"):
        extend(lower, b"{", LAYER, LABELS, CREATED)
