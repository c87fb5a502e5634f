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
SCENARIO = "tests/regression/gpu/test_quick.py"
SCENARIOS = f"""\
import os

import pytest
import sglang

pytestmark = pytest.mark.lane("kvcm-manager", est_s=5, guards=["{SLUG}"], owner="@acme/pd")


def test_of_the_image() -> None:
    assert os.environ["PATCHSTACK_FORM"] == "device"
    assert sglang.__file__.startswith(os.environ["PATCHSTACK_TREE"])


def test_it_fails() -> None:
    assert 1 + 1 == 3, "arithmetic"
"""


@pytest.fixture(scope="module")
def imaged(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Done]:
    """A workplace after one night that made an image, and asked a lane that channel `stable` needs."""
    place = copy_workplace(tmp_path_factory.mktemp("imaged") / "fork", SLUG)
    use_quick_guards(place)
    (place.root / SCENARIO).parent.mkdir()
    (place.root / SCENARIO).write_text(SCENARIOS)
    config = place.root / "deploy.yaml"
    lane = config.read_text().replace("kvcm-manager: {", "kvcm-manager: {executor: local, ")
    config.write_text(lane.replace("needs: [cpu, image, 1-gpu, 2-gpu]", "needs: [cpu, kvcm-manager]"))
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


def test_a_lane_ran_inside_that_image_and_a_red_one_fails_the_channel_that_needs_it(imaged: tuple[Place, Done]) -> None:
    """`nightly` needs no such lane, and has moved."""
    place, night = imaged
    report = night.json
    (lane,) = report["lanes"]["runs"]
    (end,) = lane["jobs"]
    assert (lane["lane"], lane["executor"], lane["form"]) == ("kvcm-manager", "local", "device")
    assert (end["state"], end["job"]["image"]) == ("answered", f"sglang@{report['image']['image']['digest']}"), (
        end,
        report["image_tests"],
    )
    assert {said["test"]: said["outcome"] for said in lane["results"]} == {
        f"{SCENARIO}::test_of_the_image": "pass",
        f"{SCENARIO}::test_it_fails": "fail",
    }
    nightly, stable = report["verdicts"]
    assert (nightly["status"], stable["status"]) == ("PASS", "FAIL")
    assert [reason.partition(": fail")[0] for reason in stable["reasons"]] == [
        f"kvcm-manager: {SCENARIO}::test_it_fails"
    ]
    assert ledger(place)["channels"] == ["nightly"]
    by_hand = place.run("--local", "test", "--run", report["night"], "--lane", "kvcm-manager", **NO_SWITCH)
    assert (by_hand.code, f"{SCENARIO}::test_it_fails: fail" in by_hand.err) == (1, True), by_hand.err


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
