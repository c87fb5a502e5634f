"""The bill of materials: CycloneDX's own schema takes it, and it says what the contents say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tests.unit.report import hostile

from patchstack.contents import Contents, Item, Package
from patchstack.image.sbom import sbom, serial_number
from patchstack.model import Kind

from .fixed_image import CONTENTS

FROM_GIT = replace(CONTENTS, base="https://git.example.com/sglang.git@main", release="0.5.24.dev3")
PULLS = replace(
    CONTENTS,
    items=(
        Item("#41", Kind.PULL, "one", "ann", CONTENTS.tree, (), url="https://github.com/Acme/sglang/pull/41"),
        Item("sgl-project/sglang#9", Kind.PULL, "two", "bob", CONTENTS.tree, (), url="https://x.example/9"),
        Item("#42", Kind.PULL, "", "", CONTENTS.tree, ()),
    ),
)


def _problem(contents: Contents) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom(contents).decode())


def _read(contents: Contents) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(sbom(contents))
    return body


@pytest.mark.parametrize(
    "contents",
    [CONTENTS, FROM_GIT, PULLS, replace(CONTENTS, items=(), packages=())],
    ids=["a night", "from git", "pull requests", "nothing"],
)
def test_it_is_valid_by_the_schema_of_cyclonedx(contents: Contents) -> None:
    assert _problem(contents) is None


def test_the_validator_would_see_a_fault() -> None:
    body = _read(CONTENTS)
    body["components"][0]["pedigree"] = {"patches": [{"type": "invented"}]}

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(body)) is not None


@pytest.mark.parametrize("text", hostile.TEXTS, ids=ascii)
def test_hostile_text_leaves_it_valid(text: str) -> None:
    items = tuple(replace(item, title=text, author=text, url=text, upstream_status=text) for item in CONTENTS.items)

    assert _problem(replace(CONTENTS, items=items)) is None


def test_equal_contents_give_equal_bytes() -> None:
    assert sbom(CONTENTS) == sbom(replace(CONTENTS))
    assert serial_number(CONTENTS) == serial_number(replace(CONTENTS, created="2027-01-01T00:00:00Z"))
    assert serial_number(CONTENTS) != serial_number(replace(CONTENTS, tree=CONTENTS.base_tree))


def test_every_package_has_its_purl() -> None:
    components = _read(CONTENTS)["components"]

    assert {one["purl"]: (one["name"], one["version"]) for one in components} == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10": ("libc6", "2.36-9+deb12u10"),
        "pkg:github/acme/sglang@" + "d" * 40: ("sglang", "0.5.12.post1+eeeeeee"),
        "pkg:pypi/numpy@2.3.5": ("numpy", "2.3.5"),
        "pkg:pypi/torch@2.9.1%2Bcpu": ("torch", "2.9.1+cpu"),
    }


def test_a_package_that_is_listed_twice_is_in_it_once() -> None:
    twice = replace(CONTENTS, packages=(*CONTENTS.packages, Package("python", "numpy", "2.3.5")))

    assert sbom(twice) == sbom(CONTENTS)


def _pedigree(contents: Contents) -> dict[str, Any]:
    found: dict[str, Any] = next(one["pedigree"] for one in _read(contents)["components"] if one["bom-ref"] == "sglang")
    return found


def test_the_pedigree_says_what_was_done_to_which_release() -> None:
    pedigree = _pedigree(CONTENTS)

    assert [one["purl"] for one in pedigree["ancestors"]] == ["pkg:pypi/sglang@0.5.12.post1"]
    assert pedigree["commits"] == [{"uid": "d" * 40}]
    assert {
        patch["resolves"][0]["id"]: (patch["type"], patch["diff"]["url"], patch["resolves"][0].get("references"))
        for patch in pedigree["patches"]
    } == {
        "ib-device-map": ("backport", "patches/ib-device-map/", None),
        "zmq-locked-sends": (
            "unofficial",
            "patches/zmq-locked-sends/",
            ["https://github.com/sgl-project/sglang/pull/9"],
        ),
        "#41": ("unofficial", f"https://github.com/Acme/sglang/commit/{'3' * 40}.diff", None),
    }


def test_a_pull_request_is_read_where_it_was_opened() -> None:
    patches = {patch["resolves"][0]["id"]: patch for patch in _pedigree(PULLS)["patches"]}

    assert patches["#41"]["diff"] == {"url": "https://github.com/Acme/sglang/pull/41.diff"}
    assert {name: patch["type"] for name, patch in patches.items()} == {
        "#41": "unofficial",
        "#42": "unofficial",
        "sgl-project/sglang#9": "cherry-pick",
    }


def test_a_base_from_git_has_an_address_and_no_release_of_pypi() -> None:
    (ancestor,) = _pedigree(FROM_GIT)["ancestors"]

    assert "purl" not in ancestor
    assert ancestor["externalReferences"] == [{"type": "vcs", "url": "https://git.example.com/sglang.git@main"}]
