"""Moving image tags against a real registry: they follow `deploy`, never lead it, and what was lost is made good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.e2e.image_bench import ImageBench, patchstack, tags
from tests.support.image_registry import Fault, FaultyProxy, faulty, registry, skopeo

from patchstack.errors import ImageError, UsageError
from patchstack.git import Repository
from patchstack.image.names import Place
from patchstack.image.registry import Registry
from patchstack.model import (
    Composition,
    GuardOutcome,
    GuardReport,
    GuardResult,
    ImageCheck,
    ImageRef,
    ImageResult,
    ImageTests,
    Look,
    Promotion,
    TreeRun,
)
from patchstack.store import Run
from patchstack.verbs.image_tags import follow_ledger
from patchstack.verbs.promote import promote, status
from patchstack.verbs.remote import open_remote
from patchstack.verbs.test import gate


def report_on(composition: Composition) -> GuardReport:
    def ran(label: str, composed: bool, tree: str) -> TreeRun:
        control = GuardResult("tests/x.py::test", "bed", True, GuardOutcome.PASS, 1.0)
        return TreeRun(label, composed, composition.tree if composed else composition.base.tree, (control,))

    return GuardReport("cpu", "bed", (ran("composed", True, ""), ran("base", False, "")), ())


def seen(image: ImageRef, *, but: Look | None = None, outcome: GuardOutcome = GuardOutcome.FAIL) -> ImageTests:
    checks = [ImageCheck(look.value, outcome if look is but else GuardOutcome.PASS, "seen") for look in Look]
    return ImageTests(image.repository, image.digest, tuple(checks))


@dataclass
class Nights:
    """Nights whose image is really made, and of which guards and checks are written by hand."""

    bench: ImageBench
    monkeypatch: pytest.MonkeyPatch
    proxy: FaultyProxy
    behind: Place
    day: int = 20

    @property
    def tags(self) -> dict[str, str | None]:
        return {name: digest for name, digest in tags(self.behind).items() if not name.startswith("deps-")}

    @property
    def deployed(self) -> str | None:
        return Repository(self.bench.folder / "remote.git").resolve("refs/heads/deploy")

    def judged(self, text: str, tests: ImageTests | None = None) -> tuple[Run, ImageRef]:
        """A run of the next day that was composed, imaged, looked at, tested and judged."""
        self.day += 1
        self.monkeypatch.setenv("PATCHSTACK_NOW", f"2026-11-{self.day}T02:00:00+00:00")
        composition = self.bench.compose({"python/sglang/a.py": text})
        image = self.bench.make(composition)
        run = self.bench.work.state.latest_run()
        assert run is not None
        report = report_on(composition)
        run.write(report)
        run.write(tests or seen(image))
        gate(self.bench.work, run, composition, report)
        return run, image

    def promoted(self, text: str) -> tuple[Promotion, ImageRef]:
        run, image = self.judged(text)
        made = promote(self.bench.work, run).promotion
        self.follow()
        return made, image

    def follow(self) -> tuple[str, ...]:
        return follow_ledger(self.bench.work, open_remote(self.bench.work).history).notes


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    monkeypatch.delenv("PATCHSTACK_IMAGE")
    with registry(tmp_path / "registry") as behind, faulty(behind) as proxy:
        bench = ImageBench(tmp_path / "fork", proxy.place)
        bench.push_dependencies()
        yield Nights(bench, monkeypatch, proxy, behind)


def test_the_tags_follow_what_was_promoted(nights: Nights) -> None:
    first, one = nights.promoted("one\n")
    assert first.line.image is not None
    assert (first.line.image.digest, first.line.image.tag) == (one.digest, one.tag)
    assert nights.tags == {one.tag: one.digest, "nightly": one.digest}

    _, two = nights.promoted("two\n")
    assert nights.tags == {one.tag: one.digest, two.tag: two.digest, "nightly": two.digest, "previous": one.digest}
    assert skopeo("inspect", f"docker://{nights.behind.name}:nightly", place=nights.behind)["Digest"] == two.digest

    found = status(nights.bench.work)
    assert (found.image_tags_lag, found.registry_problem) == ((), "")
    assert found.night is not None
    assert found.night.image is not None
    assert found.night.image.digest == two.digest


def test_an_image_that_was_not_green_is_not_promoted_and_nothing_is_said_to_be_in_it(nights: Nights) -> None:
    _, image = nights.judged("one\n")
    for tests in (seen(image, but=Look.TREE), seen(image, but=Look.IMPORTS, outcome=GuardOutcome.CRASH)):
        run, made = nights.judged("one\n", tests)
        assert made.digest == image.digest
        with pytest.raises(Exception, match="channel nightly is FAIL"):
            promote(nights.bench.work, run)
    assert nights.deployed is None

    run, _ = nights.judged("one\n", seen(image, but=Look.REQUEST, outcome=GuardOutcome.MISSING))
    assert promote(nights.bench.work, run).promotion.line.image is None  # `nightly` does not need it here
    assert nights.follow() == ()
    assert "nightly" not in nights.tags


def test_checks_that_say_they_were_skipped_promote_no_image(nights: Nights) -> None:
    _, image = nights.judged("one\n")
    run, _ = nights.judged("one\n", seen(image, but=Look.TREE, outcome=GuardOutcome.SKIPPED_BY_RULE))
    assert promote(nights.bench.work, run).promotion.line.image is None


def test_an_image_that_is_not_the_lanes_moves_nothing(nights: Nights) -> None:
    run, image = nights.judged("one\n")
    for strange in (replace(image, repository="registry.example.com/somebody/else"), replace(image, runtime="cpu")):
        run.write(ImageResult(strange))
        run.write(seen(strange))
        gate(nights.bench.work, run, run.read(Composition), run.read(GuardReport))
        told = f"has the {strange.runtime} image of {strange.repository}, and by deploy.yaml the lane's is the cuda one"
        with pytest.raises(UsageError, match=told):
            promote(nights.bench.work, run)
    assert nights.deployed is None


def test_a_tag_that_holds_something_else_before_the_promotion_moves_nothing(nights: Nights) -> None:
    run, image = nights.judged("one\n")
    _, other = nights.judged("two\n")
    with Registry.at(nights.behind) as held:
        held.tag(other.digest, image.tag, move=True)
    with pytest.raises(ImageError, match=f"tag {image.tag} of .* is {other.digest} where {image.digest} was tested"):
        promote(nights.bench.work, run)
    assert nights.deployed is None
    assert "nightly" not in nights.tags


def test_a_registry_that_is_gone_before_the_promotion_moves_nothing(nights: Nights) -> None:
    run, image = nights.judged("one\n")
    nights.proxy.fail(Fault("*", f"*/manifests/{image.tag}", reset=True))
    with pytest.raises(ImageError):
        promote(nights.bench.work, run)
    assert nights.proxy.injected > 0
    assert nights.deployed is None


def test_tags_that_could_not_follow_lag_and_the_next_night_moves_them(nights: Nights) -> None:
    _, one = nights.promoted("one\n")
    run, two = nights.judged("two\n")
    promote(nights.bench.work, run)
    nights.proxy.fail(Fault("PUT", "*/manifests/nightly", status=500, times=9))
    with pytest.raises(ImageError, match="nightly"):
        nights.follow()
    assert nights.tags["nightly"] == one.digest

    found = status(nights.bench.work)
    assert [(tag.name, tag.wanted, tag.found) for tag in found.image_tags_lag] == [
        ("nightly", two.digest, one.digest),
        ("previous", one.digest, None),
    ]
    shown = patchstack(nights.bench, "status")
    assert shown.code == 0, shown.err
    assert "image tag nightly lags: " in shown.out

    nights.proxy.mend()
    assert nights.follow() == (
        "image tag nightly follows the ledger now",
        "image tag previous follows the ledger now",
    )
    assert (nights.tags["nightly"], nights.tags["previous"]) == (two.digest, one.digest)
    assert nights.follow() == ()


def test_tags_follow_on_a_night_without_an_image_too(nights: Nights) -> None:
    run, one = nights.judged("one\n")
    promote(nights.bench.work, run)
    nights.monkeypatch.setenv("PATCHSTACK_IMAGE", "none")
    assert [tag.name for tag in status(nights.bench.work).image_tags_lag] == ["nightly"]
    assert nights.follow() == ("image tag nightly follows the ledger now",)
    assert nights.tags["nightly"] == one.digest


def test_a_wrong_switch_ends_a_night_before_it_begins_and_no_question(nights: Nights) -> None:
    nights.promoted("one\n")
    runs = nights.bench.work.state.all_runs()
    night = patchstack(nights.bench, "nightly", PATCHSTACK_IMAGE="off")
    assert (night.code, "PATCHSTACK_IMAGE is 'off': set it to `none`" in night.err) == (2, True)
    assert nights.bench.work.state.all_runs() == runs
    assert patchstack(nights.bench, "status", PATCHSTACK_IMAGE="off").code == 0


def test_a_tag_that_somebody_moved_lags_and_is_moved_back(nights: Nights) -> None:
    _, one = nights.promoted("one\n")
    _, stray = nights.judged("stray\n")
    with Registry.at(nights.behind) as held:
        held.tag(stray.digest, "nightly", move=True)
    assert [tag.found for tag in status(nights.bench.work).image_tags_lag] == [stray.digest]
    assert nights.follow() == ("image tag nightly follows the ledger now",)
    assert nights.tags["nightly"] == one.digest


def test_an_image_that_the_registry_lost_is_said_and_no_tag_moves(nights: Nights) -> None:
    _, one = nights.promoted("one\n")
    with Registry.at(nights.behind) as held:
        held.delete_manifest(one.digest)
    assert nights.follow() == ("image tag nightly stays where it is: the registry has lost the image of its night",)
    assert nights.tags == {}


def test_a_registry_that_does_not_answer_is_told_by_status_which_says_the_rest(nights: Nights) -> None:
    made, _ = nights.promoted("one\n")
    nights.proxy.fail(Fault("*", "*", reset=True, times=99))
    found = status(nights.bench.work)
    assert found.night == made.line
    assert nights.proxy.place.host in found.registry_problem


def test_the_verb_moves_deploy_and_then_the_tags(nights: Nights) -> None:
    run, image = nights.judged("one\n")
    done = patchstack(nights.bench, "promote", "--run", run.id)
    assert done.code == 0, done.err
    assert nights.tags["nightly"] == image.digest

    run, two = nights.judged("two\n")
    nights.proxy.fail(Fault("PUT", "*/manifests/nightly", status=500, times=9))
    done = patchstack(nights.bench, "promote", "--run", run.id)
    assert done.code == 5, done.out + done.err
    assert nights.deployed is not None
    assert nights.tags["nightly"] == image.digest
    assert two.tag in nights.tags


def test_a_result_without_an_image_is_promoted_without_one(nights: Nights) -> None:
    run, _ = nights.judged("one\n")
    run.write(ImageResult(None, "no builder"))
    run.path(ImageTests).unlink()
    gate(nights.bench.work, run, run.read(Composition), run.read(GuardReport))
    assert promote(nights.bench.work, run).promotion.line.image is None
