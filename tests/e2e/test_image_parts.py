"""A night in four parts whose image is in a registry with a login, as the workflow does it, each on its own machine.

Only the part that makes the image and the one that promotes write to the registry; a registry that fails half-way in
either moves nothing. Between them a runner of ours runs a lane of its own inside that image, on which `stable` waits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.quick_guards import HOOKED, use_quick_guards
from tests.e2e.test_night import SLUG, Done, Place, copy_workplace
from tests.support.image_registry import LOGIN, Fault, FaultyProxy, faulty, registry

from patchstack.git import Repository
from patchstack.image.names import Place as Registered
from patchstack.image.registry import Registry

SHOWN = {
    "PATCHSTACK_IMAGE": "",
    "PATCHSTACK_REGISTRY_USER": LOGIN.user,
    "PATCHSTACK_REGISTRY_PASSWORD": LOGIN.reveal(),
}
LANE = "one-more"
SCENARIO = f"""\
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.lane("{LANE}", est_s=5, guards=["{SLUG}"], owner="@acme/pd")
def test_the_image_has_the_patch() -> None:
    file = Path(find_spec("sglang").origin).parent / "{HOOKED.removeprefix("python/sglang/")}"
    assert "communicators.mooncake_protocol import" in file.read_text()
"""


@dataclass
class Parts:
    place: Place
    machines: Path
    behind: Registered
    proxy: FaultyProxy

    @property
    def remote(self) -> Path:
        return self.machines / "remote.git"

    def part(self, machine: str, *argv: str) -> Done:
        return self.verb(machine, "nightly", "--json", *argv)

    def verb(self, machine: str, *argv: str) -> Done:
        before = ("--local", "--remote", str(self.remote), "--state", str(self.machines / machine))
        done = self.place.run(*before, *argv, **SHOWN)
        assert LOGIN.reveal() not in done.out + done.err
        return done

    def pack(self, name: str) -> str:
        return str(self.machines / f"{name}.tar")

    def deployed(self) -> str | None:
        return Repository(self.remote).resolve("refs/heads/deploy")

    def tags(self) -> dict[str, str | None]:
        with Registry.at(self.behind, LOGIN) as held:
            return {tag: held.resolve(tag) for tag in held.tags() if not tag.startswith("deps-")}

    def ledger(self) -> dict[str, Any]:
        layout = "--format=%(trailers:key=Patchstack-Night,valueonly)"
        told: dict[str, Any] = json.loads(Repository(self.remote).run("log", "-1", layout, "refs/heads/deploy"))
        return told


@pytest.fixture(scope="module")
def parts(sealed_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder = tmp_path_factory.mktemp("parts")
    place = copy_workplace(folder / "fork", SLUG)
    use_quick_guards(place)
    with registry(folder / "registry", login=LOGIN) as behind, faulty(behind) as proxy:
        config = place.root / "deploy.yaml"
        lines = config.read_text().splitlines(keepends=True)
        indent = next(line for line in lines if line.strip().startswith("image:"))
        image = f"    image: {{repository: {proxy.place.name}, runtime: cpu}}\n"
        lane = f"    {LANE}: {{executor: github, labels: [self-hosted], because: it has what the others lack}}\n"
        stable = f"  stable: {{needs: [cpu, image, {LANE}], flaky: hold}}\n"
        last = next(line for line in lines if line.strip().startswith("kvcm-manager:"))
        needs = next(line for line in lines if line.strip().startswith("stable:"))
        written = {indent: image, last: f"{last}{lane}", needs: stable}
        config.write_text("".join(written.get(line, line) for line in lines))
        (place.root / "tests" / "regression" / "gpu").mkdir()
        (place.root / "tests" / "regression" / "gpu" / "test_more.py").write_text(SCENARIO)
        (folder / "machines").mkdir()
        Repository.init(folder / "machines" / "remote.git")
        yield Parts(place, folder / "machines", behind, proxy)


def test_a_night_in_parts_promotes_the_image_that_another_machine_looked_at(parts: Parts) -> None:
    composed = parts.part("compose", "--until", "merge", "--pack", parts.pack("night"))
    assert composed.code == 0, composed.err
    assert parts.tags() == {}

    # The registry breaks off in the middle: no name is left, and the night has moved nothing.
    parts.proxy.fail(Fault("PUT", "*/manifests/*", nth=2, reset=True))
    broken = parts.part("broken", "--unpack", parts.pack("night"), "--until", "image", "--pack", parts.pack("broken"))
    assert parts.proxy.injected == 1
    assert broken.code == 5, broken.err
    assert (parts.tags(), parts.deployed()) == ({}, None)

    parts.proxy.mend()
    made = parts.part("image", "--unpack", parts.pack("night"), "--until", "image", "--pack", parts.pack("image"))
    assert made.code == 0, made.err
    image = made.json["image"]["image"]
    assert parts.tags() == {image["tag"]: image["digest"]}
    assert made.json["notes"][0] == "the image is pushed and the night goes on elsewhere: no guard has run yet"

    tested = parts.part("test", "--unpack", parts.pack("image"), "--until", "test", "--pack", parts.pack("tests"))
    assert tested.code == 0, tested.err
    assert {check["outcome"] for check in tested.json["image_tests"]["checks"]} == {"pass"}
    assert (parts.tags(), parts.deployed()) == ({image["tag"]: image["digest"]}, None)

    # The registry is gone when it is asked whether it still has what was tested.
    argv = ("--unpack", parts.pack("image"), "--tests", parts.pack("tests"))
    parts.proxy.fail(Fault("*", f"*/manifests/{image['tag']}", reset=True, times=9))
    gone = parts.part("gone", *argv, "--pack", parts.pack("gone"))
    assert gone.code == 5, gone.err
    assert parts.deployed() is None

    parts.proxy.mend()
    divided = parts.verb("divide", "jobs", "--unpack", parts.pack("tests"), "--json")
    assert divided.code == 0, divided.err
    (entry,) = divided.json["jobs"]
    assert (entry["lane"], entry["shard"], entry["labels"]) == (LANE, "1/1", ["self-hosted"])
    asked = parts.machines / "answered" / entry["name"]
    job = ("job", str(asked), "--unpack", parts.pack("tests"), "--lane", LANE, "--shard", entry["shard"], "--json")
    answered = parts.verb("runner", *job)
    assert answered.code == 0, answered.err
    assert [(said["outcome"], said["reason"]) for said in answered.json["results"]] == [("pass", "")]

    promoted = parts.part("promote", *argv, "--lanes", str(asked.parent), "--pack", parts.pack("promoted"))
    assert promoted.code == 0, promoted.err
    assert [(lane["lane"], lane["form"]) for lane in promoted.json["lanes"]["runs"]] == [(LANE, "device")]
    assert {said["channel"]: said["status"] for said in promoted.json["verdicts"]} == {
        "nightly": "PASS",
        "stable": "PASS",
    }
    assert parts.ledger()["channels"] == ["nightly", "stable"]
    assert parts.ledger()["image"]["digest"] == image["digest"]
    assert parts.tags() == {image["tag"]: image["digest"], "cpu-latest": image["digest"]}
