"""Five nights in a row, and a rollback in the third: what a team sees when a night was bad.

The real release in the real bed. With images the patch's own guards and the real cpu image, pulled, run and asked, in
a real registry: a minute a night. A night a day; what operators say is at noon. `test_rollback_images.py` has the same
with small images.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.quick_guards import use_quick_guards
from tests.e2e.test_hotfix import amend
from tests.e2e.test_night import SLUG, Done, Place, copy_workplace, names

from patchstack.image import embedded
from patchstack.image.registry import Registry

SEVEN, EIGHT, NINE = (f"python/sglang/pull_{number}.py" for number in (7, 8, 9))


@dataclass(frozen=True)
class Fork:
    place: Place
    images: bool

    def run(self, day: int, *argv: str, hour: int = 2) -> Done:
        now = f"2026-11-{day}T{hour:02}:00:00+00:00"
        return self.place.run("--local", *argv, PATCHSTACK_NOW=now, PATCHSTACK_IMAGE="" if self.images else "none")

    def night(self, day: int, *argv: str) -> dict[str, Any]:
        """A promoted night."""
        done = self.run(day, "nightly", "--json", *argv)
        assert done.code == 0, done.err
        report = done.json
        assert report["headline"] == "PASS", report["failure"]
        return report

    def said(self, day: int, *argv: str) -> dict[str, Any]:
        """An operator's word."""
        done = self.run(day, *argv, "--json", hour=12)
        assert done.code == 0, done.err
        return done.json

    def status(self, day: int) -> dict[str, Any]:
        return self.run(day, "status", "--json", hour=13).json

    def require_image_tags(self, *nights: dict[str, Any], latest: dict[str, Any], previous: dict[str, Any]) -> None:
        """The registry holds the images of ``nights``, all of them green, and the moving tags are as named."""
        if not self.images:
            return
        made = dict(map(image, nights))
        assert self._image_tags() == made | {"cpu-latest": image(latest)[1], "cpu-previous": image(previous)[1]}

    def _image_tags(self) -> dict[str, str | None]:
        with embedded.serve(self.place.root / ".patchstack" / "registry") as at, Registry.at(at) as held:
            return {tag: held.resolve(tag) for tag in held.tags() if not tag.startswith("deps-")}

    @property
    def tags(self) -> dict[str, str]:
        """The dated tags of git, with the commit of each."""
        lines = self.place.git("for-each-ref", "--format=%(refname:short) %(objectname)", "refs/tags")
        return dict(line.split() for line in lines.splitlines())

    @property
    def history(self) -> list[str]:
        return self.place.git("log", "--first-parent", "--format=%s", "refs/heads/deploy").splitlines()

    def tree(self, revision: str = "refs/heads/deploy") -> str:
        return self.place.git("rev-parse", f"{revision}^{{tree}}")

    def has(self, path: str) -> bool:
        return bool(self.place.git("ls-tree", "--name-only", "refs/heads/deploy", path))


def included(report: dict[str, Any]) -> list[str]:
    assert report["promotion"] is not None, report["failure"]
    return [name for name, _ in report["promotion"]["line"]["included"]]


def image(report: dict[str, Any]) -> tuple[str, str]:
    """Tag and digest of a night's image, which was looked into and is green."""
    made = report["image"]["image"]
    assert made is not None, report["image"]["why_not"]
    assert {check["outcome"] for check in report["image_tests"]["checks"]} == {"pass"}
    return made["tag"], made["digest"]


def left_out(report: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["reason"] for item in report["composition"]["left_out"]}


@pytest.fixture(
    params=[
        pytest.param(False, id="without images"),
        pytest.param(True, id="with images", marks=pytest.mark.thorough),
    ]
)
def fork(request: pytest.FixtureRequest, tmp_path: Path) -> Fork:
    place = copy_workplace(tmp_path / "fork", SLUG)
    use_quick_guards(place, bed_alone=request.param)
    return Fork(place, request.param)


