"""What `explain` says, whole, of one image and of two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.image.fixed_image import CONTENTS, DIGEST, REPOSITORY

from patchstack.contents import Item, ItemLeftOut, Package
from patchstack.image.explain import Explained, Seen, Signature, compare
from patchstack.image.statement import Verified
from patchstack.model import Kind, Outcome, Reason, Sha
from patchstack.report.explain import megabytes, render_difference, render_explained

from . import hostile

GOLDEN = Path(__file__).with_name("golden")
SIGNED = Explained(
    repository=REPOSITORY,
    digest=DIGEST,
    contents=CONTENTS,
    labels=(),
    layers=9,
    size_bytes=4_123_456_789,
    night_bytes=2_345_678,
    compared=tuple(Seen),
    not_compared=(),
    signature=Signature.VERIFIED,
    statement=Verified("SHA256:abc", DIGEST, DIGEST, "production", "https://github.com/Acme/sglang, patchstack 0.1"),
)
UNSIGNED = replace(
    SIGNED,
    repository="sglang",
    layers=1,
    size_bytes=2_000_000,
    compared=(Seen.LABELS, Seen.BILL),
    not_compared=(Seen.PACKAGES, Seen.LAYERS),
    signature=Signature.NONE,
    statement=None,
)
NEWER = replace(
    SIGNED,
    digest=f"sha256:{'c' * 64}",
    contents=replace(
        CONTENTS,
        base="sglang==0.5.13",
        release="0.5.13",
        recipe="2" * 64,
        tree=Sha("7" * 40),
        items=(
            replace(CONTENTS.items[0], upstream_status="Backport [0.5.14]", title="pd: another title"),
            replace(CONTENTS.items[1], head=Sha("9" * 40)),
            Item("colocate-tp", Kind.PATCH, "colocate", "us", Sha("8" * 40), (), kill_switch="SGLANG_COLOCATE=0"),
            Item("#44", Kind.PULL, "new", "eve", Sha("6" * 40), (), url="https://github.com/Acme/sglang/pull/44"),
        ),
        left_out=(ItemLeftOut("#41", Outcome.EXCLUDED, Reason.CONFLICT, "rebase it", ("#44",)),),
        packages=(
            Package("debian", "libc6", "2.36-9+deb12u11"),
            Package("python", "numpy", "2.3.5"),
            Package("python", "six", "1.17.0"),
        ),
    ),
)


def _lines(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


@pytest.mark.parametrize("name", ["signed", "unsigned"])
def test_one_image(name: str) -> None:
    image = {"signed": SIGNED, "unsigned": UNSIGNED}[name]

    assert _lines(render_explained(image)) == (GOLDEN / f"explained-{name}.txt").read_text()


def test_a_statement_that_nobody_gave_a_key_for() -> None:
    text = render_explained(replace(SIGNED, signature=Signature.NO_KEY, statement=None))

    assert "  - not verified: who made it: there is a signed statement, but no key to verify it with" in text


def test_two_images() -> None:
    assert _lines(render_difference(compare(SIGNED, NEWER))) == (GOLDEN / "difference.txt").read_text()


def test_two_images_that_hold_the_same() -> None:
    other = replace(SIGNED, digest=f"sha256:{'c' * 64}", contents=replace(CONTENTS, fingerprint="0" * 64))

    title, said = render_difference(compare(SIGNED, other)).splitlines()
    assert title == f"From {REPOSITORY}@{DIGEST} to {REPOSITORY}@{other.digest}"
    assert said == "Nothing differs: patches, pull requests, packages, base and recipe are the same."


def test_one_image_by_two_names() -> None:
    assert render_difference(compare(SIGNED, SIGNED)).splitlines()[1:] == ["It is one image."]


def test_many_packages_are_cut_and_counted() -> None:
    packages = tuple(Package("python", f"package-{number:02}", "1") for number in range(60))
    more = replace(NEWER, contents=replace(CONTENTS, packages=(*CONTENTS.packages, *packages)))

    text = render_difference(compare(SIGNED, more))
    assert "package-39 added: 1" in text
    assert "package-40" not in text
    assert text.endswith("  20 more with --json\n")


def test_what_is_there_to_be_copied_is_whole() -> None:
    image = replace(SIGNED, repository="registry.example.com/" + "/".join(["long"] * 40))

    assert f"\nPull it: podman pull {image.repository}@{DIGEST}\n" in render_explained(image)


@pytest.mark.parametrize("text", hostile.TEXTS, ids=ascii)
def test_outside_text_cannot_steer_a_terminal(text: str) -> None:
    contents = replace(
        CONTENTS,
        lane=text,
        fork=text,
        items=tuple(replace(item, title=text, author=text, url=text, name=text) for item in CONTENTS.items),
        left_out=tuple(replace(item, detail=text, name=text, twins=(text,)) for item in CONTENTS.left_out),
    )
    image = replace(SIGNED, contents=contents)

    shown = render_explained(image) + render_difference(compare(SIGNED, image))
    assert not [sign for sign in shown if sign != "\n" and not sign.isprintable()]
    assert len(render_explained(image).splitlines()) == len(render_explained(SIGNED).splitlines())


def test_sizes() -> None:
    assert [megabytes(size) for size in (0, 1_234, 2_345_678, 4_123_456_789)] == [
        "0.0 MB",
        "0.0 MB",
        "2.3 MB",
        "4.12 GB",
    ]
