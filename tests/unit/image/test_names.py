"""How images are called."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import pytest

from patchstack.errors import UsageError
from patchstack.image.names import (
    Place,
    PromotedImage,
    dependency_tag,
    immutable_tag,
    is_digest,
    is_loopback,
    lane_prefix,
    moving_tags,
    place_of,
    reference,
    statement_tag,
)
from patchstack.model import LedgerImage

DAY = date(2026, 11, 21)
TREE = "abcdef0123456789abcdef0123456789abcdef01"
DIGEST = f"sha256:{'a' * 64}"
PLACE = Place("ghcr.io", "acme/sglang")

# --- where a repository is ---


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("ghcr.io/acme/sglang", Place("ghcr.io", "acme/sglang")),
        ("GHCR.io/acme/sglang", Place("ghcr.io", "acme/sglang")),
        ("127.0.0.1:5000/sglang", Place("127.0.0.1:5000", "sglang")),
        ("[::1]:5000/sglang", Place("[::1]:5000", "sglang")),
        ("localhost/a/b/c", Place("localhost", "a/b/c")),
        ("registry:5000/a.b_c--d/e", Place("registry:5000", "a.b_c--d/e")),
    ],
)
def test_a_repository_is_a_host_and_a_path(text: str, place: Place) -> None:
    assert place_of(text) == place
    assert place_of(place.name) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sglang",
        "acme/sglang",  # Docker takes it for one on its own hub, and that would be a surprise
        "ghcr.io/",
        "ghcr.io/Acme/sglang",
        "ghcr.io/acme//sglang",
        "ghcr.io/acme/sglang/",
        "ghcr.io/acme/sglang:tag",
        "https://ghcr.io/acme/sglang",
        "ann:secret@ghcr.io/acme/sglang",
        "127.0.0.1@example.com:80/sglang",
        "ghcr.io#/acme/sglang",
        "ghcr.io:port/acme/sglang",
        "ghcr.io/../sglang",
        "ghcr.io/acme/sglang\n",
        "example.com\\@127.0.0.1/sglang",
    ],
)
def test_anything_else_is_no_repository(text: str) -> None:
    with pytest.raises(UsageError, match=r"write it as registry\.example\.com/name/name"):
        place_of(text)


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.0.0.1", True),
        ("127.1.2.3:1", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("localhost", True),
        ("localhost:5000", True),
        ("ghcr.io", False),
        ("10.0.0.1:5000", False),
        ("0.0.0.0:5000", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("[fe80::1]:5000", False),
    ],
)
def test_only_this_machine_is_spoken_to_without_encryption(host: str, insecure: bool) -> None:
    assert Place(host, "sglang").insecure == insecure


def test_a_loopback_host_has_no_port() -> None:
    assert is_loopback("::1")
    assert not is_loopback("")
    assert not is_loopback("127.0.0.1:5000")


# --- an image as a person names it ---


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nightly", "ghcr.io/acme/sglang:nightly"),
        (DIGEST, f"ghcr.io/acme/sglang@{DIGEST}"),
        ("quay.io/o/p:stable", "quay.io/o/p:stable"),
        (f"quay.io/o/p@{DIGEST}", f"quay.io/o/p@{DIGEST}"),
        (f"quay.io/o/p:stable@{DIGEST}", f"quay.io/o/p@{DIGEST}"),
        ("127.0.0.1:5000/sglang:cpu-latest", "127.0.0.1:5000/sglang:cpu-latest"),
        (f"127.0.0.1:5000/sglang@{DIGEST}", f"127.0.0.1:5000/sglang@{DIGEST}"),
        (f"127.0.0.1:5000/sglang:a@{DIGEST}", f"127.0.0.1:5000/sglang@{DIGEST}"),
    ],
)
def test_an_image_is_a_tag_or_a_digest_of_a_repository(text: str, told: str) -> None:
    found = reference(text, PLACE)
    assert found.text == told
    assert reference(found.text, None) == found


NO_IMAGE = "names no image"
NO_REPOSITORY = "is no repository of a registry: write it as registry.example.com/name/name"
WRITE = f"{NO_IMAGE}: write repository:tag, repository@sha256:…, or a tag alone"


@pytest.mark.parametrize(
    ("text", "quoted", "told"),
    [
        ("quay.io/o/p", "quay.io/o/p", f"{NO_IMAGE}: add a tag or a digest, such as quay.io/o/p:nightly"),
        (
            "127.0.0.1:5000/p",
            "127.0.0.1:5000/p",
            f"{NO_IMAGE}: add a tag or a digest, such as 127.0.0.1:5000/p:nightly",
        ),
        ("", "", WRITE),
        ("-nightly", "-nightly", WRITE),
        ("sglang:nightly", "sglang:nightly", WRITE),
        ("quay.io/o/p@nightly", "quay.io/o/p@nightly", WRITE),
        (f"quay.io/o/p@{DIGEST}0", f"quay.io/o/p@{DIGEST}0", WRITE),
        ("quay.io/O/p:nightly", "quay.io/O/p", NO_REPOSITORY),
    ],
    ids=["no tag", "a port", "empty", "option", "no host", "at a tag", "too long", "upper case"],
)
def test_what_is_no_image_is_told_how_to_be_one(text: str, quoted: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        reference(text, PLACE)
    assert str(caught.value) == f"{quoted!r} {told}"


def test_a_bare_tag_needs_a_lane_with_a_repository() -> None:
    with pytest.raises(UsageError, match=r"the lane has none in deploy\.yaml; write repository:nightly"):
        reference("nightly", None)


def test_a_digest_is_whole() -> None:
    assert is_digest(DIGEST)
    for near in (DIGEST[:-1], f"{DIGEST}0", DIGEST.upper(), f"{DIGEST}\n", f" {DIGEST}", f"sha512:{'a' * 128}", ""):
        assert not is_digest(near)


# --- tags ---


@pytest.mark.parametrize(
    ("lane", "runtime", "tag"),
    [
        ("production", "cuda", "nightly-20261121-abcdef0"),
        ("dev", "cuda", "dev-nightly-20261121-abcdef0"),
        ("production", "cpu", "cpu-20261121-abcdef0"),
        ("dev", "cpu", "dev-cpu-20261121-abcdef0"),
    ],
)
def test_an_image_has_a_tag_of_its_own(lane: str, runtime: str, tag: str) -> None:
    assert immutable_tag(lane, runtime, DAY, TREE, DIGEST, {}) == tag


@pytest.mark.parametrize(
    ("taken", "tag"),
    [
        ({}, "nightly-20261121-abcdef0"),
        ({"nightly-20261121-abcdef0": "own"}, "nightly-20261121-abcdef0"),
        ({"nightly-20261121-abcdef0": "other"}, "nightly-20261121-abcdef0-2"),
        ({"nightly-20261121-abcdef0": "other", "nightly-20261121-abcdef0-2": "own"}, "nightly-20261121-abcdef0-2"),
        ({"nightly-20261121-abcdef0": "other", "nightly-20261121-abcdef0-2": "x"}, "nightly-20261121-abcdef0-3"),
        ({"nightly-20261121-abcdef0-2": "other"}, "nightly-20261121-abcdef0"),
    ],
)
def test_a_tag_that_is_of_another_image_is_left_to_it(taken: Mapping[str, str], tag: str) -> None:
    known = {name: DIGEST if whose == "own" else f"sha256:{whose}" for name, whose in taken.items()}
    assert immutable_tag("production", "cuda", DAY, TREE, DIGEST, known) == tag


def test_the_other_tags() -> None:
    assert dependency_tag("cpu", "0123456789abcdef" * 4) == "deps-cpu-0123456789abcdef"
    assert statement_tag(DIGEST) == f"sha256-{'a' * 64}.att"
    assert (lane_prefix("production"), lane_prefix("dev")) == ("", "dev-")


def night(digest: str, *channels: str, runtime: str = "cuda") -> PromotedImage:
    return PromotedImage(channels, LedgerImage("ghcr.io/acme/sglang", digest, "tag", runtime, "recipe", "deps"))


BOTH = ("nightly", "stable")
NEW = night("c", *BOTH)
OLD = night("b", *BOTH)
CPU_NEW = night("d", *BOTH, runtime="cpu")
CPU_OLD = night("e", "nightly", runtime="cpu")


@pytest.mark.parametrize(
    ("nights", "tags"),
    [
        ([], {}),
        ([NEW], {"nightly": "c", "stable": "c"}),
        ([NEW, OLD], {"nightly": "c", "previous": "b", "stable": "c"}),
        ([night("d", "nightly"), NEW, OLD], {"nightly": "d", "previous": "c", "stable": "c"}),
        ([NEW, NEW, OLD], {"nightly": "c", "previous": "b", "stable": "c"}),
        ([NEW, OLD, NEW], {"nightly": "c", "previous": "b", "stable": "c"}),
        ([night("c", "stable"), night("b", "nightly")], {"nightly": "b", "stable": "c"}),
        ([CPU_NEW], {"cpu-latest": "d"}),
        ([CPU_NEW, CPU_OLD], {"cpu-latest": "d", "cpu-previous": "e"}),
        (
            [CPU_NEW, NEW, CPU_OLD, night("a", "nightly")],
            {"cpu-latest": "d", "cpu-previous": "e", "nightly": "c", "previous": "a", "stable": "c"},
        ),
    ],
    ids=["none", "first", "second", "stable stays", "again", "back", "stable alone", "cpu", "cpu twice", "both"],
)
def test_a_moving_tag_is_what_the_ledger_says(nights: list[PromotedImage], tags: dict[str, str]) -> None:
    assert moving_tags("production", nights) == tags
    assert moving_tags("dev", nights) == {f"dev-{name}": digest for name, digest in tags.items()}