def test_five_nights_and_a_rollback_in_the_third(fork: Fork, tmp_path: Path) -> None:
    place = fork.place

    one = fork.night(21)
    assert included(one) == [SLUG]
    place.propose(7, SEVEN, "SEVEN = 7\n")
    two = fork.night(22)
    assert included(two) == [SLUG, "#7"]
    bad = place.propose(8, EIGHT, "def eight():\n    raise RuntimeError('under load')\n")
    three = fork.night(23)
    assert included(three) == [SLUG, "#7", "#8"]
    fork.require_image_tags(one, two, three, latest=three, previous=two)

    # Elsewhere somebody goes back and names nobody: the same plan does not come back, and costs no guard.
    aside = Fork(Place(Path(shutil.copytree(place.root, tmp_path / "aside", symlinks=True))), fork.images)
    aside.said(23, "rollback")
    before = aside.place.refs()
    barred = aside.run(24, "nightly", "--json")
    assert (barred.code, barred.json["headline"], barred.json["timings"][-1]["stage"]) == (6, "INCOMPLETE", "plan")
    assert f"this plan is that of night {three['night']}" in barred.json["failure"]
    assert f"patchstack release-hold {three['night']}" in barred.json["failure"]
    assert aside.place.refs() == before

    # Here #8 is named.
    back = fork.said(23, "rollback", "--because", "8", "--reason", "it raises under load")
    assert back["line"]["to"] == two["night"]
    assert [(bar["kind"], bar["name"]) for bar in back["line"]["bars"]] == [("plan", three["night"]), ("head", "#8")]
    assert fork.tree() == two["composition"]["tree"] != three["composition"]["tree"]
    assert (fork.has(SEVEN), fork.has(EIGHT)) == (True, False)
    fork.require_image_tags(one, two, three, latest=two, previous=one)
    status = fork.status(23)
    assert (status["night"]["to"], status["night"]["image"]) == (two["night"], two["promotion"]["line"]["image"])
    assert [(channel["name"], channel["night"], channel["current"]) for channel in status["channels"]] == [
        ("nightly", two["night"], True),
        ("stable", None, False),
    ]
    assert status["channels"][0]["taken_back"] == three["night"]
    assert [bar["name"] for _, bar in status["bars"]] == [three["night"], "#8"]

    place.propose(9, NINE, "NINE = 9\n")
    four = fork.night(24)
    assert included(four) == [SLUG, "#7", "#9"]
    assert left_out(four) == {"#8": "barred by a rollback"}
    fork.require_image_tags(one, two, three, four, latest=four, previous=two)

    # #8 is mended while promotion is on hold: tested, and not promoted.
    fork.said(24, "hold", "--reason", "a customer looks at it")
    amend(place, 8, EIGHT, "EIGHT = 8\n")
    mended = place.git("rev-parse", "refs/pull/8/head")
    before = place.refs()
    held = fork.night(25)
    assert (held["promotion"], held["held"]["because"]) == (None, "a customer looks at it")
    assert names(held["composition"]["included"]) == [SLUG, "#7", "#8", "#9"]
    assert place.refs() == before
    fork.require_image_tags(one, two, three, four, held, latest=four, previous=two)
    refused = fork.run(25, "promote", hour=3)
    assert (refused.code, "promotion is on hold since 2026-11-24T12:00:00Z" in refused.err) == (6, True)

    fork.said(25, "release-hold")
    five = fork.night(26)
    assert dict(five["promotion"]["line"]["included"])["#8"] == mended != bad
    assert included(five) == [SLUG, "#7", "#8", "#9"]
    fork.require_image_tags(one, two, three, four, held, five, latest=five, previous=four)

    # What the branch tells of all that, and what stands by it.
    assert fork.history == [
        f"production night {five['night']}: 4 topics on sglang==0.5.12.post1",
        "production release 20261125T120000Z: the hold is over",
        "production hold 20261124T120000Z: nights are tested and not promoted",
        f"production night {four['night']}: 3 topics on sglang==0.5.12.post1",
        f"production rollback 20261123T120000Z: back to {two['night']}",
        f"production night {three['night']}: 3 topics on sglang==0.5.12.post1",
        f"production night {two['night']}: 2 topics on sglang==0.5.12.post1",
        f"production night {one['night']}: 1 topic on sglang==0.5.12.post1",
        "patchstack: genesis",
    ]
    nights = (one, two, three, four, five)
    assert fork.tags == {
        **{night["promotion"]["line"]["tag"]: night["promotion"]["commit"] for night in nights},
        f"nightly-20261123-{two['composition']['tree'][:7]}": back["commit"],
    }
    assert place.git("rev-parse", "refs/heads/base/production") == one["composition"]["base"]["commit"]
    assert place.git("rev-parse", "refs/heads/stack/production") == one["promotion"]["line"]["stack"]
    ledger = fork.run(26, "ledger", "--json").json
    assert [night["night"] for night in ledger["nights"]] == [night["night"] for night in reversed(nights)]
    assert ledger["taken_back"] == [three["night"]]
    assert [line["action"] for line in ledger["said"]] == ["release", "hold", "rollback"]
    assert json.loads(place.git("log", "-1", "--format=%(trailers:key=Patchstack-Night,valueonly)", "deploy")) == {
        "schema_version": 1,
        **five["promotion"]["line"],
    }
    again = fork.run(27, "nightly", "--json")
    assert (again.code, again.json["nothing_to_do"]) == (0, True)
