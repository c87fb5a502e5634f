"""What an image says of itself: the value, its labels and its files."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import pytest
from tests.unit.report import fixed_night

from patchstack.contents import Contents, Item, ItemLeftOut, Package
from patchstack.errors import ImageError
from patchstack.image.contents import (
    contents_digest,
    contents_of,
    decode_contents,
    encode_contents,
    files_of,
    label_prefix,
    labels_of,
    version_of,
)
from patchstack.image.oci import digest_of
from patchstack.model import Kind, Outcome, Reason
from patchstack.store import encode

from . import fixed_image
from .fixed_image import CONTENTS, SOURCES

COMPOSITION = fixed_night.COMPOSITION


def _contents(**more: object) -> Contents:
    given: dict[str, object] = {
        "composition": COMPOSITION,
        "sources": SOURCES,
        "fork": "Acme/sglang",
        "runtime": "cpu",
        "recipe": fixed_image.RECIPE,
        "dependencies": fixed_image.DEPENDENCIES,
        "packages": fixed_image.PACKAGES,
        "created": datetime.fromisoformat("2026-11-20T19:30:00+01:00"),
    }
    return contents_of(**{**given, **more})  # type: ignore[arg-type]


def test_contents_are_the_composition_with_what_the_patches_say() -> None:
    assert replace(CONTENTS, items=(), left_out=(), packages=()) == Contents(
        fork="Acme/sglang",
        lane="production",
        runtime="cpu",
        base="sglang==0.5.12.post1",
        release="0.5.12.post1",
        base_commit=fixed_night.sha("b"),
        base_tree=fixed_night.sha("c"),
        composition=fixed_night.sha("d"),
        tree=fixed_night.sha("e"),
        fingerprint="f" * 64,
        created="2026-11-20T18:30:00Z",
        recipe="1" * 64,
        dependencies=f"sha256:{'b' * 64}",
        items=(),
        left_out=(),
        packages=(),
    )
    assert CONTENTS.items[1:] == (
        Item(
            "zmq-locked-sends",
            Kind.PATCH,
            "pd: lock shared PUSH sockets",
            "Acme SGLang maintainers",
            fixed_night.sha("2"),
            ("a.py",),
            requires=("ib-device-map",),
            kill_switch="SGLANG_ZMQ_LOCKED_SENDS=0",
            upstream_status="Submitted [https://github.com/sgl-project/sglang/pull/9]",
        ),
        Item("#41", Kind.PULL, "fix/metrics", "mallory", fixed_night.sha("3"), ("a.py",)),
    )
    assert CONTENTS.left_out[0] == ItemLeftOut(
        "#43",
        Outcome.EXCLUDED,
        Reason.CONFLICT,
        "Rebase it: `git rebase --onto stack/production 4444444`.",
        ("#41", "zmq-locked-sends"),
    )


def test_equal_inputs_give_equal_bytes_whatever_their_order_and_time_zone() -> None:
    again = _contents(sources=tuple(reversed(SOURCES)), packages=tuple(reversed(fixed_image.PACKAGES)))

    assert encode_contents(again) == encode_contents(CONTENTS)
    assert [package.name for package in again.packages] == ["libc6", "numpy", "torch"]


def test_what_has_gone_since_the_last_night_is_no_part_of_an_image() -> None:
    gone = fixed_night.left_out("#40", Outcome.GONE, Reason.MERGED, "it was merged")
    composition = replace(COMPOSITION, left_out=(*COMPOSITION.left_out, gone))

    assert _contents(composition=composition) == CONTENTS


def test_another_package_is_another_image() -> None:
    more = _contents(packages=(*fixed_image.PACKAGES, Package("python", "six", "1.17.0")))

    assert contents_digest(more) != contents_digest(CONTENTS)


def test_labels() -> None:
    assert labels_of(CONTENTS, contents_digest(CONTENTS), fixed_image.DEPENDENCY_NAME) == {
        "io.github.acme.patchstack.base-tree": "c" * 40,
        "io.github.acme.patchstack.contents": digest_of(encode_contents(CONTENTS)),
        "io.github.acme.patchstack.fingerprint": "f" * 64,
        "io.github.acme.patchstack.lane": "production",
        "io.github.acme.patchstack.recipe": "1" * 64,
        "io.github.acme.patchstack.runtime": "cpu",
        "io.github.acme.patchstack.tree": "e" * 40,
        "org.opencontainers.image.base.digest": f"sha256:{'b' * 64}",
        "org.opencontainers.image.base.name": fixed_image.DEPENDENCY_NAME,
        "org.opencontainers.image.created": "2026-11-20T18:30:00Z",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.revision": "d" * 40,
        "org.opencontainers.image.source": "https://github.com/Acme/sglang",
        "org.opencontainers.image.title": "SGLang 0.5.12.post1, production, cpu",
        "org.opencontainers.image.version": "0.5.12.post1+eeeeeee",
    }


def test_a_base_from_git_has_a_version_and_not_its_address() -> None:
    from_git = replace(CONTENTS, base="https://git.example.com/sglang.git@main", release="0.5.24.dev3")

    assert version_of(from_git) == "0.5.24.dev3+eeeeeee"


def test_our_labels_are_under_the_name_of_the_forks_owner_and_never_in_ocis() -> None:
    assert label_prefix("Some-Org/sglang") == "io.github.some-org.patchstack"


def test_files_hold_the_sources_of_what_is_in_the_image_and_of_nothing_else() -> None:
    files = files_of(CONTENTS, SOURCES, night="# night\n", sbom=b"{}\n")

    assert dict(files) == {
        "opt/patchstack/NIGHT.md": b"# night\n",
        "opt/patchstack/contents.json": encode_contents(CONTENTS),
        "opt/patchstack/patches/ib-device-map/0.5.12.post1..0.5.12.post1.patch": b"diff\n",
        "opt/patchstack/patches/ib-device-map/patch.md": b"page\n",
        "opt/patchstack/patches/zmq-locked-sends/patch.md": b"page\n",
        "opt/patchstack/sbom.cdx.json": b"{}\n",
    }


def test_contents_are_read_back_as_they_were_written() -> None:
    assert decode_contents(encode_contents(CONTENTS), "it") == CONTENTS


def _of_a_later_schema() -> bytes:
    return json.dumps({**json.loads(encode_contents(CONTENTS)), "schema_version": 99}).encode()


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, encode(fixed_night.COMPOSITION).encode(), _of_a_later_schema()],
    ids=["empty", "not text", "a list", "no values", "deep", "another value", "a later schema"],
)
def test_what_is_no_contents_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"^repo:tag: its contents\.json does not read: it is damaged, or was made by"):
        decode_contents(data, "repo:tag")
