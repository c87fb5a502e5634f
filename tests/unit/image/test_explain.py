"""How two images differ: one change of each kind, and what is no difference."""

from __future__ import annotations

from dataclasses import replace

import pytest

from patchstack.contents import Contents, Item, ItemLeftOut, Package
from patchstack.image.explain import (
    Change,
    Difference,
    Explained,
    ItemChange,
    PackageChange,
    Seen,
    Signature,
    ValueChange,
    compare,
)
from patchstack.model import Kind, Outcome, Reason, Sha
from patchstack.store import decode, encode

from .fixed_image import CONTENTS, DIGEST, REPOSITORY

NEW = Item("#44", Kind.PULL, "new", "eve", Sha("6" * 40), ("a.py",), url="https://github.com/Acme/sglang/pull/44")
FIRST, SECOND, PULL = CONTENTS.items


def _image(contents: Contents, digest: str = DIGEST) -> Explained:
    return Explained(REPOSITORY, digest, contents, (), 2, 20, 10, tuple(Seen), (), Signature.NONE, None)


def _differ(**more: object) -> Difference:
    other = _image(replace(CONTENTS, **more), f"sha256:{'c' * 64}")  # type: ignore[arg-type]
    return compare(_image(CONTENTS), other)


def test_equal_contents_do_not_differ() -> None:
    assert _differ() == Difference(f"{REPOSITORY}@{DIGEST}", f"{REPOSITORY}@sha256:{'c' * 64}", (), (), ())
    assert _differ().is_empty


@pytest.mark.parametrize("name", ["fork", "lane", "runtime", "base", "base_tree", "tree", "recipe", "dependencies"])
def test_every_value_counts(name: str) -> None:
    found = _differ(**{name: "other"})

    assert (found.values, found.items, found.packages) == (
        (ValueChange(name, getattr(CONTENTS, name), "other"),),
        (),
        (),
    )
    assert not found.is_empty


@pytest.mark.parametrize("name", ["fingerprint", "created", "composition"])
def test_what_tells_of_the_night_and_not_of_the_image_does_not_count(name: str) -> None:
    assert _differ(**{name: "other"}).is_empty


def test_one_patch_or_pull_request_of_each_kind() -> None:
    moved = replace(SECOND, head=Sha("9" * 40), title="another title")
    told = replace(FIRST, upstream_status="Denied [no]")
    gone = ItemLeftOut("#41", Outcome.EXCLUDED, Reason.CONFLICT, "rebase it", ("#44",))

    assert _differ(items=(told, moved, NEW), left_out=(gone,)).items == (
        ItemChange(
            FIRST.name,
            Kind.PATCH,
            Change.CHANGED,
            FIRST.title,
            FIRST.head,
            FIRST.head,
            kill_switch=FIRST.kill_switch,
            said=("upstream_status",),
        ),
        ItemChange(
            SECOND.name,
            Kind.PATCH,
            Change.CHANGED,
            "another title",
            SECOND.head,
            Sha("9" * 40),
            kill_switch=SECOND.kill_switch,
        ),
        ItemChange("#44", Kind.PULL, Change.ADDED, "new", None, NEW.head, NEW.url),
        ItemChange("#41", Kind.PULL, Change.REMOVED, PULL.title, PULL.head, None, why=Reason.CONFLICT),
    )


def test_the_order_of_the_same_things_is_no_difference_of_theirs() -> None:
    assert _differ(items=(PULL, FIRST, SECOND), packages=tuple(reversed(CONTENTS.packages))).is_empty


def test_packages_by_name_and_kind() -> None:
    packages = (
        Package("debian", "libc6", "2.36-9+deb12u11"),
        Package("debian", "torch", "1"),
        Package("python", "numpy", "2.3.5"),
        Package("python", "numpy", "2.3.6"),
    )

    assert _differ(packages=packages).packages == (
        PackageChange("python", "numpy", ("2.3.5",), ("2.3.5", "2.3.6")),
        PackageChange("python", "torch", ("2.9.1+cpu",), ()),
        PackageChange("debian", "libc6", ("2.36-9+deb12u10",), ("2.36-9+deb12u11",)),
        PackageChange("debian", "torch", (), ("1",)),
    )


def test_both_values_are_written_as_json_and_read_back() -> None:
    difference = _differ(items=(NEW,), packages=(), base="sglang==0.5.13")

    assert decode(Explained, encode(_image(CONTENTS)), "it") == _image(CONTENTS)
    assert decode(Difference, encode(difference), "it") == difference
