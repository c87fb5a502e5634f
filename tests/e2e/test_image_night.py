"""A whole local night with the real cpu image: made by buildah, pushed to a real registry, pulled and run by podman.

What is promoted is the digest that was looked at. The dependency image comes from the cache, or is built (minutes).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.quick_guards import use_quick_guards
from tests.e2e.test_night import SLUG, Done, Place, copy_workplace
from tests.support.image_registry import skopeo

from patchstack.image import embedded
from patchstack.image.engine import Limits, engine_at_hand
from patchstack.image.names import Place as Registered
from patchstack.image.registry import Registry
from patchstack.store import cache_folder

NO_SWITCH = {"PATCHSTACK_IMAGE": ""}
LABEL = "io.github.acme.patchstack"


@pytest.fixture(scope="module")
def imaged(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Done]:
    """A workplace after one night that made an image."""
    place = copy_workplace(tmp_path_factory.mktemp("imaged") / "fork", SLUG)
    use_quick_guards(place)
    return place, place.run("nightly", "--local", "--json", **NO_SWITCH)


def layers(registry: Registry, digest: str) -> list[str]:
    return [layer.digest for layer in registry.manifest(digest).layers]


def labels(place: Registered, digest: str) -> dict[str, str]:
    found: dict[str, str] = skopeo("inspect", f"docker://{place.name}@{digest}", place=place)["Labels"]
    return found


def ledger(place: Place) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(
        place.git("log", "-1", "--format=%(trailers:key=Patchstack-Night,valueonly)", "refs/heads/deploy")
    )
    return told


def test_the_image_that_is_promoted_is_the_one_that_was_looked_at(imaged: tuple[Place, Done]) -> None:
    place, night = imaged
    assert night.code == 0, night.err
    report = night.json
    image, seen = report["image"]["image"], report["image_tests"]
    assert image is not None, report["image"]["why_not"]
    assert {check["name"]: check["outcome"] for check in seen["checks"]} == dict.fromkeys(
        ("digest", "tree", "packages", "imports", "one request"), "pass"
    ), seen
    assert seen["digest"] == image["digest"] == ledger(place)["image"]["digest"]
    with embedded.serve(place.root / ".patchstack" / "registry") as registered, Registry.at(registered) as held:
        assert {tag: held.resolve(tag) for tag in held.tags() if not tag.startswith("deps-")} == {
            image["tag"]: image["digest"],
            "cpu-latest": image["digest"],
        }
        told = labels(registered, image["digest"])
    composition = report["composition"]
    assert (told[f"{LABEL}.tree"], told["org.opencontainers.image.revision"]) == (
        composition["tree"],
        composition["commit"],
    )
    status = place.run("--local", "status", **NO_SWITCH)
    assert f"Image sglang@{image['digest']}, tag {image['tag']}." in status.out


def test_it_says_what_is_in_it_by_itself_and_by_explain(imaged: tuple[Place, Done]) -> None:
    place, night = imaged
    image = night.json["image"]["image"]
    engine = engine_at_hand()
    assert engine is not None
    with embedded.serve(place.root / ".patchstack" / "registry") as registered, engine.opened(cache_folder()) as opened:
        pulled = opened.pull(registered, image["digest"], None)
        said = opened.run(pulled, ["cat", "/opt/patchstack/NIGHT.md"], limits=Limits(timeout_s=60.0))
    assert said.returncode == 0, said.stderr
    assert SLUG in said.stdout
    assert "SGLANG_MOONCAKE_PROTOCOL_FROM_ENV=0" in said.stdout
    explained = place.run("--local", "explain", "cpu-latest", **NO_SWITCH)
    assert explained.code == 0, explained.err
    assert f"Image sglang@{image['digest']}" in explained.out


def test_an_unchanged_night_has_nothing_to_do(imaged: tuple[Place, Done]) -> None:
    place, night = imaged
    again = place.run("nightly", "--local", "--json", **NO_SWITCH)
    assert again.code == 0, again.err
    assert again.json["nothing_to_do"]
    assert ledger(place)["image"]["digest"] == night.json["image"]["image"]["digest"]


def test_a_change_pushes_one_new_layer(imaged: tuple[Place, Done]) -> None:
    place, night = imaged
    first = night.json["image"]["image"]
    place.propose(7, "python/sglang/version_of_ours.py", "OURS = 7\n")
    done = place.run("--local", "image", "--json", **NO_SWITCH)
    assert done.code == 0, done.err
    second = done.json["image"]
    with embedded.serve(place.root / ".patchstack" / "registry") as registered, Registry.at(registered) as held:
        before, after = layers(held, first["digest"]), layers(held, second["digest"])
        assert held.resolve("cpu-latest") == first["digest"]  # nothing is promoted by making an image
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]
    assert second["dependencies"] == first["dependencies"]
    assert not second["built"]
    compared = place.run("--local", "explain", f"{first['tag']}..{second['tag']}", **NO_SWITCH)
    assert compared.code == 0, compared.err
    assert "#7" in compared.out
